//! Element types a tensor can have.

/// Element type of a tensor, as stored in a package (one byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DType {
    /// Signed 8-bit integer.
    I8 = 1,
    /// Unsigned 8-bit integer.
    U8 = 2,
    /// Signed 32-bit integer, little endian.
    I32 = 3,
    /// IEEE 754 binary32, little endian.
    F32 = 4,
    /// One byte, 0 or 1.
    Bool = 5,
    /// Signed 64-bit integer, little endian.
    I64 = 6,
}

impl DType {
    /// Every element type, by ascending code.
    pub const ALL: [Self; 6] = [Self::I8, Self::U8, Self::I32, Self::F32, Self::Bool, Self::I64];

    /// Size of one element in bytes; also its natural alignment.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::I32 | Self::F32 => 4,
            Self::I64 => 8,
        }
    }

    /// The element type with this code, or `None` if the code is not known.
    #[must_use]
    pub const fn from_u8(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::I8),
            2 => Some(Self::U8),
            3 => Some(Self::I32),
            4 => Some(Self::F32),
            5 => Some(Self::Bool),
            6 => Some(Self::I64),
            _ => None,
        }
    }

    /// The code stored in a package.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Short lower-case name: `i8`, `u8`, `i32`, `f32`, `bool` or `i64`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::I64 => "i64",
        }
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::DType;

    #[test]
    fn codes_round_trip() {
        for dtype in DType::ALL {
            assert_eq!(DType::from_u8(dtype.code()), Some(dtype));
        }
        for code in [0_u8, 7, 255] {
            assert_eq!(DType::from_u8(code), None);
        }
    }
}
