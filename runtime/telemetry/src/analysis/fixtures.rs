//! The numbers of scipy and numpy, which `tests/fixtures/make.py` computed.

use serde_json::Value;

use super::*;

fn fixtures() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/analysis.json")).expect("the fixtures are JSON")
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().expect("an array").iter().map(floats).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().expect("an array").iter().map(|v| v.as_u64().expect("a count")).collect()
}

#[track_caller]
fn near(got: f64, expected: f64, relative: f64) {
    assert!((got - expected).abs() <= relative * expected.abs().max(1e-9), "{got}, and scipy has {expected}");
}

#[test]
fn distances_and_tests_of_counts() {
    let all = fixtures();
    let cases = all["counts"].as_array().expect("cases");
    assert!(cases.len() >= 16);
    for case in cases {
        let (now, reference) = (counts(&case["now"]), counts(&case["reference"]));
        let compared = Compared::new(&now, &reference).expect("counts that compare");
        let number = |key: &str| case[key].as_f64().expect("a number");
        near(compared.psi(), number("psi"), 1e-10);
        near(compared.noise(), number("noise"), 1e-12);
        near(compared.jensen_shannon(), number("jensen_shannon"), 1e-9);
        near(compared.kolmogorov_smirnov(), number("kolmogorov_smirnov"), 1e-10);
        for (test, key) in [(compared.chi_square(), "chi_square"), (compared.g_test(), "g_test")] {
            let expected = floats(&case[key]);
            near(test.statistic, expected[0], 1e-9);
            assert_eq!(f64::from(test.freedom), expected[1]);
            near(test.p, expected[2], 1e-8);
        }
        let edges = floats(&case["edges"]);
        let got = compared.wasserstein(&edges).expect("edges that rise");
        // scipy's is that of 4000 points a bin.
        let widest = edges.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
        assert!((got - number("wasserstein")).abs() < widest / 4000.0, "{got} and {}", number("wasserstein"));
    }
}

fn moments(points: &[Vec<f64>]) -> Moments {
    let mut moments = Moments::new(points[0].len());
    for point in points {
        moments.push(point).expect("a point");
    }
    moments
}

#[test]
fn covariance_axes_and_whitening() {
    let all = fixtures();
    let case = &all["covariance"];
    let points = rows(&case["points"]);
    let (a, b) = points.split_at(17);
    let (mut merged, other) = (moments(a), moments(b));
    merged.merge(&other).expect("the same dimension");
    for moments in [moments(&points), merged] {
        for (got, expected) in moments.mean().iter().zip(floats(&case["mean"])) {
            near(*got, expected, 1e-12);
        }
        let covariance = moments.covariance().expect("points");
        for (i, row) in rows(&case["covariance"]).iter().enumerate() {
            for (j, expected) in row.iter().enumerate() {
                near(covariance[(i, j)], *expected, 1e-11);
            }
        }
        let whitening = Whitening::new(&moments, 3, case["shrinkage"].as_f64().expect("a number")).expect("variance");
        near(whitening.explained(), case["explained"].as_f64().expect("a number"), 1e-12);
        for (i, row) in rows(&case["matrix"]).iter().enumerate() {
            for (got, expected) in whitening.row(i).iter().zip(row) {
                near(*got, *expected, 1e-8);
            }
        }
        for (point, expected) in points.iter().zip(rows(&case["whitened"])) {
            for (got, expected) in whitening.apply(point).iter().zip(&expected) {
                near(*got, *expected, 1e-7);
            }
        }
        // All axes without shrinkage: the plain Mahalanobis distance.
        let full = Whitening::new(&moments, 5, 0.0).expect("variance");
        for (point, expected) in points.iter().zip(floats(&case["full"])) {
            near(full.distance(point), expected, 1e-9);
        }
    }
}

#[test]
fn hotelling_by_inference_and_by_device() {
    let all = fixtures();
    let case = &all["hotelling"];
    let device = hotelling_by_device(&rows(&case["means"])).expect("25 devices in 4 dimensions");
    let expected = floats(&case["by_device"]);
    near(device.statistic, expected[0], 1e-9);
    near(device.p, expected[1], 1e-8);
    let (n, m) = (case["n"].as_u64().expect("n"), case["m"].as_u64().expect("m"));
    let inference = hotelling(&floats(&case["z"]), n, m);
    let expected = floats(&case["by_inference"]);
    near(inference.statistic, expected[0], 1e-10);
    near(inference.p, expected[1], 1e-8);
}

#[test]
fn random_features_approach_the_kernel() {
    let all = fixtures();
    let case = &all["mmd"];
    let (a, b) = (rows(&case["a"]), rows(&case["b"]));
    let exact = case["mmd2"].as_f64().expect("a number");
    let estimates: Vec<f64> = (0..20)
        .map(|seed| {
            let features = RandomFeatures::new(4, 256, case["width"].as_f64().expect("a number"), seed);
            let (x, y) = (features.mean(a.iter().map(Vec::as_slice)), features.mean(b.iter().map(Vec::as_slice)));
            mmd2(&x, a.len() as u64, &y, b.len() as u64).expect("points")
        })
        .collect();
    let mean = estimates.iter().sum::<f64>() / estimates.len() as f64;
    let deviation = (estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / 19.0).sqrt();
    // The mean of 20 draws of features within four standard errors of the kernel's own value, and near it at all.
    assert!((mean - exact).abs() < 4.0 * deviation / 20f64.sqrt(), "{mean} ± {deviation}, exactly {exact}");
    assert!(deviation < 0.3 * exact, "{deviation} {exact}");
}
