//! Updates on flash that loses power: schedules of cuts, and what must hold after each.

use dunlin::kernels::Scalar;
use dunlin::{Arena, Block, Model, Package, Session, ops};
use dunlin_update::delta::Applier;
use dunlin_update::record::{Installed, prefix};
use dunlin_update::sim::{Chip, Flash};
use dunlin_update::storage::Area;
use dunlin_update::trust::{
    Audience, Manner, PublicKey, Release, Role, RoleKeys, Rollout, RootKeys, SIGNATURE_LEN, Salt, Verifier, envelope,
    key_id, message_head,
};
use dunlin_update::{
    Device, Inference, Limits, Offer, Outcome, Phase, Progress, Rejection, Reversal, StartCause, TransferOffer,
    UpdateError, Updater, Verdict,
};
use sha2::{Digest, Sha256};

/// Signatures that take no time: a hash of key and message. What is tested here is memory.
#[derive(Clone, Copy, Debug)]
pub struct Hashed;

fn fake(key: &PublicKey, parts: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha256::new_with_prefix(key);
    parts.iter().for_each(|p| hash.update(p));
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&hash.finalize());
    signature
}

impl Verifier for Hashed {
    fn verify(&self, key: &PublicKey, message: &[&[u8]], signature: &[u8; 64]) -> bool {
        fake(key, message) == *signature
    }
}

const KEYS: [PublicKey; 3] = [[1; 32], [2; 32], [3; 32]];
const NAME: &str = "model";

fn root(version: u32) -> RootKeys {
    let mut keys = [[0; 32]; 8];
    keys[..3].copy_from_slice(&KEYS);
    let role = |i: u8| RoleKeys { threshold: 1, keys: 1 << i };
    let roles = [role(0), role(1), role(2), RoleKeys::default()];
    RootKeys { version, expires: u64::MAX, count: 3, keys, roles }
}

fn signed<T: serde::Serialize>(role: Role, fields: &T) -> Vec<u8> {
    let plain = envelope(role, fields).expect("it fits");
    let key = KEYS[role as usize];
    let mut bytes = plain[..8].to_vec();
    bytes[6] = 1;
    bytes.extend(key_id(&key));
    bytes.extend([1, role as u8, 0, 0, 0, 0, 0, 0]);
    bytes.extend(fake(&key, &[&message_head(role, role), &plain[8..]]));
    assert_eq!(bytes.len(), 8 + SIGNATURE_LEN);
    bytes.extend(&plain[8..]);
    bytes
}

/// A package with what is signed of it.
pub struct Pack {
    bytes: Block,
    digest: [u8; 32],
    hash: [u8; 32],
}

impl Pack {
    /// Takes a package's bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let block = Block::from(bytes);
        let digest = Package::open(&block).expect("a package").digest();
        Self { bytes: block, digest, hash: Sha256::digest(bytes).into() }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn installed(&self, slot: u8, number: u32) -> Installed {
        let len = self.bytes.len() as u32;
        Installed { slot, len, digest: self.digest, hash: self.hash, counter: 1, number }
    }
}

/// Whether a package loads and gives its golden outputs, bit for bit.
#[must_use]
pub fn golden_holds(bytes: &[u8]) -> bool {
    let bytes = Block::from(bytes);
    let Ok(package) = Package::open(&bytes) else { return false };
    let Ok(model) = Model::load(&package, ops::all::<Scalar>()) else { return false };
    let mut memory = Block::zeroed(model.arena_len(Scalar));
    let Ok(mut session) = Session::new(&model, Arena::new(&mut memory), Scalar) else { return false };
    let Some(golden) = package.golden() else { return false };
    golden.cases().all(|case| {
        for (i, tensor) in case.inputs().enumerate() {
            session.input(i).into_bytes().copy_from_slice(tensor.data);
        }
        session.run();
        case.outputs().enumerate().all(|(i, tensor)| session.output(i).bytes() == tensor.data)
    })
}

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A whole package, a new root and a raised counter; then the package before it is wanted again.
    Whole,
    /// A difference.
    Delta,
    /// A package whose golden vectors do not hold, then a good one.
    BadGolden,
    /// A package that crashes the device, then a good one.
    Crashes,
    /// Two good ones, one after the other, so that the first slot is used again.
    Twice,
    /// A good one, and then the fleet takes it back.
    FallBack,
    /// In the shadow, then serving, back, by turns, and back again: fetched once, and the rest is documents.
    Beside,
}

