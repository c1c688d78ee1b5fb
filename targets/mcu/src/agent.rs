//! The device's side of the conversation: it asks for news, fetches what it is offered, and starts it.

use dunlin::kernels::Backend;
use dunlin_update::trust::Verifier;
use dunlin_update::{self as update, Phase, Progress, TransferOffer, UpdateError, Updater};
use embedded_io::{Read, ReadReady, Write};
use heapless::Vec;

use crate::clock::{Clock, has_passed};
use crate::link::{Link, LinkError};
use crate::message::{CheckIn, Chunk, Down, Fetching, News, Offer, Part, Refusal, Up, Want};
use crate::runner::Runner;
use crate::slots::Slots;

/// How patient a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// Its identity.
    pub identity: &'a [u8],
    /// The model that it runs.
    pub name: &'a str,
    /// Bytes that it asks for at once: at most the link's `N` less [`CHUNK_OVERHEAD`](crate::message::CHUNK_OVERHEAD).
    pub chunk: u16,
    /// Microseconds after which an answer is not waited for any longer.
    pub reply: u32,
    /// How often a question is repeated.
    pub repeats: u8,
    /// Microseconds between check-ins, unless the other side says otherwise.
    pub interval: u32,
}

/// What a call of [`Agent::poll`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// Nothing, or nothing to speak of.
    Quiet,
    /// It asked for news.
    CheckedIn,
    /// An offer's documents are believed and its package is going to be fetched, from this byte of the stream on.
    Accepted {
        /// The next byte of the stream.
        next: u32,
    },
    /// A package that was on its way before a restart goes on, from this byte of the stream on.
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
    /// The package is whole and has the signed hash; the next call starts its trial.
    Staged,
    /// The trial began: the next inference runs the new package.
    Started,
    /// The offer was not taken.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until the next check-in.
    Resting { since: u32, wait: u32 },
    /// The answer to a check-in is due.
    Asked,
    /// Bytes are due.
    Wanting { part: Part, offset: u32 },
}

/// The conversation; `D` is room for one root document, or a rollout and a release document together.
#[derive(Debug)]
pub struct Agent<'a, const D: usize> {
    config: Config<'a>,
    state: State,
    /// When the last question went out, and how often.
    sent: u32,
    tries: u8,
    offer: Option<Offer>,
    documents: Vec<u8, D>,
    /// Bytes of the rollout document, which is the first.
    rollout: usize,
    /// An offer that is not worth another look.
    refused: Option<[u8; 8]>,
    /// A refusal to be sent.
    refusal: Option<([u8; 8], Refusal)>,
    /// What was told last of running package and phase.
    told: Option<(Option<[u8; 32]>, Phase)>,
    time: Option<u64>,
}

impl<'a, const D: usize> Agent<'a, D> {
    /// Checks in at the first poll.
    #[must_use]
    pub const fn new(config: Config<'a>) -> Self {
        Self {
            config,
            state: State::Resting { since: 0, wait: 0 },
            sent: 0,
            tries: 0,
            offer: None,
            documents: Vec::new(),
            rollout: 0,
            refused: None,
            refusal: None,
            told: None,
            time: None,
        }
    }

    /// Tells the time, seconds since 1970, on a device that knows it; documents expire by it.
    pub fn set_time(&mut self, now: u64) {
        self.time = Some(now);
    }

