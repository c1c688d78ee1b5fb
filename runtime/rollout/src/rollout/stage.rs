//! Stages, and the plans that strategies are.

use serde::{Deserialize, Serialize};

use super::Exposure;
use crate::cohort::Share;
use crate::gate::Design;

/// Stages that a plan may have.
pub const MAX_STAGES: usize = 8;

/// What margins have to say before a stage is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Margins {
    /// Nothing.
    Ignored,
    /// None is crossed for certain.
    NotOutside,
    /// All are kept for certain, or somebody has waived it.
    Inside,
}

/// One stage: whom it reaches, and what it takes to leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stage {
    /// Whom it reaches.
    pub exposure: Exposure,
    /// Devices of the canary that have to have reported.
    pub devices: u32,
    /// Device-days of the canary that have to have reported in it.
    pub device_days: u32,
    /// Hours that it lasts at least.
    pub soak: u32,
    /// Hours after which it is paused as inconclusive.
    pub limit: u32,
    /// What margins have to say.
    pub margins: Margins,
    /// A single bad device-day of the canary pauses it: where there are too few devices for statistics.
    pub zero_failures: bool,
    /// Somebody has to approve before it begins.
    pub approval: bool,
}

const DAY: u32 = 24;

impl Stage {
    /// A stage of at least a day and at most 14, with nothing else asked.
    #[must_use]
    pub const fn new(exposure: Exposure) -> Self {
        Self {
            exposure,
            devices: 1,
            device_days: 1,
            soak: DAY,
            limit: 14 * DAY,
            margins: Margins::Ignored,
            zero_failures: false,
            approval: false,
        }
    }

    /// With this many devices and device-days of the canary.
    #[must_use]
    pub const fn samples(mut self, devices: u32, device_days: u32) -> Self {
        (self.devices, self.device_days) = (devices, device_days);
        self
    }

    /// With this said by margins.
    #[must_use]
    pub const fn margins(mut self, margins: Margins) -> Self {
        self.margins = margins;
        self
    }

    /// Lasting at least these hours, at most those.
    #[must_use]
    pub const fn hours(mut self, soak: u32, limit: u32) -> Self {
        (self.soak, self.limit) = (soak, limit);
        self
    }

    /// Paused by a single failure.
    #[must_use]
    pub const fn zero_failures(mut self) -> Self {
        self.zero_failures = true;
        self
    }

    /// Begun with somebody's approval only.
    #[must_use]
    pub const fn approval(mut self) -> Self {
        self.approval = true;
        self
    }

    /// What it will be able to see in a fleet of so many devices, where a part of `rate` of all device-days is bad by some
    /// guardrail anyway. Nothing for rings, whose sizes are not known here, and where there is no control cohort.
    #[must_use]
    pub fn design(&self, fleet: u32, rate: f64) -> Option<Design> {
        let devices = |share: Share, parts: u32| ((u64::from(fleet) * share.bound()) >> 32) as u32 / parts;
        let (canary, control) = match self.exposure {
            Exposure::Share { canary, control } | Exposure::Shadow { canary, control, .. } => {
                (devices(canary, 1), devices(control, 1))
            }
            Exposure::Variants { share, candidates } => {
                let each = devices(share, u32::from(candidates) + 1);
                (each, each)
            }
            // Each device is half of the time in either arm.
            Exposure::Crossover { share } => (devices(share, 2), devices(share, 2)),
            Exposure::Ring { .. } => return None,
        };
        let days = (self.limit / DAY).max(1);
        (canary > 0 && control > 0).then(|| Design { days, ..Design::new(canary, control, rate) })
    }

    /// The laboratory: 5 devices of ring 0 for a day without a failure.
    pub const LABORATORY: Self =
        Self::new(Exposure::Ring { ring: 0, control: Share::NONE }).samples(5, 5).zero_failures();
}

/// How a candidate comes to the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Laboratory, 1 %, 5 %, 25 %, all but a hold-back of 5 %, each beside a control cohort.
    Canary,
    /// Laboratory, then ring by ring, a tenth of each as control.
    Ring {
        /// Number of the last ring.
        rings: u8,
    },
    /// Candidates beside the baseline on a share of the devices, until somebody chooses.
    Variants {
        /// Devices that take part.
        share: Share,
        /// Number of candidates, 1 to [`super::MAX_CANDIDATES`].
        candidates: u8,
    },
    /// The candidate and the baseline by the hour on the same devices, until somebody chooses.
    Crossover {
        /// Devices that take part.
        share: Share,
    },
    /// The candidate beside the baseline on one of `every` inputs, then as [`Self::Canary`].
    Shadow {
        /// One of how many inputs.
        every: u32,
    },
    /// The candidate lies ready everywhere, tried in the shadow, and then serves everywhere at once but for a hold-back.
    BlueGreen {
        /// Devices that keep the baseline.
        hold_back: Share,
    },
    /// All but a hold-back, for 14 days: for what was decided elsewhere and should stay watched.
    HoldBack {
        /// Devices that keep the baseline.
        share: Share,
    },
    /// Fewer than 60 devices, where statistics see nothing: ring by ring, rings of a single device at first, each for
    /// a day without a failure.
    Few {
        /// Number of the last ring.
        rings: u8,
    },
}

