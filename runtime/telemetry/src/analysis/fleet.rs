//! A fleet's window: what every device counted, and all verdicts on it.

use std::collections::BTreeMap;

use super::accuracy::Calibration;
use super::device::ByDevice;
use super::verdict::{Criteria, Statistic, Verdict};

/// What the reference counted, in the bins that devices count in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    /// Inferences by class.
    pub class: Vec<u64>,
    /// Inferences and right answers by confidence; right answers are `None` without labels.
    pub confidence: Vec<(u64, Option<u64>)>,
    /// Inferences by squared distance from the reference's mean.
    pub distance: Vec<u64>,
    /// Values that are watched on their own, by name.
    pub features: Vec<Feature>,
    /// Inferences that it was made of; 0 without a reference.
    pub n: u64,
    /// Points that the whitening was made from; 0 without one.
    pub points: u64,
    /// Axes of whitened points that are in use; sums beyond them are not looked at.
    pub axes: usize,
}

/// A watched value's bins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Feature {
    /// What it is.
    pub name: String,
    /// The bins' edges, one more than bins; empty where the bins are open.
    pub edges: Vec<f64>,
    /// Inferences by bin.
    pub counts: Vec<u64>,
}

/// What one device counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Inferences by class.
    pub class: Vec<u64>,
    /// Inferences by confidence.
    pub confidence: Vec<u64>,
    /// Inferences by squared distance.
    pub distance: Vec<u64>,
    /// Inferences by bin, for each watched value.
    pub features: Vec<Vec<u64>>,
    /// Points in `sum`.
    pub points: u64,
    /// Sum of the whitened points.
    pub sum: Vec<f64>,
    /// Inputs that are not what inputs should be, no numbers, saturated or stuck, and the others.
    pub inputs: [u64; 2],
}

impl Tally {
    /// Adds what was counted later, or elsewhere.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.class, &other.class);
        add(&mut self.confidence, &other.confidence);
        add(&mut self.distance, &other.distance);
        if self.features.len() < other.features.len() {
            self.features.resize(other.features.len(), Vec::new());
        }
        for (mine, other) in self.features.iter_mut().zip(&other.features) {
            add(mine, other);
        }
        self.points = self.points.saturating_add(other.points);
        if self.sum.len() < other.sum.len() {
            self.sum.resize(other.sum.len(), 0.0);
        }
        self.sum.iter_mut().zip(&other.sum).for_each(|(a, b)| *a += b);
        self.inputs.iter_mut().zip(other.inputs).for_each(|(a, b)| *a = a.saturating_add(b));
    }
}

fn add(to: &mut Vec<u64>, from: &[u64]) {
    if to.len() < from.len() {
        to.resize(from.len(), 0);
    }
    to.iter_mut().zip(from).for_each(|(a, b)| *a = a.saturating_add(*b));
}

/// A window of many devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    devices: BTreeMap<u64, Tally>,
}

impl Fleet {
    /// Adds a device's counts to what is known of it.
    pub fn add(&mut self, device: u64, tally: &Tally) {
        self.devices.entry(device).or_default().merge(tally);
    }

    /// Adds the devices of another window.
    pub fn merge(&mut self, other: &Self) {
        for (device, tally) in &other.devices {
            self.add(*device, tally);
        }
    }