/// Every story.
pub const STORIES: &[Story] =
    &[Story::Whole, Story::Delta, Story::BadGolden, Story::Crashes, Story::Twice, Story::FallBack, Story::Beside];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    Bad,
    Crashes,
}

/// One update of a story.
struct Chapter {
    pack: usize,
    nature: Nature,
    rollout: Vec<u8>,
    release: Vec<u8>,
    roots: Vec<Vec<u8>>,
    stream: Vec<u8>,
    delta: bool,
    transfer: [u8; 8],
    manner: Manner,
    /// Afterwards the fleet takes it back.
    taken_back: bool,
}

impl Chapter {
    /// Whether its package runs in the place of another.
    fn serves(&self) -> bool {
        !matches!(self.manner, Manner::Shadow { .. })
    }
}

/// Packages and documents of a story.
pub struct World {
    story: Story,
    packs: [Pack; 3],
    chapters: Vec<Chapter>,
    slot_len: u32,
    chunk: usize,
}

/// What came of a schedule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Schedules tried.
    pub schedules: u64,
    /// Starts after a cut.
    pub recoveries: u64,
}

/// What a device has promised.
#[derive(Clone, Copy, Default)]
struct Promises {
    floor: u32,
    rollout: u64,
    root: u32,
    /// Chapters that are over.
    done: usize,
    /// Bits have rotted: the newest record or a package may be gone, but what runs is whole.
    rotten: bool,
}

/// splitmix64: numbers for the data of a story.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

impl World {
    /// A story of three packages: what the device has, and two new ones. `bad` takes the place of the second in stories
    /// about bad packages. Numbers, names and salts of the documents follow from the seed: what tears a record may depend
    /// on what is in it.
    #[must_use]
    pub fn new(story: Story, packs: [Pack; 3], bad: Pack, chunk: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let (numbers, sequences) = (2 + random.below(1 << 20) as u32, 2 + random.below(1 << 48));
        let [old, first, second] = packs;
        let (packs, natures): ([Pack; 3], &[(usize, Nature)]) = match story {
            Story::BadGolden => ([old, bad, second], &[(1, Nature::Bad), (2, Nature::Good)]),
            Story::Crashes => ([old, first, second], &[(1, Nature::Crashes), (2, Nature::Good)]),
            Story::Twice => ([old, first, second], &[(1, Nature::Good), (2, Nature::Good)]),
            Story::Beside => ([old, first, second], &BESIDE.map(|(pack, _)| (pack, Nature::Good))),
            _ => ([old, first, second], &[(1, Nature::Good)]),
        };
        let chapters = natures.iter().enumerate().map(|(i, &(pack, nature))| {
            let (number, manner) = match story {
                // The factory's package is the older one whenever it is wanted.
                Story::Beside => (if pack == 0 { 1 } else { numbers }, BESIDE[i].1),
                _ => (numbers + i as u32, Manner::Instead),
            };
            let Pack { bytes, digest, hash } = &packs[pack];
            let raised = story == Story::Whole;
            let release = Release {
                name: NAME,
                version: "2",
                digest: *digest,
                hash: *hash,
                len: bytes.len() as u32,
                number,
                counter: if raised { 2 + random.below(1 << 31) as u32 } else { 1 },
                expires: 0,
                target: "any",
                engine_min: (0, 1),
                ops_version: 1,
                memory: 1,
            };
            let rollout = Rollout {
                name: NAME,
                sequence: sequences + i as u64,
                time: random.below(1 << 33),
                expires: u64::MAX,
                digest: *digest,
                audience: Audience { salt: Salt::from_bits(random.next() as u32), manner, ..Audience::ALL },
                lifted: b"",
            };
            let delta = story == Story::Delta;
            let stream = if delta { difference(packs[0].bytes(), bytes) } else { bytes.to_vec() };
            Chapter {
                pack,
                nature,
                rollout: signed(Role::Rollout, &rollout),
                release: signed(Role::Targets, &release),
                roots: if raised { vec![signed(Role::Root, &root(2))] } else { vec![] },
                stream,
                delta,
                transfer: random.next().to_le_bytes(),
                manner,
                taken_back: story == Story::FallBack,
            }
        });
        let chapters: Vec<Chapter> = chapters.collect();
        let slot_len = packs.iter().map(|p| p.bytes.len()).max().unwrap_or(0) as u32;
        Self { story, packs, chapters, slot_len, chunk }
    }

