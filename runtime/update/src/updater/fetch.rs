//! Bytes into a slot, and what is in the slot against what was signed.

use super::{UpdateError, Updater};
use crate::delta::{Checkpoint, Header};
use crate::journal::{Journal, Mark};
use crate::phase::{Event, Phase, Rejection};
use crate::record::{Candidate, Stage};
use crate::slot::{Growing, Running, Writer};
use crate::storage::{Area, Storage};
use crate::trust::Verifier;

/// Bytes that go through the decoder before progress is noted.
const PIECE: usize = 64;

/// A download, with what a power cut forgets.
pub(super) struct Download {
    writer: Writer,
    journal: Journal,
    /// Sectors that the journal knows of.
    noted: u32,
    /// The next byte of the stream.
    next: u32,
    resume: Option<Resume>,
}

/// Where the decoder of a difference can begin again.
struct Resume {
    /// The latest place to begin again from whose output is whole in the slot.
    safe: Checkpoint,
    /// A later one, whose output is not yet.
    held: Option<Checkpoint>,
}

impl Download {
    /// The next byte of the stream.
    pub(super) fn next(&self) -> u32 {
        self.next
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes are missing.
    More {
        /// The offset in the stream that comes next.
        next: u32,
        /// Bytes of the stream.
        len: u32,
    },
    /// The package is in its slot and has the signed hash; it may be started.
    Staged,
}

impl<S: Storage, V: Verifier> Updater<'_, S, V> {
    /// The offset of the next byte that is wanted, after a start as well as between pieces; a package that is all there
    /// is hashed and staged.
    ///
    /// # Errors
    /// When nothing is being fetched, what is in the slot is not what was signed, or the storage fails.
    #[inline(never)]
    pub fn resume(&mut self) -> Result<Progress, UpdateError> {
        if self.phase == Phase::Staged {
            return Ok(Progress::Staged);
        }
        self.fetching()?;
        if self.download.is_none() {
            match self.reopen() {
                Err(UpdateError::Rejected(reason)) => return Err(self.refuse(reason)),
                other => other?,
            }
            self.step(Event::Receive)?;
        }
        self.progress()
    }

    /// Takes the bytes of the stream from `offset` on. Those that it has already are skipped.
    ///
    /// # Errors
    /// As [`resume`](Self::resume); and when the bytes leave a gap or are too many.
    #[inline(never)]
    pub fn receive(&mut self, offset: u32, bytes: &[u8]) -> Result<Progress, UpdateError> {
        if let Progress::Staged = self.resume()? {
            return Ok(Progress::Staged);
        }
        let len = self.fetching()?.transfer.len;
        let expected = self.download.as_ref().map_or(0, Download::next);
        let known = expected.checked_sub(offset).ok_or(UpdateError::Gap { expected })?;
        let end = u32::try_from(bytes.len()).ok().and_then(|n| n.checked_add(offset));
        if end.is_none_or(|end| end > len) {
            return Err(UpdateError::Excess);
        }
        let news = bytes.get(known as usize..).unwrap_or(&[]);
        for piece in news.chunks(PIECE) {
            if let Err(error) = self.piece(piece).and_then(|()| self.note()) {
                // What is in memory no longer tells what is stored; the journal does.
                self.download = None;
                let UpdateError::Rejected(reason) = error else { return Err(error) };
                return Err(self.refuse(reason));
            }
        }
        self.progress()
    }

    fn fetching(&self) -> Result<&Candidate, UpdateError> {
        let fetching = matches!(self.phase, Phase::Offered | Phase::Fetching);
        self.state.candidate.as_ref().filter(|_| fetching).ok_or(UpdateError::Phase(self.phase))
    }

    /// The download as the journal tells it.
    #[inline(never)]
    fn reopen(&mut self) -> Result<(), UpdateError> {
        let Some(candidate) = &self.state.candidate else { return Err(UpdateError::Phase(self.phase)) };
        let package = &candidate.package;
        let storage = self.storage.get_mut();
        let (mut journal, mark) = Journal::resume(storage, candidate)?;
        let geometry = storage.geometry(Area::Slot(package.slot));
        let mut durable = mark.and_then(|m| m.sectors.checked_mul(geometry.sector)).unwrap_or(0);
        let mark = mark.filter(|m| durable <= geometry.len && m.checkpoint.output_offset <= durable);
        let (mut noted, mut safe) = (0, Checkpoint { patch_offset: 0, output_offset: 0 });
        match mark {
            Some(mark) => (noted, safe) = (mark.sectors, mark.checkpoint),
            None => {
                journal.clear(storage)?;
                durable = 0;
            }
        }
        durable = durable.min(package.len);
        let (mut start, mut next) = (durable, durable);
        if candidate.transfer.delta {
            let Some(base) = &self.state.confirmed else { return Err(UpdateError::Rejected(Rejection::Base)) };
            (start, next) = (safe.output_offset, safe.patch_offset);
            if next == 0 {
                // Before the first block there is only the header, which has to come again.
                self.decoder.restart(None);
                start = 0;
            } else {
                let header =
                    Header { base: base.digest, target: package.digest, base_len: base.len, target_len: package.len };
                self.decoder.restart(Some((&header, safe)));
            }
        }
        let writer = Writer::new(package.slot, geometry, start, durable, package.len);
        let resume = candidate.transfer.delta.then_some(Resume { safe, held: None });
        self.download = Some(Download { writer, journal, noted, next, resume });
        Ok(())
    }

