//! What operators ask for, as the plan and the gate that `dunlin-rollout` judges by.

use dunlin_rollout::gate::{Allowed, Better};
use dunlin_rollout::rollout::{Exposure, Margins};
use dunlin_rollout::{Gate, Guardrail, Margin, Name, Plan, Share, Stage, Strategy};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult};
use crate::telemetry::METRICS;

/// How a candidate comes to the fleet.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Wanted {
    /// Laboratory, 1 %, 5 %, 25 %, all but 5 %, each beside a control cohort.
    Canary,
    /// Laboratory (ring 0), then ring by ring, a tenth of each as control.
    Ring {
        /// The last ring.
        rings: u8,
    },
    /// Ring by ring, where there are too few devices for statistics: one failure pauses.
    Few {
        /// The last ring.
        rings: u8,
    },
    /// Laboratory, then the candidate in the shadow of what serves on 1 % of the devices, then as `canary`.
    Shadow {
        /// It runs on one of so many inputs.
        every: u32,
    },
    /// Candidates beside the base on a part of the devices.
    Variants {
        /// Percent of the devices that take part.
        percent: f64,
    },
    /// The candidate and the base by the hour on the same devices, each its own control, until somebody approves.
    Crossover {
        /// Percent of the devices that take part.
        percent: f64,
    },
    /// Laboratory, then the candidate in the shadow of what serves everywhere but on a part, and when somebody approves it
    /// serves there at once.
    BlueGreen {
        /// Percent of the devices that keep the base.
        percent: f64,
    },
    /// All but a part, watched for two weeks.
    HoldBack {
        /// Percent of the devices that keep the base.
        percent: f64,
    },
    /// Stages of one's own.
    Stages {
        /// In their order.
        stages: Vec<WantedStage>,
    },
}

/// One stage.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedStage {
    /// Devices of this ring and those before it; left out: a part of all devices.
    #[serde(default)]
    ring: Option<u8>,
    /// Percent of the devices that get the candidate; without meaning for rings.
    #[serde(default)]
    canary_percent: f64,
    /// Percent of the devices that are compared with it; none where the candidate takes turns with the base.
    #[serde(default)]
    control_percent: f64,
    /// It runs in the shadow of what serves, on one of so many inputs; left out: in its place.
    #[serde(default)]
    shadow_every: Option<u32>,
    /// It takes turns with the base by the hour, and each device is its own control.
    #[serde(default)]
    crossover: bool,
    /// Devices of the canary that have to have reported.
    #[serde(default = "one")]
    devices: u32,
    /// Device-days of the canary that have to have reported.
    #[serde(default = "one")]
    device_days: u32,
    /// Hours that it lasts at least.
    #[serde(default = "day")]
    soak_hours: u32,
    /// Hours after which it pauses as inconclusive.
    #[serde(default = "fortnight")]
    limit_hours: u32,
    /// What margins have to say before it is left: `ignored`, `not_outside`, `inside`.
    #[serde(default)]
    margins: WantedMargins,
    /// Whether a single bad device-day pauses it.
    #[serde(default)]
    zero_failures: bool,
    /// Whether somebody has to approve before it begins.
    #[serde(default)]
    approval: bool,
}

fn one() -> u32 {
    1
}

fn day() -> u32 {
    24
}

fn fortnight() -> u32 {
    14 * 24
}

/// What margins have to say.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WantedMargins {
    /// Nothing.
    #[default]
    Ignored,
    /// None is crossed for certain.
    NotOutside,
    /// All are kept for certain.
    Inside,
}

/// The rule by which stages are left, or the candidate taken back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WantedGate {
    /// Probability, for each guardrail, of taking back a candidate that is no worse; 0.01 unless said.
    alpha: Option<f64>,
    /// Guardrails that have to have data: `crash`, `failed_start`, `inference_error`, `deadline_miss`, `silence`. All
    /// unless said.
    required: Option<Vec<String>>,
    /// How much worse than the control cohort metrics may be.
    margins: Vec<WantedMargin>,
    /// Devices of both arms expected when margins are decided.
    devices: Option<u32>,
    /// Devices that each arm needs before a margin is judged.
    devices_per_arm: Option<u32>,
}

/// A margin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedMargin {
    /// `latency_p95` (microseconds), `energy` (microjoules an inference), `confidence`, `flip_rate`, `guardrail_rate`,
    /// `disagreement` (part of a shadow's answers, to be given absolute).
    metric: String,
    /// Whether more of it is better.
    #[serde(default)]
    higher_is_better: bool,
    /// Part of the control's mean that it may be worse by.
    #[serde(default)]
    relative: Option<f64>,
    /// Amount, in the metric's unit, that it may be worse by.
    #[serde(default)]
    absolute: Option<f64>,
}

fn share(percent: f64) -> ApiResult<Share> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(ApiError::unacceptable(format!("{percent} is no percentage"), "give a number from 0 to 100"));
    }
    Ok(Share::of((percent * 10_000.0).round() as u32, 1_000_000))
}

