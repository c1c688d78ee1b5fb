use super::*;

#[test]
fn nothing_is_no_evidence() {
    assert_eq!(hotelling(&[3.0], 0, 10), Hotelling { statistic: 0.0, p: 1.0 });
    assert_eq!(hotelling_by_device(&[]), None);
    assert_eq!(hotelling_by_device(&[vec![1.0, 2.0], vec![2.0, 1.0]]), None, "two devices in two dimensions");
    let flat: Vec<Vec<f64>> = (0..9).map(|i| vec![f64::from(i), 2.0]).collect();
    assert_eq!(hotelling_by_device(&flat), None, "in a plane");
    assert_eq!(mmd2(&[1.0], 1, &[1.0], 5), None);
    assert_eq!(mmd2(&[1.0], 5, &[1.0, 2.0], 5), None);
}

#[test]
fn devices_that_differ_deceive_the_test_of_inferences_only() {
    let mut random = Random::new(11);
    let (mut by_inference, mut by_device) = (0, 0);
    for _ in 0..300 {
        // No shift of the fleet, but each device has a mean of its own.
        let means: Vec<Vec<f64>> = (0..30).map(|_| (0..4).map(|_| 0.3 * random.normal()).collect()).collect();
        let z: Vec<f64> = (0..4).map(|i| means.iter().map(|m| m[i]).sum::<f64>() / 30.0).collect();
        by_inference += u32::from(hotelling(&z, 30 * 200, 100_000).p < 0.05);
        by_device += u32::from(hotelling_by_device(&means).expect("devices").p < 0.05);
    }
    assert!(by_inference > 285, "{by_inference} of 300");
    assert!((5..=28).contains(&by_device), "{by_device} of 300, expected about 15");
}

#[test]
fn means_of_features_are_around_zero_apart_without_change() {
    let mut random = Random::new(12);
    let features = RandomFeatures::new(3, 64, 2.5, 1);
    let mut sum = 0.0;
    for _ in 0..200 {
        let mut points =
            |n: usize| -> Vec<Vec<f64>> { (0..n).map(|_| (0..3).map(|_| random.normal()).collect()).collect() };
        let (a, b) = (points(50), points(80));
        let (x, y) = (features.mean(a.iter().map(Vec::as_slice)), features.mean(b.iter().map(Vec::as_slice)));
        sum += mmd2(&x, 50, &y, 80).expect("points") / 200.0;
    }
    assert!(sum.abs() < 2e-3, "{sum}");
    assert_eq!(features.mean([]), vec![0.0; 64]);
}
