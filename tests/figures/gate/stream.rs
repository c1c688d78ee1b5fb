//! Streams of device-days: 14 daily looks, a part of the devices reporting each day, a canary that ramps over three days,
//! and seasons that both arms share.

use dunlin_rollout::{Arrival, Attendance, Count, Counting};

use super::random::Random;

const DAYS: u32 = 14;
const RAMP: u32 = 3;

/// What arrives on a day.
#[derive(Clone, Copy, Default)]
pub(crate) struct Day {
    pub(crate) canary: Count,
    pub(crate) control: Count,
    /// Devices of the canary that reported for the first time, and of these the bad ones: what a job's execution is.
    pub(crate) executed: Count,
}

pub(crate) struct Fleet {
    pub(crate) canary: u32,
    pub(crate) control: u32,
    /// Bad device-days among those of the control, on an average day.
    pub(crate) rate: f64,
    /// How much that is more in the canary.
    pub(crate) ratio: f64,
    /// Part of the devices that report on a day.
    pub(crate) reporting: f64,
    /// Part of the devices, in both arms, that are bad every day whatever they run.
    pub(crate) chronic: f64,
    /// Of the reports that did not come on their day, the part that comes on the next, and so on.
    pub(crate) late: f64,
}

impl Fleet {
    pub(crate) fn new(canary: u32, control: u32, rate: f64, ratio: f64) -> Self {
        Self { canary, control, rate, ratio, reporting: 0.8, chronic: 0.0, late: 0.0 }
    }

    /// The factor of a day, of mean 1: weekends and weather.
    fn season(day: u32, random: &mut Random) -> f64 {
        let week = 1.0 + 0.3 * (f64::from(day) * std::f64::consts::TAU / 7.0).sin();
        week * (0.3 * random.normal() - 0.045).exp()
    }

    fn active(&self, day: u32) -> u32 {
        self.canary * (day + 1).min(RAMP) / RAMP
    }

    /// By counts: reports that do not come on their day are lost.
    pub(crate) fn stream(&self, random: &mut Random) -> Vec<Day> {
        let mut fresh = 0;
        (0..DAYS)
            .map(|day| {
                let season = Self::season(day, random);
                let bad = |ratio: f64| (self.rate * ratio * season).min(0.9);
                let (before, active) = (if day == 0 { 0 } else { self.active(day - 1) }, self.active(day));
                fresh += active - before;
                let first = random.binomial(fresh, self.reporting);
                let others = random.binomial(active - fresh, self.reporting);
                fresh -= first;
                let executed = Count::new(random.binomial(first, bad(self.ratio)), first);
                let canary = Count::new(executed.bad + random.binomial(others, bad(self.ratio)), first + others);
                let of = random.binomial(self.control, self.reporting);
                Day { canary, control: Count::new(random.binomial(of, bad(1.0)), of), executed }
            })
            .collect()
    }

    /// Device by device: reports that did not come on their day come later, some come twice, and attendance says which
    /// count.
    pub(crate) fn devices(&self, random: &mut Random, counting: Counting) -> Vec<Day> {
        let mut days = vec![Day::default(); DAYS as usize];
        let seasons: Vec<f64> = (0..DAYS).map(|day| Self::season(day, random)).collect();
        for device in 0..self.canary + self.control {
            let canary = device < self.canary;
            let first = if canary { device * RAMP / self.canary } else { 0 };
            let is_chronic = random.uniform() < self.chronic;
            let ratio = if canary { self.ratio } else { 1.0 };
            // Reports by the day they come; of one day in any order.
            let mut reports: Vec<(u32, u64, u32, bool)> = Vec::new();
            for day in first..DAYS {
                let bad = random.uniform() < (self.rate * ratio * seasons[day as usize]).min(0.9) || is_chronic;
                let mut at = day;
                if random.uniform() >= self.reporting {
                    if self.late == 0.0 {
                        continue;
                    }
                    at += 1;
                    while random.uniform() >= self.late {
                        at += 1;
                    }
                }
                reports.push((at, random.next(), day, bad));
                if random.uniform() < 0.1 {
                    reports.push((at + (random.next() % 3) as u32, random.next(), day, bad));
                }
            }
            reports.sort_unstable();
            let mut attendance = Attendance::default();
            for (at, _, day, bad) in reports.into_iter().filter(|r| r.0 < DAYS) {
                let Arrival::New { at_risk, bad } = attendance.arrive(day, u8::from(bad), counting) else { continue };
                let day = &mut days[at as usize];
                let arm = if canary { &mut day.canary } else { &mut day.control };
                arm.of += u32::from(at_risk & 1);
                arm.bad += u32::from(bad & 1);
            }
        }
        days
    }
}
