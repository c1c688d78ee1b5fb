//! One child's line: datagrams of `dunlin_device::message` in, datagrams out.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dunlin_device::message::{self, CHUNK_OVERHEAD, Chunk, Down, MessageError, News, Part, Up, Want};

use crate::child::{self, Child, readable};
use crate::site::Site;
use crate::spool::SpoolError;

/// Bytes of a datagram that carries none of a part, at most.
const SHORT: usize = 128;
/// After the server is to be polled, before the child comes for the news.
const MARGIN: Duration = Duration::from_secs(2);

/// Why a datagram got no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum BridgeError {
    /// It is no message.
    Message(MessageError),
    /// It says of itself what cannot be: an identity without bytes, a name of control characters, an unknown phase.
    Nonsense,
    /// No more children are taken, or none that is not listed.
    Stranger(String),
    /// Who speaks has not said who it is. It checks in anew when it gets no answer.
    Unknown,
    /// A report cannot be kept. The child keeps it.
    Report(SpoolError),
    /// The state folder cannot be used.
    Io(io::Error),
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => error.fmt(f),
            Self::Nonsense => f.write_str("a check-in with an identity, name or phase that cannot be"),
            Self::Stranger(identity) => write!(
                f,
                "{identity} is not taken: raise children.max, or list it under [[child]] where only listed ones may"
            ),
            Self::Unknown => f.write_str("who speaks has not checked in yet"),
            Self::Report(error) => error.fmt(f),
            Self::Io(error) => write!(f, "the state folder cannot be used: {error}"),
        }
    }
}

impl std::error::Error for BridgeError {}

/// A line to one child. It is light: what is large belongs to the [`Site`].
#[derive(Debug)]
pub struct Bridge {
    site: Arc<Site>,
    child: Option<Arc<Child>>,
}

