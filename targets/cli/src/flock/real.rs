//! A device that runs the model: `dunlin_device::Device` with the engine, slots in memory, and documents that it checks. Its
//! images are real; its latencies are drawn, since this computer is not the device.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dunlin::kernels::Best;
use dunlin::{Block, InputError, Model, Package, Session, ops};
use dunlin_device::message::{self, Down, Part};
use dunlin_device::{Config, Device, Event, Memory as Lent, Task, WeightPool};
use dunlin_gateway::{Bridge, Site};
use dunlin_update::delta::Applier;
use dunlin_update::trust::{Ed25519, RootKeys};
use dunlin_update::{self as update, Installed, Limits, StartCause, Updater, Verdict};

use sha2::{Digest as _, Sha256};

use super::digits::{DEADLINE, Images};
use super::drive::Member;
use super::faults::{Faults, within};
use super::memory::Memory;
use super::pace::Pace;
use super::random::{Random, key_seed};
use super::tally::Tally;
use crate::failure::{Failure, Outcome};

const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// Bytes that a device asks for at once.
const CHUNK: u16 = 4096;
/// Bytes of the room for documents, and for flags.
const DOCUMENTS: usize = 4096;
/// Repacked weights of the packages that the devices run, once for all.
static WEIGHTS: LazyLock<WeightPool> = LazyLock::new(WeightPool::default);
/// Times that a package on trial may be started.
const STARTS: u8 = 2;

/// The package that devices leave the factory with.
pub struct Factory {
    /// Its bytes.
    pub package: Block,
    /// Where it lies.
    pub installed: Installed,
    /// Whom devices believe.
    pub root: RootKeys,
    /// Bytes of a slot.
    pub slot: usize,
    /// Bytes of memory for tensors.
    pub arena: usize,
}

/// Bytes that a package's tensors need here.
///
/// # Errors
/// When it does not load.
pub fn arena(package: &[u8]) -> Outcome<usize> {
    let fault = |e: &dyn std::fmt::Display| Failure::damaged("the package", e);
    let opened = Package::open(package).map_err(|e| fault(&e))?;
    let model = Model::load(&opened, ops::all()).map_err(|e| fault(&e))?;
    // A release asks for what the portable kernels need, which may be more.
    let asked = opened.manifest().arena_bytes as usize + opened.manifest().scratch_bytes as usize;
    Ok(model.arena_len(dunlin::kernels::best()).max(asked))
}

impl Factory {
    /// Devices with this package, and room for one of four times its size.
    ///
    /// # Errors
    /// When it does not load.
    pub fn new(package: Block, root: RootKeys) -> Outcome<Self> {
        let opened = Package::open(&package).map_err(|e| Failure::damaged("the package", e))?;
        let installed = Installed {
            slot: 0,
            len: package.len() as u32,
            digest: opened.digest(),
            hash: Sha256::digest(&*package).into(),
            counter: 1,
            number: 1,
        };
        let (slot, arena) = (4 * package.len(), 4 * arena(&package)?);
        Ok(Self { package, installed, root, slot, arena })
    }
}

/// What the devices of a flock share.
pub struct Terms {
    /// What speaks to the server for them.
    pub site: Arc<Site>,
    /// The package at first.
    pub factory: Factory,
    /// The model's name.
    pub name: &'static str,
    /// What they see.
    pub images: Images,
    /// An answer that is less likely than this cannot be used: the inference counts as failed.
    pub usable: f32,
    /// What a trial asks for.
    pub limits: Limits,
    /// What goes wrong.
    pub faults: Faults,
    /// Seeds everything that is drawn.
    pub seed: u64,
    /// Inferences an hour.
    pub rate: f64,
    /// Within which all check in first, microseconds.
    pub spread: u64,
    /// Between check-ins until the server says.
    pub interval: u64,
    /// How long a report is about.
    pub window: u64,
}

/// What a device answered while it ran a package.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Inferences.
    pub all: u64,
    /// Of those, the right ones. Only the simulation knows.
    pub right: u64,
    /// Of those, what could not be used.
    pub failed: u64,
}

type Simulated = Device<'static, Memory, Ed25519, Best>;

