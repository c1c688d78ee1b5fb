use super::*;
use crate::window::Head;
use proptest::prelude::*;

type Small = Window<10, 2>;

/// The fixture of `bytes_on_air`: an hour with 3,586 inferences, all 70 values in use.
pub(crate) fn fixture() -> Small {
    let head = Head { model: 0xB17E, arm: Arm::Candidate, boot: 5, seq: 117, span: 1, seconds: 3600, complete: true };
    let mut window = Window::new(head, 46, 10, 0);
    for (counter, value) in Counter::ALL.into_iter().zip(FIXTURE) {
        window.counters.set(counter, value);
    }
    let latency = [3, 11, 48, 190, 610, 1204, 903, 402, 150, 45, 14, 6];
    window.latency[20..32].copy_from_slice(&latency);
    window.confidence = [0, 4, 13, 31, 58, 96, 181, 352, 803, 2045];
    window.classes = [411, 356, 388, 301, 377, 290, 334, 405, 361, 360];
    window.distances = [401, 1410, 1105, 471, 148, 37, 9, 2];
    window.axes = [10_211, -27_400, 3_012, 44_870, -1_955, 8_120, -60_333, 500];
    window
}

/// Its counters.
const FIXTURE: [u32; 19] = [3586, 1, 1, 1, 0, 12, 1, 3, 1, 4, 871, 0, 64, 5, 122, 1, 0, 1_840_000, 15_680];

fn bytes(window: &Small, profile: Profile) -> Vec<u8> {
    let mut bytes = [0xEE; full_most(10, 2)];
    let len = window.encode(profile, &mut bytes).expect("there is room");
    assert_eq!(window.encode(profile, &mut bytes[..len - 1].to_vec()), Err(EncodeError::Space));
    bytes[..len].to_vec()
}

