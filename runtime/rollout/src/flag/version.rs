//! Versions as attributes have them.

/// Major, minor, patch, and whether it is a release: `1.2`, `1.2.3`, `1.2.3-rc.1+build`. A missing part is 0; all
/// pre-releases of a version are alike and come before it; what follows a `+` is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    parts: [u32; 3],
    release: bool,
}

impl Version {
    /// Reads a version; nothing when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split('+').next().unwrap_or_default();
        let (numbers, release) = match text.split_once('-') {
            Some((_, "")) => return None,
            Some((numbers, _)) => (numbers, false),
            None => (text, true),
        };
        let mut fields = numbers.split('.');
        let mut parts = [0; 3];
        for (i, part) in parts.iter_mut().enumerate() {
            match fields.next() {
                Some(field) if field.bytes().all(|b| b.is_ascii_digit()) => *part = field.parse().ok()?,
                None if i > 0 => {}
                _ => return None,
            }
        }
        fields.next().is_none().then_some(Self { parts, release })
    }
}