impl WantedStage {
    fn stage(&self) -> ApiResult<Stage> {
        let control = share(self.control_percent)?;
        let canary = share(self.canary_percent)?;
        let exposure = match (self.ring, self.shadow_every, self.crossover) {
            (Some(_), Some(_), _) => {
                return Err(ApiError::unacceptable(
                    "a ring has no shadow",
                    "give shadow_every with canary_percent and control_percent",
                ));
            }
            (Some(_), _, true) => {
                return Err(ApiError::unacceptable("a ring takes no turns", "give crossover with canary_percent"));
            }
            (None, Some(_), true) => {
                return Err(ApiError::unacceptable(
                    "a candidate in the shadow takes no turns",
                    "give shadow_every or crossover, or a stage for each",
                ));
            }
            (None, None, true) if control > Share::NONE => {
                return Err(ApiError::unacceptable(
                    "devices that take turns are their own control",
                    "leave control_percent out",
                ));
            }
            (None, None, true) => Exposure::Crossover { share: canary },
            (Some(ring), None, false) => Exposure::Ring { ring, control },
            (None, Some(every), false) => Exposure::Shadow { canary, control, every },
            (None, None, false) => Exposure::Share { canary, control },
        };
        let margins = match self.margins {
            WantedMargins::Ignored => Margins::Ignored,
            WantedMargins::NotOutside => Margins::NotOutside,
            WantedMargins::Inside => Margins::Inside,
        };
        let mut stage = Stage::new(exposure)
            .samples(self.devices, self.device_days)
            .hours(self.soak_hours, self.limit_hours)
            .margins(margins);
        (stage.zero_failures, stage.approval) = (self.zero_failures, self.approval);
        Ok(stage)
    }
}

impl Wanted {
    /// The plan for so many candidates.
    pub(super) fn plan(&self, candidates: u8) -> ApiResult<Plan> {
        let strategy = match self {
            Self::Canary => Some(Strategy::Canary),
            Self::Ring { rings } => Some(Strategy::Ring { rings: *rings }),
            Self::Few { rings } => Some(Strategy::Few { rings: *rings }),
            Self::Shadow { every } => Some(Strategy::Shadow { every: *every }),
            Self::Variants { percent } => Some(Strategy::Variants { share: share(*percent)?, candidates }),
            Self::Crossover { percent } => Some(Strategy::Crossover { share: share(*percent)? }),
            Self::BlueGreen { percent } => Some(Strategy::BlueGreen { hold_back: share(*percent)? }),
            Self::HoldBack { percent } => Some(Strategy::HoldBack { share: share(*percent)? }),
            Self::Stages { .. } => None,
        };
        let wrong = |e: dunlin_rollout::rollout::PlanError| {
            ApiError::unacceptable(e.to_string(), "stages are counted from 0; change the one that is named")
        };
        let plan = match (strategy, self) {
            (Some(strategy), _) => Plan::of(strategy).map_err(wrong)?,
            (None, Self::Stages { stages }) => {
                let stages: Vec<Stage> = stages.iter().map(WantedStage::stage).collect::<ApiResult<_>>()?;
                Plan::new(&stages).map_err(wrong)?
            }
            (None, _) => return Err(ApiError::unacceptable("there are no stages", "give at least one")),
        };
        if plan.candidates() != candidates {
            return Err(ApiError::unacceptable(
                format!("the strategy is for {} candidates, {candidates} were given", plan.candidates()),
                "give one candidate, or the strategy variants",
            ));
        }
        Ok(plan)
    }
}

impl WantedGate {
    pub(super) fn gate(&self) -> ApiResult<Gate> {
        let mut gate = Gate::DEFAULT;
        gate.alpha = self.alpha.unwrap_or(gate.alpha);
        gate.devices = self.devices.unwrap_or(gate.devices);
        gate.devices_per_arm = self.devices_per_arm.unwrap_or(gate.devices_per_arm);
        if let Some(names) = &self.required {
            gate.required = 0;
            for name in names {
                let guardrail = Guardrail::from_name(name).ok_or_else(|| {
                    let known: Vec<&str> = Guardrail::ALL.iter().map(|g| g.name()).collect();
                    ApiError::unacceptable(
                        format!("{name:?} is no guardrail"),
                        format!("there are {}", known.join(", ")),
                    )
                })?;
                gate.required |= 1 << guardrail as u8;
            }
        }
        let margins = self.margins.iter().map(WantedMargin::margin).collect::<ApiResult<Vec<Margin>>>()?;
        if margins.len() > dunlin_rollout::evidence::MAX_METRICS {
            return Err(ApiError::unacceptable("there are too many margins", "at most 12"));
        }
        let gate = gate.with_margins(&margins);
        if gate.is_sound() {
            return Ok(gate);
        }
        Err(ApiError::unacceptable("the gate's numbers are out of range", "probabilities are between 0 and 1"))
    }
}

impl WantedMargin {
    fn margin(&self) -> ApiResult<Margin> {
        let known = || {
            ApiError::unacceptable(
                format!("{:?} is no metric", self.metric),
                format!("there are {}", METRICS.join(", ")),
            )
        };
        // Said now, rather than by a pause in the first stage.
        let name = Name::new(&self.metric).filter(|_| METRICS.contains(&self.metric.as_str())).ok_or_else(known)?;
        let better = if self.higher_is_better { Better::Higher } else { Better::Lower };
        let allowed = match (self.relative, self.absolute) {
            (Some(part), None) => Allowed::Relative(part),
            (None, Some(amount)) => Allowed::Absolute(amount),
            _ => return Err(ApiError::unacceptable("a margin is relative or absolute", "give one of the two")),
        };
        Ok(Margin::new(name, better, allowed))
    }
}