/// Stages in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "[Option<Stage>; MAX_STAGES]", into = "[Option<Stage>; MAX_STAGES]")]
pub struct Plan([Option<Stage>; MAX_STAGES]);

impl Plan {
    /// A plan of these stages.
    ///
    /// # Errors
    /// [`PlanError`], with the number of the stage.
    pub fn new(stages: &[Stage]) -> Result<Self, PlanError> {
        let mut plan = Self([None; MAX_STAGES]);
        if stages.len() > MAX_STAGES {
            return Err(PlanError::TooManyStages);
        }
        plan.0.iter_mut().zip(stages).for_each(|(to, from)| *to = Some(*from));
        plan.checked()
    }

    fn checked(self) -> Result<Self, PlanError> {
        let len = self.stages().count();
        if len == 0 || self.0.iter().skip(len).any(Option::is_some) {
            return Err(PlanError::Empty);
        }
        for (i, stage) in self.stages().enumerate() {
            let at = i as u8;
            if !stage.exposure.is_sound() {
                return Err(PlanError::Exposure { stage: at });
            }
            if !stage.exposure.has_control() && !stage.zero_failures {
                return Err(PlanError::NoControl { stage: at });
            }
            if stage.devices == 0 || stage.device_days == 0 {
                return Err(PlanError::NoSamples { stage: at });
            }
            if stage.limit < stage.soak || stage.limit == 0 {
                return Err(PlanError::Limit { stage: at });
            }
        }
        for (i, (before, after)) in self.stages().zip(self.stages().skip(1)).enumerate() {
            if !after.exposure.keeps(&before.exposure) {
                return Err(PlanError::Narrower { stage: i as u8 + 1 });
            }
        }
        Ok(self)
    }

    /// The plan of a strategy.
    ///
    /// # Errors
    /// [`PlanError`], when the strategy's numbers make none.
    pub fn of(strategy: Strategy) -> Result<Self, PlanError> {
        let share = |canary: u8, control: u8| Exposure::Share {
            canary: Share::percent(canary),
            control: Share::percent(control),
        };
        let one = Stage::new(share(1, 3)).samples(60, 300);
        let five = Stage::new(share(5, 15)).samples(60, 600).margins(Margins::NotOutside);
        let quarter = Stage::new(share(25, 25)).samples(60, 3000).margins(Margins::Inside);
        let held = |hold_back: Share| {
            Stage::new(Exposure::Share { canary: hold_back.rest(), control: hold_back })
                .samples(60, 3000)
                .margins(Margins::NotOutside)
                .hours(14 * DAY, 28 * DAY)
        };
        match strategy {
            Strategy::Canary => Self::new(&[Stage::LABORATORY, one, five, quarter, held(Share::percent(5))]),
            Strategy::Shadow { every } => {
                let shadow = Exposure::Shadow { canary: Share::percent(1), control: Share::percent(3), every };
                let shadow = Stage::new(shadow).samples(60, 300);
                Self::new(&[Stage::LABORATORY, shadow, one, five, quarter, held(Share::percent(5))])
            }
            Strategy::Ring { rings } => Self::rings(rings, |ring| {
                Stage::new(Exposure::Ring { ring, control: Share::percent(10) })
                    .samples(60, 300)
                    .margins(Margins::NotOutside)
            }),
            Strategy::Few { rings } => {
                Self::rings(rings, |ring| Stage::new(Exposure::Ring { ring, control: Share::NONE }).zero_failures())
            }
            Strategy::Variants { share, candidates } => {
                let test = Stage::new(Exposure::Variants { share, candidates }).samples(60, 600);
                Self::new(&[test.margins(Margins::Inside).hours(7 * DAY, 28 * DAY)])
            }
            Strategy::Crossover { share } => {
                let test = Stage::new(Exposure::Crossover { share }).samples(60, 600);
                Self::new(&[test.margins(Margins::Inside).hours(7 * DAY, 28 * DAY)])
            }
            Strategy::BlueGreen { hold_back } => {
                let ready = Exposure::Shadow { canary: hold_back.rest(), control: hold_back, every: 16 };
                let ready = Stage::new(ready).samples(60, 300);
                Self::new(&[Stage::LABORATORY, ready, held(hold_back).approval()])
            }
            Strategy::HoldBack { share } => Self::new(&[held(share)]),
        }
    }

