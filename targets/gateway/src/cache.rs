//! Artifacts by their hash, so that many children fetch once.
//!
//! What is served has been hashed since this program started. A download that was cut short goes on where it was; when
//! the whole does not have its hash it is fetched anew. The least recently used go first when there is no room.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::client::{Client, ClientError};
use crate::hex::{hex, unhex};
use crate::spool::sync_folder;

/// SHA-256 of an artifact.
pub(crate) type Hash = [u8; 32];

/// Bytes that are asked for at once: few at first, so that slow networks give them in time and little is lost with a
/// request, and twice as many after each that was quick.
const STEPS: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 20;
const QUICK: Duration = Duration::from_secs(1);

/// Where an artifact is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) hash: Hash,
    pub(crate) len: u32,
    pub(crate) url: String,
}

/// Why an artifact was not fetched.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The server did not give it.
    Client(ClientError),
    /// It is larger than the cache may be.
    TooLarge {
        /// Its bytes.
        len: u32,
        /// The cache's.
        limit: u64,
    },
    /// It does not have the hash that its address has.
    Damaged,
    /// The medium failed.
    Io(io::Error),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::TooLarge { len, limit } => {
                write!(f, "an artifact of {len} bytes does not fit a cache of {limit}: raise cache.bytes")
            }
            Self::Damaged => f.write_str("the artifact does not have the hash of its address"),
            Self::Io(error) => write!(f, "artifacts cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ClientError> for FetchError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// An artifact that was hashed.
#[derive(Debug)]
pub(crate) enum Artifact {
    Memory(Vec<u8>),
    File(Mutex<File>),
}

impl Artifact {
    /// Up to so many bytes from an offset on; fewer only at the end.
    pub(crate) fn read(&self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => {
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                into.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                Ok(into.len().min(rest.len()))
            }
            Self::File(file) => {
                let mut file = lock(file);
                file.seek(SeekFrom::Start(offset.into()))?;
                let mut done = 0;
                while let Some(rest) = into.get_mut(done..).filter(|r| !r.is_empty()) {
                    match file.read(rest) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(done)
            }
        }
    }
}

#[derive(Debug)]
enum Entry {
    /// On disk from before, not hashed yet.
    Found,
    Ready(Arc<Artifact>),
    /// The beginning of one.
    Part,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    len: u64,
    /// When it was used last, in uses.
    used: u64,
}

#[derive(Debug, Default)]
struct Inner {
    all: HashMap<Hash, Kept>,
    uses: u64,
    /// Who fetches holds the lock of its artifact; others wait for it.
    flights: HashMap<Hash, Arc<Mutex<()>>>,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: Option<PathBuf>,
    limit: u64,
    inner: Mutex<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Opens a cache in a folder, or one in memory.
    pub(crate) fn open(folder: Option<&Path>, limit: u64) -> io::Result<Self> {
        let mut inner = Inner::default();
        if let Some(folder) = folder {
            fs::create_dir_all(folder)?;
            let mut found = Vec::new();
            for file in fs::read_dir(folder)? {
                let file = file?;
                let name = file.file_name().to_string_lossy().into_owned();
                let (stem, entry) = match name.strip_suffix(".part") {
                    Some(stem) => (stem, Entry::Part),
                    None => (name.as_str(), Entry::Found),
                };
                if let Some(hash) = unhex(stem) {
                    let meta = file.metadata()?;
                    found.push((meta.modified().ok(), hash, entry, meta.len()));
                }
            }
            found.sort_by_key(|(time, ..)| *time);
            for (_, hash, entry, len) in found {
                inner.uses += 1;
                inner.all.insert(hash, Kept { entry, len, used: inner.uses });
            }
        }
        Ok(Self { folder: folder.map(Into::into), limit, inner: Mutex::new(inner) })
    }

    /// An artifact that can be served now.
    pub(crate) fn get(&self, hash: &Hash) -> Option<Arc<Artifact>> {
        let mut inner = lock(&self.inner);
        inner.uses += 1;
        let uses = inner.uses;
        let kept = inner.all.get_mut(hash)?;
        kept.used = uses;
        match &kept.entry {
            Entry::Ready(artifact) => Some(artifact.clone()),
            _ => None,
        }
    }

    /// Artifacts, and their bytes.
    pub(crate) fn held(&self) -> (usize, u64) {
        let inner = lock(&self.inner);
        (inner.all.len(), inner.all.values().map(|k| k.len).sum())
    }

    /// Fetches an artifact, unless it is there. Of several who want the same one fetches, and the others wait.
    /// `go_on` is asked between requests.
    pub(crate) fn fetch(
        &self,
        client: &Client,
        source: &Source,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Arc<Artifact>, FetchError> {
        let flight = lock(&self.inner).flights.entry(source.hash).or_default().clone();
        let landed = {
            let _flying = lock(&flight);
            match self.get(&source.hash) {
                Some(artifact) => Ok(artifact),
                None => self.obtain(client, source, go_on),
            }
        };
        let mut inner = lock(&self.inner);
        // Two: this and the map's.
        if Arc::strong_count(&flight) <= 2 {
            inner.flights.remove(&source.hash);
        }
        landed
    }

    fn obtain(&self, client: &Client, source: &Source, go_on: &dyn Fn() -> bool) -> Result<Arc<Artifact>, FetchError> {
        if u64::from(source.len) > self.limit {
            return Err(FetchError::TooLarge { len: source.len, limit: self.limit });
        }
        let Some(folder) = &self.folder else {
            self.make_room(source)?;
            let mut bytes = Vec::new();
            self.download(client, source, 0, go_on, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            if Hash::from(Sha256::digest(&bytes)) != source.hash {
                return Err(FetchError::Damaged);
            }
            return Ok(self.put(source, Artifact::Memory(bytes)));
        };
        let path = folder.join(hex(&source.hash));
        let part = folder.join(format!("{}.part", hex(&source.hash)));
        if let Some(file) = whole(&path, source)? {
            return Ok(self.put(source, Artifact::File(Mutex::new(file))));
        }
        self.make_room(source)?;
        let mut file = OpenOptions::new().create(true).append(true).open(&part)?;
        let mut from = file.metadata()?.len();
        if from > source.len.into() {
            file.set_len(0)?;
            from = 0;
        }
        lock(&self.inner).all.entry(source.hash).or_insert(Kept {
            entry: Entry::Part,
            len: source.len.into(),
            used: 0,
        });
        self.download(client, source, from as u32, go_on, |bytes| file.write_all(bytes))?;
        file.sync_all()?;
        drop(file);
        let Some(file) = whole(&part, source)? else {
            lock(&self.inner).all.remove(&source.hash);
            return Err(FetchError::Damaged);
        };
        fs::rename(&part, &path)?;
        sync_folder(folder)?;
        Ok(self.put(source, Artifact::File(Mutex::new(file))))
    }

    fn download(
        &self,
        client: &Client,
        source: &Source,
        mut from: u32,
        go_on: &dyn Fn() -> bool,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), FetchError> {
        if from > 0 {
            tracing::info!(artifact = %hex(&source.hash), from, "a download goes on");
        }
        let mut step = *STEPS.start();
        while from < source.len {
            if !go_on() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            let asked = Instant::now();
            let (bytes, total) = client.range(&source.url, from, step.min(source.len - from))?;
            if asked.elapsed() < QUICK {
                step = (2 * step).min(*STEPS.end());
            }
            if total != source.len {
                return Err(FetchError::Damaged);
            }
            take(&bytes)?;
            from += bytes.len() as u32;
        }
        Ok(())
    }

    fn put(&self, source: &Source, artifact: Artifact) -> Arc<Artifact> {
        let artifact = Arc::new(artifact);
        let mut inner = lock(&self.inner);
        inner.uses += 1;
        let kept = Kept { entry: Entry::Ready(artifact.clone()), len: source.len.into(), used: inner.uses };
        inner.all.insert(source.hash, kept);
        artifact
    }

    /// Drops what was used least lately until an artifact fits.
    fn make_room(&self, source: &Source) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        loop {
            let held: u64 = inner.all.iter().filter(|(h, _)| **h != source.hash).map(|(_, k)| k.len).sum();
            if held + u64::from(source.len) <= self.limit {
                return Ok(());
            }
            let free = |h: &Hash| *h != source.hash && !inner.flights.contains_key(h);
            let Some(oldest) = inner.all.iter().filter(|(h, _)| free(h)).min_by_key(|(_, k)| k.used).map(|(h, _)| *h)
            else {
                // What is on its way elsewhere; the limit is passed for a while.
                return Ok(());
            };
            inner.all.remove(&oldest);
            if let Some(folder) = &self.folder {
                for name in [hex(&oldest), format!("{}.part", hex(&oldest))] {
                    match fs::remove_file(folder.join(name)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The file, if it has length and hash of the artifact; what has not is removed.
fn whole(path: &Path, source: &Source) -> io::Result<Option<File>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut len = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
        len += n as u64;
    }
    if len == u64::from(source.len) && Hash::from(hash.finalize()) == source.hash {
        return Ok(Some(file));
    }
    tracing::warn!(file = %path.display(), "an artifact on disk does not have its hash; it is fetched anew");
    fs::remove_file(path)?;
    Ok(None)
}
