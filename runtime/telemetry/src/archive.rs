//! Reports in a file, with who sent them and when they came: what a server or gateway keeps and `dunlin drift` reads.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `DUNLIN\0R` |
//! | then for each report: | |
//! | 1 | length of the device's name, 1 to 64 |
//! | so many | the name, UTF-8 |
//! | 8 | seconds since 1970 at which the report came, little endian; 0 if that is not known |
//! | 2 | length of the report, little endian |
//! | so many | the report, as it came |
//!
//! Records can be appended; a file cut short is read up to its last whole record, and that it is short is an error.

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"DUNLIN\0R";
/// Longest name of a device.
pub const MAX_DEVICE: usize = 64;

/// A report with where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The device's name.
    pub device: &'a str,
    /// Seconds since 1970 at which it came; 0 if that is not known.
    pub received: u64,
    /// The report's bytes.
    pub report: &'a [u8],
}

/// Why bytes are no archive, or a record cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// They do not begin with [`MAGIC`].
    NotAnArchive,
    /// They end within the record that begins here.
    Truncated {
        /// Offset of the record.
        at: usize,
    },
    /// A device has no name, a name that is too long or one that is no text.
    Device {
        /// Offset of the record.
        at: usize,
    },
    /// The report is longer than its length can say.
    Long,
}

impl std::fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAnArchive => f.write_str("not an archive of reports"),
            Self::Truncated { at } => write!(f, "the record at byte {at} is cut short"),
            Self::Device { at } => {
                write!(f, "the record at byte {at} has no name of a device of 1 to {MAX_DEVICE} bytes of text")
            }
            Self::Long => f.write_str("a report has at most 65,535 bytes"),
        }
    }
}

impl std::error::Error for ArchiveError {}

/// Appends a record; to nothing, the beginning of the file first.
///
/// # Errors
///
/// If the device's name or the report does not fit; then nothing is appended.
pub fn append(to: &mut Vec<u8>, record: &Record<'_>) -> Result<(), ArchiveError> {
    let name = u8::try_from(record.device.len()).ok().filter(|n| (1..=MAX_DEVICE).contains(&usize::from(*n)));
    let name = name.ok_or(ArchiveError::Device { at: to.len() })?;
    let len = u16::try_from(record.report.len()).map_err(|_| ArchiveError::Long)?;
    if to.is_empty() {
        to.extend(MAGIC);
    }
    to.push(name);
    to.extend(record.device.as_bytes());
    to.extend(record.received.to_le_bytes());
    to.extend(len.to_le_bytes());
    to.extend(record.report);
    Ok(())
}

/// The records of an archive; ends after an error.
///
/// # Errors
///
/// If the bytes do not begin as an archive does.
pub fn records(bytes: &[u8]) -> Result<Records<'_>, ArchiveError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(ArchiveError::NotAnArchive)?;
    Ok(Records { rest, at: MAGIC.len() })
}

/// Iterator over the records of an archive.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    fn take(&mut self) -> Option<(&'a [u8], u64, &'a [u8])> {
        let (&name, rest) = self.rest.split_first()?;
        let (device, rest) = rest.split_at_checked(name.into())?;
        let (received, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (report, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        self.at += self.rest.len() - rest.len();
        self.rest = rest;
        Some((device, u64::from_le_bytes(*received), report))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.at;
        let Some((device, received, report)) = self.take() else {
            self.rest = &[];
            return Some(Err(ArchiveError::Truncated { at }));
        };
        let device = std::str::from_utf8(device).ok().filter(|d| (1..=MAX_DEVICE).contains(&d.len()));
        let Some(device) = device else {
            self.rest = &[];
            return Some(Err(ArchiveError::Device { at }));
        };
        Some(Ok(Record { device, received, report }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_to_the_byte() {
        let mut bytes = Vec::new();
        append(&mut bytes, &Record { device: "a1", received: 0x0102, report: &[7, 8, 9] }).expect("a record");
        assert_eq!(bytes, *b"DUNLIN\0R\x02a1\x02\x01\0\0\0\0\0\0\x03\0\x07\x08\x09");
        assert_eq!(
            append(&mut bytes, &Record { device: "", received: 0, report: &[] }),
            Err(ArchiveError::Device { at: 24 })
        );
        let long = "x".repeat(65);
        assert!(append(&mut bytes, &Record { device: &long, received: 0, report: &[] }).is_err());
        assert_eq!(
            append(&mut bytes, &Record { device: "b", received: 0, report: &[0; 65_536] }),
            Err(ArchiveError::Long)
        );
        assert_eq!((bytes.len(), records(b"DUNLIN\0").err()), (24, Some(ArchiveError::NotAnArchive)));
    }

    proptest! {
        #[test]
        fn what_is_appended_is_read_and_cuts_are_told(
            all in prop::collection::vec(("[a-zé]{1,20}", any::<u64>(), prop::collection::vec(any::<u8>(), 0..200)), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![MAGIC.len()];
            for (device, received, report) in &all {
                append(&mut bytes, &Record { device, received: *received, report }).expect("a record");
                ends.push(bytes.len());
            }
            let read: Result<Vec<_>, _> = records(&bytes).expect("an archive").collect();
            let expected: Vec<_> = all.iter().map(|(d, r, b)| Record { device: d, received: *r, report: b }).collect();
            prop_assert_eq!(read, Ok(expected));
            let cut = MAGIC.len() + cut.index(bytes.len() - MAGIC.len());
            let short: Vec<_> = records(&bytes[..cut]).expect("an archive").collect();
            let whole = ends.iter().filter(|e| **e <= cut).count() - 1;
            prop_assert_eq!(short.iter().filter(|r| r.is_ok()).count(), whole);
            prop_assert_eq!(short.len() > whole, !ends.contains(&cut));
        }

        #[test]
        fn any_bytes_at_all_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut all = MAGIC.to_vec();
            all.extend(&bytes);
            prop_assert!(records(&all).expect("an archive").count() <= bytes.len() + 1);
            let _ = records(&bytes);
        }
    }
}
