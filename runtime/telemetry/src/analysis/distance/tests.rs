use proptest::prelude::*;

use super::*;

#[test]
fn what_cannot_be_compared_is_refused() {
    let error = |now: &[u64], reference: &[u64]| Compared::new(now, reference).err();
    assert_eq!(error(&[1, 2], &[1]), Some(CompareError::Bins { now: 2, reference: 1 }));
    assert_eq!(error(&[1], &[1]), Some(CompareError::TooFewBins));
    assert_eq!(error(&[], &[]), Some(CompareError::TooFewBins));
    assert_eq!(error(&[0, 0], &[1, 1]), Some(CompareError::NothingNow));
    assert_eq!(error(&[1, 1], &[0, 0]), Some(CompareError::NothingInReference));
}

#[test]
fn edges_that_do_not_fit_give_no_distance() {
    let compared = Compared::new(&[1, 2], &[2, 1]).expect("counts");
    for edges in [&[0.0, 1.0][..], &[0.0, 2.0, 1.0], &[0.0, 1.0, f64::INFINITY], &[f64::NAN, 1.0, 2.0]] {
        assert_eq!(compared.wasserstein(edges), None, "{edges:?}");
    }
    // All of a bin moved by one bin's width.
    let moved = Compared::new(&[10, 0, 0], &[0, 10, 0]).expect("counts");
    assert_eq!(moved.wasserstein(&[0.0, 3.0, 6.0, 7.0]), Some(3.0));
    assert_eq!((moved.kolmogorov_smirnov(), moved.jensen_shannon()), (1.0, 1.0));
}

proptest! {
    #[test]
    fn distances_are_distances(
        pairs in prop::collection::vec((0u64..1 << 28, 0u64..1 << 28), 2..40),
        more in 1u64..1000,
    ) {
        let (mut now, mut reference): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
        now[0] += more;
        reference[1] += more;
        let (a, b) = (Compared::new(&now, &reference).expect("counts"), Compared::new(&reference, &now).expect("counts"));
        let same = Compared::new(&now, &now).expect("counts");
        let edges: Vec<f64> = (0..=now.len()).map(|e| e as f64).collect();
        let all = |c: &Compared<'_>| [c.psi(), c.jensen_shannon(), c.kolmogorov_smirnov(), c.wasserstein(&edges).expect("edges"),
            c.chi_square().statistic, c.g_test().statistic];
        for ((x, y), zero) in all(&a).into_iter().zip(all(&b)).zip(all(&same)) {
            prop_assert!(x.is_finite() && x >= -1e-5 * x.abs().max(1.0), "{x}");
            prop_assert!((x - y).abs() <= 1e-6 * x.abs().max(10.0), "not symmetric: {x} {y}");
            prop_assert!(zero.abs() < 1e-5, "of the same counts {zero}");
        }
        prop_assert!(a.jensen_shannon() <= 1.0 && a.kolmogorov_smirnov() <= 1.0 + 1e-12);
        prop_assert!((0.0..=1.0).contains(&a.chi_square().p));
    }

    #[test]
    fn any_counts_at_all_give_numbers(now in prop::collection::vec(any::<u64>(), 0..6), reference in prop::collection::vec(any::<u64>(), 0..6)) {
        if let Ok(compared) = Compared::new(&now, &reference) {
            prop_assert!(compared.psi().is_finite() && compared.noise().is_finite() && compared.kolmogorov_smirnov().is_finite());
            prop_assert!(!compared.chi_square().p.is_nan());
        }
    }
}
