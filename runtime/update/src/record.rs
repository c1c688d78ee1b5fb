//! The state record: what survives a power cut.
//!
//! Two areas take turns. A record is written to the area that does not hold the newest, twice in a row, and counts once
//! its checksum is right; so at every moment the newest whole record is untouched. Two copies in one area are there
//! for bits that rot.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::phase::Outcome;
use crate::storage::{Area, MAX_UNIT, Storage, StorageFault};
use crate::trust::RootKeys;

/// Bytes of a record, a multiple of every program unit.
pub const RECORD_LEN: usize = 1280;
/// Bytes of the checksum, which has the last program unit for itself.
const SUM_LEN: usize = 16;
/// Bytes before the payload: magic, length, sequence.
const HEAD_LEN: usize = 12;
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
}

impl State {
    /// The state of a device that never had an update.
    #[must_use]
    pub fn factory(root: RootKeys, confirmed: Option<Installed>) -> Self {
        Self {
            confirmed,
            previous: None,
            candidate: None,
            floor: confirmed.map_or(0, |c| c.counter),
            root,
            rollout: 0,
            time: 0,
            tombstones: [Tombstone::default(); TOMBSTONES],
            buried: 0,
            whole: None,
            last: None,
        }
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
        let tombstone = Tombstone { prefix: prefix(&package.digest), number: package.number.max(1) };
        if self.tombstones.iter().any(|t| t.number > 0 && t.prefix == tombstone.prefix) {
            return;
        }
        if let Some(place) = self.tombstones.iter_mut().min_by_key(|t| t.number) {
            self.buried = self.buried.max(place.number);
            *place = tombstone;
        }
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
    prefix.copy_from_slice(digest.split_at(PREFIX).0);
    prefix
}

/// The two areas, and which one holds the newest record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records {
    pub(crate) sequence: u32,
    newest: u8,
}

impl Records {
    /// Reads the newest whole record.
    pub(crate) fn load<S: Storage>(storage: &mut S) -> Result<(Self, Option<State>), StorageFault> {
        let mut best: Option<(Self, State)> = None;
        for area in 0..2u8 {
            for copy in 0..2u32 {
                let Some((sequence, state)) = read(storage, area, copy)? else { continue };
                let newer = |(b, _): &(Self, State)| sequence.wrapping_sub(b.sequence).cast_signed() > 0;
                if best.as_ref().is_none_or(newer) {
                    best = Some((Self { sequence, newest: area }, state));
                }
            }
        }
        Ok(match best {
            Some((records, state)) => (records, Some(state)),
            None => (Self { sequence: 0, newest: 1 }, None),
        })
    }

    /// Writes a record. Until it is whole the one before it counts.
    pub(crate) fn save<S: Storage>(&mut self, storage: &mut S, state: &State) -> Result<(), StorageFault> {
        let next = Self { sequence: self.sequence.wrapping_add(1), newest: 1 - (self.newest & 1) };
        let mut record = [0; RECORD_LEN];
        encode(&mut record, next.sequence, state).ok_or(StorageFault)?;
        let area = Area::State(next.newest);
        let geometry = storage.geometry(area);
        storage.erase(area, 0, geometry.len)?;
        for copy in 0..2u32 {
            let at = copy * RECORD_LEN as u32;
            if at + RECORD_LEN as u32 <= geometry.len {
                storage.write(area, at, &record)?;
                storage.sync()?;
                *self = next;
            }
        }
        Ok(())
    }
}

fn encode(record: &mut [u8; RECORD_LEN], sequence: u32, state: &State) -> Option<()> {
    let (body, tail) = record.split_at_mut_checked(RECORD_LEN - MAX_UNIT)?;
    let (head, payload) = body.split_at_mut_checked(HEAD_LEN)?;
    let len = postcard::to_slice(state, payload).ok()?.len();
    let fields = MAGIC.into_iter().chain((len as u32).to_le_bytes()).chain(sequence.to_le_bytes());
    head.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    let sum = Sha256::digest(&*body);
    tail.iter_mut().zip(sum.iter().take(SUM_LEN)).for_each(|(to, from)| *to = *from);
    Some(())
}

fn read<S: Storage>(storage: &mut S, area: u8, copy: u32) -> Result<Option<(u32, State)>, StorageFault> {
    let mut record = [0; RECORD_LEN];
    let at = copy * RECORD_LEN as u32;
    if at + RECORD_LEN as u32 > storage.geometry(Area::State(area)).len {
        return Ok(None);
    }
    storage.read(Area::State(area), at, &mut record)?;
    Ok(decode(&record))
}

fn decode(record: &[u8; RECORD_LEN]) -> Option<(u32, State)> {
    let (body, tail) = record.split_at_checked(RECORD_LEN - MAX_UNIT)?;
    let (&magic, rest) = body.split_first_chunk::<4>()?;
    let (&len, rest) = rest.split_first_chunk::<4>()?;
    let (&sequence, payload) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(len)).ok()?;
    if magic != MAGIC || Sha256::digest(body).get(..SUM_LEN) != tail.get(..SUM_LEN) {
        return None;
    }
    let state = postcard::from_bytes(payload.get(..len)?).ok()?;
    Some((u32::from_le_bytes(sequence), state))
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn the_largest_state_fits_and_comes_back() {
        let package = Installed {
            slot: 255,
            len: u32::MAX,
            digest: [255; 32],
            hash: [255; 32],
            counter: u32::MAX,
            number: u32::MAX,
        };
        let transfer = Transfer { id: [255; 8], len: u32::MAX, delta: true };
        let mut state = State::factory(RootKeys::largest(), Some(package));
        state.previous = Some(package);
        state.candidate = Some(Candidate { package, transfer, attempt: u32::MAX, stage: Stage::Trial { starts: 255 } });
        (state.floor, state.rollout, state.time) = (u32::MAX, u64::MAX, u64::MAX);
        state.tombstones = [Tombstone { prefix: [255; PREFIX], number: u32::MAX }; TOMBSTONES];
        (state.buried, state.whole) = (u32::MAX, Some([255; PREFIX]));
        state.last = Some(([255; PREFIX], Outcome::Reverted(crate::phase::Reversal::Ordered)));
        let mut record = [0; RECORD_LEN];
        encode(&mut record, 7, &state).expect("it fits");
        assert_eq!(decode(&record), Some((7, state)));
        for at in 0..RECORD_LEN - MAX_UNIT + SUM_LEN {
            record[at] ^= 1;
            assert_eq!(decode(&record), None, "byte {at}");
            record[at] ^= 1;
        }
    }

    #[test]
    fn the_oldest_tombstone_takes_older_releases_with_it() {
        let mut state = State::factory(RootKeys::largest(), None);
        let package =
            |n: u8| Installed { slot: 0, len: 1, digest: [n; 32], hash: [0; 32], counter: 0, number: u32::from(n) };
        for n in 1..=TOMBSTONES as u8 + 3 {
            state.bury(&package(n));
        }
        for n in 1..=TOMBSTONES as u8 + 3 {
            assert!(state.is_buried(&[n; 32], u32::from(n)), "{n}");
        }
        assert!(!state.is_buried(&[99; 32], 99));
        state.lift(&[10; PREFIX]);
        assert!(!state.is_buried(&[10; 32], 10));
    }
}
