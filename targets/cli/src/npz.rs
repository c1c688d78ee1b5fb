//! Arrays of an npz file, as bytes.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};

/// Bytes of the largest array that is read.
const MOST: usize = 1 << 31;

/// One array: little-endian elements, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// numpy's type code, for example `<f4` or `|i1`.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// The elements' bytes.
    pub bytes: Vec<u8>,
}

impl Array {
    /// The first element of an array of floats.
    #[must_use]
    pub fn float(&self) -> Option<f32> {
        let bytes = self.bytes.first_chunk::<4>()?;
        (self.dtype == "<f4").then(|| f32::from_le_bytes(*bytes))
    }
}

/// Reads every array of an npz file.
///
/// # Errors
/// When the bytes are no zip archive, or an entry is no numpy array; the text names the entry.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Array>, String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("not an npz file: {e}"))?;
    let mut arrays = BTreeMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| format!("entry {i}: {e}"))?;
        let name = entry.name().trim_end_matches(".npy").to_owned();
        let header = npyz::NpyHeader::from_reader(&mut entry).map_err(|e| format!("entry '{name}': {e}"))?;
        let (dtype, size) = match header.dtype() {
            npyz::DType::Plain(plain) => (plain.to_string(), plain.num_bytes()),
            other => return Err(format!("entry '{name}' has type {}", other.descr())),
        };
        let shape: Vec<usize> = header.shape().iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
        let wanted = shape.iter().try_fold(size.unwrap_or(0), |n, &d| n.checked_mul(d));
        let Some(wanted) = wanted.filter(|&n| n <= MOST) else {
            return Err(format!("entry '{name}' claims a shape of {shape:?}, which is more than {MOST} bytes"));
        };
        if header.order() != npyz::Order::C {
            return Err(format!("entry '{name}' lies column by column"));
        }
        let mut bytes = Vec::new();
        // One byte more than the shape says shows that the file says something else.
        let entry = &mut entry;
        entry.take(wanted as u64 + 1).read_to_end(&mut bytes).map_err(|e| format!("entry '{name}': {e}"))?;
        if bytes.len() != wanted {
            return Err(format!("entry '{name}' has not the {wanted} bytes that its shape {shape:?} takes"));
        }
        arrays.insert(name, Array { dtype, shape, bytes });
    }
    Ok(arrays)
}

/// Writes arrays as an npz file, stored.
///
/// # Errors
/// When the archive cannot be written.
pub fn write(arrays: &[(String, Array)]) -> Result<Vec<u8>, String> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, array) in arrays {
        let comma = if array.shape.len() == 1 { "," } else { "" };
        let shape = array.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({shape}{comma}), }}", array.dtype);
        // Magic, version and length are ten bytes; the data begins at a multiple of 64.
        let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
        header.push_str(&" ".repeat(padded - header.len() - 1));
        header.push('\n');
        let length = u16::try_from(header.len()).map_err(|_| format!("entry '{name}' has too many axes"))?;
        let wrong = |e: std::io::Error| format!("entry '{name}': {e}");
        archive.start_file(format!("{name}.npy"), options).map_err(|e| format!("entry '{name}': {e}"))?;
        archive.write_all(b"\x93NUMPY\x01\x00").map_err(wrong)?;
        archive.write_all(&length.to_le_bytes()).map_err(wrong)?;
        archive.write_all(header.as_bytes()).map_err(wrong)?;
        archive.write_all(&array.bytes).map_err(wrong)?;
    }
    archive.finish().map(Cursor::into_inner).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let arrays = [
            ("in0_0".to_owned(), Array { dtype: "<f4".into(), shape: vec![2, 1], bytes: vec![1; 8] }),
            ("in0_1".to_owned(), Array { dtype: "|i1".into(), shape: vec![3], bytes: vec![4, 5, 6] }),
            ("in0_2".to_owned(), Array { dtype: "<i8".into(), shape: vec![], bytes: vec![7; 8] }),
        ];
        let read = read(&write(&arrays).unwrap()).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), arrays);
    }

    #[test]
    fn other_bytes_are_an_error() {
        assert!(read(b"no archive").is_err());
        assert!(read(&[]).is_err());
    }
}
