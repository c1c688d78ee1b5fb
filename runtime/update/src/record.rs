//! The state record: what survives a power cut.
//!
//! Two areas take turns. A record is written to the area that does not hold the newest, twice in a row, and counts once
//! its checksum is right; so at every moment the newest whole record is untouched. Two copies in one area are there
//! for bits that rot.

use serde::{Deserialize, Serialize};

use crate::fields::{Count, Source, Target};
use crate::phase::{Outcome, Rejection, Reversal};
use crate::storage::{Area, MAX_UNIT, Storage, StorageFault};
use crate::trust::{Manner, Role, RootKeys, Salt, manner};
use dunlin_package::Hash;

/// Bytes of a record, a multiple of every program unit.
pub const RECORD_LEN: usize = 1280;
/// Bytes of the checksum, which has the last program unit for itself.
const SUM_LEN: usize = 16;
/// Bytes that the checksum is of.
const BODY_LEN: usize = RECORD_LEN - MAX_UNIT;
/// Bytes before the payload: magic, length, sequence.
const HEAD_LEN: usize = 12;
/// Bytes that are read or written at once: a record is never in memory as a whole.
const PIECE: usize = 64;
const MAGIC: [u8; 4] = *b"DNST";
/// Tombstones that are kept one by one.
pub const TOMBSTONES: usize = 16;
/// Bytes of a digest that a tombstone keeps.
pub const PREFIX: usize = 16;

/// A package in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Which slot.
    pub slot: u8,
    /// Bytes of the package with its seal.
    pub len: u32,
    /// The package's digest, which identifies it.
    pub digest: [u8; 32],
    /// SHA-256 of all its bytes.
    pub hash: [u8; 32],
    /// Its security counter.
    pub counter: u32,
    /// Its release's number.
    pub number: u32,
}

/// How the bytes of a package come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// What tells this stream of bytes from any other; a resumed download has to have the same.
    pub id: [u8; 8],
    /// Bytes of the stream.
    pub len: u32,
    /// Whether it is a difference to the running package.
    pub delta: bool,
}

/// A package on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// What it will be.
    pub package: Installed,
    /// How it comes.
    pub transfer: Transfer,
    /// Tells this download from an earlier one of the same bytes, whose journal is not to be believed.
    pub attempt: u32,
    /// How far it is.
    pub stage: Stage,
}

/// The part of [`Phase`](crate::phase::Phase) that survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Bytes may be in the slot; the journal tells how many.
    Fetching,
    /// Hashed in the slot, and the next to run.
    Staged,
    /// Running, not confirmed.
    Trial {
        /// Starts that are left.
        starts: u8,
    },
}

/// A digest that failed here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The beginning of the digest.
    pub prefix: [u8; PREFIX],
    /// The number of its release; 0: no tombstone.
    pub number: u32,
}

impl Tombstone {
    const NONE: Self = Self { prefix: [0; PREFIX], number: 0 };
}

/// All that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What runs when nothing is on trial.
    pub confirmed: Option<Installed>,
    /// What ran before it, while its slot is untouched.
    pub previous: Option<Installed>,
    /// What is on its way.
    pub candidate: Option<Candidate>,
    /// Packages with a lower security counter are never run again.
    pub floor: u32,
    /// Keys and thresholds that are in force.
    pub root: RootKeys,
    /// Sequence of the newest rollout document.
    pub rollout: u64,
    /// Latest time that a signed document stated, seconds since 1970.
    pub time: u64,
    /// Digests that are not taken again.
    pub tombstones: [Tombstone; TOMBSTONES],
    /// Releases up to this number are not taken: what older tombstones became.
    pub buried: u32,
    /// The digest of which a difference gave other bytes than were signed: it has to come whole.
    pub whole: Option<[u8; PREFIX]>,
    /// How the last update ended, and of which digest.
    pub last: Option<([u8; PREFIX], Outcome)>,
    /// How the candidate runs; without one: the confirmed package, which may take turns with the one before it.
    pub manner: Manner,
    /// Whose buckets choose inputs and hours, where they are chosen.
    pub salt: Salt,
    /// When the document that says so expires, seconds since 1970: from then on only what is confirmed runs. 0 where nothing
    /// runs beside it.
    pub until: u64,
}

impl State {
    /// The state of a device that never had an update.
    #[must_use]
    pub fn factory(root: RootKeys, confirmed: Option<Installed>) -> Self {
        let mut state = Self::blank();
        state.reset(&root, confirmed.as_ref());
        state
    }

