//! Keys, small models, and a server, for tests.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use dunlin_package::op::{Affine, Binary, BinaryKind, Op};
use dunlin_package::plan::{Place, PlanWriter, StepWriter, Tensor};
use dunlin_package::{Builder, DType, EngineVersion, GoldenCase, ManifestDraft, Package, PortDraft};
use dunlin_rollout::flag::{Document, FlagSpec, Setting};
use dunlin_telemetry::{Counter, Report};
use dunlin_update::trust::{
    Audience, Manner, Release, Role, RoleKeys, Rollout, RootKeys, Salt, SecretKey, envelope, sign,
};
use dunlin_update::{Device as Profile, Installed, Limits, Transfer};
use sha2::{Digest, Sha256};

use crate::flags::NAME;
use crate::message::{self, Chunk, Down, FlagsOffer, News, Offer, Part, Refusal, Up, Want};

pub(crate) fn key(role: Role) -> SecretKey {
    SecretKey::from_seed([role as u8 + 1; 32]).expect("a seed")
}

/// A root; those of an odd version have another rollout key.
pub(crate) fn root(version: u32, other: bool) -> RootKeys {
    let mut keys = [[0; 32]; 8];
    let rollout = if other { SecretKey::from_seed([77; 32]).expect("a seed") } else { key(Role::Rollout) };
    let used = [key(Role::Root), key(Role::Targets), rollout];
    keys.iter_mut().zip(used).for_each(|(to, key)| *to = key.public());
    let role = |i: u8| RoleKeys { threshold: 1, keys: 1 << i };
    RootKeys { version, expires: u64::MAX, count: 3, keys, roles: [role(0), role(1), role(2), RoleKeys::default()] }
}

pub(crate) fn signed<T: serde::Serialize>(role: Role, fields: &T) -> Vec<u8> {
    sign(&envelope(role, fields).expect("short"), role, &key(role)).expect("short")
}

/// A signed flag document.
pub(crate) fn flags(sequence: u64, specs: Vec<FlagSpec>) -> Vec<u8> {
    let payload = Document { sequence, issued: 1000, ttl: 0, flags: specs }.encode().expect("flags");
    let unsigned = envelope(Role::Rollout, &(NAME, &payload[..])).expect("short");
    sign(&unsigned, Role::Rollout, &key(Role::Rollout)).expect("short")
}

/// A flag of one value.
pub(crate) fn flag(key: &str, value: Setting) -> FlagSpec {
    let variants = std::vec![(String::from("v"), value)];
    FlagSpec { key: key.into(), default: Some(0), variants, ..FlagSpec::default() }
}

/// Four floats in, four out: each `kind` the number at its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sums {
    pub(crate) kind: BinaryKind,
    pub(crate) with: [f32; 4],
    /// Whether its golden vector is what it gives.
    pub(crate) golden: bool,
}

impl Sums {
    pub(crate) const GOOD: Self = Self { kind: BinaryKind::Add, with: [0.0; 4], golden: true };
    pub(crate) const BETTER: Self = Self { with: [0.5, 0.0, 0.0, 0.0], ..Self::GOOD };

    pub(crate) fn run(&self, x: [f32; 4]) -> [f32; 4] {
        core::array::from_fn(|i| match self.kind {
            BinaryKind::Min => x[i].min(self.with[i]),
            BinaryKind::Div => x[i] / self.with[i],
            _ => x[i] + self.with[i],
        })
    }