    /// The device as it left the factory.
    #[must_use]
    pub fn factory(&self, chip: Chip) -> Flash {
        let mut flash = Flash::new(chip, 2, self.slot_len);
        let old = self.packs[0].bytes();
        flash.bytes(Area::Slot(0))[..old.len()].copy_from_slice(old);
        flash
    }

    fn device(&self) -> Device<'_> {
        Device {
            identity: b"a device",
            name: NAME,
            target: "any",
            engine: (0, 1),
            ops_version: 1,
            memory: u32::MAX,
            beside: true,
            starts: 2,
            limits: Limits { inferences: 2, errors: 0, late: 0, deadline_us: 0 },
            root: root(1),
            factory: Some(self.packs[0].installed(0, 1)),
        }
    }

    /// One life of a device: from its start to the end of so many chapters, or to a cut.
    fn live(
        &self,
        flash: &mut Flash,
        cause: StartCause,
        promises: &mut Promises,
        decoder: &mut Applier,
        chapters: usize,
    ) -> Result<Life, String> {
        macro_rules! alive {
            ($result:expr) => {
                match $result {
                    Err(UpdateError::Storage) => return Ok(Life::Cut),
                    other => other,
                }
            };
        }
        let told = |e: UpdateError| format!("{:?}: {e} ({e:?})", self.story);
        let mut updater = alive!(Updater::open(flash, Hashed, self.device(), cause, decoder)).map_err(told)?;
        self.believe(&mut updater, promises)?;
        while let Some(chapter) = self.chapters.iter().take(chapters).nth(promises.done) {
            let digest = self.packs[chapter.pack].digest;
            if self.story == Story::Beside && is_so(&updater, &digest, chapter) {
                promises.done += 1;
                continue;
            }
            let ended = updater.state().last.filter(|(p, _)| *p == prefix(&digest)).map(|(_, outcome)| outcome);
            match updater.phase() {
                Phase::Idle if chapter.taken_back && ended == Some(Outcome::Confirmed) => {
                    alive!(updater.fall_back()).map_err(told)?;
                }
                Phase::Idle if ended.is_some() && self.story != Story::Beside => {
                    let taken_back = chapter.taken_back.then_some(Reversal::Ordered);
                    let expected = match chapter.nature {
                        Nature::Good => taken_back,
                        Nature::Bad => Some(Reversal::Golden),
                        Nature::Crashes => Some(Reversal::Restarts),
                    };
                    let expected = expected.map_or(Outcome::Confirmed, Outcome::Reverted);
                    if ended != Some(expected) {
                        return Err(format!("{:?} ended as {ended:?}, not {expected:?}", self.story));
                    }
                    promises.done += 1;
                }
                Phase::Staged if updater.startable().is_some() => match alive!(updater.start()) {
                    Ok(started) if started.digest != digest => return Err("another package was started".into()),
                    Err(UpdateError::Rejected(Rejection::Hash)) if promises.rotten => {}
                    started => drop(started.map_err(told)?),
                },
                Phase::Idle | Phase::Staged => {
                    let roots: Vec<&[u8]> = chapter.roots.iter().map(|r| &r[..]).collect();
                    let known = updater.state().root.version as usize - 1;
                    let offer = Offer {
                        roots: roots.get(known..).unwrap_or(&[]),
                        rollout: &chapter.rollout,
                        release: &chapter.release,
                        transfer: TransferOffer {
                            id: chapter.transfer,
                            len: chapter.stream.len() as u32,
                            delta: chapter.delta,
                        },
                    };
                    alive!(updater.offer(&offer, None)).map_err(told)?;
                }
                Phase::Offered | Phase::Fetching => {
                    if self.story == Story::Beside && promises.done > 0 && !promises.rotten {
                        return Err("it fetches what lies there".into());
                    }
                    if let Progress::More { next, .. } = alive!(updater.resume()).map_err(told)? {
                        let next = next as usize;
                        let end = chapter.stream.len().min(next + self.chunk);
                        alive!(updater.receive(next as u32, &chapter.stream[next..end])).map_err(told)?;
                    }
                }
                Phase::Trial if chapter.nature == Nature::Crashes => return Ok(Life::Crash),
                Phase::Trial => {
                    let passed = self.slot(&mut updater).is_some_and(|bytes| golden_holds(&bytes));
                    if passed == (chapter.nature == Nature::Bad) {
                        return Err("golden vectors told the wrong thing".into());
                    }
                    let mut verdict = alive!(updater.golden(passed)).map_err(told)?;
                    while let Verdict::Trial { .. } = verdict {
                        let fine = Inference { micros: 1, failed: false, not_a_number: false };
                        verdict = alive!(updater.inference(&fine)).map_err(told)?;
                    }
                }
                other => return Err(format!("nobody waits in {other:?}")),
            }
            self.believe(&mut updater, promises)?;
        }
        Ok(Life::End)
    }

    /// The bytes of the running package as they lie in the slot.
    fn slot(&self, updater: &mut Updater<'_, &mut Flash, Hashed>) -> Option<Vec<u8>> {
        let running = updater.running()?;
        let bytes = updater.storage().bytes(Area::Slot(running.slot)).get(..running.len as usize)?;
        Some(bytes.to_vec())
    }

    /// What runs is the old package or the new one, whole, and nothing that was promised is forgotten.
    fn believe(&self, updater: &mut Updater<'_, &mut Flash, Hashed>, promises: &mut Promises) -> Result<(), String> {
        if promises.rotten && updater.running().is_none() {
            return Ok(());
        }
        let running = updater.running().ok_or("nothing runs")?;
        let bytes = self.slot(updater).ok_or("the slot is too short")?;
        let pack = self.packs.iter().position(|p| p.bytes() == bytes && p.digest == running.digest);
        let pack = pack.ok_or("what runs is neither the old package nor a new one")?;
        // The package before this chapter, or this chapter's.
        let good = |c: &&Chapter| c.nature == Nature::Good && !c.taken_back && c.serves();
        let before = self.chapters[..promises.done].iter().rev().find(good).map_or(0, |c| c.pack);
        let now = self.chapters.get(promises.done).filter(|c| c.serves()).map_or(before, |c| c.pack);
        if pack != before && pack != now && !promises.rotten {
            return Err(format!("package {pack} runs in chapter {}", promises.done));
        }
        let state = updater.state();
        let kept = Promises { floor: state.floor, rollout: state.rollout, root: state.root.version, ..*promises };
        if promises.rotten {
            return Ok(());
        }
        if kept.floor < promises.floor || kept.rollout < promises.rollout || kept.root < promises.root {
            return Err("a counter went back".into());
        }
        *promises = kept;
        if updater.storage().violations() > 0 {
            return Err("the rules of the flash were broken".into());
        }
        Ok(())
    }

    /// A story with cuts: the first after so many steps of the device's life, each other after so many of the next life.
    ///
    /// # Errors
    /// What did not hold.
    pub fn play(&self, factory: &Flash, cuts: &[(u64, u64)], count: &mut Count) -> Result<u64, String> {
        let mut flash = factory.clone();
        let mut promises = Promises::default();
        let mut cuts = cuts.iter();
        let mut cause = StartCause::Power;
        let mut armed = false;
        let mut decoder = Applier::new();
        let all = self.chapters.len();
        count.schedules += 1;
        for _ in 0..64 {
            if !armed && let Some(&(steps, seed)) = cuts.next() {
                flash.cut_after(steps, seed);
                armed = true;
            }
            match self.live(&mut flash, cause, &mut promises, &mut decoder, all)? {
                Life::End => {
                    // What is stored says the same once more.
                    flash.power_on();
                    let story_over = promises.done;
                    self.live(&mut flash, StartCause::Power, &mut promises, &mut decoder, all)?;
                    let running = self.chapters.iter().rev().find(|c| c.nature == Nature::Good && !c.taken_back);
                    let expected = running.map_or(0, |c| c.pack);
                    let slots: Vec<_> = (0..2).map(|i| flash.bytes(Area::Slot(i)).to_vec()).collect();
                    let whole = self.packs[expected].bytes();
                    if !slots.iter().any(|s| s.starts_with(whole)) || !golden_holds(whole) {
                        return Err(format!("after {story_over} chapters the slot holds something else"));
                    }
                    return Ok(flash.steps());
                }
                Life::Cut => {
                    if !flash.is_dead() {
                        return Err("the storage failed without a cut".into());
                    }
                    flash.power_on();
                    (armed, cause) = (false, StartCause::Power);
                    count.recoveries += 1;
                }
                Life::Crash => cause = StartCause::Fault,
            }
        }
        Err("the device never came to the end".into())
    }
}

