//! The story: a good version climbs to everybody, a bad one is caught and taken back.

use std::time::Instant;

use serde_json::{Value, json};

use super::tell;
use super::world::World;
use crate::failure::{Code, Failure, Outcome};
use crate::fleet::view;
use crate::flock::real::Score;

/// Hours that pass at once.
const STEP: u64 = 2;
/// Days after which a rollout should have come to its end.
const PATIENCE: f64 = 21.0;
/// Days within which all devices should be back.
const RETURN: f64 = 5.0;

/// A rollout as it went.
struct Chapter {
    id: String,
    /// Positions of the versions.
    from: usize,
    to: usize,
    plan: Value,
    began: f64,
    ended: f64,
    phase: String,
    /// Verdicts that changed something, with the day.
    moves: Vec<(f64, Value)>,
    /// Devices that had the candidate at some time.
    exposed: u64,
    /// Bytes of the difference.
    difference: Option<usize>,
    /// What the candidate's devices counted against the reference in its package, at the end.
    drift: Value,
}

/// What has happened so far.
pub(super) struct Story {
    world: World,
    quiet: bool,
    began: Instant,
    chapters: Vec<Chapter>,
}

fn wrong(text: impl Into<String>) -> Failure {
    Failure::new(Code::Differs, text)
}

impl Story {
    pub(super) fn new(world: World, quiet: bool) -> Self {
        Self { world, quiet, began: Instant::now(), chapters: Vec::new() }
    }

    pub(super) fn into_world(self) -> World {
        self.world
    }

    /// Tells it.
    pub(super) fn go(&mut self) -> Outcome<()> {
        let devices = u64::from(self.world.devices);
        for _ in 0..24 / STEP {
            self.world.pass(STEP);
        }
        self.look(None)?;
        if self.world.census()?.first() != Some(&devices) {
            return Err(wrong(format!("not all of {devices} devices came to the server with v1")));
        }
        self.roll_out(0, 1)?;
        self.expect("Completed")?;
        self.gather(1, "v2")?;
        self.roll_out(1, 2)?;
        self.expect("RolledBack")?;
        // By what they run, not by what the server ordered.
        self.gather(1, "v2")?;
        if let Some(chapter) = self.chapters.last()
            && (chapter.exposed == 0 || chapter.exposed > devices * 3 / 5)
        {
            return Err(wrong(format!("v3 came to {} of {devices} devices", chapter.exposed)));
        }
        let tally = self.world.flock.tally();
        let errors: u64 = tally.errors.values().sum();
        if errors > 0 {
            return Err(wrong(format!("{errors} requests went wrong: {:?}", tally.errors)));
        }
        Ok(())
    }

    /// The stages: a canary beside a control cohort, more than half of the fleet, all but a hold-back. Then the rest follows.
    ///
    /// Who is in a cohort is drawn device by device, so that its size varies; and a device says only once that it fails. So
    /// the canary has more than twenty devices, and the control cohort, which costs nothing, has more.
    fn stages(&self) -> Value {
        let devices = f64::from(self.world.devices);
        let (first, control, held) = if devices >= 150.0 { (12.0, 40.0, 10.0) } else { (35.0, 40.0, 20.0) };
        let stage = |canary: f64, control: f64, days: f64| {
            let reached = devices * canary / 100.0;
            json!({ "canary_percent": canary, "control_percent": control, "soak_hours": 24, "limit_hours": 240,
                "devices": (reached * 0.5).ceil() as u32, "device_days": (reached * days).ceil() as u32 })
        };
        json!([stage(first, control, 1.0), stage(60.0, control, 1.2), stage(100.0 - held, held, 1.0)])
    }

