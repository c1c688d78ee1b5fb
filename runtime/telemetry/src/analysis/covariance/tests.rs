use super::*;

#[test]
fn points_that_do_not_fit_are_refused_and_leave_no_trace() {
    let mut moments = Moments::new(2);
    moments.push(&[1.0, 2.0]).expect("a point");
    assert_eq!(moments.push(&[1.0]), Err(CovarianceError::Dimension { expected: 2, got: 1 }));
    assert_eq!(moments.push(&[1.0, f64::NAN]), Err(CovarianceError::NotFinite));
    assert_eq!(moments.merge(&Moments::new(3)), Err(CovarianceError::Dimension { expected: 2, got: 3 }));
    assert_eq!((moments.n(), moments.mean()), (1, &[1.0, 2.0][..]));
    assert_eq!(moments.covariance(), Err(CovarianceError::TooFewPoints));
    moments.push(&[1.0, 2.0]).expect("a point");
    assert_eq!(Whitening::new(&moments, 2, 0.1), Err(CovarianceError::NoVariance));
    for asked in [0, 3] {
        assert_eq!(Whitening::new(&moments, asked, 0.1), Err(CovarianceError::Axes { dimension: 2, asked }));
    }
}

#[test]
fn whitened_points_have_no_mean_and_a_unit_covariance() {
    let mut random = crate::analysis::Random::new(9);
    let mut moments = Moments::new(3);
    let points: Vec<Vec<f64>> = (0..500)
        .map(|_| {
            let (a, b) = (random.normal(), random.normal());
            vec![5.0 + 3.0 * a, a + 0.5 * b, random.normal() - 2.0 * b]
        })
        .collect();
    points.iter().for_each(|p| moments.push(p).expect("a point"));
    let whitening = Whitening::new(&moments, 3, 0.0).expect("variance");
    let mut white = Moments::new(3);
    points.iter().for_each(|p| white.push(&whitening.apply(p)).expect("a point"));
    let identity = white.covariance().expect("points");
    assert!(white.mean().iter().all(|m| m.abs() < 1e-10));
    assert!((identity - DMatrix::identity(3, 3)).abs().max() < 1e-9);
    assert!((whitening.explained() - 1.0).abs() < 1e-12);
    // A constant value is no obstacle once the covariance is drawn towards a multiple of the identity.
    let mut flat = Moments::new(2);
    (0..50).for_each(|i| flat.push(&[f64::from(i), 1.0]).expect("a point"));
    assert!(Whitening::new(&flat, 2, 0.0).is_err());
    assert!(Whitening::new(&flat, 2, 0.05).is_ok());
}

#[test]
fn shrinking_keeps_the_trace() {
    let s = DMatrix::from_row_slice(2, 2, &[4.0, 1.0, 1.0, 2.0]);
    assert_eq!(shrink(&s, 0.0), s);
    assert_eq!(shrink(&s, 1.0), DMatrix::identity(2, 2) * 3.0);
    assert_eq!(shrink(&s, 0.5), DMatrix::from_row_slice(2, 2, &[3.5, 0.5, 0.5, 2.5]));
}
