//! How far a download is, in marks that are appended to an erased area.

use crate::delta::Checkpoint;
use crate::record::{Candidate, PREFIX, prefix};
use crate::storage::{Area, MAX_UNIT, Storage, StorageFault};
use dunlin_package::Hash;

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
    /// What tells this transfer's marks from those of others.
    attempt: u32,
    id: [u8; 8],
    digest: [u8; PREFIX],
}

fn step(unit: u32) -> u32 {
    (MARK_LEN as u32).next_multiple_of(unit)
}

impl Journal {
    /// An empty journal.
    pub(crate) fn clear<S: Storage>(&mut self, storage: &mut S) -> Result<(), StorageFault> {
        self.next = 0;
        storage.erase(Area::Journal, 0, storage.geometry(Area::Journal).len)
    }

    /// The journal as a power cut left it, with its last whole mark.
    pub(crate) fn resume<S: Storage>(
        storage: &mut S,
        candidate: &Candidate,
    ) -> Result<(Self, Option<Mark>), StorageFault> {
        let digest = prefix(&candidate.package.digest);
        let mut journal = Self { next: 0, attempt: candidate.attempt, id: candidate.transfer.id, digest };
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
            self.clear(storage)?;
        }
        let mut bytes = [0; MAX_UNIT];
        let fields = mark.fields();
        bytes.iter_mut().zip(fields.as_flattened()).for_each(|(to, from)| *to = *from);
        let sum = self.sum(&fields);
        bytes.iter_mut().skip(fields.as_flattened().len()).zip(sum).for_each(|(to, from)| *to = from);
        let bytes = bytes.get(..step as usize).ok_or(StorageFault)?;
        storage.write(Area::Journal, self.next, bytes)?;
        storage.sync()?;
        self.next += step;
        Ok(())
    }

    fn sum(&self, fields: &[[u8; 4]; 3]) -> [u8; 4] {
        let hash = Hash::of(&[&self.attempt.to_le_bytes(), &self.id, &self.digest, fields.as_flattened()]);
        hash.first_chunk().copied().unwrap_or_default()
    }

    fn decode(&self, bytes: &[u8]) -> Option<Mark> {
        let (fields, _) = bytes.first_chunk::<MARK_LEN>()?.as_chunks::<4>();
        let &[sectors, patch, output, sum] = fields else { return None };
        if sum != self.sum(&[sectors, patch, output]) {
            return None;
        }
        let [sectors, patch_offset, output_offset] = [sectors, patch, output].map(u32::from_le_bytes);
        Some(Mark { sectors, checkpoint: Checkpoint { patch_offset, output_offset } })
    }
}

impl Mark {
    fn fields(&self) -> [[u8; 4]; 3] {
        let Checkpoint { patch_offset, output_offset } = self.checkpoint;
        [self.sectors, patch_offset, output_offset].map(u32::to_le_bytes)
    }
}