    fn roll_out(&mut self, from: usize, to: usize) -> Outcome<()> {
        let difference = self.world.publish(to)?;
        let digests: Vec<String> = self.world.versions.iter().map(|v| v.digest.clone()).collect();
        let digest = |n: usize| digests.get(n).cloned();
        let id = format!("digits-{}", to + 1);
        let body = json!({ "candidates": [digest(to)], "base": digest(from), "gate": {},
            "strategy": { "kind": "stages", "stages": self.stages() } });
        let path = format!("/v1/rollouts/{id}");
        let plan = self.world.operator.call("PUT", &format!("{path}?dry_run=true"), &body)?;
        tell::plan(self.quiet, &plan, &body, &self.world, to, difference);
        self.world.operator.call("PUT", &path, &body)?;
        self.world.operator.call("POST", &format!("{path}/start"), &Value::Null)?;
        let began = self.world.days();
        let (phase, moves, drift) = (String::from("Running"), Vec::new(), Value::Null);
        let chapter = Chapter { id, from, to, plan, began, ended: began, phase, moves, exposed: 0, difference, drift };
        self.chapters.push(chapter);
        let mut hours = 0;
        while self.world.days() < began + PATIENCE {
            self.world.pass(STEP);
            hours += STEP;
            let status = self.world.operator.get(&path)?;
            let moved = self.note(&status)?;
            if hours % 24 == 0 || moved {
                self.look(Some(&status))?;
            }
            // What is paused is still judged: more evidence may take it back.
            if matches!(status["phase"].as_str(), Some("Completed" | "RolledBack")) {
                break;
            }
        }
        let path = format!("/v1/drift?cohort=all&hours=72&digest={}", digest(to).unwrap_or_default());
        let drift = self.world.operator.get(&path)?;
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.drift = drift[0].clone();
        }
        Ok(())
    }

    /// Keeps what changed; tells whether something did.
    fn note(&mut self, status: &Value) -> Outcome<bool> {
        let day = self.world.days();
        let Some(chapter) = self.chapters.last_mut() else { return Ok(false) };
        chapter.phase = view::text(status, "phase").to_owned();
        chapter.ended = day;
        let ways = status["arms"]["ways"].as_array();
        let candidate = ways.into_iter().flatten().find(|w| w["arm"] == "candidate0");
        // Downloaded, and activated or not: every device that had it in its hands.
        chapter.exposed = candidate.and_then(|w| w["downloaded"].as_u64()).unwrap_or(0).max(chapter.exposed);
        let verdicts = self.world.operator.all(&format!("/v1/rollouts/{}/verdicts", chapter.id), "n", usize::MAX)?;
        let moves = verdicts.iter().filter(|v| view::text(v, "verdict") != "Hold").skip(chapter.moves.len());
        let fresh: Vec<(f64, Value)> = moves.map(|v| (day, v.clone())).collect();
        for (day, verdict) in &fresh {
            tell::verdict(self.quiet, *day, verdict);
        }
        chapter.moves.extend(fresh.iter().cloned());
        Ok(!fresh.is_empty())
    }

    /// Shows what runs.
    fn look(&self, status: Option<&Value>) -> Outcome<()> {
        if !self.quiet {
            tell::day(&self.world, &self.world.census()?, status);
        }
        Ok(())
    }

    fn expect(&self, phase: &str) -> Outcome<()> {
        let Some(chapter) = self.chapters.last() else { return Ok(()) };
        if chapter.phase == phase {
            return Ok(());
        }
        let last = chapter.moves.last().map_or("", |(_, v)| view::text(v, "reason"));
        Err(wrong(format!("the rollout {} is {}, not {phase}: {last}", chapter.id, chapter.phase)))
    }

    /// Waits until all devices say that they run a version.
    fn gather(&mut self, version: usize, name: &str) -> Outcome<()> {
        let devices = u64::from(self.world.devices);
        let until = self.world.days() + RETURN;
        loop {
            let census = self.world.census()?;
            if census.get(version) == Some(&devices) {
                return self.look(None);
            }
            if self.world.days() >= until {
                return Err(wrong(format!(
                    "after {RETURN} days {census:?} devices run v1, v2, v3: not all run {name}"
                )));
            }
            self.world.pass(STEP);
        }
    }

    /// All of it in numbers.
    pub(super) fn summary(&self) -> Outcome<Value> {
        let tally = self.world.flock.tally();
        let census = self.world.census()?;
        let versions: Vec<Value> = self
            .world
            .versions
            .iter()
            .zip(&census)
            .map(|(version, runs)| {
                let scores = self.world.flock.members().flat_map(|m| m.scores().iter());
                let mut all = Score::default();
                for (_, score) in scores.filter(|(digest, _)| crate::trust::hex(digest) == version.digest) {
                    all = Score {
                        all: all.all + score.all,
                        right: all.right + score.right,
                        failed: all.failed + score.failed,
                    };
                }
                let part = |n: u64| if all.all == 0 { Value::Null } else { json!(n as f64 / all.all as f64) };
                json!({ "version": version.name, "digest": version.digest, "bytes": version.bytes.len(),
                    "running": runs, "inferences": all.all, "right": part(all.right), "unusable": part(all.failed) })
            })
            .collect();
        let name = |n: usize| self.world.versions.get(n).map(|v| v.name);
        let rollouts: Vec<Value> = self
            .chapters
            .iter()
            .map(|c| {
                let moves: Vec<Value> = c
                    .moves
                    .iter()
                    .map(|(day, v)| {
                        json!({ "day": day, "stage": v["stage"], "verdict": v["verdict"], "reason": v["reason"] })
                    })
                    .collect();
                json!({ "rollout": c.id, "from": name(c.from), "to": name(c.to), "phase": c.phase, "began": c.began,
                    "ended": c.ended, "exposed": c.exposed, "moves": moves, "plan": c.plan["stages"],
                    "difference_bytes": c.difference, "drift": c.drift,
                    "whole_bytes": self.world.versions.get(c.to).map(|v| v.bytes.len()) })
            })
            .collect();
        let report = self.reported()?;
        Ok(json!({
            "devices": self.world.devices, "days": self.world.days(), "seconds": self.began.elapsed().as_secs_f64(),
            "versions": versions, "rollouts": rollouts, "flock": tally.json(), "dashboard": self.world.url,
            "telemetry": report,
        }))
    }

    /// What the server knows of the versions from reports alone.
    fn reported(&self) -> Outcome<Value> {
        let hours = (self.world.days() * 24.0).ceil() as u64 + 24;
        let mut all = json!({});
        for version in &self.world.versions {
            let path = format!("/v1/packages/{}/telemetry?hours={hours}", version.digest);
            let Some(arms) = self.world.operator.find(&path)? else { continue };
            let (mut sure, mut n) = (0.0, 0.0);
            for arm in arms.as_array().into_iter().flatten() {
                let bins = arm["sums"]["confidence"].as_array().map_or(&[][..], Vec::as_slice);
                for (i, count) in bins.iter().enumerate() {
                    let count = count.as_f64().unwrap_or(0.0);
                    n += count;
                    sure += count * (i as f64 + 0.5) / bins.len() as f64;
                }
            }
            all[version.name] = if n > 0.0 { json!({ "confidence": sure / n, "inferences": n }) } else { Value::Null };
        }
        Ok(all)
    }
}
