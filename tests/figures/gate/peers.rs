//! How others decide, on the same streams. Each gives the day on which it would have taken the candidate back.

use super::stream::Day;

#[derive(Clone, Copy)]
pub(crate) enum Peer {
    /// Kayenta's classifier: the confidence interval (98 %) of the Hodges-Lehmann shift between daily rates lies above a
    /// quarter of the estimate. From the third day on; each look has all days so far.
    MannWhitney,
    /// AWS IoT Jobs: stop when at least so many executions ended and at least so many percent of these failed. Looked at
    /// after each execution.
    Executions { least: u32, percent: u32 },
    /// hawkBit: the group's error threshold, in percent of all its devices.
    Group { percent: u32 },
    /// A pooled z-test of all device-days so far, one-sided at 1 %, every day.
    Z,
}

pub(crate) const PEERS: [Peer; 5] = [
    Peer::MannWhitney,
    Peer::Executions { least: 20, percent: 10 },
    Peer::Executions { least: 100, percent: 5 },
    Peer::Group { percent: 10 },
    Peer::Z,
];

impl Peer {
    pub(crate) fn name(self) -> String {
        match self {
            Self::MannWhitney => "mann_whitney".into(),
            Self::Executions { least, percent } => format!("executions_{percent}%_of_{least}"),
            Self::Group { percent } => format!("group_{percent}%"),
            Self::Z => "peeking_z".into(),
        }
    }

    pub(crate) fn day(self, stream: &[Day]) -> Option<u32> {
        let find = |alarm: &dyn Fn(&[Day]) -> bool| (1..=stream.len()).find(|n| alarm(&stream[..*n])).map(|n| n as u32);
        match self {
            Self::MannWhitney => find(&|days| days.len() >= 3 && mann_whitney(days)),
            Self::Z => find(&z_test),
            Self::Executions { least, percent } => executions(stream, least, percent),
            Self::Group { percent } => {
                let devices: u32 = stream.iter().map(|d| d.executed.of).sum();
                find(&|days| days.iter().map(|d| d.executed.bad).sum::<u32>() * 100 >= percent * devices.max(1))
            }
        }
    }
}

/// Executions end one after the other; the failed ones of a day are spread evenly.
fn executions(stream: &[Day], least: u32, percent: u32) -> Option<u32> {
    let (mut ended, mut failed) = (0, 0);
    for (day, Day { executed, .. }) in (1..).zip(stream) {
        for i in 0..executed.of {
            ended += 1;
            failed += (i + 1) * executed.bad / executed.of - i * executed.bad / executed.of;
            if ended >= least && failed * 100 >= percent * ended {
                return Some(day);
            }
        }
    }
    None
}

fn z_test(days: &[Day]) -> bool {
    let sum = |get: fn(&Day) -> u32| f64::from(days.iter().map(get).sum::<u32>());
    let (x, n) = (sum(|d| d.canary.bad), sum(|d| d.canary.of));
    let (y, m) = (sum(|d| d.control.bad), sum(|d| d.control.of));
    let pooled = (x + y) / (n + m);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    deviation > 0.0 && (x / n - y / m) / deviation > 2.3263
}

fn mann_whitney(days: &[Day]) -> bool {
    let rate = |bad: u32, of: u32| f64::from(bad) / f64::from(of.max(1));
    let canary: Vec<f64> = days.iter().map(|d| rate(d.canary.bad, d.canary.of)).collect();
    let control: Vec<f64> = days.iter().map(|d| rate(d.control.bad, d.control.of)).collect();
    let mut shifts: Vec<f64> = canary.iter().flat_map(|a| control.iter().map(move |b| a - b)).collect();
    shifts.sort_unstable_by(f64::total_cmp);
    let n = days.len() as f64;
    // The interval's ends are order statistics of the shifts, at the normal approximation of the rank sum's quantile.
    let below = n * n / 2.0 - 2.3263 * (n * n * (2.0 * n + 1.0) / 12.0).sqrt();
    let low = shifts[(below.floor().max(0.0)) as usize];
    let estimate = (shifts[(shifts.len() - 1) / 2] + shifts[shifts.len() / 2]) / 2.0;
    low > 0.25 * estimate && low > 0.0
}
