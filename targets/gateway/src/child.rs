//! A child as the gateway knows it: its key, what it said last, and what the server has for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_device::message::{self, CheckIn};
use dunlin_update::Phase;
use dunlin_update::http::{self, Answer, Poll};
use dunlin_update::record::Transfer;
use dunlin_update::trust::{Document, Role, Rollout, RootKeys, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backoff::Backoff;
use crate::cache::{Hash, Source};
use crate::client::Credentials;
use crate::hex::{hex, unhex};
use crate::spool;

/// Bytes of an identity.
const MAX_IDENTITY: usize = 64;
/// Bytes of a model's name, as the server has it.
const MAX_NAME: usize = 64;
const BASE: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(300);

/// What of a child is on disk besides its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    identity: Vec<u8>,
    device: Option<[u8; 16]>,
    /// What it said last, to be told with reports that it left here.
    known: Option<Poll>,
}

/// An offer with all that belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) offer: message::Offer,
    /// By version.
    pub(crate) roots: BTreeMap<u32, Vec<u8>>,
    pub(crate) rollout: Vec<u8>,
    pub(crate) release: Vec<u8>,
    pub(crate) source: Source,
}

/// A flag document.
#[derive(Clone, Debug)]
pub(crate) struct Flagged {
    pub(crate) offer: message::FlagsOffer,
    pub(crate) document: Vec<u8>,
}

/// What the server has for the child.
#[derive(Clone, Debug, Default)]
pub(crate) struct News {
    pub(crate) offered: Option<Offered>,
    pub(crate) flagged: Option<Flagged>,
}

/// All that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) credentials: Option<Arc<Credentials>>,
    device: Option<[u8; 16]>,
    /// What it said last, without how far its download is.
    pub(crate) known: Option<Poll>,
    pub(crate) fetching: Option<([u8; 32], u32)>,
    /// What the server was told last.
    pub(crate) told: Option<Poll>,
    pub(crate) tag: Option<String>,
    pub(crate) news: News,
    /// Seconds since 1970 at the server's last answer, and when that was.
    pub(crate) time: Option<(u64, Duration)>,
    /// When the server wants to hear of it again.
    pub(crate) next: Duration,
    /// When it may be asked at the earliest.
    pub(crate) not_before: Duration,
    /// Whether it checked in since the last poll.
    pub(crate) asked: bool,
    /// When it is in the queue for.
    pub(crate) queued: Option<Duration>,
    pub(crate) backoff: Backoff,
    pub(crate) seen: Option<Duration>,
    pub(crate) error: Option<String>,
    pub(crate) refused: u32,
    pub(crate) inferences: u32,
}

/// A child.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) identity: Vec<u8>,
    pub(crate) id: spool::Child,
    pub(crate) key: SecretKey,
    /// Where its record is.
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// Held by who speaks to the server for it.
    pub(crate) carrying: Mutex<()>,
}

/// A child's name in files and in the log of reports.
pub(crate) fn id(identity: &[u8]) -> spool::Child {
    Sha256::digest(identity).first_chunk().copied().unwrap_or_default()
}

/// Whether somebody can be called this.
pub(crate) fn is_identity(identity: &[u8]) -> bool {
    (1..=MAX_IDENTITY).contains(&identity.len())
}

/// An identity for people: as it is when it is plain text.
pub(crate) fn readable(identity: &[u8]) -> String {
    match std::str::from_utf8(identity) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => text.to_owned(),
        _ => format!("0x{}", hex(identity)),
    }
}