    /// Whether an answer is due: poll again soon, the line has no buffer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !matches!(self.state, State::Resting { .. })
    }

    /// Takes what came, and asks what there is to ask. Never waits for an answer.
    ///
    /// # Errors
    /// When the port fails, or the link is too short for a message. Nothing is lost: the question is repeated.
    pub fn poll<S, V, B, P, C, const N: usize>(
        &mut self,
        runner: &mut Runner<'_, S, V, B>,
        link: &mut Link<P, N>,
        clock: &mut C,
    ) -> Result<Event, LinkError>
    where
        S: Slots,
        V: Verifier,
        B: Backend,
        P: Read + ReadReady + Write,
        C: Clock,
    {
        let now = clock.now();
        let event = match self.state {
            State::Resting { .. } if runner.updater().phase() == Phase::Staged => match runner.updater().start() {
                Ok(_) => Event::Started,
                Err(error) => self.refuse(error.into(), now),
            },
            State::Resting { since, wait } => {
                let told = self.told == Some((runner.check_in().running, runner.check_in().phase));
                if told && !has_passed(since, now, wait) {
                    return Ok(Event::Quiet);
                }
                (self.state, self.tries) = (State::Asked, 0);
                Event::CheckedIn
            }
            _ => match link.receive::<Down<'_>>()? {
                Some(message) => {
                    let before = self.state;
                    let event = self.answer(message, runner.updater(), now);
                    if self.state == before {
                        // No answer to this question, such as a late answer to another.
                        return Ok(event);
                    }
                    self.tries = 0;
                    event
                }
                None if !has_passed(self.sent, now, self.config.reply) => return Ok(Event::Quiet),
                None if self.tries > self.config.repeats => {
                    self.rest(now, self.config.interval);
                    Event::Quiet
                }
                None => Event::Quiet,
            },
        };
        self.ask(runner, link, now)?;
        Ok(event)
    }

    fn rest(&mut self, now: u32, wait: u32) {
        self.state = State::Resting { since: now, wait };
    }

    /// Sends the question of this state.
    fn ask<S: Slots, V: Verifier, B: Backend, P: Write, const N: usize>(
        &mut self,
        runner: &mut Runner<'_, S, V, B>,
        link: &mut Link<P, N>,
        now: u32,
    ) -> Result<(), LinkError> {
        if let Some((offer, reason)) = self.refusal.take() {
            link.send(&Up::Refused { offer, reason })?;
        }
        (self.sent, self.tries) = (now, self.tries.saturating_add(1));
        match (self.state, self.offer) {
            (State::Asked, _) => {
                let known = runner.check_in();
                self.told = Some((known.running, known.phase));
                let counters = runner.counters();
                link.send(&Up::CheckIn(CheckIn {
                    identity: self.config.identity,
                    name: self.config.name,
                    running: known.running,
                    phase: known.phase as u8,
                    fetching: known.fetching.map(|(digest, transfer, next)| Fetching { digest, transfer, next }),
                    last: known.last,
                    whole: known.whole,
                    root: known.root,
                    rollout: known.rollout,
                    floor: known.floor,
                    flags: 0,
                    inferences: counters.inferences,
                    failed: counters.failed,
                    slowest: counters.slowest,
                }))
            }
            (State::Wanting { part, offset }, Some(Offer { offer, .. })) => {
                link.send(&Up::Want(Want { offer, part, offset, len: self.config.chunk }))
            }
            _ => Ok(()),
        }
    }

    fn answer<S: Slots, V: Verifier>(&mut self, message: Down<'_>, updater: &mut Updater<'_, S, V>, now: u32) -> Event {
        match (message, self.state) {
            (Down::News(News { offer: None, wait, .. }), State::Asked) => {
                // Half of the clock's range at most, so that it cannot be missed.
                self.rest(now, wait.saturating_mul(1000).min(u32::MAX / 2));
                Event::Quiet
            }
            (Down::News(News { offer: Some(offer), .. }), State::Asked) => self.begin(offer, updater, now),
            (Down::Gone { offer }, State::Wanting { .. }) if self.offer.is_some_and(|o| o.offer == offer) => {
                self.rest(now, self.config.interval);
                Event::Quiet
            }
            (Down::Chunk(chunk), State::Wanting { part, offset }) => {
                let due = self.offer.is_some_and(|o| o.offer == chunk.offer);
                if !due || chunk.part != part || chunk.offset != offset || chunk.bytes.is_empty() {
                    return Event::Quiet;
                }
                match part {
                    Part::Stream => {
                        let progress = updater.receive(chunk.offset, chunk.bytes);
                        self.advance(progress, now)
                    }
                    _ => self.document(&chunk, updater, now),
                }
            }
            _ => Event::Quiet,
        }
    }

    /// Looks at an offer, and asks for the first thing that is needed of it.
    fn begin<S: Slots, V: Verifier>(&mut self, offer: Offer, updater: &mut Updater<'_, S, V>, now: u32) -> Event {
        let known = updater.check_in();
        let pointless = known.phase == Phase::Trial || known.running == Some(offer.digest);
        if pointless || self.refused == Some(offer.offer) {
            self.rest(now, self.config.interval);
            return Event::Quiet;
        }
        self.offer = Some(offer);
        let same = |(digest, transfer, _)| digest == offer.digest && transfer == offer.transfer;
        if known.fetching.is_some_and(same) {
            let progress = updater.resume();
            return match self.advance(progress, now) {
                Event::Received { next, .. } => Event::Resumed { next },
                event => event,
            };
        }
        self.next_document(updater);
        Event::Quiet
    }

    /// Asks for roots as long as there are newer ones, then for the rollout.
    fn next_document<S: Slots, V: Verifier>(&mut self, updater: &Updater<'_, S, V>) {
        self.documents.clear();
        let root = updater.state().root.version;
        let newer = self.offer.is_some_and(|o| o.root > root);
        let part = if newer { Part::Root(root.saturating_add(1)) } else { Part::Rollout };
        self.state = State::Wanting { part, offset: 0 };
    }

    /// Takes bytes of a document, and does what there is to do once it is whole.
    fn document<S: Slots, V: Verifier>(
        &mut self,
        chunk: &Chunk<'_>,
        updater: &mut Updater<'_, S, V>,
        now: u32,
    ) -> Event {
        let Some(Offer { transfer, .. }) = self.offer else { return Event::Quiet };
        let transfer = TransferOffer { id: transfer.id, len: transfer.len, delta: transfer.delta };
        let offset = u32::try_from(chunk.bytes.len()).ok().and_then(|n| n.checked_add(chunk.offset));
        let Some(offset) = offset.filter(|&end| end <= chunk.total) else { return self.refuse(Refusal::Confused, now) };
        if self.documents.extend_from_slice(chunk.bytes).is_err() {
            return self.refuse(Refusal::TooLong, now);
        }
        if offset < chunk.total {
            self.state = State::Wanting { part: chunk.part, offset };
            return Event::Quiet;
        }
        match chunk.part {
            Part::Root(version) => {
                // The other documents are still to come; the updater keeps a root whatever it thinks of them.
                let offer = update::Offer { roots: &[&self.documents], rollout: &[], release: &[], transfer };
                let result = updater.offer(&offer, self.time);
                match result {
                    Err(error) if updater.state().root.version < version => self.refuse(error.into(), now),
                    _ => {
                        self.next_document(updater);
                        Event::Quiet
                    }
                }
            }
            Part::Rollout => {
                self.rollout = self.documents.len();
                self.state = State::Wanting { part: Part::Release, offset: 0 };
                Event::Quiet
            }
            Part::Release => {
                let (rollout, release) = self.documents.split_at_checked(self.rollout).unwrap_or_default();
                let offer = update::Offer { roots: &[], rollout, release, transfer };
                match updater.offer(&offer, self.time).and_then(|()| updater.resume()) {
                    Err(error) => self.refuse(error.into(), now),
                    progress => match self.advance(progress, now) {
                        Event::Received { next, .. } => Event::Accepted { next },
                        event => event,
                    },
                }
            }
            Part::Stream | Part::Flags => Event::Quiet,
        }
    }

    /// Asks for what is missing of the stream.
    fn advance(&mut self, progress: Result<Progress, UpdateError>, now: u32) -> Event {
        match progress {
            Ok(Progress::More { next, len }) => {
                self.state = State::Wanting { part: Part::Stream, offset: next };
                Event::Received { next, len }
            }
            Ok(Progress::Staged) => {
                self.rest(now, self.config.interval);
                Event::Staged
            }
            Err(UpdateError::Gap { expected }) => {
                self.state = State::Wanting { part: Part::Stream, offset: expected };
                Event::Quiet
            }
            Err(error) => self.refuse(error.into(), now),
        }
    }

    /// Gives an offer up. What may be another time is tried again at the next check-in.
    fn refuse(&mut self, reason: Refusal, now: u32) -> Event {
        if let Some(Offer { offer, .. }) = self.offer {
            self.refusal = Some((offer, reason));
            let passing = matches!(reason, Refusal::Storage | Refusal::Confused);
            self.refused = if passing { self.refused } else { Some(offer) };
        }
        self.rest(now, self.config.interval);
        Event::Refused(reason)
    }
}

#[cfg(test)]
mod tests;
