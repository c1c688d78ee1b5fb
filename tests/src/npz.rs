//! Arrays of an npz file, as bytes.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

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
        let dtype = match header.dtype() {
            npyz::DType::Plain(plain) => plain.to_string(),
            other => return Err(format!("entry '{name}' has type {}", other.descr())),
        };
        let shape = header.shape().iter().map(|&d| d as usize).collect();
        if header.order() != npyz::Order::C {
            return Err(format!("entry '{name}' lies column by column"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| format!("entry '{name}': {e}"))?;
        arrays.insert(name, Array { dtype, shape, bytes });
    }
    Ok(arrays)
}
