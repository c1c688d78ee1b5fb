//! The conversation: reports, check-ins, flags, offers. One question at a time, repeated until it is answered.

use dunlin_kernels::Backend;
use dunlin_rollout::Manner;
use dunlin_rollout::cohort::murmur3;
use dunlin_update::record::PREFIX;
use dunlin_update::trust::Verifier;
use dunlin_update::{self as update, Phase, Progress, Rejection, TransferOffer, UpdateError};

use super::{Device, context};
use crate::config::Config;
use crate::message::{
    self, CheckIn, Chunk, Down, Fetching, FlagsOffer, MessageError, News, Offer, Part, Refusal, Report, Up, Want,
};
use crate::slots::Slots;

/// How often an offer is fetched anew whose bytes were not what was signed. Each time wears the flash.
const SPOILED: u8 = 3;

/// What a call led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event {
    /// Nothing, or nothing to speak of.
    Quiet,
    /// It is going to ask for news.
    CheckedIn,
    /// An offer's documents are believed and its package is going to be fetched, from this byte of the stream on.
    Accepted {
        /// The next byte of the stream.
        next: u32,
    },
    /// A package that was on its way before goes on, from this byte of the stream on.
    Resumed {
        /// The next byte of the stream.
        next: u32,
    },
    /// Bytes of the stream arrived.
    Received {
        /// The next byte of the stream.
        next: u32,
        /// Bytes of the stream.
        len: u32,
    },
    /// The package is whole and has the signed hash; the next poll starts its trial, unless it is to run in the shadow.
    Staged,
    /// What lies on the device runs otherwise from now on, and nothing was fetched: a shadow is dropped, a package that took
    /// turns serves alone, or the package before it serves again.
    Arranged,
    /// The trial began: the next inference runs the new package.
    Started,
    /// The offer, or the flags, were not taken.
    Refused(Refusal),
    /// A report is stored and forgotten here.
    Reported {
        /// Its window's number.
        seq: u32,
    },
    /// New flags are obeyed: time to store [`Device::flags_document`].
    Flags {
        /// Their sequence.
        sequence: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until the next check-in.
    Resting { until: u64 },
    /// A receipt is due.
    Reporting { boot: u32, seq: u32 },
    /// News are due.
    Asked,
    /// Bytes are due.
    Wanting { offer: [u8; 8], part: Part, offset: u32 },
}

/// What is worth a check-in when it changes: what runs, the phase, and what does not simply serve.
type Told = (Option<[u8; 32]>, Phase, Option<([u8; PREFIX], Manner)>);

fn tells(known: &update::CheckIn) -> Told {
    (known.running, known.phase, known.beside)
}

/// Where the conversation is.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    state: State,
    /// Whether the question of this state is to be sent (again).
    due: bool,
    /// When it was sent last, and how often.
    sent: u64,
    tries: u8,
    /// Check-ins in a row that nobody answered.
    failures: u8,
    /// When the other side wants to hear from the device again.
    next: u64,
    offer: Option<Offer>,
    documents: &'a mut [u8],
    /// Bytes of documents, and of the rollout document, which is the first.
    held: usize,
    rollout: usize,
    /// The offer whose documents were followed last.
    heeded: Option<[u8; 8]>,
    /// An offer and flags that are not worth another look.
    refused: Option<[u8; 8]>,
    refused_flags: Option<[u8; 8]>,
    /// An offer whose bytes were not what was signed, and how often: one way there may spoil them, another may not.
    spoiled: ([u8; 8], u8),
    /// A refusal to be sent.
    refusal: Option<([u8; 8], Refusal)>,
    /// What was told last.
    told: Option<Told>,
    skipped: u32,
    /// xorshift32: times are spread so that a fleet does not come at once. Nobody need not guess them.
    random: u32,
    spread: u64,
}

impl<'a> Talk<'a> {
    pub(super) fn new(config: &Config<'_>, documents: &'a mut [u8]) -> Self {
        let mut talk = Self {
            state: State::Resting { until: 0 },
            due: false,
            sent: 0,
            tries: 0,
            failures: 0,
            next: 0,
            offer: None,
            documents,
            held: 0,
            rollout: 0,
            heeded: None,
            refused: None,
            refused_flags: None,
            spoiled: ([0; 8], 0),
            refusal: None,
            told: None,
            skipped: 0,
            random: murmur3(config.boot, config.identity) | 1,
            spread: 0,
        };
        talk.spread = talk.random(config.spread);
        talk.state = State::Resting { until: talk.spread };
        talk
    }

