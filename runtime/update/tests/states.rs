//! `STATES.md` is drawn from the table in the code, and the table is sound.

use dunlin_update::phase::{Event, Phase, TRANSITIONS, diagram};

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
    let mut reached = vec![Phase::Idle];
    let mut at = 0;
    while let Some(&from) = reached.get(at) {
        reached.extend(TRANSITIONS.iter().filter(|t| t.0 == from).map(|t| t.2).collect::<Vec<_>>());
        let mut seen = Vec::new();
        reached.retain(|p| {
            !seen.contains(p) && {
                seen.push(*p);
                true
            }
        });
        at += 1;
    }
    for (from, _, to) in TRANSITIONS {
        assert!(reached.contains(from) && reached.contains(to), "{from:?} to {to:?}");
        assert!(TRANSITIONS.iter().any(|t| t.0 == *to), "nothing leads out of {to:?}");
    }
    // What runs changes on three events only, and nothing becomes confirmed but through a trial.
    let confirmed: Vec<_> = TRANSITIONS.iter().filter(|t| t.2 == Phase::Confirmed).collect();
    assert_eq!(confirmed, [&(Phase::Trial, Event::Confirm, Phase::Confirmed)]);
}

#[test]
fn a_step_leads_to_one_place() {
    for (i, (from, by, _)) in TRANSITIONS.iter().enumerate() {
        assert!(!TRANSITIONS[..i].iter().any(|t| (t.0, t.1) == (*from, *by)), "{from:?} {by:?}");
    }
}