    /// In the place of a state that is not known yet.
    #[inline]
    pub(crate) fn blank() -> Self {
        Self {
            confirmed: None,
            previous: None,
            candidate: None,
            floor: 0,
            root: RootKeys::NONE,
            rollout: 0,
            time: 0,
            tombstones: [Tombstone::NONE; TOMBSTONES],
            buried: 0,
            whole: None,
            last: None,
            manner: Manner::Instead,
            salt: Salt::from_bits(0),
            until: 0,
        }
    }

    /// Everything as [`factory`](Self::factory) makes it, in place.
    #[inline(never)]
    pub(crate) fn reset(&mut self, root: &RootKeys, confirmed: Option<&Installed>) {
        self.confirmed = confirmed.copied();
        (self.previous, self.candidate, self.whole, self.last) = (None, None, None, None);
        self.floor = confirmed.map_or(0, |c| c.counter);
        self.root = *root;
        (self.rollout, self.time, self.buried) = (0, 0, 0);
        self.tombstones.fill(Tombstone::NONE);
        self.serve_alone();
    }

    /// Forgets what keys of rollout said of sequence and time that another root does not have: a stolen key may have
    /// pushed them far ahead.
    pub(crate) fn forget(&mut self, root: &RootKeys) {
        if !root.same_role(&self.root, Role::Rollout) {
            (self.rollout, self.time) = (0, 0);
        }
    }

    /// Nothing runs beside what serves, nor takes turns with it.
    pub(crate) fn serve_alone(&mut self) {
        (self.manner, self.salt, self.until) = (Manner::Instead, Salt::from_bits(0), 0);
    }

    /// Whether a digest failed here, or its release is too old to know.
    #[must_use]
    pub fn is_buried(&self, digest: &[u8; 32], number: u32) -> bool {
        let buried = |t: &Tombstone| t.number > 0 && digest.starts_with(&t.prefix);
        number <= self.buried || self.tombstones.iter().any(buried)
    }

    /// Remembers that a package failed here. When all places are taken the oldest release gives up its own, and with it
    /// all releases before it are refused.
    pub fn bury(&mut self, package: &Installed) {
        self.bury_at(package);
    }

    /// As [`bury`](Self::bury); gives the place that was taken and what was there.
    pub(crate) fn bury_at(&mut self, package: &Installed) -> Option<(usize, Tombstone)> {
        let tombstone = Tombstone { prefix: prefix(&package.digest), number: package.number.max(1) };
        if self.tombstones.iter().any(|t| t.number > 0 && t.prefix == tombstone.prefix) {
            return None;
        }
        let (i, place) = self.tombstones.iter_mut().enumerate().min_by_key(|(_, t)| t.number)?;
        self.buried = self.buried.max(place.number);
        Some((i, core::mem::replace(place, tombstone)))
    }

    /// Takes a tombstone away.
    pub fn lift(&mut self, lifted: &[u8; PREFIX]) {
        for tombstone in &mut self.tombstones {
            if tombstone.prefix == *lifted {
                *tombstone = Tombstone::default();
            }
        }
    }
}

/// The beginning of a digest.
#[must_use]
pub fn prefix(digest: &[u8; 32]) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    prefix
}

impl Installed {
    fn write(&self, to: &mut dyn Target) {
        to.byte(self.slot);
        to.number(self.len.into());
        to.put(&self.digest);
        to.put(&self.hash);
        to.number(self.counter.into());
        to.number(self.number.into());
    }

    #[inline(never)]
    fn read(from: &mut dyn Source) -> Option<Self> {
        Some(Self {
            slot: from.byte()?,
            len: from.u32()?,
            digest: from.array()?,
            hash: from.array()?,
            counter: from.u32()?,
            number: from.u32()?,
        })
    }
}

impl Candidate {
    fn write(&self, to: &mut dyn Target) {
        self.package.write(to);
        to.put(&self.transfer.id);
        to.number(self.transfer.len.into());
        to.byte(self.transfer.delta.into());
        to.number(self.attempt.into());
        match self.stage {
            Stage::Fetching => to.byte(0),
            Stage::Staged => to.byte(1),
            Stage::Trial { starts } => to.put(&[2, starts]),
        }
    }

    fn read(from: &mut dyn Source) -> Option<Self> {
        Some(Self {
            package: Installed::read(from)?,
            transfer: Transfer { id: from.array()?, len: from.u32()?, delta: from.flag()? },
            attempt: from.u32()?,
            stage: match from.u32()? {
                0 => Stage::Fetching,
                1 => Stage::Staged,
                2 => Stage::Trial { starts: from.byte()? },
                _ => return None,
            },
        })
    }
}

/// Something that may be missing: a byte that says so, and what it is.
fn write_option<T>(to: &mut dyn Target, value: Option<&T>, write: impl FnOnce(&T, &mut dyn Target)) {
    to.byte(value.is_some().into());
    if let Some(value) = value {
        write(value, to);
    }
}