fn back(bytes: &[u8]) -> (Profile, Small) {
    match Report::decode(bytes) {
        Ok(Report::Known(profile, window)) => (profile, window),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_fixture_has_its_sizes() {
    let window = fixture();
    let sizes = Profile::ALL.map(|p| bytes(&window, p).len());
    println!("{sizes:?}");
    assert!(sizes[0] <= 11 && sizes[1] <= 51 && sizes[2] <= 115, "{sizes:?}");
}

#[test]
fn no_report_is_longer_than_the_longest() {
    let head = Head {
        model: u16::MAX,
        arm: Arm::Shadow,
        boot: u32::MAX,
        seq: u32::MAX,
        span: u32::MAX,
        seconds: u32::MAX,
        complete: true,
    };
    // Sums just below the greatest, in bins that make every half as wide as it can be.
    for shape in 0..64u32 {
        let mut window = Small::new(head, 60, 10, 2);
        Counter::ALL.iter().for_each(|c| window.counters.set(*c, MOST - shape));
        let fill = |counts: &mut [u32]| {
            let each = (MOST - 7) / counts.len() as u32;
            counts.iter_mut().enumerate().for_each(|(i, c)| *c = each - (i as u32 * shape) % each);
        };
        fill(&mut window.latency);
        fill(&mut window.confidence);
        fill(&mut window.classes);
        fill(&mut window.distances);
        window.features.iter_mut().for_each(|f| fill(f));
        window.axes = [i64::MIN; AXES];
        let mut bytes = [0; full_most(10, 2)];
        let len = window.encode(Profile::Full, &mut bytes).expect("there is room");
        assert_eq!(back(&bytes[..len]).1, window);
        assert!(2 * len > bytes.len(), "the bound is far from {len}");
    }
}

#[test]
fn golden_bytes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    for profile in Profile::ALL {
        let path = format!("{folder}/{}.bin", profile.name());
        let ours = bytes(&fixture(), profile);
        if std::env::var_os("DUNLIN_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &ours).expect("the golden file can be written");
        }
        let golden = std::fs::read(&path).expect("a golden file");
        assert_eq!(ours, golden, "{profile:?}: the wire format has changed, and with it its layout's text has to");
    }
}

#[test]
fn layouts_have_different_schemas() {
    let schemas = Profile::ALL.map(Profile::schema);
    assert!(schemas[0] != schemas[1] && schemas[1] != schemas[2] && schemas[0] != schemas[2]);
    assert!(matches!(Report::<1, 1>::decode(&[1, 2, 3]), Ok(Report::Unknown { schema: [1, 2], bytes: &[1, 2, 3] })));
    assert_eq!(Report::<1, 1>::decode(&[1]), Err(DecodeError::Malformed));
}

#[test]
fn short_reports_say_what_they_can() {
    let window = fixture();
    let (profile, beat) = back(&bytes(&window, Profile::Heartbeat));
    assert_eq!(profile, Profile::Heartbeat);
    assert_eq!(beat.head().seconds.abs_diff(3600) * 8 / 3600, 0);
    let head = Head { seconds: beat.head().seconds, ..*window.head() };
    assert_eq!(*beat.head(), head);
    let of = |w: &Small| (w.counters.inferences(), w.counters.errors(), w.counters.bad_inputs());
    assert_eq!(of(&beat), of(&window));
    let (profile, mini) = back(&bytes(&window, Profile::Mini));
    assert_eq!(profile, Profile::Mini);
    assert_eq!((*mini.head(), of(&mini)), (*window.head(), of(&window)));
    let near = |a: u32, b: u32, part: f64| (f64::from(a) - f64::from(b)).abs() <= part * f64::from(b);
    assert!(near(mini.counters.get(Counter::Energy), 1_840_000, 1.0 / 16.0));
    // Sums are exact, bins to a step of the logarithm and what is left over.
    let lists = [
        (&mini.confidence[..], &window.confidence[..], 1.5),
        (&mini.classes, &window.classes, 1.5),
        (&mini.distances, &window.distances, 2.3),
        (&mini.latency, &window.latency, 2.3),
    ];
    for (rounded, exact, factor) in lists {
        assert_eq!(total(rounded), total(exact));
        for (r, e) in rounded.iter().map(|n| f64::from(*n)).zip(exact.iter().map(|n| f64::from(*n))) {
            assert!(r <= factor * e + 2.0 && e <= factor * r + 2.0, "{rounded:?} for {exact:?}");
        }
    }
    for axis in 0..AXES {
        let [r, e] = [&mini, &window].map(|w| w.mean(axis).expect("embeddings"));
        assert!((r - e).abs() <= 1.0 / 31.0, "{r} {e}");
    }
}

#[test]
fn rounding_is_to_one_part_in_sixteen() {
    for value in (0..70_000).chain((0..32).flat_map(|e| [1u32 << e, (1u32 << e) - 1, 3u32 << e >> 1])).chain([MOST]) {
        let error = unround(round(value)).abs_diff(value);
        assert!(u64::from(error) * 16 <= u64::from(value), "{value}");
        assert!(round(value) < 256);
    }
}

fn windows() -> impl Strategy<Value = Small> {
    let count = || prop_oneof![Just(0u32), 0u32..9, 0u32..70_000, 0u32..40_000_000];
    let head = (any::<u16>(), 0u8..4, any::<u32>(), any::<u32>(), 1u32..50, any::<u32>(), any::<bool>());
    let lists = (
        proptest::collection::vec(count(), BUCKETS),
        proptest::collection::vec(count(), BINS),
        proptest::collection::vec(count(), 10),
        proptest::collection::vec(count(), 2 * BINS),
        proptest::collection::vec(count(), DISTANCES),
        proptest::collection::vec(any::<i64>(), AXES),
    );
    let counters = proptest::collection::vec(prop_oneof![count(), Just(MOST)], Counter::ALL.len());
    (head, lists, counters, 0u16..=10, 0u8..=2, 0u8..60).prop_map(
        |(head, lists, counters, classes, features, first)| {
            let (model, arm, boot, seq, span, seconds, complete) = head;
            let span = span.min(seq.saturating_add(1));
            let head = Head { model, arm: Arm::from_bits(arm), boot, seq, span, seconds, complete };
            let mut window = Window::new(head, first, classes, features);
            for (counter, value) in Counter::ALL.into_iter().zip(counters) {
                window.counters.set(counter, value);
            }
            window.latency.copy_from_slice(&lists.0);
            window.confidence.copy_from_slice(&lists.1);
            window.classes.copy_from_slice(&lists.2);
            window.classes[usize::from(classes)..].fill(0);
            let mut bins = lists.3.chunks(BINS);
            window.features.iter_mut().take(features.into()).for_each(|f| f.copy_from_slice(bins.next().unwrap()));
            window.distances.copy_from_slice(&lists.4);
            window.axes.copy_from_slice(&lists.5);
            if window.embeddings() == 0 {
                window.axes = [0; AXES];
            }
            window
        },
    )
}

proptest! {
    #[test]
    fn full_reports_lose_nothing(window in windows()) {
        let mut bytes = [0; 2048];
        let len = window.encode(Profile::Full, &mut bytes).unwrap();
        let (profile, read) = back(&bytes[..len]);
        prop_assert_eq!(profile, Profile::Full);
        if total(&window.latency) == 0 {
            prop_assert_eq!(read.latency, window.latency);
        }
        prop_assert_eq!(read, window);
        // A server that has room for more reads the same.
        let Ok(Report::Known(_, any)) = AnyReport::decode(&bytes[..len]) else { panic!() };
        prop_assert_eq!(any.classes(), window.classes());
        prop_assert_eq!(any.features(), window.features());
    }

    #[test]
    fn short_reports_of_anything_are_read(window in windows()) {
        for profile in [Profile::Mini, Profile::Heartbeat] {
            let mut bytes = [0; 2048];
            let len = window.encode(profile, &mut bytes).unwrap();
            let (told, read) = back(&bytes[..len]);
            prop_assert_eq!(told, profile);
            prop_assert_eq!(read.head().seq, window.head().seq);
            prop_assert_eq!(read.head().span, window.head().span);
            prop_assert_eq!(read.head().boot, window.head().boot & BOOT_MASK);
            prop_assert_eq!(read.counters.inferences(), window.counters.inferences());
            if profile == Profile::Mini {
                prop_assert_eq!(total(&read.classes), total(window.classes()));
                prop_assert_eq!(total(&read.latency), total(&window.latency));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(which in 0usize..3, mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let schema = Profile::ALL[which].schema();
        if bytes.len() > 2 {
            bytes[..2].copy_from_slice(&schema);
        }
        if let Ok(Report::Known(Profile::Full, window)) = Report::<10, 2>::decode(&bytes) {
            // What is read is written the same: there is one way to write it.
            let mut again = [0; 2048];
            let len = window.encode(Profile::Full, &mut again).unwrap();
            let Ok(Report::Known(_, read)) = Report::<10, 2>::decode(&again[..len]) else { panic!() };
            prop_assert_eq!(read, window);
        }
        let _ = AnyReport::decode(&bytes);
    }

    #[test]
    fn flipped_and_cut_reports_never_panic(window in windows(), at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>()) {
        for profile in Profile::ALL {
            let mut bytes = [0; 2048];
            let len = window.encode(profile, &mut bytes).unwrap();
            let mut bytes = bytes[..len].to_vec();
            bytes[at.index(len)] ^= 1 << bit;
            let _ = Report::<10, 2>::decode(&bytes);
            bytes.truncate(cut.index(len));
            let _ = Report::<10, 2>::decode(&bytes);
        }
    }
}