    #[inline(never)]
    fn piece(&mut self, bytes: &[u8]) -> Result<(), UpdateError> {
        let download = self.download.as_mut().ok_or(UpdateError::Phase(self.phase))?;
        if download.resume.is_none() {
            download.writer.write(self.storage.get_mut(), bytes)?;
        } else {
            let (Some(from), Some(candidate)) = (&self.state.confirmed, &self.state.candidate) else {
                return Err(UpdateError::Rejected(Rejection::Base));
            };
            let mut base = Running { storage: &self.storage, slot: from.slot };
            let mut sink = Growing { storage: &self.storage, writer: &mut download.writer };
            self.decoder.push(bytes, &mut base, &mut sink).map_err(|error| match error {
                crate::delta::DeltaError::Storage => UpdateError::Storage,
                _ => UpdateError::Rejected(Rejection::Delta),
            })?;
            let to = &candidate.package;
            let fits = |h: &Header| {
                (h.base_len, h.target_len) == (from.len, to.len) && h.base == from.digest && h.target == to.digest
            };
            if !self.decoder.header().is_none_or(fits) {
                return Err(UpdateError::Rejected(Rejection::Base));
            }
        }
        download.next = download.next.saturating_add(bytes.len() as u32);
        Ok(())
    }

    /// Writes a mark when a sector became whole.
    #[inline(never)]
    fn note(&mut self) -> Result<(), UpdateError> {
        let Some(download) = self.download.as_mut() else { return Ok(()) };
        let sectors = download.writer.sectors();
        let storage = self.storage.get_mut();
        let durable = download.writer.durable();
        if let Some(resume) = &mut download.resume {
            if let Some(held) = resume.held.filter(|h| h.output_offset <= durable) {
                (resume.safe, resume.held) = (held, None);
            }
            match self.decoder.checkpoint() {
                Some(now) if now.output_offset <= durable => resume.safe = now,
                now => resume.held = resume.held.or(now),
            }
        }
        if sectors > download.noted {
            let checkpoint = match &download.resume {
                Some(resume) => resume.safe,
                None => Checkpoint { patch_offset: 0, output_offset: 0 },
            };
            download.journal.append(storage, Mark { sectors, checkpoint })?;
            download.noted = sectors;
        }
        Ok(())
    }

    #[inline(never)]
    fn progress(&mut self) -> Result<Progress, UpdateError> {
        let (Some(download), Some(candidate)) = (self.download.as_mut(), &self.state.candidate) else {
            return Err(UpdateError::Phase(self.phase));
        };
        let (next, len) = (download.next, candidate.transfer.len);
        let whole = download.writer.at() >= candidate.package.len;
        let ended = download.resume.is_none() || self.decoder.is_complete();
        if !whole || !ended {
            // A stream that has ended without giving the package gives it never.
            if next >= len {
                return Err(self.refuse(Rejection::Delta));
            }
            return Ok(Progress::More { next, len });
        }
        // Whatever fails from here on, the last unit must not be written twice: the journal tells how to go on.
        let finished = download.writer.finish(self.storage.get_mut());
        self.download = None;
        finished?;
        if !self.is_whole(&candidate.package)? {
            return Err(self.refuse(Rejection::Hash));
        }
        self.step(Event::Verify)?;
        self.step(Event::Stage)?;
        self.enter(Stage::Staged).inspect_err(|_| self.phase = Phase::Fetching)?;
        Ok(Progress::Staged)
    }

    /// Gives the candidate up.
    #[inline(never)]
    fn refuse(&mut self, reason: Rejection) -> UpdateError {
        self.reject(reason).map_or_else(|error| error, |()| UpdateError::Rejected(reason))
    }
}
