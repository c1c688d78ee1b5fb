//! Bytes as hexadecimal digits, as digests and identities are written everywhere.

use std::fmt::Write as _;

/// Lower-case digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// The bytes of digits in either case; nothing when they are not pairs of digits.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let nibble = |d: u8| char::from(d).to_digit(16);
    let pair = |p: &[u8]| match *p {
        [high, low] => Some((nibble(high)? << 4 | nibble(low)?) as u8),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

/// The bytes of exactly so many digits.
pub(crate) fn unhex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{hex, unhex, unhex_array};

    #[test]
    fn digits_come_back() {
        assert_eq!(hex(&[0, 15, 255]), "000fff");
        assert_eq!(unhex("000fFF"), Some(vec![0, 15, 255]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex_array::<2>("00"), None);
    }
}
