//! How far a download is, in marks that are appended to an erased area.

use crate::delta::Checkpoint;
use crate::hash::Hash;
use crate::record::Candidate;
use crate::storage::{Area, MAX_UNIT, Storage, StorageFault};

/// Bytes of a mark.
const MARK_LEN: usize = 16;

/// Sectors of the slot that are whole, and where decoding can begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sectors: u32,
    pub(crate) checkpoint: Checkpoint,
}

/// The journal of one transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Journal {
    /// Where the next mark goes.
    next: u32,
    /// Tells this transfer's marks from those of others.
    salt: [u8; 28],
}

fn step(unit: u32) -> u32 {
    (MARK_LEN as u32).next_multiple_of(unit)
}

impl Journal {
    fn of(candidate: &Candidate) -> Self {
        let mut salt = [0; 28];
        let fields =
            candidate.attempt.to_le_bytes().into_iter().chain(candidate.transfer.id).chain(candidate.package.digest);
        salt.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        Self { next: 0, salt }
    }

    /// An empty journal.
    pub(crate) fn start<S: Storage>(storage: &mut S, candidate: &Candidate) -> Result<Self, StorageFault> {
        let journal = Self::of(candidate);
        let geometry = storage.geometry(Area::Journal);
        storage.erase(Area::Journal, 0, geometry.len)?;
        Ok(journal)
    }

    /// The journal as a power cut left it, with its last whole mark.
    pub(crate) fn resume<S: Storage>(
        storage: &mut S,
        candidate: &Candidate,
    ) -> Result<(Self, Option<Mark>), StorageFault> {
        let mut journal = Self::of(candidate);
        let geometry = storage.geometry(Area::Journal);
        let step = step(geometry.unit);
        let (mut last, mut at) = (None, 0);
        while at + step <= geometry.len {
            let mut bytes = [0; MAX_UNIT];
            let (bytes, _) = bytes.split_at_mut_checked(step as usize).ok_or(StorageFault)?;
            storage.read(Area::Journal, at, bytes)?;
            at += step;
            // What a cut spoiled stays behind: a place is free only while it is erased.
            if bytes.iter().any(|&b| b != geometry.erased) {
                journal.next = at;
                last = journal.decode(bytes).or(last);
            }
        }
        Ok((journal, last))
    }

    /// Appends a mark. A full journal begins again, and a cut right then loses the progress.
    pub(crate) fn append<S: Storage>(&mut self, storage: &mut S, mark: Mark) -> Result<(), StorageFault> {
        let geometry = storage.geometry(Area::Journal);
        let step = step(geometry.unit);
        if self.next + step > geometry.len {
            storage.erase(Area::Journal, 0, geometry.len)?;
            self.next = 0;
        }
        let mut bytes = [0; MAX_UNIT];
        let Mark { sectors, checkpoint: Checkpoint { patch_offset, output_offset } } = mark;
        let fields = [sectors, patch_offset, output_offset, self.sum(sectors, patch_offset, output_offset)];
        bytes.iter_mut().zip(fields.iter().flat_map(|f| f.to_le_bytes())).for_each(|(to, from)| *to = from);
        let bytes = bytes.get(..step as usize).ok_or(StorageFault)?;
        storage.write(Area::Journal, self.next, bytes)?;
        storage.sync()?;
        self.next += step;
        Ok(())
    }

    fn sum(&self, sectors: u32, patch: u32, output: u32) -> u32 {
        let hash = Hash::of(&[&self.salt, &sectors.to_le_bytes(), &patch.to_le_bytes(), &output.to_le_bytes()]);
        hash.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
    }

    fn decode(&self, bytes: &[u8]) -> Option<Mark> {
        let mut fields = bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
        let (sectors, patch_offset, output_offset) = (fields.next()?, fields.next()?, fields.next()?);
        let right = fields.next()? == self.sum(sectors, patch_offset, output_offset);
        right.then_some(Mark { sectors, checkpoint: Checkpoint { patch_offset, output_offset } })
    }
}