    pub(crate) fn package(&self, version: &str) -> Pack {
        let tensor =
            |place| Tensor { dtype: DType::F32, rank: 1, dims: [4, 1, 1, 1, 1, 1], place, scale: 0.0, zero_point: 0 };
        let none = Affine { scale: 1.0, zero_point: 0 };
        let params = Binary { kind: self.kind as u32, a: none, b: none, y: none, bounds: [-128, 127] };
        let plan = PlanWriter {
            arena_bytes: 32,
            tensors: std::vec![tensor(Place::Arena(0)), tensor(Place::Weights(0)), tensor(Place::Arena(16))],
            steps: std::vec![StepWriter::new(Op::Binary, std::vec![Some(0), Some(1)], std::vec![2], &params)],
            inputs: std::vec![0],
            outputs: std::vec![2],
        };
        let port = |name: &str| PortDraft {
            name: name.into(),
            dtype: DType::F32,
            dims: std::vec![4],
            scale: 0.0,
            zero_point: 0,
            labels: Vec::new(),
        };
        let x = [1.0, 4.0, 2.0, 3.0];
        let mut y = self.run(x);
        y[0] += if self.golden { 0.0 } else { 1.0 };
        let bytes = |values: [f32; 4]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let builder = Builder {
            manifest: ManifestDraft {
                name: "sums".into(),
                version: version.into(),
                engine_min: EngineVersion { major: 0, minor: 1 },
                ops_version: 1,
                arena_bytes: 32,
                exact: true,
                inputs: std::vec![port("x")],
                outputs: std::vec![port("y")],
                ..ManifestDraft::default()
            },
            plan: plan.write().expect("a plan"),
            weights: bytes(self.with),
            golden: std::vec![GoldenCase { inputs: std::vec![bytes(x)], outputs: std::vec![bytes(y)] }],
            ..Builder::default()
        };
        let bytes = builder.build().expect("a package");
        let digest = Package::open(&bytes).expect("a package").digest();
        let hash = Sha256::digest(&bytes).into();
        Pack { model: *self, bytes, digest, hash }
    }
}

/// When rollouts expire.
pub(crate) const EXPIRES: u64 = 2_000_000_000;

/// A model and its package.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub(crate) model: Sums,
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: [u8; 32],
    pub(crate) hash: [u8; 32],
}

pub(crate) fn profile(factory: &Pack) -> Profile<'static> {
    Profile {
        identity: b"device",
        name: "sums",
        target: "any",
        engine: (0, 1),
        ops_version: 1,
        memory: 1024,
        beside: true,
        starts: 2,
        limits: Limits { inferences: 6, errors: 1, late: 1, deadline_us: 1000 },
        root: root(1, false),
        factory: Some(Installed {
            slot: 0,
            len: factory.bytes.len() as u32,
            digest: factory.digest,
            hash: factory.hash,
            counter: 1,
            number: 1,
        }),
    }
}

/// What is to be had, and what came.
#[derive(Clone, Default)]
pub(crate) struct Server {
    pub(crate) publication: Option<Publication>,
    pub(crate) flags: Option<(u64, Vec<u8>)>,
    pub(crate) wait: u32,
    /// Reports by start and number: spans and inferences.
    pub(crate) reports: BTreeMap<(u32, u32), Stored>,
    pub(crate) refused: Vec<Refusal>,
    pub(crate) check_ins: u32,
    pub(crate) streamed: u32,
    /// Whether it tells about receipts.
    pub(crate) mute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) span: u32,
    pub(crate) inferences: u32,
    pub(crate) errors: u32,
    pub(crate) shadow: [u32; 2],
    pub(crate) dropped: u32,
    pub(crate) resets: u32,
    pub(crate) arm: dunlin_telemetry::Arm,
    pub(crate) model: u16,
}

#[derive(Clone)]
pub(crate) struct Publication {
    pub(crate) offer: Offer,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) rollout: Vec<u8>,
    pub(crate) release: Vec<u8>,
    pub(crate) stream: Vec<u8>,
}

impl Publication {
    pub(crate) fn of(pack: &Pack, number: u32, sequence: u64) -> Self {
        Self::run_by(pack, number, sequence, Manner::Instead)
    }