impl Bridge {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self { site, child: None }
    }

    /// The identity of the child that is at the other end, once it checked in.
    #[must_use]
    pub fn identity(&self) -> Option<&[u8]> {
        self.child.as_ref().map(|c| c.identity.as_slice())
    }

    /// The child's id at the server, once it is enrolled: 32 hexadecimal digits.
    #[must_use]
    pub fn device(&self) -> Option<String> {
        self.child.as_ref()?.state().credentials.as_ref().map(|c| c.id().to_owned())
    }

    /// Takes a datagram; `true` when `reply` is its answer.
    ///
    /// It waits for the disk, when there is a report or the child is new, and never for the server: what there is to ask
    /// is done by the site's workers, and the child is told to come again soon.
    ///
    /// # Errors
    /// Why there is no answer. The line goes on: the child asks again, or keeps what it has.
    pub fn receive(&mut self, datagram: &[u8], reply: &mut Vec<u8>) -> Result<bool, BridgeError> {
        self.take(datagram, reply, false)
    }

    /// The same, but what is to be asked of the server is asked at once, and answered after that.
    ///
    /// # Errors
    /// As [`receive`](Self::receive). A server that does not answer is no error: the child is told to wait.
    pub fn exchange(&mut self, datagram: &[u8], reply: &mut Vec<u8>) -> Result<bool, BridgeError> {
        self.take(datagram, reply, true)
    }

    fn take(&mut self, datagram: &[u8], reply: &mut Vec<u8>, at_once: bool) -> Result<bool, BridgeError> {
        reply.clear();
        match message::decode(datagram).map_err(BridgeError::Message)? {
            Up::CheckIn(check_in) => {
                if !child::is_sensible(&check_in) {
                    return Err(BridgeError::Nonsense);
                }
                let child = match self.child.take().filter(|c| c.identity == check_in.identity) {
                    Some(child) => child,
                    None => self
                        .site
                        .child(check_in.identity)
                        .map_err(BridgeError::Io)?
                        .ok_or_else(|| BridgeError::Stranger(readable(check_in.identity)))?,
                };
                self.child = Some(child.clone());
                child.check_in(&check_in, self.site.now()).map_err(BridgeError::Io)?;
                if at_once {
                    self.site.carry_now(&child);
                } else {
                    self.site.plan(&child);
                }
                let news = self.news(&child);
                encode(&Down::News(news), SHORT, reply)
            }
            Up::Want(want) => self.want(&want, reply),
            Up::Report(report) => {
                let child = self.child.as_ref().ok_or(BridgeError::Unknown)?;
                let (boot, seq) = (report.boot, report.seq);
                self.site.spool.keep(child.id, boot, seq, report.bytes).map_err(BridgeError::Report)?;
                self.site.plan(child);
                encode(&Down::Stored { boot, seq }, SHORT, reply)
            }
            Up::Refused { reason, .. } => {
                let child = self.child.as_ref().ok_or(BridgeError::Unknown)?;
                child.state().refused += 1;
                tracing::warn!(child = %readable(&child.identity), ?reason, "an offer was not taken");
                Ok(false)
            }
            Up::Ran(_) => Ok(false),
        }
    }

    fn news(&self, child: &Child) -> News {
        let now = self.site.now();
        let options = &self.site.options;
        let state = child.state();
        let flags = state.flagged().map(|f| f.offer);
        let offered = state.offered();
        let ready = offered.is_some_and(|o| self.site.cache.get(&o.source.hash).is_some());
        let missing = offered.filter(|_| !ready).map(|o| o.source.clone());
        let offer = offered.filter(|_| ready).map(|o| o.offer);
        let until = match (state.told == state.known, &missing) {
            // As soon as the server was asked.
            (false, _) => state.not_before.saturating_sub(now) + options.recheck,
            (true, Some(_)) => options.recheck,
            (true, None) => {
                let next = state.next.max(state.not_before).saturating_sub(now);
                if next.is_zero() { options.recheck } else { next + MARGIN }
            }
        };
        let time = state.time.map_or(0, |(seconds, at)| seconds + now.saturating_sub(at).as_secs());
        drop(state);
        if let Some(source) = missing {
            self.site.want(&source);
        }
        let wait = until.clamp(options.recheck, options.max_wait.max(options.recheck));
        News { wait: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX), time, flags, offer }
    }

    fn want(&self, want: &Want, reply: &mut Vec<u8>) -> Result<bool, BridgeError> {
        let Want { offer, part, offset, len } = *want;
        let gone = |reply: &mut Vec<u8>| encode(&Down::Gone { offer }, SHORT, reply);
        // Checking in is what the child does next, too.
        let Some(child) = &self.child else { return gone(reply) };
        let chunk = |whole: &[u8], reply: &mut Vec<u8>| {
            let rest = whole.get(offset as usize..).unwrap_or_default();
            let bytes = rest.get(..rest.len().min(len.into())).unwrap_or_default();
            let total = u32::try_from(whole.len()).unwrap_or(u32::MAX);
            encode(&Down::Chunk(Chunk { offer, part, offset, total, bytes }), bytes.len() + CHUNK_OVERHEAD, reply)
        };
        let state = child.state();
        if part == Part::Flags {
            return match state.news.flagged.as_ref().filter(|f| f.offer.offer == offer) {
                Some(flagged) => chunk(&flagged.document, reply),
                None => gone(reply),
            };
        }
        let Some(offered) = state.news.offered.as_ref().filter(|o| o.offer.offer == offer) else { return gone(reply) };
        let document = match part {
            Part::Root(version) => offered.roots.get(&version),
            Part::Rollout => Some(&offered.rollout),
            Part::Release => Some(&offered.release),
            _ => None,
        };
        match (part, document) {
            (_, Some(document)) => chunk(document, reply),
            (Part::Stream, None) => {
                let source = offered.source.clone();
                drop(state);
                let Some(artifact) = self.site.cache.get(&source.hash) else { return gone(reply) };
                let mut bytes = vec![0; len.into()];
                let read = artifact.read(offset, &mut bytes).map_err(BridgeError::Io)?;
                bytes.truncate(read);
                let down = Down::Chunk(Chunk { offer, part, offset, total: source.len, bytes: &bytes });
                encode(&down, read + CHUNK_OVERHEAD, reply)
            }
            _ => gone(reply),
        }
    }
}

fn encode(down: &Down<'_>, most: usize, reply: &mut Vec<u8>) -> Result<bool, BridgeError> {
    reply.resize(most, 0);
    let len = message::encode(down, reply).map_err(BridgeError::Message)?;
    reply.truncate(len);
    Ok(true)
}
