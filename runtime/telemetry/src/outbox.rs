//! Windows that nobody has acknowledged yet.
//!
//! Only the oldest is ever sent; it stays until it is acknowledged. When there is no room, neighbours among those that were
//! never sent merge by addition: resolution is lost, counts are not. What was sent once does not merge, for the server may
//! have it although its answer was lost.

use heapless::{Deque, Vec};

use crate::logging::warning;
use crate::report::{Profile, decode_full};
use crate::window::{Head, Window};

/// At most `N` windows, each of at most `B` bytes as a full report; at least 3 of them.
///
/// `C` and `F` are the recorder's classes and watched values.
#[derive(Clone, Debug)]
pub struct Outbox<const C: usize, const F: usize, const N: usize, const B: usize> {
    entries: Deque<Vec<u8, B>, N>,
    sent: bool,
    dropped: u32,
}

impl<const C: usize, const F: usize, const N: usize, const B: usize> Default for Outbox<C, F, N, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const C: usize, const F: usize, const N: usize, const B: usize> Outbox<C, F, N, B> {
    const ENOUGH: () = assert!(N >= 3, "an outbox has room for three windows at least");

    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let () = Self::ENOUGH;
        Self { entries: Deque::new(), sent: false, dropped: 0 }
    }

    /// Windows in it, merged ones as one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Windows that were lost since this was last asked, because neighbours of different models or arms do not merge or
    /// a report did not fit in `B` bytes: to be counted by the recorder as [`Counter::Dropped`](crate::Counter::Dropped).
    pub fn take_dropped(&mut self) -> u32 {
        core::mem::take(&mut self.dropped)
    }

    /// Puts a window at the end.
    pub fn push(&mut self, window: &Window<C, F>) {
        if self.entries.is_full() && !self.merge() {
            // The oldest that was never sent; the one that was may be with the server.
            let unsent = usize::from(self.sent);
            if let Some(lost) = self.remove(unsent) {
                self.lose(span::<C, F>(&lost));
            }
        }
        match encode(window).map(|entry| self.entries.push_back(entry)) {
            Some(Ok(())) => {}
            _ => self.lose(window.head().span),
        }
    }

    fn lose(&mut self, windows: u32) {
        self.dropped = self.dropped.saturating_add(windows);
        warning!("windows were lost because the outbox has no room: {}", windows);
    }

    /// Merges the first two neighbours that do, of those never sent; tells whether it could.
    fn merge(&mut self) -> bool {
        for i in usize::from(self.sent)..self.entries.len().saturating_sub(1) {
            let merged = self.window(i).zip(self.window(i + 1)).and_then(|(mut window, next)| {
                window.merge(&next).ok()?;
                encode(&window)
            });
            if let Some(merged) = merged
                && let Some(place) = self.entries.iter_mut().nth(i)
            {
                *place = merged;
                self.remove(i + 1);
                return true;
            }
        }
        false
    }

    fn window(&self, i: usize) -> Option<Window<C, F>> {
        decode_full(self.entries.iter().nth(i)?).ok()
    }

    /// Takes the entry of an index out.
    fn remove(&mut self, index: usize) -> Option<Vec<u8, B>> {
        let len = self.entries.len();
        let mut removed = None;
        for i in 0..len {
            let entry = self.entries.pop_front()?;
            if i == index {
                removed = Some(entry);
            } else {
                // It fits: one was taken out before.
                let _ = self.entries.push_back(entry);
            }
        }
        removed
    }

    /// What window [`send`](Self::send) would write.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.window(0).map(|window| *window.head())
    }

    /// Writes the report of the oldest window and says how long it is; `None` when there is nothing to send, or `into` is
    /// too short. It may be asked for again until it is acknowledged, also in another profile.
    pub fn send(&mut self, profile: Profile, into: &mut [u8]) -> Option<usize> {
        let window = self.window(0)?;
        let len = window.encode(profile, into).ok()?;
        self.sent = true;
        Some(len)
    }

    /// The server has the window `seq` of start `boot`; of short reports the lowest four bits of `boot` are enough. Tells
    /// whether it was the one that was sent.
    pub fn acknowledge(&mut self, boot: u32, seq: u32) -> bool {
        let mask = crate::report::BOOT_MASK;
        let head = self.window(0).map(|w| *w.head()).filter(|_| self.sent);
        let right = head.is_some_and(|h| h.seq == seq && (h.boot == boot || (boot <= mask && h.boot & mask == boot)));
        if right {
            self.entries.pop_front();
            self.sent = false;
        }
        right
    }
}

fn encode<const C: usize, const F: usize, const B: usize>(window: &Window<C, F>) -> Option<Vec<u8, B>> {
    let mut entry = Vec::new();
    entry.resize_default(B).ok()?;
    let len = window.encode(Profile::Full, &mut entry).ok()?;
    entry.truncate(len);
    Some(entry)
}

/// Windows that are merged in a report.
fn span<const C: usize, const F: usize>(bytes: &[u8]) -> u32 {
    decode_full::<C, F>(bytes).map_or(1, |window| window.head().span)
}

#[cfg(test)]
mod tests;
