//! What is measured, and the reports that nobody has acknowledged yet.

use dunlin_telemetry::{Arm, Counter, Outbox, Profile, Recorder, Reference, Sample};

/// The recorder and its outbox. What is measured of one model in one arm is never added to that of another.
#[derive(Debug)]
pub(crate) struct Monitor<const C: usize, const F: usize, const N: usize, const R: usize> {
    recorder: Recorder<C, F>,
    outbox: Outbox<C, F, N, R>,
    /// What is measured.
    of: Option<([u8; 32], Arm)>,
    /// Whether the recorder knows the model's reference.
    shaped: bool,
    /// When the window was opened, and how long it is; 0: for ever.
    since: u64,
    length: u64,
}

/// Microseconds as a recorder's seconds.
fn seconds(now: u64) -> u32 {
    u32::try_from(now / 1_000_000).unwrap_or(u32::MAX)
}

impl<const C: usize, const F: usize, const N: usize, const R: usize> Monitor<C, F, N, R> {
    pub(crate) fn new(boot: u32, faults: u32, length: u64) -> Self {
        let mut recorder = Recorder::new(boot, 0);
        recorder.count(Counter::Resets, faults);
        Self { recorder, outbox: Outbox::new(), of: None, shaped: false, since: 0, length }
    }

    /// From now on this package is measured.
    pub(crate) fn turn(&mut self, now: u64, digest: [u8; 32], arm: Arm) {
        let of = Some((digest, arm));
        if self.of == of {
            return;
        }
        if self.of.is_some() {
            self.close(now);
        }
        self.shaped &= self.of.is_some_and(|(before, _)| before == digest);
        self.of = of;
        self.recorder.set_arm(arm);
    }

    /// The reference of the package that is measured.
    pub(crate) fn shape(&mut self, reference: &Reference<'_>, arena: usize) {
        if let Some(([a, b, ..], _)) = self.of.filter(|_| !self.shaped) {
            self.recorder.serve(u16::from_be_bytes([a, b]), reference);
            self.shaped = true;
        }
        self.recorder.count(Counter::ArenaPeak, u32::try_from(arena).unwrap_or(u32::MAX));
    }

    pub(crate) fn add(&mut self, now: u64, sample: &Sample) {
        if self.recorder.is_full() {
            self.close(now);
        }
        self.recorder.add(sample);
    }

    /// Closes the window if it is long enough.
    pub(crate) fn poll(&mut self, now: u64) {
        if self.due().is_some_and(|due| due <= now) {
            self.close(now);
        }
    }

    /// When the window is to be closed.
    pub(crate) fn due(&self) -> Option<u64> {
        (self.length > 0).then(|| self.since.saturating_add(self.length))
    }

    /// Closes the window, if anything happened in it.
    pub(crate) fn close(&mut self, now: u64) {
        self.since = now;
        let counters = self.recorder.counters();
        if self.length == 0 || !self.shaped || Counter::ALL.iter().all(|c| counters.get(*c) == 0) {
            return;
        }
        self.outbox.push(&self.recorder.take(seconds(now)));
        let dropped = self.outbox.take_dropped();
        self.recorder.count(Counter::Dropped, dropped);
    }

    /// Start and number of the report to be sent.
    pub(crate) fn head(&self) -> Option<(u32, u32)> {
        self.outbox.head().map(|head| (head.boot, head.seq))
    }

    pub(crate) fn send(&mut self, into: &mut [u8]) -> Option<usize> {
        self.outbox.send(Profile::Full, into)
    }

    pub(crate) fn acknowledge(&mut self, boot: u32, seq: u32) -> bool {
        self.head() == Some((boot, seq)) && self.outbox.acknowledge(boot, seq)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.outbox.len()
    }
}
