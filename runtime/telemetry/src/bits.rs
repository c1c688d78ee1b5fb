//! Bits, most significant first, and the codes that counts are written in.

/// Writes bits to the caller's bytes.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    bytes: &'b mut [u8],
    bit: usize,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, bit: 0 }
    }

    /// The lowest `count` bits of `value`; `None` when there is no room.
    pub(crate) fn bits(&mut self, value: u32, count: u32) -> Option<()> {
        for i in (0..count).rev() {
            let byte = self.bytes.get_mut(self.bit / 8)?;
            if self.bit.is_multiple_of(8) {
                *byte = 0;
            }
            *byte |= ((value >> i & 1) as u8) << (7 - self.bit % 8);
            self.bit += 1;
        }
        Some(())
    }

    /// A number below 2^32 - 1 in the exponential Golomb code of order `k`, which is short for small ones.
    pub(crate) fn golomb(&mut self, value: u32, k: u32) -> Option<()> {
        let more = (value >> k).checked_add(1)?;
        let len = 31 - more.leading_zeros();
        self.bits(0, len)?;
        self.bits(more, len + 1)?;
        self.bits(value, k)
    }

    /// Bytes begun.
    pub(crate) fn len(&self) -> usize {
        self.bit.div_ceil(8)
    }
}

/// Reads bits of bytes from outside; past their end it gives `None`.
#[derive(Debug)]
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    bit: usize,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, bit: 0 }
    }

    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.bit / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.bit % 8) & 1);
            self.bit += 1;
        }
        Some(value)
    }

    pub(crate) fn golomb(&mut self, k: u32) -> Option<u32> {
        let mut len = 0;
        while self.bits(1)? == 0 {
            len += 1;
            if len > 31 {
                return None;
            }
        }
        let more = 1 << len | self.bits(len)?;
        (more - 1).checked_shl(k).filter(|v| v >> k == more - 1).map(|v| v | self.bits(k).unwrap_or(0))
    }

    /// Whether only the last byte's padding is left, and it is zero.
    pub(crate) fn ends(mut self) -> bool {
        let left = 8 * self.bytes.len() - self.bit;
        left < 8 && self.bits(left as u32) == Some(0)
    }
}

/// Bits that a number from 0 to `most` takes.
const fn width(most: u32) -> u32 {
    32 - most.leading_zeros()
}

/// Counts whose sum the reader knows: the share of each half, then of the halves of each, down to single bins. What is
/// empty takes no bits.
///
/// Recursion is bounded: a level for each halving.
pub(crate) fn write_counts(to: &mut Writer<'_>, counts: &[u32], sum: u32) -> Option<()> {
    if counts.len() < 2 || sum == 0 {
        return Some(());
    }
    let (low, high) = counts.split_at_checked(counts.len() / 2)?;
    let below = total(low);
    to.bits(below, width(sum))?;
    write_counts(to, low, below)?;
    write_counts(to, high, sum.checked_sub(below)?)
}

/// The other way round.
pub(crate) fn read_counts(from: &mut Reader<'_>, counts: &mut [u32], sum: u32) -> Option<()> {
    if counts.len() < 2 {
        if let Some(count) = counts.first_mut() {
            *count = sum;
        }
        return Some(());
    }
    if sum == 0 {
        counts.fill(0);
        return Some(());
    }
    let (low, high) = counts.split_at_mut_checked(counts.len() / 2)?;
    let below = from.bits(width(sum))?;
    let above = sum.checked_sub(below)?;
    read_counts(from, low, below)?;
    read_counts(from, high, above)
}

/// A sum that stays at the greatest number.
pub(crate) fn total(counts: &[u32]) -> u32 {
    counts.iter().fold(0u32, |sum, c| sum.saturating_add(*c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_come_back(counts in proptest::collection::vec(prop_oneof![Just(0u32), 0u32..4000, 0u32..50_000_000], 0..70)) {
            let sum = total(&counts);
            let mut bytes = [0xAA; 400];
            let mut writer = Writer::new(&mut bytes);
            write_counts(&mut writer, &counts, sum).unwrap();
            let len = writer.len();
            let mut back = vec![7; counts.len()];
            let mut reader = Reader::new(&bytes[..len]);
            read_counts(&mut reader, &mut back, if counts.is_empty() { 0 } else { sum }).unwrap();
            prop_assert!(reader.ends());
            prop_assert_eq!(back, counts);
        }

        #[test]
        fn numbers_come_back(numbers in proptest::collection::vec(0u32..u32::MAX - 40, 1..20), k in 0u32..8) {
            let mut bytes = [0; 400];
            let mut writer = Writer::new(&mut bytes);
            for n in &numbers {
                writer.golomb(*n, k).unwrap();
            }
            let len = writer.len();
            let mut reader = Reader::new(&bytes[..len]);
            for n in &numbers {
                prop_assert_eq!(reader.golomb(k), Some(*n));
            }
        }

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..40), k in 0u32..8) {
            let mut reader = Reader::new(&bytes);
            while reader.golomb(k).is_some() {}
            let mut counts = [0; 10];
            let _ = read_counts(&mut Reader::new(&bytes), &mut counts, 4000);
        }
    }
}