impl World {
    /// Bits rot after the first chapter of a story; what runs then is whole, or nothing is, and the next package still
    /// gets there.
    ///
    /// # Errors
    /// What did not hold.
    pub fn rot(&self, factory: &Flash, seed: u64) -> Result<(), String> {
        let mut random = Random(seed);
        let mut flash = factory.clone();
        let mut promises = Promises::default();
        let mut decoder = Applier::new();
        let first = self.live(&mut flash, StartCause::Power, &mut promises, &mut decoder, 1)?;
        if !matches!(first, Life::End) {
            return Err("the first chapter has no end".into());
        }
        let area = match random.below(5) {
            0 => Area::Journal,
            n @ 1..3 => Area::State(n as u8 - 1),
            n => Area::Slot(n as u8 - 3),
        };
        flash.rot(area, 1 + random.below(16) as u32, random.next());
        promises.rotten = true;
        let all = self.chapters.len();
        match self.live(&mut flash, StartCause::Power, &mut promises, &mut decoder, all)? {
            Life::End => Ok(()),
            _ => Err(format!("rot in {area:?} kept the next package away")),
        }
    }
}

/// The orders of [`Story::Beside`]: which package, and how it runs.
const BESIDE: [(usize, Manner); 6] = [
    (1, Manner::Shadow { every: 3 }),
    (1, Manner::Shadow { every: 7 }),
    (1, Manner::Instead),
    (0, Manner::Instead),
    (1, Manner::Hourly),
    (0, Manner::Instead),
];

