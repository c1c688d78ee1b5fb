use super::*;
use crate::analysis::Random;

/// A model whose confidence is what it says, in ten bins.
fn calibration(each: u64) -> Calibration {
    Calibration::new((0..10).map(|b| (each, (each as f64 * (b as f64 + 0.5) / 10.0).round() as u64)))
}

#[test]
fn the_estimate_follows_the_confidences() {
    let mut now = ByDevice::new(10);
    for _ in 0..8 {
        now.push([0, 0, 0, 0, 0, 100, 0, 0, 0, 100]);
    }
    let accuracy = calibration(1000).estimate(&now, &Bootstrap::default()).expect("an estimate");
    assert!((accuracy.estimate - 0.75).abs() < 1e-3 && (accuracy.reference - 0.5).abs() < 1e-9, "{accuracy:?}");
    let interval = accuracy.interval.expect("an interval");
    assert!(interval.low < 0.75 && 0.75 < interval.high && interval.high - interval.low < 0.08, "{interval:?}");
    assert_eq!((accuracy.n, accuracy.m, accuracy.unsupported), (1600, 10_000, 0.0));
}

#[test]
fn bins_that_the_reference_hardly_had_rest_on_the_confidence_and_are_counted() {
    let mut now = ByDevice::new(10);
    now.push([0, 0, 0, 50, 0, 0, 0, 0, 0, 50]);
    let reference = Calibration::new((0..10).map(|b| if b == 9 { (500, 500) } else { (0, 0) }));
    let accuracy = reference.estimate(&now, &Bootstrap::default()).expect("an estimate");
    assert!((accuracy.estimate - 0.5 * (0.35 + 1.0)).abs() < 1e-3, "{accuracy:?}");
    assert_eq!(accuracy.unsupported, 0.5);
}

#[test]
fn nothing_gives_no_estimate() {
    let estimate = |calibration: Calibration, bins: usize, counts: &[u64]| {
        let mut now = ByDevice::new(bins);
        now.push(counts.iter().copied());
        calibration.estimate(&now, &Bootstrap::default())
    };
    assert_eq!(estimate(calibration(0), 10, &[1; 10]), None);
    assert_eq!(estimate(calibration(9), 9, &[1; 9]), None);
    assert_eq!(estimate(calibration(9), 10, &[]), None);
    assert_eq!(Calibration::new([(3, 7)]).bins(), [(3, 3)]);
}

#[test]
fn intervals_hold_the_accuracy_as_often_as_they_say() {
    let mut random = Random::new(31);
    let bootstrap = Bootstrap { resamples: 300, confidence: 0.95, ..Bootstrap::default() };
    let truth = |bin: usize| 0.4 + 0.06 * bin as f64;
    let mut held = 0;
    for _ in 0..200 {
        let bins: Vec<(u64, u64)> =
            (0..10).map(|b| (120, (0..120).filter(|_| random.uniform() < truth(b)).count() as u64)).collect();
        let mut now = ByDevice::new(10);
        let mut expected = 0.0;
        for _ in 0..30 {
            let shares = random.dirichlet(&[2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
            now.push(shares.iter().map(|s| (100.0 * s).round() as u64));
        }
        let sums = [2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        for (b, s) in sums.iter().enumerate() {
            expected += s / 15.0 * truth(b);
        }
        let interval = Calibration::new(bins).estimate(&now, &bootstrap).and_then(|a| a.interval).expect("an interval");
        held += u32::from(interval.low <= expected && expected <= interval.high);
    }
    assert!(held >= 178, "{held} of 200, expected about 190");
}
