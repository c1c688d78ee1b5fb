//! Alignment of embedded packages.

use core::ops::{Deref, DerefMut};

/// Puts its content at a 64-byte boundary.
///
/// `include_bytes!` promises no alignment; the engine reads weights as words. `dunlin::include_model!` sees to it by itself; by
/// hand a program writes
///
/// ```
/// # const PACKAGE: &[u8; 3] = b"abc";
/// # macro_rules! include_bytes { ($path:literal) => { PACKAGE } }
/// use dunlin_package::Aligned;
///
/// static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("model.dunlin"));
/// # let _: &[u8] = MODEL;
/// ```
///
/// and opens `MODEL`, which dereferences to the bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(
    /// The content, at the start.
    pub T,
);

impl<T: ?Sized> Deref for Aligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Aligned;

    #[test]
    fn content_starts_at_the_boundary() {
        static MODEL: &Aligned<[u8]> = &Aligned(*b"abc");
        assert_eq!(MODEL.0.as_ptr() as usize % 64, 0);
        assert_eq!(&**MODEL, b"abc");
    }
}