/// A device in the flock.
pub struct Real {
    terms: Arc<Terms>,
    identity: &'static [u8; 16],
    device: Option<Simulated>,
    bridge: Bridge,
    random: Random,
    boot: u32,
    next: u64,
    /// When the day ends for which it is drawn what goes wrong, and what does.
    day: u64,
    errors: bool,
    late: bool,
    /// Until when it is offline.
    away: u64,
    /// Starts after a fault since a report last arrived.
    faults: u32,
    /// The last offer was a difference.
    delta: bool,
    /// A candidate whose first start is still to come, to be let fail.
    fresh: bool,
    off: i64,
    scores: Vec<([u8; 32], Score)>,
}

/// Reads a digit.
struct Reader<'i> {
    image: &'i [f32],
    digit: i64,
    usable: f32,
    spoil: bool,
    right: bool,
}

impl Task<Best> for Reader<'_> {
    fn fill(&mut self, session: &mut Session<'_, '_, Best>) -> Result<(), InputError> {
        session.input(0).copy_from_slice(self.image)
    }

    fn read(&mut self, session: &Session<'_, '_, Best>) -> bool {
        let output = session.output(0);
        let (Some(top), Some(values)) = (output.argmax(), output.as_slice::<f32>()) else { return false };
        let most = values.get(top).copied().unwrap_or(f32::NEG_INFINITY);
        let sum: f32 = values.iter().map(|v| (v - most).exp()).sum();
        self.right = top as i64 == self.digit;
        !self.spoil && 1.0 / sum >= self.usable
    }
}

impl Real {
    /// The `member`th, and when it has something to do first.
    #[must_use]
    pub fn new(terms: &Arc<Terms>, member: u32) -> (u64, Self) {
        let mut random = Random::new(terms.seed, member);
        let seed = key_seed(terms.seed, member);
        // A device keeps its identity for as long as the flock is there.
        let identity: &'static [u8; 16] = Box::leak(Box::new(seed.first_chunk().copied().unwrap_or_default()));
        let mut memory = Memory::new(terms.factory.slot);
        memory.install(&terms.factory.package);
        let off = if random.chance(terms.faults.bad_clocks) {
            let seconds = (3600.0 * (1.0 + random.exponential(48.0))) as i64;
            if random.chance(0.5) { seconds } else { -seconds }
        } else {
            0
        };
        let mut one = Self {
            identity,
            device: None,
            bridge: terms.site.bridge(),
            boot: 0,
            next: random.below((HOUR as f64 / terms.rate.max(1e-3)) as u64),
            random,
            day: 0,
            errors: false,
            late: false,
            away: 0,
            faults: 0,
            delta: false,
            fresh: false,
            off,
            scores: Vec::new(),
            terms: terms.clone(),
        };
        // What it is lent it keeps for the rest of the program, like its identity, and through all its starts.
        let arena: &'static mut Block = Box::leak(Box::new(Block::zeroed(terms.factory.arena)));
        let lent =
            Lent { arena: &mut arena[..], documents: vec![0; DOCUMENTS].leak(), flags: vec![0; DOCUMENTS].leak() };
        one.start(memory, Box::leak(Box::new(Applier::new())), lent, StartCause::Power);
        (0, one)
    }

    /// Switches it on.
    fn start(&mut self, memory: Memory, decoder: &'static mut Applier, lent: Lent<'static>, cause: StartCause) {
        self.boot += 1;
        self.faults += u32::from(cause == StartCause::Fault);
        let terms = &self.terms;
        let profile = update::Device {
            identity: self.identity,
            name: terms.name,
            target: "any",
            engine: (u16::MAX, 0),
            ops_version: u16::MAX,
            memory: u32::try_from(terms.factory.arena).unwrap_or(u32::MAX),
            beside: true,
            starts: STARTS,
            limits: terms.limits,
            root: terms.factory.root,
            factory: Some(terms.factory.installed),
        };
        *decoder = Applier::new();
        // Memory does not fail, so a device without an updater is not to be expected; it would be silent.
        let Ok(updater) = Updater::open(memory, Ed25519, profile, cause, decoder) else { return };
        let config = Config {
            boot: self.boot,
            cause,
            faults: self.faults,
            chunk: CHUNK,
            spread: terms.spread,
            interval: terms.interval,
            most: 2 * DAY,
            window: terms.window,
            ..Config::new(self.identity, terms.name)
        };
        let mut device = Device::new(updater, ops::all(), dunlin::kernels::best(), config, lent);
        device.share_weights(&WEIGHTS);
        self.device = Some(device);
    }

