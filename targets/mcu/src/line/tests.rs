use std::collections::VecDeque;
use std::sync::LazyLock;
use std::vec::Vec;

use dunlin::kernels::Scalar;
use dunlin::{InputError, Session, ops};
use dunlin_update::delta::Applier;
use dunlin_update::record::{Installed, Transfer};
use dunlin_update::sim::{CHIPS, Flash};
use dunlin_update::storage::Area;
use dunlin_update::trust::{Audience, Ed25519, Release, Role, RoleKeys, Rollout, RootKeys, SecretKey, envelope, sign};
use dunlin_update::{Device as Profile, Limits, Outcome, Reversal, StartCause, Updater, Verdict};
use embedded_io::ErrorType;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::frame::{self, Decoder, Step};
use crate::message::{self, Chunk, Down, News, Offer, Part, Refusal, Up, Want};
use crate::{Config, Copied, Memory, Task};

const N: usize = 160;
const CHUNK: u16 = 128;

fn key(role: Role) -> SecretKey {
    SecretKey::from_seed([role as u8 + 1; 32]).expect("a seed")
}

fn root(version: u32) -> RootKeys {
    let mut keys = [[0; 32]; 8];
    let used = [Role::Root, Role::Targets, Role::Rollout];
    keys.iter_mut().zip(used).for_each(|(to, role)| *to = key(role).public());
    let role = |i: u8| RoleKeys { threshold: 1, keys: 1 << i };
    RootKeys { version, expires: 9, count: 3, keys, roles: [role(0), role(1), role(2), RoleKeys::default()] }
}

fn signed<T: serde::Serialize>(role: Role, fields: &T) -> Vec<u8> {
    sign(&envelope(role, fields).expect("short"), role, &key(role)).expect("short")
}

/// What a gateway has: bytes that are no package, which is found out when they are to run.
struct Goods {
    offer: Offer,
    roots: [Vec<u8>; 2],
    rollout: Vec<u8>,
    release: Vec<u8>,
    stream: Vec<u8>,
}

static GOODS: LazyLock<Goods> = LazyLock::new(|| {
    let stream: Vec<u8> = (0..1500u32).map(|i| (i * 7 % 251) as u8).collect();
    let (digest, hash) = ([5; 32], Sha256::digest(&stream).into());
    let release = Release {
        name: "model",
        version: "2",
        digest,
        hash,
        len: stream.len() as u32,
        number: 2,
        counter: 1,
        expires: 0,
        target: "any",
        engine_min: (0, 1),
        ops_version: 1,
        memory: 1,
    };
    let rollout =
        Rollout { name: "model", sequence: 1, time: 1, expires: 9, digest, audience: Audience::ALL, lifted: b"" };
    let transfer = Transfer { id: [6; 8], len: stream.len() as u32, delta: false };
    Goods {
        offer: Offer { offer: [1; 8], digest, root: 3, transfer },
        roots: [2, 3].map(|version| signed(Role::Root, &root(version))),
        rollout: signed(Role::Rollout, &rollout),
        release: signed(Role::Targets, &release),
        stream,
    }
});

/// What happens to bytes on their way.
#[derive(Clone, Debug)]
struct Noise {
    /// Of 1,000 bytes, so many are lost, flipped, or have a stranger before them.
    lost: u32,
    flipped: u32,
    strange: u32,
    /// Of 10 answers, so many come twice, so many come again much later.
    twice: u32,
    late: u32,
    seed: u64,
}

/// A line with a gateway at its end.
struct Line {
    noise: Noise,
    gateway: Decoder<N>,
    down: VecDeque<u8>,
    old: Vec<Vec<u8>>,
    wanted: Vec<u32>,
}

impl Line {
    fn new(noise: Noise) -> Self {
        Self { noise, gateway: Decoder::new(), down: VecDeque::new(), old: Vec::new(), wanted: Vec::new() }
    }

