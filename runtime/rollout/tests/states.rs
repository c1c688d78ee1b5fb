//! `STATES.md` is drawn from the table in the code, and the table is sound.

use dunlin_rollout::Phase;
use dunlin_rollout::rollout::phase::{Event, TRANSITIONS, diagram};

#[test]
fn the_picture_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/STATES.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once("```mermaid\n").unwrap();
    let (drawn, after) = rest.split_once("```").unwrap();
    if std::env::var_os("DUNLIN_DRAW").is_some() {
        std::fs::write(path, format!("{before}```mermaid\n{}```{after}", diagram())).unwrap();
        return;
    }
    assert_eq!(drawn, diagram(), "STATES.md is old: run this test once with DUNLIN_DRAW=1");
}

#[test]
fn every_state_can_be_reached_and_left() {
    let mut reached = vec![Phase::Draft];
    for _ in Phase::ALL {
        for (from, _, to) in TRANSITIONS {
            if reached.contains(from) && !reached.contains(to) {
                reached.push(*to);
            }
        }
    }
    for phase in Phase::ALL {
        assert!(reached.contains(&phase), "{phase:?}");
        assert!(TRANSITIONS.iter().any(|t| t.0 == phase && t.2 != phase), "nothing leads out of {phase:?}");
    }
}

#[test]
fn rollback_leads_from_every_state_to_one() {
    for phase in Phase::ALL.into_iter().filter(|p| *p != Phase::RolledBack) {
        assert_eq!(phase.after(Event::Rollback), Some(Phase::RolledBack), "{phase:?}");
    }
    // And nothing but a new attempt leads out.
    let out: Vec<_> = TRANSITIONS.iter().filter(|t| t.0 == Phase::RolledBack && t.2 != Phase::RolledBack).collect();
    assert_eq!(out, [&(Phase::RolledBack, Event::Retry, Phase::Draft)]);
}

#[test]
fn a_step_leads_to_one_place() {
    for (i, (from, by, _)) in TRANSITIONS.iter().enumerate() {
        assert!(!TRANSITIONS[..i].iter().any(|t| (t.0, t.1) == (*from, *by)), "{from:?} {by:?}");
    }
}
