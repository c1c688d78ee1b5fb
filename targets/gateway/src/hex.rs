//! Bytes as hexadecimal digits.

use std::fmt::Write as _;

/// Lower-case digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// The bytes of exactly so many digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    unhex_all(text)?.try_into().ok()
}

/// The bytes of pairs of digits.
pub(crate) fn unhex_all(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let nibble = |d: u8| char::from(d).to_digit(16);
    let pair = |p: &[u8]| match *p {
        [high, low] => Some((nibble(high)? << 4 | nibble(low)?) as u8),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::{hex, unhex};

    #[test]
    fn digits_come_back() {
        assert_eq!(hex(&[0, 15, 255]), "000fff");
        assert_eq!(unhex("000fFF"), Some([0, 15, 255]));
        for bad in ["0", "0g0000", "00", "00000000", "é0000"] {
            assert_eq!(unhex::<3>(bad), None, "{bad}");
        }
    }
}
