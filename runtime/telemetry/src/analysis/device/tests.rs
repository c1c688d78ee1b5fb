use super::*;

fn devices(rows: &[&[u64]]) -> ByDevice {
    let mut all = ByDevice::new(2);
    rows.iter().for_each(|r| all.push(r.iter().copied()));
    all
}

#[test]
fn devices_without_counts_are_none() {
    let all = devices(&[&[1, 2], &[0, 0], &[3], &[4, 5, 6]]);
    assert_eq!((all.devices(), all.total()), (3, vec![8, 7]));
    assert!(devices(&[]).total() == [0, 0] && ByDevice::new(0).bins() == 1);
}

#[test]
fn the_same_counts_give_the_same_interval() {
    let now = devices(&[&[90, 10], &[70, 30], &[80, 25], &[85, 15], &[60, 40], &[75, 20]]);
    let share = |now: &[u64], _: &[u64]| now[1] as f64 / (now[0] + now[1]) as f64;
    let bootstrap = Bootstrap::default();
    let interval = bootstrap.interval(&now, &[100, 100], share).expect("an interval");
    assert_eq!(bootstrap.interval(&now, &[100, 100], share), Some(interval));
    assert_eq!(interval.unit, Unit::Device);
    assert!(interval.low < 140.0 / 600.0 && 140.0 / 600.0 < interval.high, "{interval:?}");
    let other = Bootstrap { seed: 1, ..bootstrap }.interval(&now, &[100, 100], share).expect("an interval");
    assert_ne!(other, interval);
    assert!((other.low - interval.low).abs() < 0.02 && (other.high - interval.high).abs() < 0.02);
    let few = bootstrap.interval(&devices(&[&[90, 10], &[70, 30]]), &[100, 100], share).expect("an interval");
    assert_eq!(few.unit, Unit::Inference);
    assert_eq!(bootstrap.interval(&devices(&[]), &[1, 1], share), None);
    assert_eq!(Bootstrap { resamples: 0, ..bootstrap }.interval(&now, &[1, 1], share), None);
    assert_eq!(bootstrap.interval(&now, &[1, 1], |_, _| f64::NAN), None);
}

#[test]
fn intervals_hold_the_mean_as_often_as_they_say() {
    let mut random = Random::new(21);
    let bootstrap = Bootstrap { resamples: 300, confidence: 0.9, ..Bootstrap::default() };
    let mut held = 0;
    for _ in 0..400 {
        let mut now = ByDevice::new(2);
        for _ in 0..40 {
            let (a, b) = (random.gamma(6.0), random.gamma(2.0));
            let with = (0..50).filter(|_| random.uniform() < b / (a + b)).count() as u64;
            now.push([50 - with, with]);
        }
        let share = |now: &[u64], _: &[u64]| now[1] as f64 / (now[0] + now[1]).max(1) as f64;
        let interval = bootstrap.interval(&now, &[1, 1], share).expect("an interval");
        held += u32::from(interval.low <= 0.25 && 0.25 <= interval.high);
    }
    assert!((335..=385).contains(&held), "{held} of 400, expected about 360");
}

#[test]
fn quantiles_lie_between_neighbours() {
    assert_eq!(quantile(&[], 0.5), None);
    assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
    assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
}
