//! Little-endian reads that answer `None` instead of panicking.

/// `N` bytes at `at`.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The `u8` at `at`.
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The `u16` at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

/// The `u32` at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

/// The `u32` at `at`, as a length or offset.
pub(crate) fn len_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).and_then(|n| usize::try_from(n).ok())
}

/// `len` bytes at `at`.
pub(crate) fn slice_at(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

/// `n` rounded up to a multiple of `align`, a power of two.
pub(crate) fn align_up(n: usize, align: usize) -> Option<usize> {
    n.checked_next_multiple_of(align)
}

/// Whether `bytes[from..to]` is in bounds and all zero.
pub(crate) fn zero(bytes: &[u8], from: usize, to: usize) -> bool {
    bytes.get(from..to).is_some_and(|gap| gap.iter().all(|&b| b == 0))
}

#[cfg(test)]
mod tests {
    use super::{align_up, array_at, slice_at, u32_at, zero};

    #[test]
    fn reads_stop_at_the_end() {
        let bytes = [1, 2, 3, 4, 5];
        assert_eq!(u32_at(&bytes, 1), Some(0x0504_0302));
        assert_eq!(u32_at(&bytes, 2), None);
        assert_eq!(array_at::<1>(&bytes, 9), None);
        assert_eq!(slice_at(&bytes, 1, usize::MAX), None);
        assert_eq!(slice_at(&bytes, 5, 0), Some(&[][..]));
        assert_eq!(align_up(17, 16), Some(32));
        assert_eq!(align_up(usize::MAX, 16), None);
        assert!(zero(&[1, 0, 0, 1], 1, 3));
        assert!(!zero(&[1, 0, 0, 1], 1, 4));
        assert!(!zero(&[0], 0, 2));
    }
}
