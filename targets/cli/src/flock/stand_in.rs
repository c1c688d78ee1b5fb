//! A device of which only the conversation with the server is real: signed requests, downloads that are checked, reports. No
//! model runs; what it measures is drawn at random.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_fleet::wire;
use dunlin_telemetry::window::Counter;
use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample};
use dunlin_update::trust::{Document, Manner, Role, Rollout, SecretKey};
use dunlin_update::{Outcome, Phase, Reversal};
use sha2::{Digest as _, Sha256};

use super::drive::Member;
use super::faults::{Faults, within};
use super::link::{Answered, Link, Signed};
use super::pace::Pace;
use super::random::{self, Random};
use super::tally::Tally;

const SECOND: u64 = 1_000_000;
/// Reports that wait for a receipt at most.
const OUTBOX: usize = 4;
/// Inferences of a window whose latency and confidence are drawn; of the others only the number is.
const DRAWN: u32 = 16;
/// Between two polls while a candidate is on trial.
const TRIAL: u64 = 30 * SECOND;
/// Bytes of a download that are asked for at once.
const PART: u64 = 1 << 20;

/// What the members of a flock share.
pub struct Terms {
    /// The server.
    pub link: Link,
    /// What goes wrong.
    pub faults: Faults,
    /// The model's name.
    pub model: String,
    /// What packages are compiled for.
    pub target: String,
    /// What devices run at first.
    pub running: Option<[u8; 32]>,
    /// Seeds everything that is drawn.
    pub seed: u64,
    /// Seconds between polls until the server says.
    pub interval: u64,
    /// Seconds that a report is about.
    pub window: u64,
    /// Inferences an hour.
    pub rate: f64,
    /// Within which all poll for the first time.
    pub spread: u64,
}

/// A request that is on its way, or was not sent yet.
#[derive(Clone, Debug)]
enum Due {
    Enrol,
    Poll,
    Send(Box<Signed>),
}

/// A stand-in: some hundred bytes, and reports that wait.
pub struct StandIn {
    terms: Arc<Terms>,
    key: SecretKey,
    random: Random,
    id: [u8; 16],
    due: Due,
    running: Option<[u8; 32]>,
    candidate: Option<[u8; 32]>,
    failed: Option<[u8; 32]>,
    last: Option<([u8; 16], Outcome)>,
    phase: Phase,
    root: u32,
    sequence: u64,
    flags: u64,
    boot: u32,
    recorder: Recorder<10, 0>,
    since: u64,
    unsent: Vec<wire::Report>,
    /// How far the clock is off, microseconds.
    off: i64,
    nonce: u64,
    /// The server's nonce, for who has no clock.
    given: Option<String>,
    interval: u64,
    failures: u32,
}

fn prefix(digest: &[u8; 32]) -> [u8; 16] {
    digest.first_chunk().copied().unwrap_or_default()
}

fn model(digest: Option<[u8; 32]>) -> u16 {
    digest.map_or(0, |d| u16::from_be_bytes([d[0], d[1]]))
}

impl StandIn {
    /// The `member`th, and when it has something to do first.
    #[must_use]
    pub fn new(terms: &Arc<Terms>, member: u32) -> (u64, Self) {
        let mut random = Random::new(terms.seed, member);
        let first = random.below(terms.spread * SECOND);
        let off = if random.chance(terms.faults.bad_clocks) {
            let hours = 1.0 + random.exponential(48.0);
            let micros = (hours * 3600e6) as i64;
            if random.chance(0.5) { micros } else { -micros }
        } else {
            0
        };
        let one = Self {
            key: random::key(terms.seed, member),
            random,
            id: [0; 16],
            due: Due::Enrol,
            running: terms.running,
            candidate: None,
            failed: None,
            last: None,
            phase: Phase::Idle,
            root: 0,
            sequence: 0,
            flags: 0,
            boot: 1,
            recorder: Recorder::new(1, model(terms.running)),
            since: 0,
            unsent: Vec::new(),
            off,
            nonce: 0,
            given: None,
            interval: terms.interval * SECOND,
            failures: 0,
            terms: terms.clone(),
        };
        (first, one)
    }

