//! Reports that survive a restart: a queue in NOR flash, by `sequential-storage`.
//!
//! When the flash is full the oldest windows merge by addition, as in an [`Outbox`](crate::Outbox), until there is room.
//! A power cut at that moment loses them; the server sees the gap in their numbers. Slots and counters of updates do not
//! belong in such a queue, and have records of their own.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash as blocking;
use embedded_storage_async::nor_flash as asynchronous;
use sequential_storage::Error;
use sequential_storage::cache::Cache;
use sequential_storage::queue::{QueueConfig, QueueStorage};

use crate::logging::warning;
use crate::report::{Profile, Report};
use crate::window::Window;

/// Flash that blocks, for code that waits: it never has to.
#[derive(Debug)]
struct Ready<S>(S);

impl<S: blocking::ErrorType> blocking::ErrorType for Ready<S> {
    type Error = S::Error;
}

impl<S: blocking::ReadNorFlash> asynchronous::ReadNorFlash for Ready<S> {
    const READ_SIZE: usize = S::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<S: blocking::NorFlash> asynchronous::NorFlash for Ready<S> {
    const WRITE_SIZE: usize = S::WRITE_SIZE;
    const ERASE_SIZE: usize = S::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.write(offset, bytes)
    }
}

impl<S: blocking::MultiwriteNorFlash> asynchronous::MultiwriteNorFlash for Ready<S> {}

/// The value of a future that never waits.
fn now<T>(future: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(StoreError::Flash),
    }
}

/// Why the store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The range does not begin and end with a sector, or is too small.
    Range,
    /// The flash failed, or what is in it is damaged beyond repair.
    Flash,
    /// A report is longer than `B`.
    Space,
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Range => "the store's range does not begin and end with a sector of the flash",
            Self::Flash => "the flash failed, or what is in it is damaged",
            Self::Space => "a report is longer than the store has room for",
        })
    }
}

impl core::error::Error for StoreError {}

type Queue<S> = QueueStorage<
    Ready<S>,
    Cache<
        sequential_storage::cache::Uncached,
        sequential_storage::cache::Uncached,
        sequential_storage::cache::Uncached,
    >,
>;

/// Windows in flash, the oldest first; each of at most `B` bytes as a full report.
pub struct Store<S: blocking::MultiwriteNorFlash, const C: usize, const F: usize, const B: usize> {
    queue: Queue<S>,
    sent: Option<Window<C, F>>,
    dropped: u32,
}

impl<S: blocking::MultiwriteNorFlash, const C: usize, const F: usize, const B: usize> Store<S, C, F, B> {
    /// The queue in a range of the flash; what is there is kept.
    ///
    /// # Errors
    /// [`StoreError::Range`].
    pub fn new(flash: S, range: core::ops::Range<u32>) -> Result<Self, StoreError> {
        let config = QueueConfig::try_new(range).map_err(|_| StoreError::Range)?;
        Ok(Self { queue: QueueStorage::new(Ready(flash), config, Cache::new_uncached()), sent: None, dropped: 0 })
    }

    /// Windows that were lost since this was last asked: neighbours of different models or arms do not merge.
    pub fn take_dropped(&mut self) -> u32 {
        core::mem::take(&mut self.dropped)
    }

    /// The flash, when the store is not needed any more.
    pub fn into_flash(self) -> S {
        self.queue.destroy().0.0
    }

    fn try_push(&mut self, bytes: &[u8]) -> Result<bool, StoreError> {
        now(async {
            match self.queue.push(bytes, false).await {
                Ok(()) => Ok(true),
                Err(Error::FullStorage) => Ok(false),
                Err(_) => Err(StoreError::Flash),
            }
        })
    }

    fn pop(&mut self) -> Result<Option<Window<C, F>>, StoreError> {
        let mut bytes = [0; B];
        loop {
            let popped = now(async { self.queue.pop(&mut bytes).await.map_err(|_| StoreError::Flash) })?;
            match popped.map(|bytes| Report::decode(bytes)) {
                None => return Ok(None),
                Some(Ok(Report::Known(_, window))) => return Ok(Some(window)),
                // Written by other firmware: nobody can merge it.
                Some(_) => self.lose(1),
            }
        }
    }

    fn lose(&mut self, windows: u32) {
        self.dropped = self.dropped.saturating_add(windows);
        warning!("windows were lost because the flash has no room: {}", windows);
    }

    /// Puts a window at the end.
    ///
    /// # Errors
    /// When the flash fails, or the report is too long.
    pub fn push(&mut self, window: &Window<C, F>) -> Result<(), StoreError> {
        let mut bytes = [0; B];
        let mut oldest: Option<Window<C, F>> = None;
        loop {
            let len = window.encode(Profile::Full, &mut bytes).map_err(|_| StoreError::Space)?;
            if self.try_push(bytes.get(..len).unwrap_or(&[]))? {
                break;
            }
            // Sectors are freed whole: windows are taken out and added until one is free.
            let Some(next) = self.pop()? else { return Err(StoreError::Flash) };
            if self.sent.is_some_and(|s| s.head().seq == next.head().seq && s.head().boot == next.head().boot) {
                // It may be with the server; it stays in memory until it is acknowledged.
                continue;
            }
            oldest = Some(match oldest {
                None => next,
                Some(mut sum) => {
                    if sum.merge(&next).is_err() {
                        self.lose(sum.head().span);
                        sum = next;
                    }
                    sum
                }
            });
        }
        let Some(sum) = oldest else { return Ok(()) };
        let len = sum.encode(Profile::Full, &mut bytes).map_err(|_| StoreError::Space)?;
        if !self.try_push(bytes.get(..len).unwrap_or(&[]))? {
            self.lose(sum.head().span);
        }
        Ok(())
    }

    /// Writes the report of a window and says how long it is; `None` when there is nothing to send, or `into` is too
    /// short. It stays the same window until it is acknowledged.
    ///
    /// # Errors
    /// When the flash fails.
    pub fn send(&mut self, profile: Profile, into: &mut [u8]) -> Result<Option<usize>, StoreError> {
        if self.sent.is_none() {
            let mut bytes = [0; B];
            let peeked = now(async { self.queue.peek(&mut bytes).await.map_err(|_| StoreError::Flash) })?;
            match peeked.map(|bytes| Report::decode(bytes)) {
                None => return Ok(None),
                Some(Ok(Report::Known(_, window))) => self.sent = Some(window),
                Some(_) => {
                    self.sent = self.pop()?;
                    // It is in memory alone now; what pop passed over is gone.
                }
            }
        }
        Ok(self.sent.and_then(|window| window.encode(profile, into).ok()))
    }

    /// The server has the window `seq` of start `boot`, of which the lowest four bits are enough. Tells whether it was the
    /// one that was sent.
    ///
    /// # Errors
    /// When the flash fails; then it is sent again after the next start, and the server knows it.
    pub fn acknowledge(&mut self, boot: u32, seq: u32) -> Result<bool, StoreError> {
        let mask = crate::report::BOOT_MASK;
        let same = |w: &Window<C, F>| {
            let h = w.head();
            h.seq == seq && (h.boot == boot || (boot <= mask && h.boot & mask == boot))
        };
        if !self.sent.is_some_and(|w| same(&w)) {
            return Ok(false);
        }
        self.sent = None;
        let mut bytes = [0; B];
        let peeked = now(async { self.queue.peek(&mut bytes).await.map_err(|_| StoreError::Flash) })?;
        if let Some(Ok(Report::Known(_, first))) = peeked.map(|bytes| Report::<C, F>::decode(bytes))
            && same(&first)
        {
            self.pop()?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
