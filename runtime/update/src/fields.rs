//! Fields as postcard writes them, read and written one after the other with nothing in between.
//!
//! `serde` would do as well and hosts use it for documents, but it takes a device several kilobytes; tests compare both.

/// Where fields come from.
pub(crate) trait Source {
    /// The next bytes; `None` when there are not so many.
    fn fill(&mut self, into: &mut [u8]) -> Option<()>;
}

impl Source for &[u8] {
    fn fill(&mut self, into: &mut [u8]) -> Option<()> {
        let (now, rest) = self.split_at_checked(into.len())?;
        into.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        *self = rest;
        Some(())
    }
}

impl dyn Source + '_ {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        let [byte] = byte;
        Some(byte)
    }

    /// A number of so many bits.
    #[inline(never)]
    fn number(&mut self, bits: u32) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let (low, left) = (byte & 0x7F, bits.checked_sub(shift).filter(|&n| n > 0)?);
            if left < 7 && low >> left != 0 {
                return None;
            }
            number |= u64::from(low) << shift;
            shift += 7;
            if low == byte {
                return Some(number);
            }
        }
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.number(16).map(|n| n as u16)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.number(32).map(|n| n as u32)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.number(64)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Some(bytes)
    }
}

/// Bytes in the place where they are, after their length.
pub(crate) fn slice<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = (from as &mut dyn Source).u32()?;
    let (slice, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
    *from = rest;
    Some(slice)
}

/// Text, as [`slice`].
pub(crate) fn text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    core::str::from_utf8(slice(from)?).ok()
}

/// Where fields go to.
pub(crate) trait Target {
    /// Takes the next bytes. What goes wrong is told at the end.
    fn put(&mut self, bytes: &[u8]);
}

/// Counts bytes.
pub(crate) struct Count(pub(crate) u32);

impl Target for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len() as u32);
    }
}

impl dyn Target + '_ {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    #[inline(never)]
    pub(crate) fn number(&mut self, mut number: u64) {
        while number > 0x7F {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<T>(bytes: &[u8], read: fn(&mut dyn Source) -> Option<T>) -> Option<(T, usize)> {
        let mut rest = bytes;
        let value = read(&mut rest)?;
        Some((value, rest.len()))
    }

    fn theirs<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, usize)> {
        postcard::take_from_bytes(bytes).ok().map(|(value, rest)| (value, rest.len()))
    }

    proptest! {
        #[test]
        fn any_bytes_are_the_numbers_that_postcard_takes_them_for(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..14),
            long in 0usize..14,
        ) {
            bytes.iter_mut().take(long).for_each(|b| *b |= 0x80);
            prop_assert_eq!(read(&bytes, |s| s.u16()), theirs::<u16>(&bytes));
            prop_assert_eq!(read(&bytes, |s| s.u32()), theirs::<u32>(&bytes));
            prop_assert_eq!(read(&bytes, |s| s.u64()), theirs::<u64>(&bytes));
            prop_assert_eq!(read(&bytes, |s| s.flag()), theirs::<bool>(&bytes));
            prop_assert_eq!(read(&bytes, |s| s.array::<3>()), theirs::<[u8; 3]>(&bytes));
        }

        #[test]
        fn numbers_are_written_as_postcard_writes_them(number in any::<u64>(), shift in 0u32..64) {
            struct Bytes(Vec<u8>);
            impl Target for Bytes {
                fn put(&mut self, bytes: &[u8]) {
                    self.0.extend(bytes);
                }
            }
            let mut bytes = Bytes(vec![]);
            (&mut bytes as &mut dyn Target).number(number >> shift);
            prop_assert_eq!(bytes.0, postcard::to_allocvec(&(number >> shift)).unwrap());
        }
    }
}
