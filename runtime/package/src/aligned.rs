//! Alignment of embedded packages.

/// Puts its content at a 64-byte boundary.
///
/// `include_bytes!` promises no alignment; the engine reads weights as words. A device that embeds a package writes
/// `static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("model.dunlin"));` and opens `&MODEL.0`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(
    /// The content, at the start.
    pub T,
);

#[cfg(test)]
mod tests {
    use super::Aligned;

    #[test]
    fn content_starts_at_the_boundary() {
        static MODEL: &Aligned<[u8]> = &Aligned(*b"abc");
        assert_eq!(MODEL.0.as_ptr() as usize % 64, 0);
        assert_eq!(&MODEL.0, b"abc");
    }
}
