use proptest::prelude::*;

use super::*;
use crate::analysis::Random;

#[test]
fn quantiles_part_values_evenly() {
    let values: Vec<f64> = (0..100).map(f64::from).collect();
    let q = Quantiles::new(&values, 4);
    assert_eq!((q.inner(), &q.counts[..]), (&[24.5, 49.5, 74.5][..], &[25; 4][..]));
    assert_eq!((q.edges[0], q.edges[4]), (0.0, 99.0));
    assert_eq!([-5.0, 24.5, 24.4, 1e9].map(|v| q.bin(v)), [0, 1, 0, 3]);
    // Values that are mostly the same have fewer bins.
    let mut flat = vec![0.0; 90];
    flat.extend((1..=10).map(f64::from));
    let q = Quantiles::new(&flat, 10);
    assert_eq!(q.counts.iter().sum::<u64>(), 100);
    assert!(q.counts.len() >= 2 && q.counts[0] == 90, "{q:?}");
    assert_eq!(Quantiles::new(&[3.0; 5], 4).counts, [5]);
    assert!(Quantiles::new(&[], 4).counts.is_empty());
}

proptest! {
    #[test]
    fn any_values_give_rising_edges_and_lose_nothing(values in prop::collection::vec(-1e6f64..1e6, 1..200), bins in 1usize..20) {
        let q = Quantiles::new(&values, bins);
        prop_assert!(q.counts.len() <= bins && q.edges.len() == q.counts.len() + 1);
        prop_assert!(q.edges.windows(2).all(|e| e[0] <= e[1]) && q.inner().windows(2).all(|e| e[0] < e[1]));
        prop_assert_eq!(q.counts.iter().sum::<u64>(), values.len() as u64);
    }
}

#[test]
fn observations_are_counted_and_whitened() {
    let mut random = Random::new(51);
    let mut calibrator = Calibrator::new(Options { classes: 2, axes: 3, shrinkage: 0.0, ..Options::default() });
    let mut points = Vec::new();
    for i in 0..2000 {
        let (a, b, c) = (random.normal(), random.normal(), random.normal());
        let embedding = [10.0 + 4.0 * a, a + b, 0.2 * c - 3.0, 2.0 * b + 0.5 * c, 1.0];
        let class = usize::from(a > 0.0);
        let label = if i % 10 == 0 { 1 - class } else { class };
        let observation = Point {
            class: Some(class),
            confidence: Some(0.95),
            label: Some(label),
            embedding: &embedding,
            features: &[a],
        };
        calibrator.push(&observation).expect("an observation");
        points.push(embedding);
    }
    let calibrated = calibrator.finish().expect("observations");
    assert_eq!(calibrated.class.iter().sum::<u64>(), 2000);
    assert_eq!((calibrated.confidence[9], calibrated.confidence[0]), ((2000, Some(1800)), (0, Some(0))));
    assert_eq!((calibrated.accuracy, calibrated.features[0].counts.len()), (Some(0.9), 10));
    let projection = calibrated.projection.expect("embeddings");
    assert!(projection.explained > 0.99 && projection.rows.len() == 3);
    // int8 keeps mean 0 exactly and the covariance to a few per cent.
    let mut white = Moments::new(3);
    points.iter().for_each(|p| white.push(&projection.apply(p)).expect("a point"));
    assert!(white.mean().iter().all(|m| m.abs() < 1e-9), "{:?}", white.mean());
    let covariance = white.covariance().expect("points");
    for i in 0..3 {
        for j in 0..3 {
            let expected = f64::from(u8::from(i == j));
            assert!((covariance[(i, j)] - expected).abs() < 0.05, "{covariance}");
        }
    }
    // Distances are chi-square of three degrees of freedom: median 2.366.
    assert!((calibrated.distances[1000] - 2.366).abs() < 0.25, "{}", calibrated.distances[1000]);
    assert!(calibrated.distances.windows(2).all(|d| d[0] <= d[1]));
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(Calibrator::new(Options::default()).finish(), Err(CalibrateError::Nothing));
    let mut calibrator = Calibrator::new(Options::default());
    let o = Point { class: Some(3), confidence: Some(0.5), label: Some(3), embedding: &[1.0, 2.0], features: &[1.0] };
    calibrator.push(&o).expect("an observation");
    assert_eq!(calibrator.push(&Point { features: &[], ..o }), Err(CalibrateError::Features { expected: 1, got: 0 }));
    assert_eq!(calibrator.push(&Point { features: &[f64::NAN], ..o }), Err(CalibrateError::NotFinite));
    assert_eq!(calibrator.push(&Point { confidence: Some(f64::INFINITY), ..o }), Err(CalibrateError::NotFinite));
    let short = calibrator.push(&Point { embedding: &[], ..o });
    assert_eq!(short, Err(CalibrateError::Embedding(CovarianceError::Dimension { expected: 2, got: 0 })));
    calibrator.push(&Point { label: None, class: Some(99), ..o }).expect("an observation");
    assert_eq!(calibrator.clone().finish(), Err(CalibrateError::SomeLabels));
    let one = Calibrator { labelled: 2, ..calibrator };
    assert_eq!(one.finish(), Err(CalibrateError::Embedding(CovarianceError::NoVariance)));
}

