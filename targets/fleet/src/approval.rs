//! Where a second person is asked.

use dunlin_rollout::rollout::Exposure;
use dunlin_rollout::{Plan, Share};

/// Percent of the devices that one person may let a candidate serve on.
const ALONE: u8 = 5;
/// The outermost ring that one person may reach.
const RING: u8 = 1;

/// Whether a stage lets candidates serve on more devices than one person decides about. In the shadow they serve nowhere.
fn is_wide(exposure: &Exposure) -> bool {
    match *exposure {
        Exposure::Shadow { .. } => false,
        Exposure::Ring { ring, .. } => ring > RING,
        Exposure::Share { canary: share, .. } | Exposure::Variants { share, .. } | Exposure::Crossover { share } => {
            share > Share::percent(ALONE)
        }
    }
}

/// The stage that begins only when a second person approves, from 0: the first wide one. Where none is, the last, for
/// after it everybody gets the candidate. Stage 0 is approved before the start.
pub(crate) fn of_two(plan: &Plan) -> u8 {
    let last = plan.stages().count().saturating_sub(1);
    let stage = plan.stages().position(|s| is_wide(&s.exposure)).unwrap_or(last);
    u8::try_from(stage).unwrap_or(u8::MAX)
}

/// Whether a draft of this plan has to be approved before it may start.
pub(crate) fn before_start(plan: &Plan, two_person: bool) -> bool {
    plan.stage(0).is_some_and(|s| s.approval) || two_person && of_two(plan) == 0
}

#[cfg(test)]
mod tests {
    use dunlin_rollout::{Stage, Strategy};

    use super::*;

    #[test]
    fn a_second_person_is_asked_before_many_devices_are_reached() {
        let of = |strategy| of_two(&Plan::of(strategy).expect("a plan"));
        // Laboratory, 1 %, 5 %, 25 %.
        assert_eq!(of(Strategy::Canary), 3);
        // Laboratory, shadow, 1 %, 5 %, 25 %.
        assert_eq!(of(Strategy::Shadow { every: 8 }), 4);
        assert_eq!(of(Strategy::Ring { rings: 4 }), 2);
        assert_eq!(of(Strategy::Few { rings: 4 }), 2);
        assert_eq!(of(Strategy::HoldBack { share: Share::percent(5) }), 0);
        assert_eq!(of(Strategy::Variants { share: Share::percent(20), candidates: 2 }), 0);
        let share = |canary| Stage::new(Exposure::Share { canary: Share::percent(canary), control: Share::percent(9) });
        let plan = |stages: &[Stage]| of_two(&Plan::new(stages).expect("a plan"));
        assert_eq!(plan(&[share(2)]), 0, "everybody gets it after the only stage");
        assert_eq!(plan(&[share(2), share(4)]), 1, "everybody gets it after the last");
        assert_eq!(plan(&[share(4), share(6), share(90)]), 1);
        let out = Stage::new(Exposure::Ring { ring: 7, control: Share::percent(10) });
        assert_eq!(plan(&[out]), 0);
    }
}
