//! Storage in files: for Linux, phones, and whatever else has a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::record::RECORD_LEN;
use crate::storage::{Area, Geometry, Storage, StorageFault, fits};

/// Bytes after which a download's progress is noted.
const SECTOR: u32 = 16 * 1024;
/// Erased bytes, as in most flash.
const ERASED: u8 = 0xFF;

/// A folder with the state record, the journal and the slots as files.
///
/// The state record is replaced by renaming, so that a file system that keeps renames whole keeps it whole; the two
/// copies are there for those that do not. One process at a time may have it open.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    slots: u8,
    slot_len: u32,
    dirty: Vec<Area>,
    /// A state record that is not whole yet.
    record: Option<(Area, Vec<u8>)>,
    /// What failed last, for messages.
    error: Option<io::Error>,
    _lock: File,
}

impl Folder {
    /// Opens a folder, or makes it. Slots hold `slot_len` bytes, rounded up to 16 KiB.
    ///
    /// # Errors
    /// When the folder cannot be made or another process has it open.
    pub fn open(path: &Path, slots: u8, slot_len: u32) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        lock.try_lock().map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
        let slot_len = slot_len.next_multiple_of(SECTOR);
        Ok(Self {
            path: path.to_owned(),
            slots: slots.max(2),
            slot_len,
            dirty: Vec::new(),
            record: None,
            error: None,
            _lock: lock,
        })
    }

    /// The file of an area, to read the running package from.
    #[must_use]
    pub fn file(&self, area: Area) -> PathBuf {
        self.path.join(match area {
            Area::State(i) => format!("state.{i}"),
            Area::Journal => "journal".to_owned(),
            Area::Slot(i) => format!("slot.{i}"),
        })
    }

    /// What the operating system said when an operation failed last.
    pub fn last_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn keep<T>(&mut self, result: io::Result<T>) -> Result<T, StorageFault> {
        result.map_err(|e| {
            self.error = Some(e);
            StorageFault
        })
    }

    fn change(&mut self, area: Area, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(self.file(area))?;
        file.seek(SeekFrom::Start(u64::from(offset)))?;
        file.write_all(bytes)?;
        if !self.dirty.contains(&area) {
            self.dirty.push(area);
        }
        Ok(())
    }

    /// The record under way; one that is written over is read first.
    fn record(&mut self, area: Area) -> io::Result<&mut Vec<u8>> {
        if self.record.as_ref().is_none_or(|(a, _)| *a != area) {
            let mut bytes = std::vec![ERASED; RECORD_LEN];
            self.load(area, 0, &mut bytes)?;
            self.record = Some((area, bytes));
        }
        let record = self.record.as_mut().map(|(_, bytes)| bytes);
        record.ok_or_else(|| io::Error::other("no record"))
    }

    fn replace(&self, area: Area, bytes: &[u8]) -> io::Result<()> {
        let (to, from) = (self.file(area), self.path.join("state.new"));
        let mut file = File::create(&from)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&from, &to)?;
        self.sync_folder()
    }

    /// Makes new names durable, where folders can be synced.
    fn sync_folder(&self) -> io::Result<()> {
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    fn load(&self, area: Area, offset: u32, into: &mut [u8]) -> io::Result<()> {
        into.fill(ERASED);
        let mut file = match File::open(self.file(area)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        file.seek(SeekFrom::Start(u64::from(offset)))?;
        let mut rest = into;
        while !rest.is_empty() {
            match file.read(rest)? {
                0 => break,
                n => rest = &mut rest[n..],
            }
        }
        Ok(())
    }
}

impl Storage for Folder {
    fn slots(&self) -> u8 {
        self.slots
    }

    fn geometry(&self, area: Area) -> Geometry {
        let (len, sector) = match area {
            // One copy: renaming is what keeps it whole.
            Area::State(_) => (RECORD_LEN as u32, RECORD_LEN as u32),
            Area::Journal => (SECTOR, SECTOR),
            Area::Slot(i) if i < self.slots => (self.slot_len, SECTOR),
            Area::Slot(_) => (0, SECTOR),
        };
        Geometry { len, sector, unit: 1, erased: ERASED }
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        if !fits(&self.geometry(area), offset, into.len(), 1) {
            return Err(StorageFault);
        }
        let result = match &self.record {
            Some((a, bytes)) if *a == area => {
                into.iter_mut().zip(bytes.iter().skip(offset as usize)).for_each(|(to, from)| *to = *from);
                Ok(())
            }
            _ => self.load(area, offset, into),
        };
        self.keep(result)
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        if !fits(&self.geometry(area), offset, bytes.len(), 1) {
            return Err(StorageFault);
        }
        let result = match area {
            Area::State(_) => self.record(area).map(|record| {
                record.iter_mut().skip(offset as usize).zip(bytes).for_each(|(to, from)| *to = *from);
            }),
            _ => self.change(area, offset, bytes),
        };
        self.keep(result)
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        let geometry = self.geometry(area);
        if !fits(&geometry, offset, len as usize, geometry.sector) {
            return Err(StorageFault);
        }
        let result = match area {
            // It is replaced as a whole, once it is synced.
            Area::State(_) => {
                self.record = Some((area, std::vec![ERASED; RECORD_LEN]));
                Ok(())
            }
            Area::Journal => fs::write(self.file(area), []).map(|()| self.dirty.push(area)),
            Area::Slot(_) => self.change(area, offset, &std::vec![ERASED; len as usize]),
        };
        self.keep(result)
    }

    fn sync(&mut self) -> Result<(), StorageFault> {
        let record = self.record.take();
        let replaced = record.map_or(Ok(()), |(area, bytes)| self.replace(area, &bytes));
        self.keep(replaced)?;
        let dirty = std::mem::take(&mut self.dirty);
        let all =
            dirty.into_iter().try_for_each(|area| OpenOptions::new().write(true).open(self.file(area))?.sync_all());
        let result = all.and_then(|()| self.sync_folder());
        self.keep(result)
    }
}