/// As [`write_option`] writes it.
fn read_option<T>(from: &mut dyn Source, read: impl FnOnce(&mut dyn Source) -> Option<T>) -> Option<Option<T>> {
    if from.flag()? { read(from).map(Some) } else { Some(None) }
}

impl State {
    /// The fields in the order in which they are declared.
    #[inline(never)]
    fn write(&self, to: &mut dyn Target) {
        write_option(to, self.confirmed.as_ref(), Installed::write);
        write_option(to, self.previous.as_ref(), Installed::write);
        write_option(to, self.candidate.as_ref(), Candidate::write);
        to.number(self.floor.into());
        self.root.write(to);
        to.number(self.rollout);
        to.number(self.time);
        for tombstone in &self.tombstones {
            to.put(&tombstone.prefix);
            to.number(tombstone.number.into());
        }
        to.number(self.buried.into());
        write_option(to, self.whole.as_ref(), |whole, to| to.put(whole));
        write_option(to, self.last.as_ref(), |(prefix, outcome), to| {
            to.put(prefix);
            match *outcome {
                Outcome::Confirmed => to.byte(0),
                Outcome::Rejected(reason) => to.put(&[1, reason as u8]),
                Outcome::Reverted(reason) => to.put(&[2, reason as u8]),
            }
        });
        match self.manner {
            Manner::Instead => to.byte(0),
            Manner::Shadow { every } => {
                to.byte(1);
                to.number(every.into());
            }
            Manner::Hourly => to.byte(2),
        }
        to.number(self.salt.bits().into());
        to.number(self.until);
    }

    /// Reads every field, in place. After `None` they are a mixture.
    #[inline(never)]
    fn read(&mut self, from: &mut dyn Source) -> Option<()> {
        self.confirmed = read_option(from, Installed::read)?;
        self.previous = read_option(from, Installed::read)?;
        self.candidate = read_option(from, Candidate::read)?;
        self.floor = from.u32()?;
        self.root.read_from(from)?;
        self.rollout = from.u64()?;
        self.time = from.u64()?;
        for tombstone in &mut self.tombstones {
            from.fill(&mut tombstone.prefix)?;
            tombstone.number = from.u32()?;
        }
        self.buried = from.u32()?;
        self.whole = read_option(from, |from| from.array())?;
        self.last = read_option(from, |from| {
            let prefix = from.array()?;
            let outcome = match from.u32()? {
                0 => Outcome::Confirmed,
                1 => Outcome::Rejected(*Rejection::ALL.get(from.u32()? as usize)?),
                2 => Outcome::Reverted(*Reversal::ALL.get(from.u32()? as usize)?),
                _ => return None,
            };
            Some((prefix, outcome))
        })?;
        self.manner = manner(from)?;
        self.salt = Salt::from_bits(from.u32()?);
        self.until = from.u64()?;
        Some(())
    }
}

/// The two areas, and which one holds the newest record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records {
    pub(crate) sequence: u32,
    newest: u8,
}

impl Records {
    /// Before anything was stored.
    pub(crate) const NONE: Self = Self { sequence: 0, newest: 1 };

    /// Reads the newest whole record into `state`; `false` when there is none, and then `state` is a mixture.
    pub(crate) fn load<S: Storage>(&mut self, storage: &mut S, state: &mut State) -> Result<bool, StorageFault> {
        let mut best = None;
        let mut last = None;
        for (area, copy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            // Even one that is not whole leaves its traces in the state.
            last = Some((area, copy));
            let Some(sequence) = read(storage, area, copy, state)? else { continue };
            if best.is_none_or(|(_, _, b)| sequence.wrapping_sub(b).cast_signed() > 0) {
                best = Some((area, copy, sequence));
            }
        }
        let Some((area, copy, sequence)) = best else {
            *self = Self::NONE;
            return Ok(false);
        };
        // Others were read after the newest; and a medium that reads otherwise now has failed.
        if last != Some((area, copy)) && read(storage, area, copy, state)? != Some(sequence) {
            return Err(StorageFault);
        }
        *self = Self { sequence, newest: area };
        Ok(true)
    }

