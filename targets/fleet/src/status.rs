//! State of a rollout as `GET /v1/rollouts/{rollout}` serves it: one set of types for the server, its dashboard and the
//! command line.
//!
//! Field `stage` counts from 0, as in requests; every `number` and every text counts from 1. Moments are seconds since
//! 1970, UTC. Fields that were added later have defaults, so that a client reads answers of an older server.

use dunlin_rollout::Phase;
use dunlin_rollout::gate::Place;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A rollout as it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Its id, which is its name.
    pub id: String,
    /// The model.
    pub model: String,
    /// Digests of the candidates.
    pub candidates: Vec<String>,
    /// Versions of the candidates, in the same order.
    #[serde(default)]
    pub versions: Vec<String>,
    /// The digest it starts from and goes back to.
    #[serde(default)]
    pub base: Option<String>,
    /// The version of the base.
    #[serde(default)]
    pub base_version: Option<String>,
    /// Whether devices that confirmed the candidate cannot go back to the base, whose security counter is lower.
    #[serde(default)]
    pub irreversible: bool,
    /// `Draft`, `Running`, `Awaiting`, `Paused`, `Completed` or `RolledBack`.
    #[schema(value_type = String)]
    pub phase: Phase,
    /// The stage, from 0, as requests name it.
    pub stage: u8,
    /// The stage, from 1, as people count it.
    #[serde(default)]
    pub stage_number: u32,
    /// The attempt, from 1: rises with each retry.
    #[serde(default)]
    pub attempt: u16,
    /// All stages, in their order.
    #[serde(default)]
    pub stages: Vec<StageStatus>,
    /// The moment of this answer.
    #[serde(default)]
    pub as_of: i64,
    /// When its stage began; 0: it has not started.
    #[serde(default)]
    pub entered: i64,
    /// Who started it.
    #[serde(default)]
    pub started_by: String,
    /// Where it is and why, in one line.
    #[serde(default)]
    pub status_line: String,
    /// The newest act of a person or of the server.
    #[serde(default)]
    pub last_action: Option<LastAction>,
    /// What would be decided now, and why; of a rollout that is not judged now, the status line.
    #[serde(default)]
    pub verdict: String,
    /// When the server decides next; in the past when that is due. Absent: it decides nothing before a person acts.
    #[serde(default)]
    pub next_decision_at: Option<i64>,
    /// What it takes to leave the stage. Empty when the rollout is not running.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// Devices that the stage is meant for, estimated from the shares and the devices of today. Absent: not running.
    #[serde(default)]
    pub planned: Option<u64>,
    /// How far a rollback has come. Absent: none was ordered.
    #[serde(default)]
    pub rollback: Option<RollbackProgress>,
    /// Sequence of its documents.
    #[serde(default)]
    pub sequence: i64,
    /// What was asked for.
    #[schema(value_type = Object)]
    #[serde(default)]
    pub request: Value,
    /// The arms side by side.
    #[serde(default)]
    pub arms: Arms,
    /// How far a candidate in the shadow agrees with what serves. Absent: no shadow has reported.
    #[serde(default)]
    pub agreement: Option<Agreement>,
    /// Devices that have a candidate now by what they said last: it serves, runs in the shadow, or takes turns.
    #[serde(default)]
    pub succeeded: i64,
    /// Devices that went back on their own, because the candidate failed on them.
    #[serde(default)]
    pub reverted: i64,
    /// Devices that had the candidate and went back because the fleet ordered it.
    #[serde(default)]
    pub returned: i64,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageStatus {
    /// Its number, from 1.
    pub number: u32,
    /// Its name: the share or the ring that it reaches.
    pub name: String,
    /// What its devices are compared with, and how.
    pub reaches: String,
    /// Hours that it lasts at least.
    pub hours: u32,
    /// Devices of the canary that have to report.
    pub devices: u32,
    /// Device-days of the canary that have to be reported.
    pub device_days: u32,
    /// Whether a person has to approve before it begins.
    pub approval: bool,
}

