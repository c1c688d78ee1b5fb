//! A device of which only the conversation with the server is real: signed requests, downloads that are checked, reports. No
//! model runs; what it measures is drawn at random.

mod monitor;
mod packages;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_device::flags::SERVE;
use dunlin_fleet::wire;
use dunlin_rollout::flag::{Context, Flags};
use dunlin_update::Phase;
use dunlin_update::trust::{Document, Release, Role, Rollout, SecretKey};
use sha2::{Digest as _, Sha256};

use super::drive::Member;
use super::faults::Faults;
use super::link::{Answered, Link, Signed};
use super::pace::Pace;
use super::random::{self, Random};
use super::tally::Tally;
use monitor::Monitor;
use packages::{Packages, Refused, Serving, Taken};

const SECOND: u64 = 1_000_000;
/// Seconds of an hour.
const HOUR: u64 = 3600;
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
    packages: Packages,
    root: u32,
    /// Sequence of the newest flag document.
    flags: u64,
    /// Whether flags let the model run.
    serves: bool,
    monitor: Monitor,
    /// When the open window began, microseconds of the flock's time.
    since: u64,
    /// How far the clock is off, microseconds.
    off: i64,
    /// What the device takes the time for: a moment of the flock's time, and seconds since 1970.
    calendar: Option<(u64, u64)>,
    nonce: u64,
    /// The server's nonce, for who has no clock.
    given: Option<String>,
    interval: u64,
    failures: u32,
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
            packages: Packages::new(terms.running),
            root: 0,
            flags: 0,
            serves: true,
            monitor: Monitor::new(),
            since: 0,
            off,
            calendar: None,
            nonce: 0,
            given: None,
            interval: terms.interval * SECOND,
            failures: 0,
            terms: terms.clone(),
        };
        (first, one)
    }

    /// Returns the device's time, seconds since 1970, if it has one.
    fn seconds_at(&self, now: u64) -> Option<u64> {
        let (moment, seconds) = self.calendar?;
        // A window may have begun before the calendar was set.
        let passed = now.saturating_sub(moment) / SECOND;
        Some((seconds + passed).saturating_sub(moment.saturating_sub(now) / SECOND))
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
                self.since = now;
                self.failures = 0;
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
        if now.saturating_sub(self.since) / SECOND >= self.terms.window {
            self.close(now, tally);
        }
    }

    /// Closes the window: a report for each package and arm that served in it.
    fn close(&mut self, now: u64, tally: &mut Tally) {
        let served = self.served(now);
        self.since = now;
        if !self.serves {
            return;
        }
        for (serving, seconds) in served {
            self.monitor.close(serving, seconds, &self.terms, &mut self.random, tally);
        }
    }

    /// Returns what served since the window was opened, and for how many seconds; what serves now comes last.
    fn served(&self, now: u64) -> Vec<(Serving, u64)> {
        let mut served: Vec<(Serving, u64)> = Vec::new();
        // A device without a calendar goes by its own clock, as `dunlin_device` does.
        let at = |moment| self.seconds_at(moment).unwrap_or(moment / SECOND);
        let (mut from, end) = (at(self.since), at(now));
        let is_simple = self.packages.beside().is_none();
        while from < end {
            let until = if is_simple { end } else { end.min((from / HOUR + 1) * HOUR) };
            let Some(serving) = self.packages.serving(&self.id, from / HOUR) else { break };
            let before = served.iter().position(|(other, _)| *other == serving).map(|place| served.remove(place));
            served.push((serving, before.map_or(0, |(_, seconds)| seconds) + until - from));
            from = until;
        }
        served
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
        if self.off != 0 && self.calendar.is_none() {
            self.calendar = Some((now, pace.wall().saturating_add_signed(self.off) / SECOND));
        }
        self.measure(now, tally);
        let poll = wire::Poll {
            model: self.terms.model.clone(),
            running: self.packages.running(),
            phase: wire::phase_number(self.packages.phase()),
            fetching: None,
            last: self.packages.last,
            whole: None,
            beside: self.packages.beside(),
            root: self.root,
            rollout: self.packages.sequence,
            floor: self.packages.floor(),
            flags: self.flags,
            reports: self.monitor.unsent.clone(),
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
                // The first may have been told to wait, and then this is the first that was looked at.
                Ok(Answered { status: 200, .. }) if matches!(answered, Ok(Answered { status: 200, .. })) => {
                    tally.error("a request that came twice was taken twice");
                }
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
        tally.reports += self.monitor.acknowledge(&answer.acknowledged);
        self.given = (self.off != 0).then(|| answer.nonce.clone());
        self.interval = u64::from(answer.next) * SECOND;
        if self.off == 0 {
            self.calendar = Some((now, answer.time));
        }
        if let Some(flags) = &answer.flags {
            self.obey(flags, now, tally);
        }
        let phase = self.packages.phase();
        let changed = match answer.offer.as_ref().map(|offer| self.update(offer, now, tally)) {
            Some(Ok(Taken::Fetch | Taken::Arranged)) => true,
            Some(Err(Refused)) => {
                tally.refused += 1;
                self.progress(phase, now, tally)
            }
            Some(Ok(Taken::Unchanged)) | None => self.progress(phase, now, tally),
        };
        // What changed is told soon, and a trial is not long.
        if changed || self.packages.phase() == Phase::Trial { now + TRIAL } else { now + self.interval }
    }

    /// Goes on with what is under way. Returns whether something changed.
    fn progress(&mut self, phase: Phase, now: u64, tally: &mut Tally) -> bool {
        match phase {
            Phase::Staged => self.start(now, tally),
            Phase::Trial => self.finish(now, tally),
            _ => false,
        }
    }

    /// Takes a newer flag document.
    fn obey(&mut self, document: &[u8], now: u64, tally: &mut Tally) {
        let document = Document::read(document, Role::Rollout).ok();
        let payload = document.and_then(|d| postcard::from_bytes::<(&str, &[u8])>(d.payload()).ok());
        let Some(flags) = payload.and_then(|(_, bytes)| Flags::open(bytes).ok()) else { return };
        if flags.sequence() <= self.flags {
            return;
        }
        self.flags = flags.sequence();
        let context =
            Context { identity: &self.id, attributes: &[], model: &self.terms.model, now: self.seconds_at(now) };
        let serves = SERVE.evaluate(Some(&flags), &context).value;
        if serves != self.serves {
            self.close(now, tally);
            self.serves = serves;
        }
    }

    /// Does what an offer says; fetches what is not on the device.
    fn update(&mut self, offer: &wire::Offer, now: u64, tally: &mut Tally) -> Result<Taken, Refused> {
        let rollout = Document::read(&offer.rollout, Role::Rollout).map_err(|_| Refused)?;
        let rollout: Rollout<'_> = rollout.decode().map_err(|_| Refused)?;
        let release = Document::read(&offer.release, Role::Targets).map_err(|_| Refused)?;
        let release: Release<'_> = release.decode().map_err(|_| Refused)?;
        self.root += offer.roots.len() as u32;
        // Windows are about one package in one arm; what was open until here is about what ran until here.
        let (id, seconds) = (self.id, self.seconds_at(now));
        let before = self.packages.clone();
        let taken = self.packages.offer(&rollout, &release, &id, seconds)?;
        if taken != Taken::Unchanged {
            let after = std::mem::replace(&mut self.packages, before);
            self.close(now, tally);
            self.packages = after;
        }
        if taken == Taken::Fetch {
            self.fetch(offer, tally)?;
            self.packages.stage(&rollout, &release);
        }
        Ok(taken)
    }

    fn fetch(&mut self, offer: &wire::Offer, tally: &mut Tally) -> Result<(), Refused> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < u64::from(offer.len) {
            let part = self.terms.link.range(&offer.url, at, PART.min(u64::from(offer.len) - at));
            let part = self.settle(part, tally).ok_or(Refused)?;
            if part.status != 206 && part.status != 200 || part.body.is_empty() {
                tally.error(format!("artifact: {}", part.status));
                return Err(Refused);
            }
            at += part.body.len() as u64;
            hash.update(&part.body);
        }
        if hash.finalize()[..8] != offer.id {
            return Err(Refused);
        }
        tally.updates += 1;
        tally.differences += u64::from(offer.delta);
        tally.fetched += at;
        Ok(())
    }

    /// Starts the trial of what is staged, unless that is to stay in the shadow.
    fn start(&mut self, now: u64, tally: &mut Tally) -> bool {
        if self.packages.beside().is_some() {
            return false;
        }
        self.close(now, tally);
        self.packages.start()
    }

    /// Ends a trial; not while flags let no model run. Returns whether it ended.
    fn finish(&mut self, now: u64, tally: &mut Tally) -> bool {
        if !self.serves {
            return false;
        }
        self.close(now, tally);
        // A package that it began with does not fail that did not before.
        let is_back = self.terms.running == self.packages.running();
        let times = if is_back { 1.0 } else { self.terms.faults.worse };
        if self.random.chance(self.terms.faults.failed_start * times) {
            self.packages.revert();
            tally.reverted += 1;
        } else {
            self.packages.confirm();
            tally.confirmed += 1;
        }
        true
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
        self.packages.running()
    }
}