    pub(super) fn into_documents(self) -> &'a mut [u8] {
        self.documents
    }

    /// Below `of`.
    fn random(&mut self, of: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let random = u64::from(self.random);
        ((random * (of & u64::from(u32::MAX))) >> 32) + random * (of >> 32)
    }

    fn rest(&mut self, until: u64) {
        (self.state, self.due) = (State::Resting { until }, false);
    }

    /// Asks something else.
    fn ask(&mut self, state: State) {
        (self.state, self.due, self.tries) = (state, true, 0);
    }

    fn want(&mut self, offer: [u8; 8], part: Part, offset: u32) {
        self.ask(State::Wanting { offer, part, offset });
    }

    /// Nobody answers: rests, longer each time, from half to one and a half times as long.
    fn give_up(&mut self, now: u64, config: &Config<'_>) {
        let wait = config
            .interval
            .saturating_mul(1 << self.failures.min(16))
            .clamp(config.least, config.most.max(config.least));
        self.failures = self.failures.saturating_add(1);
        let wait = (wait / 2).saturating_add(self.random(wait)).max(config.least);
        self.rest(now.saturating_add(wait));
    }

    fn documents(&self) -> &[u8] {
        self.documents.get(..self.held).unwrap_or(&[])
    }

    /// Takes bytes of a document that follow those before.
    fn hold(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let end = self.held.checked_add(bytes.len()).ok_or(Refusal::TooLong)?;
        self.documents.get_mut(self.held..end).ok_or(Refusal::TooLong)?.copy_from_slice(bytes);
        self.held = end;
        Ok(())
    }
}

