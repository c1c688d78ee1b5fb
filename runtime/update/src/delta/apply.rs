//! The decoder.

use super::coder::{Bounds, Decoder};
use super::model::{Command, LOOK_AHEAD, Models, Operation, UNITY, scaled};
use super::{Base, Checkpoint, DeltaError, HEADER_LEN, Header, MAX_BLOCK, Sink};

/// Bytes of the stream that are kept until they can be decoded.
const INPUT: usize = LOOK_AHEAD + 16;
/// Bytes of base and result that are moved at once.
const PIECE: usize = 64;

/// Applies a patch that comes in pieces of any size. It takes less than 4.5 KB and nothing besides: there is no window
/// of earlier output.
#[derive(Clone, Debug)]
pub struct Applier {
    header: Option<Header>,
    stage: Stage,
    /// Bytes of the stream that are not decoded yet.
    input: [u8; INPUT],
    held: usize,
    /// Bytes of the stream that were given.
    given: u32,
    /// Bytes of the result that were written.
    written: u32,
    checkpoint: Option<Checkpoint>,
    /// What the current block still gives, and bytes of it that were not given yet.
    block_left: u32,
    payload_left: u32,
    bounds: Bounds,
    models: Models,
    running: Running,
    /// Whether there is a command under way.
    busy: bool,
    /// Where the last command ended in the base.
    base_end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Block,
    Begin,
    Commands,
    End,
    Failed,
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
struct Running {
    command: Command,
    /// Bytes it has given.
    done: u32,
    factor: i32,
    before: u32,
}

impl Default for Applier {
    fn default() -> Self {
        Self::new()
    }
}

impl Applier {
    /// From the first byte of a patch on. All its bytes are 0, so that one in static memory takes no flash.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            header: None,
            stage: Stage::Header,
            input: [0; INPUT],
            held: 0,
            given: 0,
            written: 0,
            checkpoint: None,
            block_left: 0,
            payload_left: 0,
            bounds: Bounds::none(),
            models: Models::new(),
            running: Running { command: Command::NONE, done: 0, factor: 0, before: 0 },
            busy: false,
            base_end: 0,
        }
    }

    /// From a checkpoint on: fed with the patch from its offset, it gives the result from its offset.
    #[must_use]
    pub fn resume(header: &Header, from: Checkpoint) -> Self {
        let mut applier = Self::new();
        applier.restart(Some((header, from)));
        applier
    }

    /// As [`new`](Self::new) or [`resume`](Self::resume), in place.
    pub fn restart(&mut self, from: Option<(&Header, Checkpoint)>) {
        (self.held, self.block_left, self.payload_left, self.base_end) = (0, 0, 0, 0);
        self.busy = false;
        (self.header, self.checkpoint) = (from.map(|(h, _)| *h), from.map(|(_, c)| c));
        (self.given, self.written) = from.map_or((0, 0), |(_, c)| (c.patch_offset, c.output_offset));
        self.stage = match from {
            None => Stage::Header,
            Some((header, c)) if c.output_offset >= header.target_len => Stage::End,
            Some(_) => Stage::Block,
        };
    }

    /// The header, once it has come.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The latest place to begin again from.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// Offset in the result that is reached.
    #[must_use]
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Whether the result is all written.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::End
    }

    /// Takes the next bytes of the patch; any parting of it gives the same result. After an error nothing more is taken.
    ///
    /// A byte of the patch is worth bounded work apart from copies, and a block gives at most [`MAX_BLOCK`] bytes.
    ///
    /// # Errors
    /// When the patch is damaged or the storage fails.
    pub fn push(&mut self, patch: &[u8], base: &mut impl Base, sink: &mut impl Sink) -> Result<(), DeltaError> {
        let mut rest = patch;
        let result = loop {
            let room = self.input.get_mut(self.held..).unwrap_or(&mut []);
            let taken = room.len().min(rest.len());
            // Always there; a check that cannot panic leaves no text of a panic in firmware.
            let (now, later) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.held += taken;
            self.given = self.given.saturating_add(taken as u32);
            rest = later;
            match self.decode(base, sink) {
                Ok(true) => {}
                Ok(false) if rest.is_empty() => break Ok(()),
                // Nothing was decoded of a full buffer: the look-ahead makes this impossible.
                Ok(false) if self.held == INPUT => break Err(DeltaError::Malformed),
                Ok(false) => {}
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            self.stage = Stage::Failed;
        }
        result
    }

    /// Forgets decoded bytes of the stream.
    #[inline(never)]
    fn drop_input(&mut self, n: usize) {
        let n = n.min(self.held);
        self.held -= n;
        // Byte by byte: this takes a device less than a general move of memory.
        for i in 0..self.held {
            let byte = self.input.get(i + n).copied().unwrap_or(0);
            self.input.iter_mut().skip(i).take(1).for_each(|to| *to = byte);
        }
    }

    /// Decodes one step; false: bytes are missing.
    fn decode(&mut self, base: &mut impl Base, sink: &mut impl Sink) -> Result<bool, DeltaError> {
        match self.stage {
            Stage::Header => {
                let Some(bytes) = self.input.get(..self.held).and_then(|b| b.first_chunk::<HEADER_LEN>()) else {
                    return Ok(false);
                };
                let header = Header::read(bytes)?;
                self.drop_input(HEADER_LEN);
                self.header = Some(header);
                self.note();
                self.stage = if header.target_len == 0 { Stage::End } else { Stage::Block };
                Ok(true)
            }
            Stage::Block => self.block(),
            Stage::Begin => {
                if !self.has(4) {
                    return Ok(false);
                }
                self.models.reset();
                self.busy = false;
                let at_hand = self.available();
                let bytes = self.input.get(..at_hand).unwrap_or(&[]);
                let mut decoder = Decoder { bounds: &mut self.bounds, bytes, taken: 0 };
                decoder.begin();
                let taken = decoder.taken;
                self.take(taken);
                self.stage = Stage::Commands;
                Ok(true)
            }
            Stage::Commands => self.commands(base, sink),
            Stage::End if self.held > 0 => Err(DeltaError::Excess),
            Stage::End => Ok(false),
            Stage::Failed => Err(DeltaError::Malformed),
        }
    }

    fn note(&mut self) {
        let patch_offset = self.given.saturating_sub(self.held as u32);
        self.checkpoint = Some(Checkpoint { patch_offset, output_offset: self.written });
    }

    /// The block's two lengths, four bytes each.
    fn block(&mut self) -> Result<bool, DeltaError> {
        let Some((head, _)) = self.input.get(..self.held).and_then(|b| b.split_first_chunk::<8>()) else {
            return Ok(false);
        };
        let &[a, b, c, d, e, f, g, h] = head;
        let (output, payload) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let left = self.header.map_or(0, |h| h.target_len).saturating_sub(self.written);
        if output == 0 || output > MAX_BLOCK || output > left {
            return Err(DeltaError::Excess);
        }
        self.note();
        self.drop_input(8);
        (self.block_left, self.payload_left) = (output, payload);
        self.base_end = self.written;
        self.stage = Stage::Begin;
        Ok(true)
    }

    /// Bytes of this block that are at hand.
    fn available(&self) -> usize {
        self.held.min(self.payload_left as usize)
    }

    /// Whether so many bytes of the block are at hand, or all that it has.
    fn has(&self, bytes: usize) -> bool {
        let available = self.available();
        available >= bytes || available == self.payload_left as usize
    }

    fn take(&mut self, n: usize) {
        self.payload_left -= (n as u32).min(self.payload_left);
        self.drop_input(n);
    }

    fn commands(&mut self, base: &mut impl Base, sink: &mut impl Sink) -> Result<bool, DeltaError> {
        if self.block_left == 0 {
            if !self.has(self.payload_left as usize) {
                // What is left of the payload means nothing, but has to come.
                let n = self.available();
                self.take(n);
                return Ok(n > 0);
            }
            let n = self.available();
            self.take(n);
            let target_len = self.header.map_or(0, |h| h.target_len);
            self.stage = if self.written >= target_len { Stage::End } else { Stage::Block };
            if self.stage == Stage::Block {
                self.note();
            }
            return Ok(true);
        }
        let Running { command, done, .. } = self.running;
        if self.busy && matches!(command.operation, Operation::Copy | Operation::Digest) {
            return self.copy(command, done, base, sink).map(|()| true);
        }
        if !self.has(LOOK_AHEAD) {
            return Ok(false);
        }
        let at_hand = self.available();
        let bytes = self.input.get(..at_hand).unwrap_or(&[]);
        let mut decoder = Decoder { bounds: &mut self.bounds, bytes, taken: 0 };
        let mut running = match self.busy {
            true => self.running,
            false => {
                let command =
                    self.models.command(&mut decoder, self.base_end, &Command::NONE).ok_or(DeltaError::Malformed)?;
                if command.len > self.block_left {
                    return Err(DeltaError::Excess);
                }
                let base_len = self.header.map_or(0, |h| h.base_len);
                let end = command.base.checked_add(command.len);
                if command.operation.reads_base() && end.is_none_or(|end| end > base_len) {
                    return Err(DeltaError::Base);
                }
                let taken = decoder.taken;
                self.take(taken);
                (self.running, self.busy) = (Running { command, done: 0, factor: UNITY, before: 0 }, true);
                return Ok(true);
            }
        };
        // One symbol after the other while bytes are at hand, in pieces of what base and sink take at once.
        let Command { operation, len, base: from, run } = running.command;
        let n = (len - running.done).min(PIECE as u32) as usize;
        let mut old = [0; PIECE];
        let mut new = [0; PIECE];
        if operation.reads_base() {
            base.read(from.saturating_add(running.done), old.get_mut(..n).unwrap_or(&mut []))?;
        }
        let whole = bytes.len() == self.payload_left as usize;
        let ready = |taken: usize| whole || bytes.len() - taken >= LOOK_AHEAD;
        let mut made = 0;
        while made < n && ready(decoder.taken) {
            let at = running.done + made as u32;
            if operation.is_words() {
                let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
                let reads = operation == Operation::Words;
                let expected = if reads { word(old.get(made..).unwrap_or(&[])) } else { running.before };
                let value = self.models.word(&mut decoder, expected, 0);
                running.before = value;
                let place = new.iter_mut().skip(made).zip(value.to_le_bytes());
                place.for_each(|(to, from)| *to = from);
                made += 4;
                continue;
            }
            let mut known = old.get(made).copied().unwrap_or(0);
            if operation == Operation::Scaled {
                if at.is_multiple_of(run) {
                    running.factor = self.models.factor(&mut decoder, 0);
                }
                known = scaled(known, running.factor);
            }
            let value = self.models.byte(&mut decoder, operation, known, 0);
            new.iter_mut().skip(made).take(1).for_each(|to| *to = value);
            made += 1;
        }
        let taken = decoder.taken;
        self.take(taken);
        self.give(new.get(..made).unwrap_or(&[]), sink)?;
        running.done += made as u32;
        self.running = running;
        self.finish_command();
        Ok(made > 0)
    }

    fn copy(
        &mut self,
        command: Command,
        done: u32,
        base: &mut impl Base,
        sink: &mut impl Sink,
    ) -> Result<(), DeltaError> {
        let mut done = done;
        while done < command.len {
            let mut piece = [0; PIECE];
            let n = (command.len - done).min(PIECE as u32);
            let piece = piece.get_mut(..n as usize).unwrap_or(&mut []);
            match command.operation {
                Operation::Copy => base.read(command.base.saturating_add(done), piece)?,
                _ => {
                    let digest = self.header.map_or([0; 32], |h| h.target);
                    piece.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
                }
            }
            self.give(piece, sink)?;
            done += n;
        }
        self.running.done = done;
        self.finish_command();
        Ok(())
    }

    fn give(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), DeltaError> {
        sink.write(bytes)?;
        self.written = self.written.saturating_add(bytes.len() as u32);
        self.block_left = self.block_left.saturating_sub(bytes.len() as u32);
        Ok(())
    }

    fn finish_command(&mut self) {
        let Running { command, done, .. } = self.running;
        if done >= command.len {
            if command.operation.reads_base() {
                self.base_end = command.base.saturating_add(command.len);
            } else {
                self.base_end = self.base_end.saturating_add(command.len);
            }
            self.busy = false;
        }
    }
}