    /// Writes a record. Until it is whole the one before it counts.
    #[inline(never)]
    pub(crate) fn save<S: Storage>(&mut self, storage: &mut S, state: &State) -> Result<(), StorageFault> {
        let next = Self { sequence: self.sequence.wrapping_add(1), newest: 1 - (self.newest & 1) };
        let mut payload = Count(0);
        state.write(&mut payload);
        let Count(payload) = payload;
        if payload as usize > BODY_LEN - HEAD_LEN {
            return Err(StorageFault);
        }
        let area = Area::State(next.newest);
        let geometry = storage.geometry(area);
        storage.erase(area, 0, geometry.len)?;
        for start in [0, RECORD_LEN as u32] {
            if start + RECORD_LEN as u32 > geometry.len {
                break;
            }
            let mut writer = RecordWriter {
                storage: &mut *storage,
                area,
                start,
                at: 0,
                piece: [0; PIECE],
                hash: Hash::new(),
                fault: false,
            };
            let head = [u32::from_le_bytes(MAGIC), payload, next.sequence];
            head.iter().for_each(|field| writer.put(&field.to_le_bytes()));
            state.write(&mut writer);
            writer.finish()?;
            storage.sync()?;
            *self = next;
        }
        Ok(())
    }
}

/// Writes a record piece by piece.
struct RecordWriter<'s, S> {
    storage: &'s mut S,
    area: Area,
    /// Where in the area it begins.
    start: u32,
    /// Bytes taken.
    at: usize,
    piece: [u8; PIECE],
    /// Of the bytes before.
    hash: Hash,
    fault: bool,
}

impl<S: Storage> Target for RecordWriter<'_, S> {
    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        for byte in bytes {
            if let Some(place) = self.piece.get_mut(self.at % PIECE) {
                *place = *byte;
            }
            self.at += 1;
            if self.at.is_multiple_of(PIECE) {
                let offset = self.start + (self.at - PIECE) as u32;
                self.fault |= self.at > RECORD_LEN || self.storage.write(self.area, offset, &self.piece).is_err();
            }
        }
    }
}

impl<S: Storage> RecordWriter<'_, S> {
    /// Zeros to the end of the body, and the checksum.
    fn finish(&mut self) -> Result<(), StorageFault> {
        while self.at < BODY_LEN {
            self.put(&[0]);
        }
        let sum = self.hash.finish();
        self.put(sum.first_chunk::<SUM_LEN>().unwrap_or(&[0; SUM_LEN]));
        self.put(&[0; MAX_UNIT - SUM_LEN]);
        if self.fault { Err(StorageFault) } else { Ok(()) }
    }
}

/// Reads a record piece by piece.
struct RecordReader<'s, S> {
    storage: &'s mut S,
    area: Area,
    start: u32,
    /// Bytes given.
    at: usize,
    piece: [u8; PIECE],
    hash: Hash,
    fault: bool,
}

impl<S: Storage> Source for RecordReader<'_, S> {
    #[inline(never)]
    fn fill(&mut self, into: &mut [u8]) -> Option<()> {
        for byte in &mut *into {
            if self.at.is_multiple_of(PIECE) {
                self.fault |= self.storage.read(self.area, self.start + self.at as u32, &mut self.piece).is_err();
            }
            *byte = *self.piece.get(self.at % PIECE)?;
            self.at += 1;
        }
        self.hash.update(into);
        (self.at <= BODY_LEN && !self.fault).then_some(())
    }
}

/// Reads a record into `state`, and gives its sequence; `None` when there is no whole one.
#[inline(never)]
fn read<S: Storage>(storage: &mut S, area: u8, copy: u32, state: &mut State) -> Result<Option<u32>, StorageFault> {
    let start = copy * RECORD_LEN as u32;
    let area = Area::State(area);
    if start + RECORD_LEN as u32 > storage.geometry(area).len {
        return Ok(None);
    }
    let mut reader = RecordReader { storage, area, start, at: 0, piece: [0; PIECE], hash: Hash::new(), fault: false };
    let sequence = decode(&mut reader, state);
    if reader.fault {
        return Err(StorageFault);
    }
    if sequence.is_none() {
        return Ok(None);
    }
    let sum = reader.hash.finish();
    let mut stored = [0; SUM_LEN];
    reader.storage.read(area, start + BODY_LEN as u32, &mut stored)?;
    Ok(sequence.filter(|_| sum.starts_with(&stored)))
}

/// Head, payload, and what follows it to the end of the body.
fn decode<S: Storage>(reader: &mut RecordReader<'_, S>, state: &mut State) -> Option<u32> {
    let source: &mut dyn Source = reader;
    let (magic, len, sequence) = (source.array()?, source.array()?, source.array()?);
    if magic != MAGIC {
        return None;
    }
    // A record of older firmware ends before fields that were added since. Zeros follow it, and these are their defaults.
    state.read(source)?;
    let len = usize::try_from(u32::from_le_bytes(len)).ok()?;
    if len > BODY_LEN - HEAD_LEN {
        return None;
    }
    while reader.at < BODY_LEN {
        reader.fill(&mut [0])?;
    }
    Some(u32::from_le_bytes(sequence))
}

#[cfg(all(test, feature = "std"))]
mod tests;
