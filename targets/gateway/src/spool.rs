//! Reports that a child handed over and the server has not acknowledged yet: a log on disk that is only appended to.
//!
//! A record is its length, a CRC-32 of what follows, a kind, the child, start and number of the report, and its bytes. An
//! acknowledgement is a record too. What a power cut leaves of the last record is cut off when the log is opened. Once
//! most of the log is of reports that are delivered, the others are written into a new one, which takes its place by
//! renaming.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_device::frame::crc32;
use dunlin_update::http::{MAX_REPORT, Report};

/// A child's name in the log.
pub(crate) type Child = [u8; 16];

/// Length and CRC.
const HEAD: usize = 8;
/// Kind, child, start, number.
const FIELDS: usize = 1 + 16 + 4 + 4;
const KEPT: u8 = 1;
const DELIVERED: u8 = 2;
/// Bytes of a log that is not worth being written anew.
const SMALL: u64 = 256 << 10;

/// Why a report was not taken. It stays with the child, which offers it again.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpoolError {
    /// It is longer than the server takes.
    TooLong(usize),
    /// As many bytes are waiting as may.
    Full(u64),
    /// The medium failed.
    Io(io::Error),
}

impl std::fmt::Display for SpoolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "a report of {len} bytes; the server takes {MAX_REPORT}"),
            Self::Full(limit) => write!(f, "reports of {limit} bytes wait for the server already: raise reports.bytes"),
            Self::Io(error) => write!(f, "reports cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for SpoolError {}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

type Key = (Child, u32, u32);

#[derive(Debug)]
struct Log {
    /// Nothing: the log is in memory only.
    file: Option<File>,
    waiting: BTreeMap<Key, Vec<u8>>,
    /// Bytes of the log that count.
    len: u64,
    /// Bytes of it that waiting reports take.
    live: u64,
    /// Records that were written.
    written: u64,
    /// A sync failed: what the system says about later ones is not to be believed, so the log is written anew.
    suspect: bool,
}

/// The reports of all children.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: Option<PathBuf>,
    limit: u64,
    log: Mutex<Log>,
    /// Records that are on the medium for good. Who holds it syncs for all who wait.
    synced: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size(bytes: &[u8]) -> u64 {
    (HEAD + FIELDS + bytes.len()) as u64
}

fn record(kind: u8, key: &Key, bytes: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEAD];
    record.push(kind);
    record.extend(key.0);
    record.extend(key.1.to_le_bytes());
    record.extend(key.2.to_le_bytes());
    record.extend(bytes);
    let content = record.get(HEAD..).unwrap_or_default();
    let head = [(content.len() as u32).to_le_bytes(), crc32(content).to_le_bytes()].concat();
    record.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    record
}

/// The first record of a log: kind, key, bytes, and its length; nothing when it is not whole.
fn parse(log: &[u8]) -> Option<(u8, Key, &[u8], usize)> {
    let (len, rest) = log.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let content = rest.get(..len)?;
    if len > FIELDS + MAX_REPORT || crc32(content) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (kind, content) = content.split_first()?;
    let (child, content) = content.split_first_chunk()?;
    let (boot, content) = content.split_first_chunk()?;
    let (seq, bytes) = content.split_first_chunk()?;
    Some((*kind, (*child, u32::from_le_bytes(*boot), u32::from_le_bytes(*seq)), bytes, HEAD + len))
}

impl Spool {
    /// Opens the log in a folder, or one in memory.
    pub(crate) fn open(folder: Option<&Path>, limit: u64) -> io::Result<Self> {
        let mut log = Log { file: None, waiting: BTreeMap::new(), len: 0, live: 0, written: 0, suspect: false };
        if let Some(folder) = folder {
            let path = folder.join("reports.log");
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            let mut at = 0;
            while let Some((kind, key, content, len)) = bytes.get(at..).and_then(parse) {
                match kind {
                    KEPT => drop(log.waiting.insert(key, content.to_vec())),
                    _ => drop(log.waiting.remove(&key)),
                }
                at += len;
            }
            let cut = bytes.len() - at;
            if cut > 0 {
                tracing::warn!(bytes = cut, "the end of the log of reports was not whole, and is cut off");
            }
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(at as u64)?;
            file.sync_all()?;
            sync_folder(folder)?;
            log.file = Some(file);
            log.len = at as u64;
            log.live = log.waiting.values().map(|b| size(b)).sum();
        }
        Ok(Self { folder: folder.map(Into::into), limit, log: Mutex::new(log), synced: Mutex::new(0) })
    }

