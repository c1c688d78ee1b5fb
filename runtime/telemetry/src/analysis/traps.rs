//! The two traps of drift detection, simulated: noise of few inferences, and devices that differ.

use super::*;

/// A fixed class mix.
const MIX: [f64; 10] = [0.14, 0.08, 0.1, 0.1, 0.12, 0.06, 0.1, 0.1, 0.1, 0.1];
/// Counts of a reference that follows it exactly.
const REFERENCE: [u64; 10] = [14_000, 8_000, 10_000, 10_000, 12_000, 6_000, 10_000, 10_000, 10_000, 10_000];

/// `n` draws from these shares.
fn draw(random: &mut Random, shares: &[f64], n: usize) -> Vec<u64> {
    let mut counts = vec![0; shares.len()];
    for _ in 0..n {
        let mut at = random.uniform();
        let mut class = 0;
        while class + 1 < shares.len() && at >= shares[class] {
            at -= shares[class];
            class += 1;
        }
        counts[class] += 1;
    }
    counts
}

#[test]
fn psi_of_few_inferences_is_noise_and_is_not_judged() {
    let mut random = Random::new(1);
    let share = |n: usize, random: &mut Random| {
        let above = (0..2000).filter(|_| {
            let now = draw(random, &MIX, n);
            Compared::new(&now, &REFERENCE).expect("counts").psi() > 0.1
        });
        above.count() as f64 / 2000.0
    };
    // The study of this trap found 77 %, 31 %, 2 % and about none.
    assert!(share(50, &mut random) > 0.6);
    assert!((0.2..0.45).contains(&share(100, &mut random)));
    assert!(share(200, &mut random) < 0.05);
    assert_eq!(share(500, &mut random), 0.0);

    for n in [50, 100, 499] {
        let mut now = ByDevice::new(10);
        now.push(draw(&mut random, &MIX, n));
        let verdict = Verdict::of_counts("class", Statistic::Psi, &now, &REFERENCE, None, &Criteria::default());
        assert_eq!((verdict.level, verdict.value, verdict.n), (Level::NotEnoughData, None, n as u64));
        assert!(verdict.reason.contains("500 are needed"), "{}", verdict.reason);
    }
}

#[test]
fn psi_without_its_noise_is_around_zero() {
    let mut random = Random::new(2);
    for n in [200, 500, 2000] {
        let (mut plain, mut adjusted) = (0.0, 0.0);
        for _ in 0..1000 {
            let (now, reference) = (draw(&mut random, &MIX, n), draw(&mut random, &MIX, 1000));
            let compared = Compared::new(&now, &reference).expect("counts");
            plain += compared.psi() / 1000.0;
            adjusted += compared.psi_adjusted() / 1000.0;
        }
        let noise = 9.0 * (1.0 / n as f64 + 1e-3);
        assert!((plain / noise - 1.0).abs() < 0.15, "{n}: {plain}, expected {noise}");
        assert!(adjusted.abs() < 0.15 * noise, "{n}: {adjusted}");
    }
}

/// A fleet in which every device has a class mix of its own around `mix`.
fn fleet(random: &mut Random, mix: &[f64], concentration: f64, devices: usize, each: usize) -> ByDevice {
    let weights: Vec<f64> = mix.iter().map(|m| m * concentration).collect();
    let mut all = ByDevice::new(mix.len());
    for _ in 0..devices {
        let shares = random.dirichlet(&weights);
        all.push(draw(random, &shares, each));
    }
    all
}

#[test]
fn devices_that_differ_deceive_the_test_of_inferences_and_not_the_verdict() {
    let mut random = Random::new(3);
    let bootstrap = Bootstrap { resamples: 400, ..Bootstrap::default() };
    let criteria = Criteria { bootstrap, ..Criteria::default() };
    // So large that the reference has no noise of its own.
    let reference = REFERENCE.map(|c| c * 1000);
    for (devices, fleets) in [(20, 200), (1000, 20)] {
        let (mut rejected, mut alarms) = (0, 0);
        for _ in 0..fleets {
            let now = fleet(&mut random, &MIX, 30.0, devices, 200);
            let verdict = Verdict::of_counts("class", Statistic::Psi, &now, &reference, None, &criteria);
            rejected += u32::from(verdict.p.expect("a probability") < 0.05);
            alarms += u32::from(verdict.level > Level::Steady);
        }
        assert!(f64::from(rejected) >= 0.9 * f64::from(fleets), "{devices} devices: {rejected} of {fleets}");
        assert_eq!(alarms, 0, "{devices} devices");
    }
}

#[test]
fn intervals_by_device_hold_zero_where_nothing_has_changed() {
    // Few and very different devices, so that the effect alone would be an alarm: the interval is what holds it back.
    let mut random = Random::new(4);
    let criteria = Criteria { bootstrap: Bootstrap { resamples: 400, ..Bootstrap::default() }, ..Criteria::default() };
    let (mut large, mut alarms) = (0, 0);
    for _ in 0..300 {
        let now = fleet(&mut random, &MIX, 4.0, 20, 100);
        let verdict = Verdict::of_counts("class", Statistic::Psi, &now, &REFERENCE, None, &criteria);
        large += u32::from(verdict.value.expect("a value") >= 0.1);
        alarms += u32::from(verdict.level > Level::Steady);
        assert_eq!(verdict.interval.expect("an interval").unit, Unit::Device);
    }
    assert!(large > 30, "only {large} of 300 effects were large: this tests nothing");
    assert!(alarms <= 6, "{alarms} of 300");
}

#[test]
fn a_real_change_is_found_among_devices_that_differ() {
    let mut random = Random::new(5);
    let mut moved = MIX;
    moved.swap(0, 5);
    moved[9] = 0.3;
    let sum: f64 = moved.iter().sum();
    moved.iter_mut().for_each(|m| *m /= sum);
    let criteria = Criteria::default();
    for _ in 0..20 {
        let now = fleet(&mut random, &moved, 30.0, 40, 200);
        let verdict = Verdict::of_counts("class", Statistic::Psi, &now, &REFERENCE, None, &criteria);
        assert!(verdict.level >= Level::Warn, "{verdict:?}");
        assert!(verdict.interval.expect("an interval").low > 0.0);
    }
}