    /// How many times as often something fails as it did with what it began with.
    fn worse(&self) -> f64 {
        if self.running == self.terms.running { 1.0 } else { self.terms.faults.worse }
    }

    /// A moment later than now by what the server or a failure asks for, with jitter.
    fn again(&mut self, now: u64, pace: &Pace, wait: Option<Duration>) -> u64 {
        self.failures += 1;
        let ask = wait.unwrap_or_else(|| Duration::from_millis(500) * 2u32.pow(self.failures.min(8)));
        // Full jitter above what is asked for: who was sent away together does not come back together.
        let wait = pace.of(ask);
        now + wait + self.random.below(wait + 1)
    }

    fn enrol(&mut self, now: u64, pace: &Pace, tally: &mut Tally) -> u64 {
        let request = wire::Enrol {
            key: self.key.public(),
            target: self.terms.target.clone(),
            model: self.terms.model.clone(),
            attributes: [("flock".to_owned(), "stand-in".to_owned())].into(),
        };
        let Ok(body) = postcard::to_allocvec(&request) else { return u64::MAX };
        let answered = self.terms.link.enrol(&self.key, &body);
        let Some(answered) = self.settle(answered, tally) else { return self.again(now, pace, None) };
        match postcard::from_bytes::<wire::Enrolled>(&answered.body) {
            Ok(enrolled) if answered.status == 200 => {
                (self.id, self.root, self.due) = (enrolled.device, enrolled.roots.len() as u32, Due::Poll);
                (self.since, self.failures) = (now, 0);
                tally.enrolled += 1;
                now
            }
            _ => self.unexpected("enrolment", &answered, now, pace, tally),
        }
    }

    /// An answer, if there is one.
    fn settle(&mut self, answered: Result<Answered, String>, tally: &mut Tally) -> Option<Answered> {
        answered.map_err(|kind| tally.error(kind)).ok()
    }

    fn unexpected(&mut self, what: &str, answered: &Answered, now: u64, pace: &Pace, tally: &mut Tally) -> u64 {
        if matches!(answered.status, 429 | 503) {
            tally.waits += 1;
        } else {
            let told: Option<serde_json::Value> = serde_json::from_slice(&answered.body).ok();
            let told = told.as_ref().and_then(|t| t["error"].as_str()).unwrap_or_default();
            tally.error(format!("{what}: {} {told}", answered.status));
        }
        self.again(now, pace, answered.retry_after)
    }

    /// Closes the window of telemetry when it is time.
    fn measure(&mut self, now: u64, tally: &mut Tally) {
        let seconds = now.saturating_sub(self.since) / SECOND;
        if seconds < self.terms.window {
            return;
        }
        self.since = now;
        let (faults, worse) = (&self.terms.faults, self.worse());
        let part = |day: f64| within(day * worse, seconds as f64);
        let (crash, errors, late) = (part(faults.crash), part(faults.inference_errors), part(faults.deadline_misses));
        let mean = self.terms.rate * seconds as f64 / 3600.0;
        let inferences = ((mean * (0.5 + self.random.part())) as u32).clamp(1, 60_000);
        for _ in 0..DRAWN.min(inferences) {
            let confidence = 1.0 - self.random.exponential(0.04).min(0.9) as f32;
            let micros = 900 + self.random.exponential(200.0) as u32;
            let class = u16::try_from(self.random.below(10)).ok();
            let seen = Observation { micros, class, confidence: Some(confidence), ..Observation::default() };
            self.recorder.add(&Sample::of(&Reference::NONE, &seen));
        }
        self.recorder.count(Counter::Inferences, inferences.saturating_sub(DRAWN));
        if self.random.chance(errors) {
            let failed = inferences / 20 + 1;
            self.recorder.count(Counter::InferenceErrors, failed);
            tally.failed += u64::from(failed);
        }
        if self.random.chance(late) {
            self.recorder.count(Counter::DeadlineMisses, inferences / 20 + 1);
        }
        tally.inferences += u64::from(inferences);
        self.close(now, tally);
        if self.random.chance(crash) {
            self.restart();
            self.recorder.count(Counter::Resets, 1);
        }
    }