impl<'a, S, V, B, const C: usize, const F: usize, const N: usize, const R: usize> Device<'a, S, V, B, C, F, N, R>
where
    S: Slots,
    V: Verifier,
    B: Backend,
{
    /// Does what the time brings: starts what is staged, closes windows, decides whether to ask (again). To be called after
    /// [`wake`](Self::wake), and after an inference; more often does no harm.
    pub fn poll(&mut self, now: u64) -> Event {
        let now = self.time.tell(now);
        self.monitor.poll(now);
        self.end_trial_if_stopped();
        match self.talk.state {
            State::Resting { .. } if self.starts() => match self.updater.start() {
                Ok(_) => {
                    // The same package may have had a trial before, and each has to give its golden outputs.
                    self.engine.golden = None;
                    Event::Started
                }
                Err(error) => self.refuse(now, error.into()),
            },
            State::Resting { until } => {
                let known = self.updater.check_in();
                // In the beginning nothing was told, and the first check-in has its own time.
                let news = self.talk.told.is_some_and(|told| told != tells(&known));
                if now < until && !news {
                    return Event::Quiet;
                }
                self.next_report();
                Event::CheckedIn
            }
            _ if self.talk.due || now < self.talk.sent.saturating_add(self.config.reply) => Event::Quiet,
            _ if self.talk.tries <= self.config.repeats => {
                self.talk.due = true;
                Event::Quiet
            }
            // Whoever stores no reports may have news.
            State::Reporting { .. } => {
                self.talk.ask(State::Asked);
                Event::Quiet
            }
            _ => {
                self.talk.give_up(now, &self.config);
                Event::Quiet
            }
        }
    }

    /// When [`poll`](Self::poll) has something to do, by the caller's clock; not after now when it has already.
    #[must_use]
    pub fn wake(&self) -> u64 {
        let talk = match self.talk.state {
            _ if self.talk.due || self.talk.refusal.is_some() => 0,
            State::Resting { .. } if self.starts() => 0,
            State::Resting { until } => until,
            _ => self.talk.sent.saturating_add(self.config.reply),
        };
        self.time.shown_at(self.monitor.due().map_or(talk, |due| due.min(talk)))
    }

    /// Whether an answer is due.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !matches!(self.talk.state, State::Resting { .. })
    }

    /// Datagrams that were no messages.
    #[must_use]
    pub fn skipped(&self) -> u32 {
        self.talk.skipped
    }

    /// Writes the next datagram that is to be sent, and gives its length; `None` when there is none now.
    ///
    /// # Errors
    /// When `into` is too short for it. It counts as sent and lost.
    pub fn transmit(&mut self, now: u64, into: &mut [u8]) -> Result<Option<usize>, MessageError> {
        let now = self.time.tell(now);
        if let Some((offer, reason)) = self.talk.refusal.take() {
            return message::encode(&Up::Refused { offer, reason }, into).map(Some);
        }
        if !self.talk.due {
            return Ok(None);
        }
        (self.talk.due, self.talk.sent) = (false, now);
        self.talk.tries = self.talk.tries.saturating_add(1);
        match self.talk.state {
            State::Resting { .. } => Ok(None),
            State::Reporting { .. } => {
                // Since it was decided to report, the oldest window may have been merged with the next.
                let Some((boot, seq)) = self.monitor.head() else { return Ok(None) };
                self.talk.state = State::Reporting { boot, seq };
                let mut bytes = [0; R];
                let len = self.monitor.send(&mut bytes).unwrap_or(0);
                let bytes = bytes.get(..len).unwrap_or(&[]);
                message::encode(&Up::Report(Report { boot, seq, bytes }), into).map(Some)
            }
            State::Asked => {
                self.flags.follow(&self.updater.state().root, self.updater.verifier());
                let known = self.updater.check_in();
                self.talk.told = Some(tells(&known));
                let counters = self.counters;
                let check_in = CheckIn {
                    identity: self.config.identity,
                    name: self.config.name,
                    running: known.running,
                    phase: known.phase as u8,
                    fetching: known.fetching.map(|(digest, transfer, next)| Fetching { digest, transfer, next }),
                    last: known.last,
                    whole: known.whole,
                    beside: known.beside,
                    root: known.root,
                    rollout: known.rollout,
                    floor: known.floor,
                    flags: self.flags.sequence(),
                    inferences: counters.inferences,
                    failed: counters.failed,
                    slowest: counters.slowest,
                };
                message::encode(&Up::CheckIn(check_in), into).map(Some)
            }
            State::Wanting { offer, part, offset } => {
                message::encode(&Up::Want(Want { offer, part, offset, len: self.config.chunk }), into).map(Some)
            }
        }
    }

    /// Takes a datagram. What is no message, and no answer to the last question, changes nothing.
    pub fn receive(&mut self, now: u64, datagram: &[u8]) -> Event {
        let now = self.time.tell(now);
        let Ok(down) = message::decode::<Down<'_>>(datagram) else {
            self.talk.skipped = self.talk.skipped.saturating_add(1);
            return Event::Quiet;
        };
        if self.talk.tries == 0 {
            // The question was not asked yet, so this is no answer to it.
            return Event::Quiet;
        }
        match (down, self.talk.state) {
            (Down::News(news), State::Asked) => self.hear(now, &news),
            (Down::Stored { boot, seq }, State::Reporting { boot: start, seq: number })
                if (boot, seq) == (start, number) =>
            {
                if !self.monitor.acknowledge(boot, seq) {
                    return Event::Quiet;
                }
                self.next_report();
                Event::Reported { seq }
            }
            (Down::Gone { offer }, State::Wanting { offer: of, part, .. }) if offer == of => {
                if part == Part::Flags {
                    return self.consider(now);
                }
                self.talk.give_up(now, &self.config);
                Event::Quiet
            }
            (Down::Chunk(chunk), State::Wanting { offer, part, offset })
                if (chunk.offer, chunk.part, chunk.offset) == (offer, part, offset) && !chunk.bytes.is_empty() =>
            {
                match part {
                    Part::Stream => {
                        let progress = self.updater.receive(chunk.offset, chunk.bytes);
                        self.advance(now, progress)
                    }
                    _ => self.document(now, &chunk),
                }
            }
            _ => Event::Quiet,
        }
    }

    /// Whether a staged package is to be tried now.
    fn starts(&self) -> bool {
        self.flags.serves() && self.updater.startable().is_some()
    }

    /// Ends a trial while the kill switch forbids inference: a trial could make no progress, and its package would be the
    /// first to run when inference is allowed again.
    fn end_trial_if_stopped(&mut self) {
        // Without an intact confirmed package the trial stays. If the storage fails, the next poll tries again.
        if !self.flags.serves() && self.updater.end_trial().is_ok() {
            // The same offer may come again, and then it is new.
            self.talk.heeded = None;
        }
    }

    /// Sends the next report; when there is none, checks in.
    fn next_report(&mut self) {
        self.talk.ask(match self.monitor.head() {
            Some((boot, seq)) => State::Reporting { boot, seq },
            None => State::Asked,
        });
    }

    fn hear(&mut self, now: u64, news: &News) -> Event {
        let Config { least, most, .. } = self.config;
        let wait = u64::from(news.wait).saturating_mul(1000).clamp(least, most.max(least));
        self.talk.next = now.saturating_add(wait);
        self.talk.failures = 0;
        if news.time > 0 {
            self.hint.tell(now, news.time);
        }
        self.talk.offer = news.offer;
        match news.flags {
            Some(FlagsOffer { offer, sequence })
                if sequence > self.flags.sequence() && self.talk.refused_flags != Some(offer) =>
            {
                self.talk.held = 0;
                self.talk.want(offer, Part::Flags, 0);
                Event::Quiet
            }
            _ => self.consider(now),
        }
    }

    /// Looks at the offer, if there is one, and asks for the first thing that is needed of it.
    fn consider(&mut self, now: u64) -> Event {
        let next = self.talk.next.max(now.saturating_add(self.config.least));
        let known = self.updater.check_in();
        // An offer of what serves ends what else there is.
        let serves_alone = known.phase == Phase::Idle && known.beside.is_none();
        let Some(offer) = self.talk.offer.filter(|o| {
            // An offer of another package ends a trial; one of the package on trial has nothing to add.
            let on_trial = known.phase == Phase::Trial;
            let pointless = known.running == Some(o.digest) && (on_trial || serves_alone);
            !pointless && self.talk.refused != Some(o.offer)
        }) else {
            self.talk.rest(next);
            return Event::Quiet;
        };
        let same = |(digest, transfer, _)| digest == offer.digest && transfer == offer.transfer;
        let heeded = self.talk.heeded.map(|h| h == offer.offer);
        // After a restart nothing was heeded, and what is on its way goes on without documents.
        if known.fetching.is_some_and(same) && heeded != Some(false) {
            let progress = self.updater.resume();
            return match self.advance(now, progress) {
                Event::Received { next, .. } => Event::Resumed { next },
                event => event,
            };
        }
        if heeded == Some(true) {
            self.talk.rest(next);
        } else {
            self.next_document();
        }
        Event::Quiet
    }

    /// Asks for roots as long as there are newer ones, then for the rollout.
    fn next_document(&mut self) {
        self.talk.held = 0;
        let Some(Offer { offer, root: newest, .. }) = self.talk.offer else { return };
        let root = self.updater.state().root.version;
        let part = if newest > root { Part::Root(root.saturating_add(1)) } else { Part::Rollout };
        self.talk.want(offer, part, 0);
    }

    /// Takes bytes of a document, and does what there is to do once it is whole.
    fn document(&mut self, now: u64, chunk: &Chunk<'_>) -> Event {
        let end = u32::try_from(chunk.bytes.len()).ok().and_then(|n| n.checked_add(chunk.offset));
        let held = match end.filter(|&end| end <= chunk.total) {
            Some(end) => self.talk.hold(chunk.bytes).map(|()| end),
            None => Err(Refusal::Confused),
        };
        match held {
            Err(reason) if chunk.part == Part::Flags => self.refuse_flags(now, chunk.offer, reason),
            Err(reason) => self.refuse(now, reason),
            Ok(end) if end < chunk.total => {
                self.talk.want(chunk.offer, chunk.part, end);
                Event::Quiet
            }
            Ok(_) => self.whole_document(now, chunk),
        }
    }

    fn whole_document(&mut self, now: u64, chunk: &Chunk<'_>) -> Event {
        if chunk.part == Part::Flags {
            let context = context(&self.config, &self.calendar, &self.hint, &self.time);
            let documents = self.talk.documents();
            return match self.flags.take(documents, &self.updater.state().root, self.updater.verifier(), &context) {
                Ok(newer) => {
                    self.end_trial_if_stopped();
                    let event = self.consider(now);
                    if newer { Event::Flags { sequence: self.flags.sequence() } } else { event }
                }
                Err(reason) => self.refuse_flags(now, chunk.offer, reason),
            };
        }
        let Some(Offer { transfer, .. }) = self.talk.offer else { return Event::Quiet };
        let transfer = TransferOffer { id: transfer.id, len: transfer.len, delta: transfer.delta };
        let time = self.calendar.at(now);
        match chunk.part {
            Part::Root(version) => {
                // The other documents are still to come; the updater keeps a root whatever it thinks of them.
                let roots = [self.talk.documents()];
                let offer = update::Offer { roots: &roots, rollout: &[], release: &[], transfer };
                match self.updater.offer(&offer, time) {
                    Err(error) if self.updater.state().root.version < version => self.refuse(now, error.into()),
                    _ => {
                        self.next_document();
                        Event::Quiet
                    }
                }
            }
            Part::Rollout => {
                self.talk.rollout = self.talk.held;
                self.talk.want(chunk.offer, Part::Release, 0);
                Event::Quiet
            }
            Part::Release => {
                let documents = self.talk.documents().split_at_checked(self.talk.rollout);
                let (rollout, release) = documents.unwrap_or_default();
                let offer = update::Offer { roots: &[], rollout, release, transfer };
                if let Err(error) = self.updater.offer(&offer, time) {
                    return self.refuse(now, error.into());
                }
                self.talk.heeded = Some(chunk.offer);
                match self.updater.phase() {
                    Phase::Idle => {
                        self.talk.rest(self.talk.next);
                        Event::Arranged
                    }
                    _ => {
                        let progress = self.updater.resume();
                        match self.advance(now, progress) {
                            Event::Received { next, .. } => Event::Accepted { next },
                            event => event,
                        }
                    }
                }
            }
            Part::Stream | Part::Flags => Event::Quiet,
        }
    }

    /// Asks for what is next of the stream.
    fn advance(&mut self, now: u64, progress: Result<Progress, UpdateError>) -> Event {
        let Some(Offer { offer, .. }) = self.talk.offer else { return Event::Quiet };
        match progress {
            Ok(Progress::More { next, len }) => {
                self.talk.want(offer, Part::Stream, next);
                Event::Received { next, len }
            }
            Ok(Progress::Staged) => {
                self.engine.beside = None;
                self.talk.rest(self.talk.next);
                Event::Staged
            }
            Err(UpdateError::Gap { expected }) => {
                self.talk.want(offer, Part::Stream, expected);
                Event::Quiet
            }
            Err(error) => self.refuse(now, error.into()),
        }
    }

    /// Gives an offer up. What may be another time is tried again at a later check-in.
    fn refuse(&mut self, now: u64, reason: Refusal) -> Event {
        self.talk.heeded = None;
        let spoiled = matches!(reason, Refusal::Unsuitable(Rejection::Hash | Rejection::Delta));
        let mut passing = matches!(reason, Refusal::Storage | Refusal::Confused);
        if let Some(Offer { offer, .. }) = self.talk.offer {
            if spoiled {
                let before = if self.talk.spoiled.0 == offer { self.talk.spoiled.1 } else { 0 };
                self.talk.spoiled = (offer, before.saturating_add(1));
                passing = before < SPOILED;
            }
            self.talk.refusal = Some((offer, reason));
            self.talk.refused = if passing { self.talk.refused } else { Some(offer) };
        }
        if passing {
            self.talk.give_up(now, &self.config);
        } else {
            self.talk.rest(self.talk.next.max(now.saturating_add(self.config.least)));
        }
        Event::Refused(reason)
    }

    /// Gives flags up, and goes on to the offer.
    fn refuse_flags(&mut self, now: u64, offer: [u8; 8], reason: Refusal) -> Event {
        self.talk.refused_flags = Some(offer);
        self.consider(now);
        self.talk.refusal = Some((offer, reason));
        Event::Refused(reason)
    }
}