    fn restart(&mut self) {
        if let Some(device) = self.device.take() {
            let (updater, lent) = device.into_parts();
            let (memory, decoder) = updater.into_parts();
            self.start(memory, decoder, lent, StartCause::Fault);
        }
    }

    /// What it answered, by package.
    #[must_use]
    pub fn scores(&self) -> &[([u8; 32], Score)] {
        &self.scores
    }

    fn worse(&self) -> f64 {
        let first = self.running() == Some(self.terms.factory.installed.digest);
        if first { 1.0 } else { self.terms.faults.worse }
    }

    /// Draws what goes wrong on the day that begins.
    fn dawn(&mut self, now: u64) {
        let worse = self.worse();
        let day = |p: f64| within(p * worse, 86_400.0);
        let faults = &self.terms.faults;
        let (crash, errors, late) = (day(faults.crash), day(faults.inference_errors), day(faults.deadline_misses));
        (self.errors, self.late) = (self.random.chance(errors), self.random.chance(late));
        if self.random.chance(crash) {
            // A loop of three starts.
            (0..3).for_each(|_| self.restart());
        }
        self.day = (now / DAY + 1) * DAY;
    }

    fn infer(&mut self, now: u64, tally: &mut Tally) {
        let terms = self.terms.clone();
        let n = self.random.below(terms.images.len() as u64) as usize;
        let (image, digit) = terms.images.get(n);
        let spoil = self.errors && self.random.chance(0.1);
        let late = self.late && self.random.chance(0.1);
        let micros =
            if late { 2 * DEADLINE } else { DEADLINE / 2 } + self.random.exponential(1500.0).min(15_000.0) as u32;
        let mut reader = Reader { image, digit, usable: terms.usable, spoil, right: false };
        let mut calls = 0;
        // It is looked at when it begins, and before and after the model runs.
        let clock = || {
            calls += 1;
            now + if calls > 2 { u64::from(micros) } else { 0 }
        };
        let Some(device) = &mut self.device else { return };
        let Ok(inferred) = device.infer(clock, &mut reader) else { return };
        match inferred.verdict {
            Verdict::Confirmed => tally.confirmed += 1,
            Verdict::Reverted(_) => tally.reverted += 1,
            _ => {}
        }
        let Some(inference) = inferred.inference else { return };
        tally.inferences += 1;
        tally.failed += u64::from(inference.failed);
        let at = self.scores.iter().position(|(digest, _)| *digest == inferred.digest).unwrap_or_else(|| {
            self.scores.push((inferred.digest, Score::default()));
            self.scores.len() - 1
        });
        if let Some((_, score)) = self.scores.get_mut(at) {
            score.all += 1;
            score.right += u64::from(reader.right);
            score.failed += u64::from(inference.failed);
        }
    }

    /// Says what it has to say and takes the answers.
    fn talk(&mut self, now: u64, pace: &Pace, tally: &mut Tally) {
        let Some(device) = &mut self.device else { return };
        let mut started = device.poll(now) == Event::Started;
        let mut up = vec![0; usize::from(CHUNK) + 512];
        let mut down = Vec::new();
        // Bounded, so that a conversation that goes nowhere does not keep the others waiting.
        for _ in 0..10_000 {
            let len = match device.transmit(now, &mut up) {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(error) => {
                    tally.error(format!("message: {error:?}"));
                    break;
                }
            };
            let datagram = up.get(..len).unwrap_or_default();
            if self.terms.faults.delay > 0.0 {
                let micros = self.random.exponential(self.terms.faults.delay * 1000.0);
                if !pace.wait(now + pace.of(Duration::from_micros(micros as u64))) {
                    return;
                }
            }
            let copies = 1 + u8::from(self.random.chance(self.terms.faults.duplicates));
            tally.duplicates += u64::from(copies - 1);
            for _ in 0..copies {
                let began = Instant::now();
                match self.bridge.exchange(datagram, &mut down) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(error) => {
                        tally.error(format!("bridge: {error}"));
                        continue;
                    }
                }
                match message::decode::<Down<'_>>(&down) {
                    Ok(Down::News(news)) => {
                        tally.poll(began.elapsed());
                        self.delta = news.offer.is_some_and(|o| o.transfer.delta);
                    }
                    Ok(Down::Chunk(chunk)) if chunk.part == Part::Stream => tally.fetched += chunk.bytes.len() as u64,
                    _ => {}
                }
                match device.receive(now, &down) {
                    Event::Accepted { .. } => {
                        tally.updates += 1;
                        tally.differences += u64::from(self.delta);
                    }
                    Event::Refused(_) => tally.refused += 1,
                    Event::Reported { .. } => {
                        tally.reports += 1;
                        self.faults = 0;
                    }
                    Event::Started => started = true,
                    _ => {}
                }
            }
            started |= device.poll(now) == Event::Started;
        }
        if started {
            self.fresh = true;
        }
    }

    /// Lets a candidate that was just started crash again and again, if that is drawn.
    fn first_start(&mut self, tally: &mut Tally) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        let back = self.running() == Some(self.terms.factory.installed.digest);
        let times = if back { 1.0 } else { self.terms.faults.worse };
        if self.random.chance(self.terms.faults.failed_start * times) {
            let before = self.running();
            (0..=STARTS).for_each(|_| self.restart());
            tally.reverted += u64::from(self.running() != before);
        }
    }
}