#[test]
fn devices_count_the_reference_as_it_was_counted() {
    use crate::reference::Reference;
    use crate::{Recorder, Sample};
    let mut random = Random::new(61);
    let spec = Spec {
        class_output: Some(0),
        confidence_by: Confidence::Softmax,
        deadline_us: 900,
        features: vec![
            (Port::Input(0), Statistic::Mean),
            (Port::Input(0), Statistic::Range),
            (Port::Output(0), Statistic::Element(2)),
        ],
        embedding: Some((Port::Input(0), 2)),
    };
    // An input of int8, two pools of six; an output of floats.
    let seen: Vec<(Vec<i8>, Vec<f32>)> = (0..1500)
        .map(|_| {
            let (a, b) = (random.normal(), random.normal());
            let input =
                (0..12).map(|i| (20.0 * a * f64::from(i % 3) + 15.0 * b + 6.0 * random.normal()) as i8).collect();
            (input, vec![a as f32, b as f32, (a - b) as f32, 0.2])
        })
        .collect();
    let tensors = |(input, output): &(Vec<i8>, Vec<f32>), f: &mut dyn FnMut(&Observation<'_>)| {
        let inputs = [Values::I8 { q: input, scale: 0.05, zero_point: -3 }];
        let outputs = [Values::F32(output)];
        f(&Observation { micros: 500, inputs: &inputs, outputs: &outputs, ..Observation::default() });
    };
    let mut calibrator = Calibrator::new(Options { classes: 4, ..Options::default() });
    for s in &seen {
        tensors(s, &mut |o| calibrator.observe(&spec, o, Some(1)).expect("an observation"));
    }
    let calibrated = calibrator.finish().expect("observations");
    let bytes = calibrated.draft(&spec).write().expect("a drift section");
    let reference = Reference::read(&bytes).expect("a reference");
    let mut recorder = Recorder::<4, 3>::new(1, 0).shaped(&reference);
    for s in &seen {
        tensors(s, &mut |o| {
            recorder.add(&Sample::of(&reference, &o.classified_by(0, Confidence::Softmax)));
        });
    }
    let window = recorder.take(60);
    assert!(window.classes().iter().eq(reference.classes().collect::<Vec<_>>().iter()));
    assert!(window.confidence().iter().copied().eq(reference.confidence().map(|c| c.0)));
    for (now, then) in window.features().iter().zip(reference.features()) {
        assert_eq!(*now, then.counts);
    }
    let embedding = reference.embedding().expect("an embedding");
    assert_eq!((embedding.len(), embedding.pool(), embedding.axes()), (6, 2, 6));
    let distances: Vec<u32> = embedding.distances().collect();
    // Binary32 on the device and binary64 here may part at a bound.
    let apart: u32 = window.distances().iter().zip(&distances).map(|(a, b)| a.abs_diff(*b)).sum();
    assert!(apart <= 4, "{:?} {distances:?}", window.distances());
    assert!(distances[7] <= 2 && distances[5..].iter().sum::<u32>() > 100, "one in a thousand is far: {distances:?}");
    for axis in 0..6 {
        assert!(window.mean(axis).expect("embeddings").abs() < 0.01, "axis {axis}: {:?}", window.mean(axis));
    }
    assert_eq!(window.counters().get(crate::Counter::Alarms), 0);
    let change = reference.change();
    // Two of the six axes hold nearly all variance; shrinkage keeps the others short.
    assert!((2.0..7.0).contains(&change.mean) && change.threshold > change.drift && change.drift > 0.0, "{change:?}");
    let missing = Spec { features: vec![(Port::Output(1), Statistic::Mean)], ..spec.clone() };
    let pool = Spec { embedding: Some((Port::Input(0), 5)), ..spec };
    let mut calibrator = Calibrator::new(Options::default());
    tensors(&seen[0], &mut |o| {
        assert_eq!(calibrator.observe(&missing, o, None), Err(CalibrateError::Missing(Port::Output(1))));
        assert_eq!(calibrator.observe(&pool, o, None), Err(CalibrateError::Pool { elements: 12, pool: 5 }));
    });
}