    fn close(&mut self, now: u64, tally: &mut Tally) {
        let window = self.recorder.take(u32::try_from(now / SECOND).unwrap_or(u32::MAX));
        let mut bytes = [0; 512];
        let Ok(len) = window.encode(Profile::Full, &mut bytes) else { return };
        if self.unsent.len() >= OUTBOX {
            self.unsent.remove(0);
            tally.reports_lost += 1;
        }
        let (boot, seq) = (window.head().boot, window.head().seq);
        self.unsent.push(wire::Report { boot, seq, bytes: bytes[..len].to_vec() });
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.recorder = Recorder::new(self.boot, model(self.running));
    }

    fn nonce(&mut self, pace: &Pace) -> String {
        if let Some(given) = self.given.take() {
            return given;
        }
        self.nonce = pace.wall().saturating_add_signed(self.off).max(self.nonce + 1);
        self.nonce.to_string()
    }

    fn check_in(&mut self, now: u64, pace: &Pace, tally: &mut Tally) -> u64 {
        if self.random.chance(self.terms.faults.offline) {
            tally.offline += 1;
            return now + self.interval / 2 + self.random.below(self.interval + 1);
        }
        self.measure(now, tally);
        let poll = wire::Poll {
            model: self.terms.model.clone(),
            running: self.running,
            phase: wire::phase_number(self.phase),
            fetching: None,
            last: self.last,
            whole: None,
            beside: None,
            root: self.root,
            rollout: self.sequence,
            floor: 0,
            flags: self.flags,
            reports: self.unsent.clone(),
        };
        let Ok(body) = postcard::to_allocvec(&poll) else { return u64::MAX };
        let nonce = self.nonce(pace);
        let signed = Signed::poll(&self.id, &self.key, nonce, body);
        if self.terms.faults.delay > 0.0 {
            let micros = self.random.exponential(self.terms.faults.delay * 1000.0);
            self.due = Due::Send(Box::new(signed));
            return now + pace.of(Duration::from_micros(micros as u64));
        }
        self.send(&signed, now, pace, tally)
    }

    fn send(&mut self, signed: &Signed, now: u64, pace: &Pace, tally: &mut Tally) -> u64 {
        let began = Instant::now();
        let answered = self.terms.link.poll(signed);
        let took = began.elapsed();
        if self.random.chance(self.terms.faults.duplicates) {
            tally.duplicates += 1;
            match self.terms.link.poll(signed) {
                Ok(Answered { status: 409, .. }) => tally.duplicates_refused += 1,
                Ok(Answered { status: 200, .. }) => tally.error("a request that came twice was taken twice"),
                // Refused for another reason before it was looked at.
                Ok(_) => {}
                Err(kind) => tally.error(kind),
            }
        }
        let Some(answered) = self.settle(answered, tally) else { return self.again(now, pace, None) };
        match (answered.status, postcard::from_bytes::<wire::Answer>(&answered.body)) {
            (200, Ok(answer)) => {
                tally.poll(took);
                self.failures = 0;
                self.take(&answer, now, tally)
            }
            (401, _) if self.off != 0 => match self.terms.link.nonce(&self.id) {
                Ok(Answered { status: 200, body, .. }) => {
                    tally.clocks += 1;
                    self.given = String::from_utf8(body).ok();
                    now
                }
                _ => self.again(now, pace, None),
            },
            _ => self.unexpected("poll", &answered, now, pace, tally),
        }
    }