/// Whether a package runs as a chapter has it.
fn is_so(updater: &Updater<'_, &mut Flash, Hashed>, digest: &[u8; 32], chapter: &Chapter) -> bool {
    let beside = updater.beside();
    match chapter.manner {
        Manner::Instead => {
            let runs = updater.running().is_some_and(|p| p.digest == *digest);
            runs && updater.phase() == Phase::Idle && beside.is_none()
        }
        manner => beside.is_some_and(|(p, how)| p.digest == *digest && how == manner),
    }
}

enum Life {
    End,
    Cut,
    Crash,
}

/// Packages of small models that do different things: what a device has, two new ones, and one whose golden vectors do
/// not hold.
///
/// # Errors
/// When a model does not compile.
pub fn packs(which: usize) -> Result<([Pack; 3], Pack), String> {
    use dunlin::onnx::{Golden, Options, compile};
    use dunlin_cli::npz;
    let arrays = npz::read(include_bytes!("../conformance/cases.npz")).map_err(|e| format!("{e:?}"))?;
    let get = |key: &str| arrays.iter().find(|(k, _)| k.as_str() == key).map(|(_, a)| a.bytes.clone());
    let pack = |case: &str, spoil: bool| {
        let many = |kind: &str, k: usize| -> Vec<Vec<u8>> {
            (0..).map_while(|i| get(&format!("{case}/{kind}{k}_{i}"))).collect()
        };
        let mut golden: Vec<Golden> =
            (0..2).map(|k| Golden { inputs: many("in", k), outputs: many("out", k) }).collect();
        if spoil {
            golden[0].outputs[0][0] ^= 1;
        }
        let model = get(&format!("{case}/model")).ok_or_else(|| format!("no case {case}"))?;
        let compiled = compile(&model, &Options { golden, unchecked_golden: spoil, ..Options::default() })
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(Pack::new(&compiled.package))
    };
    let names = CASES[which % CASES.len()];
    let [old, first, second] = names;
    let packs = [pack(old, false)?, pack(first, false)?, pack(second, false)?];
    Ok((packs, pack(first, true)?))
}

/// How many different worlds [`packs`] knows.
pub const WORLDS: usize = CASES.len();

/// Cases of `conformance/cases.npz` that stand for a device's models.
const CASES: &[[&str; 3]] = &[
    ["hardswish_s8", "leakyrelu_s8", "elu_u8"],
    ["gemm_s8", "gemm_u8", "conv_codes_s8"],
    ["max_pool_s8", "conv_plain_s8", "average_pool_s8"],
    ["conv_plain_u8", "conv_relu_u8", "conv_relu_s8"],
];

/// A difference as `dunlin delta` makes it, in small blocks so that there are places to begin again.
fn difference(base: &[u8], target: &[u8]) -> Vec<u8> {
    let options = dunlin_update::delta::EncodeOptions { block: 1024 };
    dunlin_update::delta::encode(Some(base), target, &options).expect("packages have differences").patch
}
