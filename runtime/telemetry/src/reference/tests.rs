use super::*;
use proptest::prelude::*;

fn draft() -> Draft {
    let mut edges = [0.0; BINS + 1];
    edges.iter_mut().zip(0u8..).for_each(|(e, i)| *e = f32::from(i));
    Draft {
        n: 1000,
        deadline_us: 7,
        class_output: Some(0),
        confidence_by: Confidence::Softmax,
        change: Change { mean: 8.0, drift: 1.0, threshold: 50.0 },
        classes: std::vec![1, 2, 3],
        confidence: (0..10).map(|i| (i, (i % 2 == 0).then_some(i / 2))).collect(),
        features: std::vec![
            Feature { port: Port::Input(1), statistic: Statistic::Element(9), bins: 10, edges, counts: [7; BINS] },
            Feature {
                port: Port::Output(0),
                statistic: Statistic::Range,
                bins: 1,
                edges,
                counts: [7, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            },
        ],
        embedding: Some(EmbeddingDraft {
            port: Port::Output(1),
            pool: 3,
            distance_first: -2,
            rows: std::vec![(std::vec![1, -127, 3], 0.5, -1.0), (std::vec![4, 5, 6], 0.25, 2.0)],
            distances: [1, 2, 3, 4, 5, 6, 7, 8],
        }),
        ..Draft::new()
    }
}

#[test]
fn what_is_written_is_read() {
    let draft = draft();
    let bytes = draft.write().expect("it is sound");
    let read = Reference::read(&bytes).expect("it reads");
    assert_eq!((read.n(), read.deadline_us(), read.class_output()), (1000, 7, Some(0)));
    assert_eq!((read.confidence_by(), read.change()), (Confidence::Softmax, draft.change));
    assert!(read.classes().eq(draft.classes.iter().copied()));
    assert!(read.confidence().eq(draft.confidence.iter().copied()));
    assert!(read.features().eq(draft.features.iter().copied()));
    let (embedding, from) = (read.embedding().expect("an embedding"), draft.embedding.as_ref().expect("one"));
    assert_eq!((embedding.port(), embedding.len(), embedding.pool(), embedding.axes()), (from.port, 3, 3, 2));
    for ((row, scale, offset), from) in embedding.rows().zip(&from.rows) {
        let row: std::vec::Vec<i8> = row.iter().map(|b| b.cast_signed()).collect();
        assert_eq!((row, scale, offset), *from);
    }
    assert!(embedding.distances().eq(from.distances));
    // A quarter is the upper bound of the first bin.
    let bins = [-1.0, 0.0, 0.2, 0.25, 0.49, 0.5, 16.0, 1e30, f32::NAN].map(|d| embedding.distance_bin(d));
    assert_eq!(bins, [0, 0, 0, 1, 1, 2, 7, 7, 0]);
    assert!(Draft::new().write().is_ok());
}

#[test]
fn bins_begin_with_their_lower_bound() {
    let feature = draft().features[0];
    let bins = [-5.0, 0.5, 1.0, 1.5, 8.99, 9.0, 100.0].map(|v| feature.bin(v));
    assert_eq!(bins, [0, 0, 1, 1, 8, 9, 9]);
    assert_eq!(draft().features[1].bin(99.0), 0);
}

#[test]
fn what_is_wrong_is_told() {
    type Change<'c> = &'c dyn Fn(&mut Draft);
    let cases: [(Change<'_>, ReferenceError); 8] = [
        (&|d| d.confidence.truncate(3), ReferenceError::Length),
        (&|d| d.latency_first = 61, ReferenceError::Length),
        (&|d| d.change.drift = f32::NAN, ReferenceError::Number),
        (&|d| d.features[0].edges[3] = 99.0, ReferenceError::Number),
        (&|d| d.features[0].bins = 0, ReferenceError::Number),
        (&|d| d.embedding.as_mut().unwrap().rows.clear(), ReferenceError::Length),
        (&|d| d.embedding.as_mut().unwrap().pool = 50_000, ReferenceError::Embedding),
        (&|d| d.embedding.as_mut().unwrap().rows[0].1 = f32::INFINITY, ReferenceError::Number),
    ];
    for (i, (change, error)) in cases.iter().enumerate() {
        let mut draft = draft();
        change(&mut draft);
        assert_eq!(draft.write(), Err(*error), "case {i}");
    }
    let bytes = draft().write().expect("it is sound");
    assert_eq!(Reference::read(&[]), Err(ReferenceError::Version));
    assert_eq!(Reference::read(&[9, 9]), Err(ReferenceError::Version));
    assert_eq!(Reference::read(&[&bytes[..], &[0]].concat()), Err(ReferenceError::Malformed));
    for len in 1..bytes.len() {
        assert!(Reference::read(&bytes[..len]).is_err(), "{len}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some(version) = bytes.first_mut() {
            *version = VERSION;
        }
        let _ = Reference::read(&bytes);
    }

    #[test]
    fn flipped_references_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), values in any::<[f32; 9]>()) {
        let mut bytes = draft().write().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(reference) = Reference::read(&bytes) {
            use crate::{Observation, Recorder, Sample, Values};
            let tensors = [Values::F32(&values), Values::F32(&values)];
            let seen = Observation { inputs: &tensors, outputs: &tensors, ..Observation::default() };
            let mut recorder = Recorder::<10, 4>::new(0, 0).shaped(&reference);
            recorder.add(&Sample::of(&reference, &seen));
            let mut bytes = [0; 600];
            prop_assert!(recorder.take(1).encode(crate::Profile::Full, &mut bytes).is_ok());
        }
    }
}

/// The seed of the fuzz target is a reference.
#[test]
fn the_fuzzers_seed_is_a_reference() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/seeds/reference/all.bin");
    let bytes = draft().write().expect("it is sound");
    if std::env::var_os("DUNLIN_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &bytes).expect("the seed can be written");
    }
    assert!(std::fs::read(path).expect("a seed") == bytes, "the reference's layout has changed: raise its version");
}