    fn take(&mut self, answer: &wire::Answer, now: u64, tally: &mut Tally) -> u64 {
        let before = self.unsent.len();
        self.unsent.retain(|r| !answer.acknowledged.contains(&(r.boot, r.seq)));
        tally.reports += (before - self.unsent.len()) as u64;
        self.given = (self.off != 0).then(|| answer.nonce.clone());
        self.interval = u64::from(answer.next) * SECOND;
        if let Some(flags) = &answer.flags {
            let document = Document::read(flags, Role::Rollout).ok();
            let payload = document.and_then(|d| postcard::from_bytes::<(&str, &[u8])>(d.payload()).ok());
            let read = payload.and_then(|(_, p)| dunlin_rollout::flag::Flags::open(p).ok());
            self.flags = read.map_or(self.flags, |f| f.sequence().max(self.flags));
        }
        match self.phase {
            Phase::Staged => {
                self.phase = Phase::Trial;
                return now + TRIAL;
            }
            Phase::Trial => {
                self.finish(now, tally);
                return now + TRIAL;
            }
            _ => {}
        }
        match answer.offer.as_ref().map(|offer| self.update(offer, tally)) {
            Some(Ok(true)) => now + TRIAL,
            Some(Err(())) => {
                tally.refused += 1;
                now + self.interval
            }
            _ => now + self.interval,
        }
    }

    /// Fetches what is offered, if it is something new.
    fn update(&mut self, offer: &wire::Offer, tally: &mut Tally) -> Result<bool, ()> {
        let document = Document::read(&offer.rollout, Role::Rollout).map_err(drop)?;
        let rollout: Rollout<'_> = document.decode().map_err(drop)?;
        if rollout.sequence < self.sequence {
            return Err(());
        }
        self.root += offer.roots.len() as u32;
        if rollout.sequence > self.sequence {
            for lifted in rollout.lifted.chunks_exact(16) {
                self.failed = self.failed.filter(|digest| !digest.starts_with(lifted));
                self.last = self.last.filter(|(prefix, _)| prefix != lifted);
            }
        }
        self.sequence = rollout.sequence;
        if rollout.audience.manner != Manner::Instead {
            // It is as a device that has room for one package.
            return Err(());
        }
        let digest = rollout.digest;
        if self.running == Some(digest) || self.failed == Some(digest) {
            return Ok(false);
        }
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < u64::from(offer.len) {
            let part = self.terms.link.range(&offer.url, at, PART.min(u64::from(offer.len) - at));
            let part = self.settle(part, tally).ok_or(())?;
            if part.status != 206 && part.status != 200 || part.body.is_empty() {
                tally.error(format!("artifact: {}", part.status));
                return Err(());
            }
            at += part.body.len() as u64;
            hash.update(&part.body);
        }
        if hash.finalize()[..8] != offer.id {
            return Err(());
        }
        tally.updates += 1;
        tally.differences += u64::from(offer.delta);
        tally.fetched += at;
        (self.candidate, self.phase) = (Some(digest), Phase::Staged);
        Ok(true)
    }

    /// The end of a trial.
    fn finish(&mut self, now: u64, tally: &mut Tally) {
        self.phase = Phase::Idle;
        let Some(candidate) = self.candidate.take() else { return };
        // Back to what it began with nothing fails that did not before.
        let back = self.terms.running == Some(candidate);
        let times = if back { 1.0 } else { self.terms.faults.worse };
        if self.random.chance(self.terms.faults.failed_start * times) {
            self.last = Some((prefix(&candidate), Outcome::Reverted(Reversal::Golden)));
            self.failed = Some(candidate);
            tally.reverted += 1;
            return;
        }
        // What is measured belongs to one package.
        self.close(now, tally);
        self.since = now;
        self.running = Some(candidate);
        self.last = Some((prefix(&candidate), Outcome::Confirmed));
        tally.confirmed += 1;
        self.restart();
    }
}

impl Member for StandIn {
    fn turn(&mut self, now: u64, pace: &Pace, tally: &mut Tally) -> u64 {
        match std::mem::replace(&mut self.due, Due::Poll) {
            Due::Enrol => {
                self.due = Due::Enrol;
                self.enrol(now, pace, tally)
            }
            Due::Poll => self.check_in(now, pace, tally),
            Due::Send(signed) => self.send(&signed, now, pace, tally),
        }
    }
    fn running(&self) -> Option<[u8; 32]> {
        self.running
    }
}