    /// Keeps a report; afterwards it is on the medium for good. The same again is the same.
    pub(crate) fn keep(&self, child: Child, boot: u32, seq: u32, bytes: &[u8]) -> Result<(), SpoolError> {
        if bytes.len() > MAX_REPORT {
            return Err(SpoolError::TooLong(bytes.len()));
        }
        let key = (child, boot, seq);
        let mut log = lock(&self.log);
        if log.suspect {
            self.renew(&mut log)?;
        }
        if log.waiting.get(&key).is_none_or(|b| b != bytes) {
            if log.live + size(bytes) > self.limit {
                return Err(SpoolError::Full(self.limit));
            }
            log.append(&record(KEPT, &key, bytes))?;
            let before = log.waiting.insert(key, bytes.to_vec());
            log.live = log.live + size(bytes) - before.map_or(0, |b| size(&b));
        }
        let written = log.written;
        drop(log);
        Ok(self.sync(written)?)
    }

    /// The oldest reports of a child.
    pub(crate) fn oldest(&self, child: Child, most: usize) -> Vec<Report> {
        let log = lock(&self.log);
        let all = log.waiting.range((Bound::Included((child, 0, 0)), Bound::Included((child, u32::MAX, u32::MAX))));
        all.take(most).map(|((_, boot, seq), bytes)| Report { boot: *boot, seq: *seq, bytes: bytes.clone() }).collect()
    }

    /// Whether a child has reports that wait.
    pub(crate) fn has(&self, child: Child) -> bool {
        !self.oldest(child, 1).is_empty()
    }

    /// Reports that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, u64) {
        let log = lock(&self.log);
        (log.waiting.len(), log.live)
    }

    /// The server has these. This need not survive a power cut: then they are sent once more.
    pub(crate) fn delivered(&self, child: Child, which: &[(u32, u32)]) -> io::Result<()> {
        let mut log = lock(&self.log);
        for (boot, seq) in which {
            let key = (child, *boot, *seq);
            if let Some(bytes) = log.waiting.remove(&key) {
                log.live -= size(&bytes);
                log.append(&record(DELIVERED, &key, &[]))?;
            }
        }
        if log.len > SMALL && log.len / 4 > log.live {
            self.renew(&mut log)?;
        }
        Ok(())
    }

    fn sync(&self, written: u64) -> io::Result<()> {
        let mut synced = lock(&self.synced);
        if *synced >= written {
            return Ok(());
        }
        let (file, upto) = {
            let log = lock(&self.log);
            (log.file.as_ref().map(File::try_clone).transpose()?, log.written)
        };
        if let Some(file) = file {
            file.sync_data().inspect_err(|_| lock(&self.log).suspect = true)?;
        }
        *synced = upto;
        Ok(())
    }

    /// Writes what waits into a new log.
    fn renew(&self, log: &mut Log) -> io::Result<()> {
        let Some(folder) = &self.folder else {
            log.len = log.live;
            return Ok(());
        };
        let (path, fresh) = (folder.join("reports.log"), folder.join("reports.new"));
        let bytes: Vec<u8> = log.waiting.iter().flat_map(|(key, bytes)| record(KEPT, key, bytes)).collect();
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        sync_folder(folder)?;
        log.file = Some(OpenOptions::new().append(true).open(&path)?);
        (log.len, log.suspect) = (bytes.len() as u64, false);
        Ok(())
    }
}

impl Log {
    /// Writes a record whole or, as far as later records are concerned, not at all.
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(record)
        {
            file.set_len(self.len)?;
            return Err(error);
        }
        self.len += record.len() as u64;
        self.written += 1;
        Ok(())
    }
}

/// Makes new names durable, where folders can be synced.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests;