impl Child {
    /// A child whose files are in `folder`; key and record are made when there are none. Without a folder the key is
    /// derived from `secret`.
    pub(crate) fn open(identity: &[u8], folder: Option<&Path>, secret: &[u8; 32]) -> io::Result<Self> {
        let id = id(identity);
        let name = hex(&id);
        let mut record = Record { identity: identity.to_vec(), device: None, known: None };
        let key = match folder {
            None => {
                let seed =
                    Sha256::new_with_prefix(b"dunlin-gateway-child\0").chain_update(secret).chain_update(identity);
                SecretKey::from_seed(seed.finalize().into()).map_err(io::Error::other)?
            }
            Some(folder) => {
                let file = folder.join(format!("{name}.child"));
                match fs::read(&file) {
                    Ok(bytes) => match postcard::from_bytes(&bytes) {
                        Ok(read) => record = read,
                        // All of it comes again: by enrolling, which gives the same id, and by checking in.
                        Err(_) => tracing::warn!(file = %file.display(), "a child's record does not decode"),
                    },
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                key_file(&folder.join(format!("{name}.key")))?
            }
        };
        let credentials = record.device.map(|d| Arc::new(Credentials::new(d, key.clone())));
        let state = State {
            credentials,
            device: record.device,
            known: record.known,
            fetching: None,
            told: None,
            tag: None,
            news: News::default(),
            time: None,
            next: Duration::ZERO,
            not_before: Duration::ZERO,
            asked: false,
            queued: None,
            backoff: Backoff::new(BASE, CAP),
            seen: None,
            error: None,
            refused: 0,
            inferences: 0,
        };
        Ok(Self {
            identity: record.identity,
            id,
            key,
            file: folder.map(|f| f.join(format!("{name}.child"))),
            state: Mutex::new(state),
            carrying: Mutex::new(()),
        })
    }

    /// The children that a folder has files of.
    pub(crate) fn all(folder: &Path, secret: &[u8; 32]) -> io::Result<Vec<Self>> {
        let mut children = Vec::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            if path.extension().is_none_or(|e| e != "child") {
                continue;
            }
            match postcard::from_bytes::<Record>(&fs::read(&path)?) {
                Ok(record) => children.push(Self::open(&record.identity, Some(folder), secret)?),
                Err(_) => tracing::warn!(file = %path.display(), "a child's record does not decode"),
            }
        }
        Ok(children)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the child says of itself.
    pub(crate) fn check_in(&self, check_in: &CheckIn<'_>, now: Duration) -> io::Result<()> {
        let mut state = self.state();
        state.fetching = check_in.fetching.map(|f| (f.digest, f.next));
        state.inferences = check_in.inferences;
        (state.seen, state.asked) = (Some(now), true);
        let poll = Poll {
            model: check_in.name.into(),
            running: check_in.running,
            phase: check_in.phase,
            fetching: None,
            last: check_in.last,
            whole: check_in.whole,
            beside: check_in.beside,
            root: check_in.root,
            rollout: check_in.rollout,
            floor: check_in.floor,
            flags: check_in.flags,
            reports: Vec::new(),
        };
        if state.known.as_ref() == Some(&poll) {
            return Ok(());
        }
        state.known = Some(poll);
        self.save(&state)
    }

    /// Takes the id that the server gave.
    pub(crate) fn enrolled(&self, device: [u8; 16]) -> io::Result<Arc<Credentials>> {
        let credentials = Arc::new(Credentials::new(device, self.key.clone()));
        let mut state = self.state();
        (state.credentials, state.device) = (Some(credentials.clone()), Some(device));
        self.save(&state)?;
        Ok(credentials)
    }

    fn save(&self, state: &State) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let record = Record { identity: self.identity.clone(), device: state.device, known: state.known.clone() };
        let bytes = postcard::to_allocvec(&record).map_err(io::Error::other)?;
        replace(file, &bytes)
    }
}

/// Whether a check-in can be told to the server.
pub(crate) fn is_sensible(check_in: &CheckIn<'_>) -> bool {
    let name = check_in.name;
    is_identity(check_in.identity)
        && name.len() <= MAX_NAME
        && !name.chars().any(char::is_control)
        && usize::from(check_in.phase) < http::PHASES.len()
}

impl State {
    /// When the server may hear what the child said of itself, if it did not yet.
    pub(crate) fn untold(&self) -> Option<Duration> {
        let known = self.known.as_ref()?;
        (self.told.as_ref() != Some(known)).then_some(self.not_before)
    }

    /// When the server should be asked next, if at all.
    pub(crate) fn due(&self, reports: bool) -> Option<Duration> {
        self.known.as_ref()?;
        if let Some(at) = self.untold() {
            return Some(at);
        }
        (reports || self.asked).then_some(self.next.max(self.not_before))
    }

