use super::*;
use crate::window::{Arm, Head};
use proptest::prelude::*;

type Small = Window<6, 1>;

fn windows() -> impl Strategy<Value = Small> {
    let list = |n: usize| proptest::collection::vec(0u32..100_000, n);
    (
        list(Counter::ALL.len()),
        list(BUCKETS),
        list(BINS),
        list(6),
        list(BINS),
        list(DISTANCES),
        any::<[i32; AXES]>(),
        0u8..50,
        any::<bool>(),
    )
        .prop_map(|(counters, latency, confidence, classes, feature, distances, axes, first, complete)| {
            let head = Head { model: 1, arm: Arm::Rest, boot: 1, seq: 1, span: 1, seconds: 60, complete };
            let mut window = Small::new(head, first, 6, 1);
            for (counter, value) in Counter::ALL.into_iter().zip(counters) {
                window.counters.set(counter, value);
            }
            window.latency.copy_from_slice(&latency);
            window.confidence.copy_from_slice(&confidence);
            window.classes.copy_from_slice(&classes);
            window.features[0].copy_from_slice(&feature);
            window.distances.copy_from_slice(&distances);
            window.axes = axes.map(i64::from);
            window
        })
}

fn sum<'w>(windows: impl IntoIterator<Item = &'w Small>) -> Aggregate {
    let mut all = Aggregate::new();
    windows.into_iter().for_each(|w| all.add(w));
    all
}

proptest! {
    #[test]
    fn the_order_does_not_matter(windows in proptest::collection::vec(windows(), 0..12), cut in any::<prop::sample::Index>(), turn in any::<prop::sample::Index>()) {
        let whole = sum(&windows);
        let mut turned = windows.clone();
        if !turned.is_empty() {
            turned.rotate_left(turn.index(windows.len()));
            turned.reverse();
        }
        prop_assert_eq!(&sum(&turned), &whole);
        // In parts, either way round.
        let (a, b) = windows.split_at(cut.index(windows.len() + 1));
        let (mut ab, mut ba) = (sum(a), sum(b));
        ab.merge(&sum(b));
        ba.merge(&sum(a));
        prop_assert_eq!(&ab, &whole);
        prop_assert_eq!(&ba, &whole);
        let n: u64 = windows.iter().map(|w| u64::from(w.counters().inferences())).sum();
        prop_assert_eq!(whole.counter(Counter::Inferences), n);
        prop_assert_eq!(whole.windows(), windows.len() as u64);
    }

    /// Merged on the device and then added is the same as added.
    #[test]
    fn devices_merge_as_servers_add(a in windows(), b in windows()) {
        let mut next = b;
        next.head.seq = 2;
        next.latency_first = a.latency_first;
        let mut merged = a;
        merged.merge(&next).unwrap();
        let (mut one, mut two) = (sum([&merged]), sum([&a, &next]));
        // Which of merged windows was incomplete is not known.
        (one.incomplete, two.incomplete) = (0, 0);
        prop_assert_eq!(one, two);
    }
}

#[test]
fn latencies_have_their_buckets_whatever_the_first_is() {
    let head = Head { span: 1, ..Head::default() };
    let (mut a, mut b) = (Small::new(head, 26, 0, 0), Small::new(head, 0, 0, 0));
    a.latency[0] = 3;
    b.latency[26] = 4;
    assert_eq!(sum([&a, &b]).latency()[26], 7);
    assert_eq!(sum([&a, &b]).mean(), None);
}