    fn random(&mut self, of: u32) -> u32 {
        let seed = &mut self.noise.seed;
        *seed ^= *seed >> 12;
        *seed ^= *seed << 25;
        *seed ^= *seed >> 27;
        (seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as u32 % of
    }

    /// What becomes of a byte.
    fn spoil(&mut self, byte: u8, to: &mut Vec<u8>) {
        if self.random(1000) < self.noise.strange {
            to.push(self.random(256) as u8);
        }
        let flipped = if self.random(1000) < self.noise.flipped { 1 << self.random(8) } else { 0 };
        if self.random(1000) >= self.noise.lost {
            to.push(byte ^ flipped);
        }
    }

    fn answer(&mut self, up: &Up<'_>) -> Option<Vec<u8>> {
        let goods = &*GOODS;
        let message = match up {
            Up::CheckIn(known) if known.last.is_some() => Down::News(News { wait: 1, ..News::default() }),
            Up::CheckIn(_) => Down::News(News { wait: 1, offer: Some(goods.offer), ..News::default() }),
            Up::Want(Want { offer, part, offset, len }) => {
                let bytes = match part {
                    Part::Root(version) => goods.roots.get(*version as usize - 2)?,
                    Part::Rollout => &goods.rollout,
                    Part::Release => &goods.release,
                    Part::Stream => &goods.stream,
                    Part::Flags => return None,
                };
                if *part == Part::Stream {
                    self.wanted.push(*offset);
                }
                let rest = bytes.get(*offset as usize..)?;
                let total = bytes.len() as u32;
                let bytes = &rest[..rest.len().min((*len).into())];
                Down::Chunk(Chunk { offer: *offer, part: *part, offset: *offset, total, bytes })
            }
            _ => return None,
        };
        let mut content = [0; N];
        let len = message::encode(&message, &mut content).expect("it fits");
        let mut bytes = Vec::new();
        let sealed = frame::seal(&mut content, len).expect("it fits");
        frame::encode(sealed, |piece| {
            bytes.extend(piece);
            Ok::<_, ()>(())
        })
        .expect("a vector takes all");
        Some(bytes)
    }
}

impl ErrorType for Line {
    type Error = embedded_io::ErrorKind;
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        let mut came = Vec::new();
        bytes.iter().for_each(|&byte| self.spoil(byte, &mut came));
        for byte in came {
            if self.gateway.push(byte) != Step::Frame {
                continue;
            }
            let payload = self.gateway.payload().to_vec();
            let Ok(up) = message::decode::<Up<'_>>(&payload) else { continue };
            let Some(frame) = self.answer(&up) else { continue };
            let mut frames = std::vec![frame.clone()];
            if self.random(10) < self.noise.twice {
                frames.push(frame.clone());
            }
            if self.random(10) < self.noise.late && !self.old.is_empty() {
                let which = self.random(self.old.len() as u32) as usize;
                frames.insert(0, self.old[which].clone());
            }
            self.old.push(frame);
            let mut spoiled = Vec::new();
            frames.concat().into_iter().for_each(|byte| self.spoil(byte, &mut spoiled));
            self.down.extend(spoiled);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        Ok(!self.down.is_empty())
    }
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        let (Some(to), Some(byte)) = (bytes.first_mut(), self.down.pop_front()) else { return Ok(0) };
        *to = byte;
        Ok(1)
    }
}

/// A millisecond a look.
struct Ticks(u32);

impl Clock for Ticks {
    fn now(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1000);
        self.0
    }
}

struct Nothing;

impl Task<Scalar> for Nothing {
    fn fill(&mut self, _: &mut Session<'_, '_, Scalar>) -> Result<(), InputError> {
        Ok(())
    }

    fn read(&mut self, _: &Session<'_, '_, Scalar>) -> bool {
        true
    }
}

fn profile() -> Profile<'static> {
    Profile {
        identity: b"device",
        name: "model",
        target: "any",
        engine: (0, 1),
        ops_version: 1,
        memory: 1024,
        beside: true,
        starts: 2,
        limits: Limits { inferences: 1, errors: 0, late: 0, deadline_us: 0 },
        root: root(1),
        factory: Some(Installed {
            slot: 0,
            len: 64,
            digest: [1; 32],
            hash: Sha256::digest([3; 64]).into(),
            counter: 1,
            number: 1,
        }),
    }
}

fn config() -> Config<'static> {
    let (reply, repeats) = (50_000, 3);
    let (interval, least, most) = (100_000, 1000, 100_000);
    Config { chunk: CHUNK, reply, repeats, interval, least, most, ..Config::new(b"device", "model") }
}