/// An act that changed a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastAction {
    /// Of a person `start`, `pause`, `resume`, `abort`, `approve`, `advance`, `waive` or `retry`; of the server `advance`,
    /// `approval`, `pause`, `rollback` or `completed`.
    pub action: String,
    /// The name of the person's token, or `server`.
    pub by: String,
    /// When.
    pub at: i64,
    /// Why, as the person typed it or as the server decided. Absent: no reason was given.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A quantity that a stage asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedKind {
    /// Hours since the stage began.
    Hours,
    /// Devices of the canary that have reported.
    Devices,
    /// Device-days of the canary that were reported and counted.
    DeviceDays,
}

impl NeedKind {
    /// Returns its name for people, in the plural.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hours => "hours",
            Self::Devices => "devices that report",
            Self::DeviceDays => "device-days",
        }
    }
}

/// How much of a quantity a stage has, and how much it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Need {
    /// The quantity.
    pub what: NeedKind,
    /// So much there is.
    pub found: u64,
    /// So much it takes.
    pub needed: u64,
}

impl Need {
    /// Returns how much is missing.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.needed.saturating_sub(self.found)
    }
}

/// Progress of a rollback that was ordered, in devices that had the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RollbackProgress {
    /// When it was ordered.
    pub ordered_at: i64,
    /// The name of the person's token, or `server`.
    pub by: String,
    /// Why. Absent: no reason was given.
    #[serde(default)]
    pub reason: Option<String>,
    /// Devices that were offered the way back.
    pub told: u64,
    /// Of those, devices that run something else again.
    pub back: u64,
    /// Devices that run the candidate still and were heard of lately.
    pub running: u64,
    /// Devices that ran the candidate when they were last heard of, three poll intervals ago or earlier.
    pub silent: u64,
    /// Devices that run the candidate and cannot go back: the base failed on them before, is below their security counter, or
    /// is not there.
    #[serde(default)]
    pub blocked: u64,
}

impl RollbackProgress {
    /// Returns the number of devices that the rollback is about.
    #[must_use]
    pub const fn devices(&self) -> u64 {
        self.back + self.running + self.silent
    }
}

/// The arms side by side.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Arms {
    /// Devices by how far they came.
    #[serde(default)]
    pub ways: Vec<ArmDevices>,
    /// Bad device-days by guardrail; in a crossover, bad halves of device-days.
    #[serde(default)]
    pub guardrails: Vec<GuardrailStatus>,
    /// Metrics against their margins.
    #[serde(default)]
    pub metrics: Vec<MetricStatus>,
}

/// Devices of an arm by how far they came.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ArmDevices {
    /// `candidate0` and so on, `control`, `both` where devices take turns, or `rest`.
    pub arm: String,
    /// Devices in it.
    pub assigned: i64,
    /// Devices that have downloaded the package.
    pub downloaded: i64,
    /// Devices that have activated it.
    pub activated: i64,
    /// Devices that have reported since.
    pub reported: i64,
    /// Devices that have a candidate now, however it runs.
    pub runs_candidate: i64,
    /// Those of them on which it runs in the shadow.
    #[serde(default)]
    pub in_shadow: i64,
    /// Those of them on which it takes turns with the base.
    #[serde(default)]
    pub takes_turns: i64,
    /// Devices that went back on their own.
    pub reverted: i64,
    /// Devices that went back because the fleet ordered it.
    #[serde(default)]
    pub returned: i64,
}

/// A value of the candidate's arm and one of the control's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pair<T> {
    /// The candidate's.
    pub canary: T,
    /// The control's.
    pub control: T,
}

/// A guardrail.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GuardrailStatus {
    /// The candidate, from 0.
    pub candidate: u8,
    /// Its name.
    pub guardrail: String,
    /// Bad device-days.
    #[schema(value_type = Object)]
    pub bad: Pair<u64>,
    /// Device-days.
    #[schema(value_type = Object)]
    pub of: Pair<u64>,
    /// Natural logarithm of the e-value. Absent: it is not a number.
    pub ln_e: Option<f64>,
    /// Evidence that the candidate is worse: decimal logarithm of the e-value. Absent: it is not a number.
    #[serde(default)]
    pub evidence: Option<f64>,
    /// Evidence at which the candidate is rolled back.
    #[serde(default)]
    pub evidence_limit: Option<f64>,
}