    /// A canary's plan for a fleet of so many devices: as [`Strategy::Canary`], with at least 60 devices in each stage
    /// and no more device-days asked than its devices bring in ten days. Below 120 devices, [`Strategy::Few`]: statistics
    /// see nothing there.
    ///
    /// # Errors
    /// None for any number of devices; the plan is checked as others are.
    pub fn for_fleet(devices: u32) -> Result<Self, PlanError> {
        if devices < 120 {
            return Self::of(Strategy::Few { rings: 5 });
        }
        let mut plan = Self::of(Strategy::Canary)?;
        let least = Share::of(60, devices);
        // From the last stage back: one that reaches nearly as many as the next, which asks for more, is left out.
        let mut next = u64::MAX / 2;
        for place in plan.0.iter_mut().rev() {
            let Some(stage) = place else { continue };
            let Exposure::Share { canary, control } = stage.exposure else { continue };
            let wider = canary.max(least);
            let control = if wider == canary { control } else { wider.times(3).max(control).min(wider.rest()) };
            stage.exposure = Exposure::Share { canary: wider, control };
            let days = 8 * ((u64::from(devices) * wider.bound()) >> 32);
            stage.device_days = stage.device_days.min(days.try_into().unwrap_or(u32::MAX));
            if 2 * next < 3 * wider.bound() {
                *place = None;
            } else {
                next = wider.bound();
            }
        }
        let mut stages = plan.0.into_iter().flatten();
        Self(core::array::from_fn(|_| stages.next())).checked()
    }

    fn rings(rings: u8, stage: impl Fn(u8) -> Stage) -> Result<Self, PlanError> {
        let mut plan = Self([None; MAX_STAGES]);
        if usize::from(rings) >= MAX_STAGES {
            return Err(PlanError::TooManyStages);
        }
        for (at, ring) in plan.0.iter_mut().zip(0..=rings) {
            *at = Some(if ring == 0 { Stage::LABORATORY } else { stage(ring) });
        }
        plan.checked()
    }

    /// The plan in which somebody has to approve before a stage begins, of those that there are.
    #[must_use]
    pub fn with_approval(mut self, stage: u8) -> Self {
        self.0.iter_mut().skip(stage.into()).take(1).flatten().for_each(|s| s.approval = true);
        self
    }

    /// The stages.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.0.iter().map_while(Option::as_ref)
    }

    /// A stage by its number, from 0.
    #[must_use]
    pub fn stage(&self, number: u8) -> Option<&Stage> {
        self.stages().nth(number.into())
    }

    /// Number of candidates.
    #[must_use]
    pub fn candidates(&self) -> u8 {
        self.stages().map(|s| s.exposure.candidates()).max().unwrap_or(1)
    }
}

impl TryFrom<[Option<Stage>; MAX_STAGES]> for Plan {
    type Error = PlanError;

    fn try_from(stages: [Option<Stage>; MAX_STAGES]) -> Result<Self, Self::Error> {
        Self(stages).checked()
    }
}

impl From<Plan> for [Option<Stage>; MAX_STAGES] {
    fn from(plan: Plan) -> Self {
        plan.0
    }
}

/// Why stages are no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// There is no stage, or a gap between stages.
    Empty,
    /// More than [`MAX_STAGES`].
    TooManyStages,
    /// Shares that are empty or together more than all, or no candidates.
    Exposure {
        /// The stage, from 0.
        stage: u8,
    },
    /// Nothing to compare with: give it a control share, or let a single failure pause it.
    NoControl {
        /// The stage, from 0.
        stage: u8,
    },
    /// It asks for no devices or no device-days, and no data would pass.
    NoSamples {
        /// The stage, from 0.
        stage: u8,
    },
    /// It has to end before it may.
    Limit {
        /// The stage, from 0.
        stage: u8,
    },
    /// Devices would lose the candidate that the stage before gave them.
    Narrower {
        /// The stage, from 0.
        stage: u8,
    },
}

/// Returns a stage's number as people count it, from 1.
const fn number(stage: u8) -> u16 {
    stage as u16 + 1
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("a plan has at least one stage, and none between stages is empty"),
            Self::TooManyStages => write!(f, "a plan has at most {MAX_STAGES} stages"),
            Self::Exposure { stage } => write!(f, "stage {} reaches nobody, or more than all", number(*stage)),
            Self::NoControl { stage } => {
                let stage = number(*stage);
                write!(f, "stage {stage} has no control cohort: give it one, or let a single failure pause it")
            }
            Self::NoSamples { stage } => write!(f, "stage {} asks for no devices or no device-days", number(*stage)),
            Self::Limit { stage } => write!(f, "stage {} would have to end before it may", number(*stage)),
            Self::Narrower { stage } => {
                write!(f, "stage {} takes the candidate from devices that have it", number(*stage))
            }
        }
    }
}

impl core::error::Error for PlanError {}