/// Polls a device, from its start on, up to so many times, with room for documents; gives what happened last.
fn live(flash: &mut Flash, line: &mut Link<Line, N>, polls: u32, clock: &mut Ticks, room: usize) -> Option<Event> {
    let (mut package, mut arena) = ([0; 2048], [0; 1024]);
    let (mut documents, mut flags) = (std::vec![0; room], [0; 64]);
    let mut decoder = Applier::new();
    let storage = Copied::new(flash, &mut package);
    let updater = Updater::open(storage, Ed25519, profile(), StartCause::Power, &mut decoder).expect("it is flash");
    let memory = Memory { arena: &mut arena, documents: &mut documents, flags: &mut flags };
    let mut device = Device::new(updater, ops::all(), Scalar, config(), memory);
    let mut clock = Wide::new(clock);
    let mut last = None;
    for _ in 0..polls {
        match poll(&mut device, line, &mut clock).expect("the port works") {
            Event::Quiet | Event::CheckedIn => {}
            Event::Started => {
                let ran = device.infer(|| clock.now(), &mut Nothing).expect("the storage works");
                assert_eq!(ran.verdict, Verdict::Reverted(Reversal::Load), "these bytes are no package");
                assert_eq!(device.check_in().running, Some([1; 32]), "and the old one runs at once");
                return Some(Event::Started);
            }
            event @ Event::Refused(_) => {
                assert_eq!(device.check_in().last, None::<([u8; 16], Outcome)>);
                return Some(event);
            }
            event => last = Some(event),
        }
    }
    last
}

fn flash() -> Flash {
    let mut flash = Flash::new(CHIPS[2], 2, 2048);
    flash.bytes(Area::Slot(0))[..64].fill(3);
    flash
}

const SILENCE: Noise = Noise { lost: 0, flipped: 0, strange: 0, twice: 0, late: 0, seed: 1 };

#[test]
fn an_offer_is_fetched_and_started() {
    let mut line = Link::new(Line::new(SILENCE));
    assert_eq!(live(&mut flash(), &mut line, 200, &mut Ticks(0), 1024), Some(Event::Started));
    assert_eq!(line.skipped(), 0);
    assert_eq!(line.port().wanted.len(), 1500usize.div_ceil(CHUNK.into()), "no chunk was asked for twice");
}

#[test]
fn after_a_restart_it_goes_on_where_it_was() {
    let (mut flash, mut clock) = (flash(), Ticks(u32::MAX - 40_000));
    let mut line = Link::new(Line::new(SILENCE));
    let last = live(&mut flash, &mut line, 20, &mut clock, 1024);
    let Some(Event::Received { next: next @ 600.., .. }) = last else { panic!("{last:?}") };
    line.port().wanted.clear();
    assert_eq!(live(&mut flash, &mut line, 200, &mut clock, 1024), Some(Event::Started));
    assert_eq!(line.port().wanted.first(), Some(&(next / 512 * 512)), "whole sectors of 512 bytes");
}

#[test]
fn a_document_without_end_is_refused() {
    let mut line = Link::<_, N>::new(Line::new(SILENCE));
    let last = live(&mut flash(), &mut line, 50, &mut Ticks(0), 200);
    assert_eq!(last, Some(Event::Refused(Refusal::TooLong)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn noise_costs_time_and_nothing_else(
        lost in 0..3u32, flipped in 0..3u32, strange in 0..4u32, twice in 0..5u32, late in 0..5u32, seed in 1..u64::MAX,
    ) {
        let mut line = Link::new(Line::new(Noise { lost, flipped, strange, twice, late, seed }));
        prop_assert_eq!(live(&mut flash(), &mut line, 60_000, &mut Ticks(0), 1024), Some(Event::Started));
    }

    #[test]
    fn nothing_but_noise_is_survived(garbage in prop::collection::vec(any::<u8>(), 0..4000), seed in 1..u64::MAX) {
        let mut line = Link::new(Line::new(Noise { seed, ..SILENCE }));
        line.port().down.extend(garbage);
        prop_assert_eq!(live(&mut flash(), &mut line, 2_000, &mut Ticks(0), 1024), Some(Event::Started));
    }
}