impl GuardrailStatus {
    /// Returns the evidence for people: `6.8 of 2.0`.
    #[must_use]
    pub fn evidence_text(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| "no data".to_owned(), |v| format!("{v:.1}"));
        format!("{} of {}", number(self.evidence), number(self.evidence_limit))
    }
}

/// A metric against its margin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MetricStatus {
    /// The candidate, from 0.
    pub candidate: u8,
    /// Its name.
    pub metric: String,
    /// Where the difference lies: `Inside`, `Outside`, `Undecided`, `TooFew`, `Incomplete` or `Unknown`.
    #[schema(value_type = String)]
    pub place: Place,
    /// Means.
    #[schema(value_type = Object)]
    pub mean: Pair<Option<f64>>,
    /// Devices.
    #[schema(value_type = Object)]
    pub devices: Pair<u64>,
    /// Devices that are in both arms.
    #[serde(default)]
    pub in_both: u64,
    /// By how much the candidate is worse than allowed. Absent: there is no interval yet.
    pub excess: Option<Bounds>,
}

/// An interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bounds {
    /// Lower end. Absent: unbounded.
    pub low: Option<f64>,
    /// Upper end. Absent: unbounded.
    pub high: Option<f64>,
}

/// How far a candidate in the shadow agrees with what serves.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Agreement {
    /// The mean over devices of the part of answers that were the same.
    pub mean: f64,
    /// Devices.
    pub devices: u64,
}

/// A draft, and what its stages could detect.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Drafted {
    /// Its id.
    pub id: String,
    /// Whether it is stored.
    pub stored: bool,
    /// Devices that could take part now.
    pub eligible: i64,
    /// Its stages in numbers.
    pub stages: Vec<StageOutlook>,
}

/// A stage in numbers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StageOutlook {
    /// The stage, from 0, as requests name it.
    pub stage: usize,
    /// Its number, from 1, as people count it.
    #[serde(default)]
    pub number: usize,
    /// Its name: the share or the ring that it reaches.
    #[serde(default)]
    pub name: String,
    /// What its devices are compared with, and how.
    #[serde(default)]
    pub reaches: String,
    /// Devices with the candidate, as many as there are now.
    pub canary: u32,
    /// Devices that are compared with them.
    pub control: u32,
    /// The smallest ratio of bad device-days to the control's that is found in two weeks with a probability of 80 %, when one
    /// device-day in a hundred is bad anyway. Absent: there are too few devices for statistics.
    pub minimum_detectable_ratio: Option<f64>,
    /// Whether a person has to approve before it begins, by the tenant's settings as they are now; of the first stage, before
    /// the start.
    pub approval: bool,
}

/// Returns a phase's name in the API and the database.
#[must_use]
pub const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Draft => "Draft",
        Phase::Running => "Running",
        Phase::Awaiting => "Awaiting",
        Phase::Paused => "Paused",
        Phase::Completed => "Completed",
        Phase::RolledBack => "RolledBack",
    }
}

/// Returns a phase in words.
#[must_use]
pub const fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Draft => "draft",
        Phase::Running => "running",
        Phase::Awaiting => "waits for approval",
        Phase::Paused => "paused",
        Phase::Completed => "completed",
        Phase::RolledBack => "rolled back",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_named_as_they_are_stored() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).expect("JSON"), phase_name(phase));
            assert_eq!(format!("{phase:?}"), phase_name(phase), "rows of older servers have this");
        }
    }

    #[test]
    fn an_answer_of_an_older_server_is_read() {
        let old = serde_json::json!({ "id": "r", "model": "m", "candidates": ["a"], "base": null, "phase": "Paused",
            "stage": 1, "entered": 5, "started_by": "bob", "verdict": "HOLD", "arms": { "ways": [] } });
        let status: Status = serde_json::from_value(old).expect("a status");
        assert_eq!((status.phase, status.stage, status.last_action), (Phase::Paused, 1, None));
    }
}