    /// To be run in this manner.
    pub(crate) fn run_by(pack: &Pack, number: u32, sequence: u64, manner: Manner) -> Self {
        let release = Release {
            name: "sums",
            version: "n",
            digest: pack.digest,
            hash: pack.hash,
            len: pack.bytes.len() as u32,
            number,
            counter: 1,
            expires: 0,
            target: "any",
            engine_min: (0, 1),
            ops_version: 1,
            memory: 32,
        };
        let rollout = Rollout {
            name: "sums",
            sequence,
            time: 1000,
            expires: EXPIRES,
            digest: pack.digest,
            audience: Audience { manner, salt: Salt::new(b"sums"), ..Audience::ALL },
            lifted: b"",
        };
        let (rollout, release) = (signed(Role::Rollout, &rollout), signed(Role::Targets, &release));
        let id = *Sha256::digest([&rollout[..], &release].concat()).first_chunk().expect("long");
        let transfer =
            Transfer { id: *pack.hash.first_chunk().expect("long"), len: pack.bytes.len() as u32, delta: false };
        let offer = Offer { offer: id, digest: pack.digest, root: 1, transfer };
        Self { offer, roots: Vec::new(), rollout, release, stream: pack.bytes.clone() }
    }
}

fn id(bytes: &[u8]) -> [u8; 8] {
    *Sha256::digest(bytes).first_chunk().expect("long")
}

impl Server {
    pub(crate) fn offer(&mut self, pack: &Pack, number: u32) {
        self.publication = Some(Publication::of(pack, number, u64::from(number)));
    }

    /// The answer to a datagram, if there is one.
    pub(crate) fn hear(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let up: Up<'_> = message::decode(datagram).ok()?;
        let down = match up {
            Up::CheckIn(known) => {
                self.check_ins += 1;
                let flags = self.flags.as_ref().filter(|(sequence, _)| *sequence > known.flags);
                let flags = flags.map(|(sequence, bytes)| FlagsOffer { offer: id(bytes), sequence: *sequence });
                let offer = self.publication.as_ref().map(|p| p.offer);
                Down::News(News { wait: self.wait, time: 2000, flags, offer })
            }
            Up::Want(Want { offer, part, offset, len }) => {
                let publication = self.publication.as_ref().filter(|p| p.offer.offer == offer);
                let bytes = match part {
                    Part::Flags => self.flags.as_ref().map(|(_, b)| &b[..]).filter(|b| id(b) == offer),
                    Part::Root(version) => publication.and_then(|p| p.roots.get(version as usize - 2)).map(|b| &b[..]),
                    Part::Rollout => publication.map(|p| &p.rollout[..]),
                    Part::Release => publication.map(|p| &p.release[..]),
                    Part::Stream => publication.map(|p| &p.stream[..]),
                };
                match bytes.and_then(|bytes| Some((bytes.len(), bytes.get(offset as usize..)?))) {
                    Some((total, rest)) => {
                        let bytes = &rest[..rest.len().min(len.into())];
                        self.streamed += if part == Part::Stream { bytes.len() as u32 } else { 0 };
                        Down::Chunk(Chunk { offer, part, offset, total: total as u32, bytes })
                    }
                    None => Down::Gone { offer },
                }
            }
            Up::Report(report) => {
                if let Ok(Report::<10, 2>::Known(_, window)) = Report::decode(report.bytes) {
                    let head = *window.head();
                    assert_eq!((head.boot, head.seq), (report.boot, report.seq));
                    let count = |c| window.counters().get(c);
                    let stored = Stored {
                        span: head.span,
                        inferences: window.counters().inferences(),
                        errors: window.counters().errors(),
                        shadow: [count(Counter::ShadowRuns), count(Counter::ShadowDisagreements)],
                        dropped: count(Counter::Dropped),
                        resets: count(Counter::Resets),
                        arm: head.arm,
                        model: head.model,
                    };
                    let before = self.reports.insert((head.boot, head.seq), stored);
                    assert!(before.is_none_or(|b| b == stored), "a report never changes once it was sent");
                } else {
                    panic!("a report that does not decode");
                }
                if self.mute {
                    return None;
                }
                Down::Stored { boot: report.boot, seq: report.seq }
            }
            Up::Refused { reason, .. } => {
                self.refused.push(reason);
                return None;
            }
            Up::Ran(_) => return None,
        };
        let mut buffer = std::vec![0; 1024];
        let len = message::encode(&down, &mut buffer).expect("it fits");
        buffer.truncate(len);
        Some(buffer)
    }
}