    /// Devices heard of.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// All devices together.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.devices.values().for_each(|t| total.merge(t));
        total
    }

    /// Counts by device of one part of the tallies.
    #[must_use]
    pub fn by_device<'a>(&'a self, bins: usize, part: impl Fn(&'a Tally) -> &'a [u64]) -> ByDevice {
        let mut all = ByDevice::new(bins);
        for tally in self.devices.values() {
            all.push(part(tally).iter().copied());
        }
        all
    }

    /// All verdicts that the baseline allows, in a fixed order: class, confidence, distance, watched values by PSI and,
    /// where bins have an order, by Jensen-Shannon, Kolmogorov-Smirnov and Wasserstein; the mean of embeddings; the
    /// accuracy without labels; and how many inputs are bad, where the reference's are taken to be good.
    #[must_use]
    pub fn verdicts(&self, baseline: &Baseline, criteria: &Criteria) -> Vec<Verdict> {
        let mut all = Vec::new();
        let unordered = [Statistic::Psi, Statistic::JensenShannon];
        let ordered = [Statistic::Psi, Statistic::JensenShannon, Statistic::KolmogorovSmirnov];
        let mut counts =
            |subject: &str, now: &ByDevice, reference: &[u64], edges: Option<&[f64]>, which: &[Statistic]| {
                for &statistic in which {
                    all.push(Verdict::of_counts(subject, statistic, now, reference, edges, criteria));
                }
            };
        if !baseline.class.is_empty() {
            let now = self.by_device(baseline.class.len(), |t| &t.class);
            counts("class", &now, &baseline.class, None, &unordered);
        }
        let confidence = self.by_device(baseline.confidence.len(), |t| &t.confidence);
        if !baseline.confidence.is_empty() {
            let reference: Vec<u64> = baseline.confidence.iter().map(|b| b.0).collect();
            counts("confidence", &confidence, &reference, None, &ordered);
        }
        if !baseline.distance.is_empty() {
            let now = self.by_device(baseline.distance.len(), |t| &t.distance);
            counts("distance", &now, &baseline.distance, None, &ordered);
        }
        for (i, feature) in baseline.features.iter().enumerate() {
            let now = self.by_device(feature.counts.len(), |t| t.features.get(i).map_or(&[], Vec::as_slice));
            if feature.edges.is_empty() {
                counts(&feature.name, &now, &feature.counts, None, &ordered);
            } else {
                let all = [ordered[0], ordered[1], ordered[2], Statistic::Wasserstein];
                counts(&feature.name, &now, &feature.counts, Some(&feature.edges), &all);
            }
        }
        if baseline.points > 0 {
            let means: Vec<(u64, Vec<f64>)> = self
                .devices
                .values()
                .filter(|t| t.points > 0)
                .map(|t| (t.points, t.sum.iter().take(baseline.axes).map(|s| s / t.points as f64).collect()))
                .collect();
            all.push(Verdict::of_means("embedding", &means, baseline.points, criteria));
        }
        let labelled: Option<Vec<(u64, u64)>> =
            baseline.confidence.iter().map(|&(n, right)| Some((n, right?))).collect();
        if let Some(bins) = labelled.filter(|bins| !bins.is_empty()) {
            all.push(Verdict::of_accuracy("accuracy", &confidence, &Calibration::new(bins), criteria));
        }
        if baseline.n > 0 {
            all.push(Verdict::of_rate("bad inputs", &self.by_device(2, |t| &t.inputs), [0, baseline.n], criteria));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Level, Random};

    fn baseline() -> Baseline {
        Baseline {
            class: vec![500, 500],
            confidence: vec![(100, Some(50)), (900, Some(870))],
            distance: vec![600, 300, 100],
            features: vec![
                Feature { name: "mean".into(), edges: vec![0.0, 1.0, 2.0, 3.0], counts: vec![300, 400, 300] },
                Feature { name: "open".into(), edges: Vec::new(), counts: vec![500, 500] },
            ],
            n: 1000,
            points: 1000,
            axes: 2,
        }
    }

    fn tally(share: f64, random: &mut Random) -> Tally {
        let mut noisy = |n: f64| (n + random.normal()).max(0.0) as u64;
        Tally {
            class: vec![noisy(50.0), noisy(50.0)],
            confidence: vec![noisy(100.0 * share), noisy(100.0 - 100.0 * share)],
            distance: vec![noisy(60.0), noisy(30.0), noisy(10.0)],
            features: vec![vec![noisy(30.0), noisy(40.0), noisy(30.0)], vec![50, 50]],
            points: 100,
            sum: vec![random.normal(), random.normal()],
            inputs: [0, 100],
        }
    }

    #[test]
    fn every_part_of_the_baseline_has_its_verdicts() {
        let mut random = Random::new(41);
        let level = |share: f64, random: &mut Random| {
            let mut fleet = Fleet::default();
            for device in 0..12 {
                let tally = tally(share, random);
                fleet.add(device, &tally);
            }
            fleet.verdicts(&baseline(), &Criteria::default())
        };
        let steady = level(0.1, &mut random);
        let names: Vec<String> = steady.iter().map(|v| format!("{} {}", v.subject, v.statistic.name())).collect();
        assert_eq!(names.len(), 2 + 3 + 3 + 4 + 3 + 1 + 1 + 1, "{names:?}");
        assert!(steady.iter().all(|v| v.level == Level::Steady), "{steady:?}");
        let unsure = level(0.6, &mut random);
        for verdict in unsure {
            let moved = verdict.subject == "confidence" || verdict.subject == "accuracy";
            assert_eq!(verdict.level == Level::Act, moved, "{verdict:?}");
        }
    }

    #[test]
    fn counts_of_a_device_are_one_device() {
        let mut random = Random::new(42);
        let (mut a, mut b) = (Fleet::default(), Fleet::default());
        let (x, y) = (tally(0.1, &mut random), tally(0.3, &mut random));
        a.add(7, &x);
        a.add(7, &y);
        let mut both = x.clone();
        both.merge(&y);
        b.add(7, &both);
        assert_eq!((a.clone(), a.devices()), (b, 1));
        assert_eq!(a.total(), both);
        let none = Fleet::default().verdicts(&baseline(), &Criteria::default());
        assert!(none.len() == 18 && none.iter().all(|v| v.level == Level::NotEnoughData));
        assert!(a.verdicts(&Baseline::default(), &Criteria::default()).is_empty());
    }
}
