use super::*;
use crate::report::Report;
use crate::window::{Arm, Counter, Head};
use proptest::prelude::*;

type Small = Outbox<10, 2, 4, 128>;

fn window(model: u16, seq: u32, inferences: u32) -> Window<10, 2> {
    let head = Head { model, arm: Arm::Rest, boot: 3, seq, span: 1, seconds: 60, complete: true };
    let mut window = Window::new(head, 26, 10, 2);
    window.counters.add(Counter::Inferences, inferences);
    window.latency[7] = inferences;
    window.classes[seq as usize % 10] = inferences;
    window
}

/// Sends and acknowledges everything; gives `(seq, span, inferences)` of each.
fn drain(outbox: &mut Small) -> Vec<(u32, u32, u32), 16> {
    let mut all = Vec::new();
    let mut bytes = [0; 128];
    while let Some(len) = outbox.send(Profile::Full, &mut bytes) {
        let Ok(Report::<10, 2>::Known(_, window)) = Report::decode(&bytes[..len]) else { panic!() };
        let head = *window.head();
        all.push((head.seq, head.span, window.counters().inferences())).expect("room");
        assert!(!outbox.acknowledge(head.boot, head.seq + 1));
        assert!(outbox.acknowledge(head.boot, head.seq));
        assert!(!outbox.acknowledge(head.boot, head.seq));
    }
    all
}

#[test]
fn windows_merge_when_there_is_no_room() {
    let mut outbox = Small::new();
    for seq in 0..20 {
        outbox.push(&window(1, seq, seq + 1));
    }
    assert_eq!(outbox.len(), 4);
    let all = drain(&mut outbox);
    assert_eq!(all.iter().map(|(_, span, _)| span).sum::<u32>(), 20);
    assert_eq!(all.iter().map(|(_, _, n)| n).sum::<u32>(), 210);
    assert_eq!((outbox.take_dropped(), outbox.is_empty()), (0, true));
}

#[test]
fn what_was_sent_stays_as_it_is() {
    let mut outbox = Small::new();
    let mut bytes = [0; 128];
    outbox.push(&window(1, 0, 1));
    let len = outbox.send(Profile::Full, &mut bytes).expect("a report");
    let first = bytes[..len].to_vec();
    for seq in 1..20 {
        outbox.push(&window(1, seq, 1));
    }
    let len = outbox.send(Profile::Full, &mut bytes).expect("a report");
    assert_eq!(bytes[..len], first);
    // In another profile, with the four lowest bits of the start.
    assert!(outbox.send(Profile::Heartbeat, &mut bytes).is_some());
    assert!(outbox.acknowledge(3, 0));
    assert_eq!(drain(&mut outbox).iter().map(|(_, span, _)| span).sum::<u32>(), 19);
}

#[test]
fn what_cannot_merge_is_lost_and_counted() {
    let mut outbox = Small::new();
    for seq in 0..9 {
        outbox.push(&window(seq as u16, seq, 1));
    }
    assert_eq!((outbox.len(), outbox.take_dropped(), outbox.take_dropped()), (4, 5, 0));
    // A report that is too long for its place is lost too.
    let mut tiny = Outbox::<10, 2, 3, 8>::new();
    tiny.push(&window(1, 0, 1));
    assert_eq!((tiny.len(), tiny.take_dropped()), (0, 1));
}

proptest! {
    /// Whatever is pushed, sent, lost on the way and acknowledged: nothing is counted twice, nothing is lost.
    #[test]
    fn nothing_is_lost_or_doubled(steps in proptest::collection::vec(0u8..4, 1..200)) {
        let mut outbox = Small::new();
        let (mut seq, mut received) = (0, 0u64);
        let mut ledger = crate::ledger::Ledger::new();
        let mut bytes = [0; 128];
        let mut deliver = |outbox: &mut Small, answered: bool| {
            let Some(len) = outbox.send(Profile::Full, &mut bytes) else { return };
            let Ok(Report::<10, 2>::Known(_, window)) = Report::decode(&bytes[..len]) else { panic!() };
            match ledger.enter(window.head().boot, window.head()) {
                crate::ledger::Arrival::New => received += u64::from(window.counters().inferences()),
                crate::ledger::Arrival::Duplicate => {}
                crate::ledger::Arrival::Overlap => panic!("overlap"),
            }
            if answered {
                outbox.acknowledge(window.head().boot, window.head().seq);
            }
        };
        for step in steps {
            match step {
                0 | 1 => {
                    outbox.push(&window(1, seq, seq + 1));
                    seq += 1;
                }
                2 => deliver(&mut outbox, true),
                _ => deliver(&mut outbox, false),
            }
        }
        while !outbox.is_empty() {
            deliver(&mut outbox, true);
        }
        prop_assert_eq!(received, (1..=u64::from(seq)).sum::<u64>());
        prop_assert_eq!(ledger.gaps().count(), 0);
        prop_assert_eq!(outbox.take_dropped(), 0);
    }
}