impl Member for Real {
    fn turn(&mut self, now: u64, pace: &Pace, tally: &mut Tally) -> u64 {
        if now >= self.day {
            if self.day == 0
                && self.off != 0
                && let Some(device) = &mut self.device
            {
                device.set_time(now, (pace.wall() / SECOND).saturating_add_signed(self.off));
            }
            self.dawn(now);
        }
        if now >= self.next {
            self.infer(now, tally);
            let mean = HOUR as f64 / self.terms.rate.max(1e-3);
            self.next = now + (mean * (0.5 + self.random.part())) as u64;
        }
        if now >= self.away && self.device.as_ref().is_some_and(|d| d.wake() <= now) {
            if self.random.chance(self.terms.faults.offline) {
                tally.offline += 1;
                self.away = now + self.terms.interval / 2 + self.random.below(self.terms.interval + 1);
            } else {
                let enrolled = self.bridge.device().is_some();
                self.talk(now, pace, tally);
                tally.enrolled += u64::from(!enrolled && self.bridge.device().is_some());
                self.first_start(tally);
            }
        }
        let wake = self.device.as_ref().map_or(u64::MAX, Device::wake).max(self.away);
        self.next.min(wake).min(self.day)
    }
    fn running(&self) -> Option<[u8; 32]> {
        self.device.as_ref()?.check_in().running
    }
}

#[cfg(test)]
mod tests {
    use dunlin_gateway::{Client, Connection, SiteOptions};
    use dunlin_update::trust::{MAX_KEYS, RoleKeys};

    use super::super::digits;
    use super::*;

    #[test]
    fn crashes_take_no_memory() {
        let images = Images::test().expect("images");
        let package = digits::package("1", &images).expect("a package");
        let one = RoleKeys { threshold: 1, keys: 1 };
        let keys = [super::super::random::key(1, 1).public(); MAX_KEYS];
        let root = RootKeys { version: 1, expires: u64::MAX, count: 1, keys, roles: [one; 4] };
        let connection = Connection { server: "http://127.0.0.1:1".into(), ..Connection::default() };
        let client = Client::new(&connection).expect("a client");
        let terms = Arc::new(Terms {
            site: Site::open(SiteOptions::new(client)).expect("in memory"),
            factory: Factory::new(package, root).expect("it loads"),
            name: "digits",
            images,
            usable: 0.5,
            limits: Limits { inferences: 12, errors: 3, late: 3, deadline_us: DEADLINE },
            faults: Faults::default(),
            seed: 1,
            rate: 60.0,
            spread: 0,
            interval: HOUR,
            window: HOUR,
        });
        let (_, mut device) = Real::new(&terms, 7);
        let places = |device: &mut Real| {
            let (updater, lent) = device.device.take().expect("it runs").into_parts();
            let (memory, decoder) = updater.into_parts();
            let at = [
                lent.arena.as_ptr(),
                lent.documents.as_ptr(),
                lent.flags.as_ptr(),
                std::ptr::from_ref(&*decoder).cast(),
            ];
            device.start(memory, decoder, lent, StartCause::Power);
            at
        };
        let before = places(&mut device);
        let mut tally = Tally::default();
        for hour in 0..5 {
            device.restart();
            device.infer(hour * HOUR, &mut tally);
        }
        assert_eq!(places(&mut device), before, "each start has what the one before had");
        assert_eq!((tally.inferences, device.boot), (5, 8), "it runs after each");
    }
}
