//! Short names that need no memory of their own.

use serde::{Deserialize, Serialize};

/// A name of 1 to 16 bytes of printable ASCII: a metric's, in rules and in evidence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name([u8; 16]);

impl Name {
    /// The name, or nothing when it is empty, longer than 16 bytes, or has other bytes than printable ASCII.
    #[must_use]
    pub const fn new(name: &str) -> Option<Self> {
        let mut rest = name.as_bytes();
        let (mut all, mut shift) = (0u128, 0);
        if rest.is_empty() || rest.len() > 16 {
            return None;
        }
        while let Some((byte, tail)) = rest.split_first() {
            if !byte.is_ascii_graphic() {
                return None;
            }
            all |= (*byte as u128) << shift;
            shift += 8;
            rest = tail;
        }
        Some(Self(all.to_le_bytes()))
    }

    /// A name known to be one.
    pub(crate) const fn known(name: &str) -> Self {
        match Self::new(name) {
            Some(name) => name,
            None => Self(*b"?\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|b| *b == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or("?")
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}