    /// The offer, while it is one for what the child is now.
    pub(crate) fn offered(&self) -> Option<&Offered> {
        let offered = self.news.offered.as_ref()?;
        let known = self.known.as_ref()?;
        let digest = offered.offer.digest;
        let state = |poll: &Poll| (poll.running, poll.last, poll.whole);
        let current = self.told.as_ref().is_some_and(|told| state(told) == state(known));
        let under_way = self.fetching.is_some_and(|(d, _)| d == digest);
        // An offer of what serves ends a download, a shadow or a crossover.
        let phase = http::PHASES.get(usize::from(known.phase));
        let serves_alone = matches!(phase, Some(Phase::Idle | Phase::Trial)) && known.beside.is_none();
        let is_news = known.running != Some(digest) || !serves_alone;
        (is_news && (current || under_way)).then_some(offered)
    }

    /// The flag document, while the child has an older one.
    pub(crate) fn flagged(&self) -> Option<&Flagged> {
        let known = self.known.as_ref()?;
        self.news.flagged.as_ref().filter(|f| f.offer.sequence > known.flags)
    }
}

/// Makes of an answer what the child can be told.
///
/// # Errors
/// What of it does not decode. The child would not believe it either.
pub(crate) fn news(answer: &Answer, root: u32) -> Result<News, &'static str> {
    let offered = answer.offer.as_ref().map(|offer| offered(offer, root)).transpose()?;
    let flagged = answer.flags.as_ref().map(|document| flagged(document)).transpose()?;
    Ok(News { offered, flagged })
}

fn first(hash: &Hash) -> [u8; 8] {
    hash.first_chunk().copied().unwrap_or_default()
}

fn offered(offer: &http::Offer, root: u32) -> Result<Offered, &'static str> {
    let path = offer.url.split('?').next().unwrap_or_default();
    let hash = path.rsplit('/').next().and_then(unhex).ok_or("the offer's address has no hash")?;
    if first(&hash) != offer.id {
        return Err("the offer's address is another stream's");
    }
    let rollout = Document::read(&offer.rollout, Role::Rollout).map_err(|_| "the rollout is no document")?;
    let rollout: Rollout<'_> = rollout.decode().map_err(|_| "the rollout does not decode")?;
    let mut roots = BTreeMap::new();
    for bytes in &offer.roots {
        let document = Document::read(bytes, Role::Root).map_err(|_| "a root is no document")?;
        let keys: RootKeys = document.decode().map_err(|_| "a root does not decode")?;
        roots.insert(keys.version, bytes.clone());
    }
    let parts = [&offer.rollout, &offer.release].map(Sha256::digest);
    let id = Sha256::new().chain_update(parts.concat()).chain_update(offer.id).finalize().into();
    Ok(Offered {
        offer: message::Offer {
            offer: first(&id),
            digest: rollout.digest,
            root: roots.keys().next_back().copied().unwrap_or(root),
            transfer: Transfer { id: offer.id, len: offer.len, delta: offer.delta },
        },
        roots,
        rollout: offer.rollout.clone(),
        release: offer.release.clone(),
        source: Source { hash, len: offer.len, url: offer.url.clone() },
    })
}

fn flagged(document: &[u8]) -> Result<Flagged, &'static str> {
    let read = Document::read(document, Role::Rollout).map_err(|_| "the flags are no document")?;
    let (_, payload): (&str, &[u8]) = postcard::from_bytes(read.payload()).map_err(|_| "the flags do not decode")?;
    let flags = dunlin_rollout::Flags::open(payload).map_err(|_| "the flags do not decode")?;
    let offer = message::FlagsOffer { offer: first(&Sha256::digest(document).into()), sequence: flags.sequence() };
    Ok(Flagged { offer, document: document.to_vec() })
}

/// Reads a key's seed from a file of 64 hexadecimal digits; makes the file when there is none.
fn key_file(path: &Path) -> io::Result<SecretKey> {
    let seed = match fs::read_to_string(path) {
        Ok(text) => unhex(text.trim()).ok_or_else(|| {
            io::Error::other(format!("the key file {} does not have 64 hexadecimal digits", path.display()))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
            replace(path, hex(&seed).as_bytes())?;
            seed
        }
        Err(error) => return Err(error),
    };
    SecretKey::from_seed(seed).map_err(|e| io::Error::other(format!("the key file {}: {e}", path.display())))
}

/// Puts a file that only its owner reads in the place of one, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let fresh = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), spool::sync_folder)
}
