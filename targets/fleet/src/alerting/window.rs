//! Sums over the reports of the last hour, kept up to date: each report is read once.

use std::collections::{BTreeMap, HashMap, VecDeque};

use futures_util::TryStreamExt as _;
use sqlx::Row as _;

use crate::store::{Connection, signed};
use crate::summary::Summary;

/// Seconds that rates are of.
pub(super) const LENGTH: i64 = 3600;
/// Seconds after its arrival at which a report is read at the earliest: what a transaction takes to commit, and what the
/// replicas' clocks may differ by.
const SETTLE: i64 = 10;

/// What reports counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) reports: i64,
    pub(super) resets: i64,
    pub(super) inferences: i64,
    pub(super) errors: i64,
    pub(super) deadline_misses: i64,
}

impl Sums {
    pub(super) fn add(&mut self, other: &Self) {
        self.reports += other.reports;
        self.resets += other.resets;
        self.inferences = self.inferences.saturating_add(other.inferences);
        self.errors = self.errors.saturating_add(other.errors);
        self.deadline_misses = self.deadline_misses.saturating_add(other.deadline_misses);
    }
}

/// The last hour of one tenant, in minutes.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Reports that arrived before are in.
    read_to: i64,
    minutes: VecDeque<(i64, HashMap<String, Sums>)>,
}

impl Window {
    /// Reads what arrived since the last time; the first time, the whole hour.
    pub(super) async fn update(
        &mut self,
        connection: &mut Connection,
        tenant: &str,
        now: i64,
    ) -> Result<(), sqlx::Error> {
        let until = now - SETTLE;
        let from = self.read_to.max(until - LENGTH);
        let mut rows = sqlx::query(
            "SELECT arrived, digest, payload FROM reports WHERE tenant = $1 AND arrived >= $2 AND arrived < $3",
        )
        .bind(tenant)
        .bind(from)
        .bind(until)
        .fetch(connection);
        let mut fresh: BTreeMap<i64, HashMap<String, Sums>> = BTreeMap::new();
        while let Some(row) = rows.try_next().await? {
            let Some(digest) = row.try_get::<Option<String>, _>("digest")? else { continue };
            let payload: Vec<u8> = row.try_get("payload")?;
            let Some(seen) = Summary::of(&payload) else { continue };
            let minute: i64 = row.try_get::<i64, _>("arrived")? / 60;
            fresh.entry(minute).or_default().entry(digest).or_default().add(&Sums {
                reports: 1,
                resets: i64::from(seen.restarted),
                inferences: signed(seen.inferences),
                errors: signed(seen.errors),
                deadline_misses: signed(seen.deadline_misses),
            });
        }
        drop(rows);
        for (minute, sums) in fresh {
            match self.minutes.back_mut().filter(|(last, _)| *last == minute) {
                Some((_, known)) => {
                    sums.iter().for_each(|(digest, more)| known.entry(digest.clone()).or_default().add(more));
                }
                None => self.minutes.push_back((minute, sums)),
            }
        }
        self.read_to = until.max(self.read_to);
        while self.minutes.front().is_some_and(|(minute, _)| minute * 60 < until - LENGTH) {
            self.minutes.pop_front();
        }
        Ok(())
    }

    /// The sums by digest.
    pub(super) fn sums(&self) -> HashMap<&str, Sums> {
        let mut all: HashMap<&str, Sums> = HashMap::new();
        for (digest, sums) in self.minutes.iter().flat_map(|(_, minute)| minute) {
            all.entry(digest).or_default().add(sums);
        }
        all
    }
}
