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
        let observation = Observation {
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
    let o =
        Observation { class: Some(3), confidence: Some(0.5), label: Some(3), embedding: &[1.0, 2.0], features: &[1.0] };
    calibrator.push(&o).expect("an observation");
    assert_eq!(
        calibrator.push(&Observation { features: &[], ..o }),
        Err(CalibrateError::Features { expected: 1, got: 0 })
    );
    assert_eq!(calibrator.push(&Observation { features: &[f64::NAN], ..o }), Err(CalibrateError::NotFinite));
    assert_eq!(calibrator.push(&Observation { confidence: Some(f64::INFINITY), ..o }), Err(CalibrateError::NotFinite));
    let short = calibrator.push(&Observation { embedding: &[], ..o });
    assert_eq!(short, Err(CalibrateError::Embedding(CovarianceError::Dimension { expected: 2, got: 0 })));
    calibrator.push(&Observation { label: None, class: Some(99), ..o }).expect("an observation");
    assert_eq!(calibrator.clone().finish(), Err(CalibrateError::SomeLabels));
    let one = Calibrator { labelled: 2, ..calibrator };
    assert_eq!(one.finish(), Err(CalibrateError::Embedding(CovarianceError::NoVariance)));
}
