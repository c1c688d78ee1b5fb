//! Numbers and moments as text.
//!
//! What is not known is written as such and never as zero.

use std::borrow::Borrow;
use std::fmt::Write as _;

/// For what is not known.
pub(crate) const NONE: &str = "no data";

/// A whole number with thin spaces between thousands.
pub(crate) fn count(n: impl Borrow<u64>) -> String {
    let digits = n.borrow().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A share of a whole, with as many digits as keep small ones apart.
pub(crate) fn percent(part: impl Borrow<f64>) -> String {
    let percent = part.borrow() * 100.0;
    match percent.abs() {
        p if !p.is_finite() => NONE.to_owned(),
        0.0 => "0 %".to_owned(),
        p if p < 0.005 => "< 0.01 %".to_owned(),
        p if p < 1.0 => format!("{percent:.2} %"),
        p if p < 99.95 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    }
}

/// A number to three significant digits, whole from a thousand on.
pub(crate) fn number(n: impl Borrow<f64>) -> String {
    let n: f64 = *n.borrow();
    match n.abs() {
        _ if n.is_nan() => NONE.to_owned(),
        a if a.is_infinite() => if n > 0.0 { "unbounded" } else { "-unbounded" }.to_owned(),
        0.0 => "0".to_owned(),
        a if a < 0.001 => format!("{n:.1e}"),
        a if a < 999.5 => {
            let digits = (2.0 - a.log10().floor()).clamp(0.0, 5.0) as usize;
            let text = format!("{n:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        a if a < 1e9 => format!("{}{}", if n < 0.0 { "-" } else { "" }, count(a.round() as u64)),
        _ => format!("{n:.2e}"),
    }
}

/// The number of the colour of a place in a list.
pub(crate) fn hue(place: impl Borrow<usize>) -> usize {
    (*place.borrow()).min(7)
}

/// The start of a digest: what tells it from others on a page.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A duration in the largest unit that it has at least two of, or one.
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// How long ago something was, or in how long it will be.
pub(crate) fn ago(then: i64, now: i64) -> String {
    match now - then {
        0 => "just now".to_owned(),
        s if s > 0 => format!("{} ago", span(s)),
        s => format!("in {}", span(-s)),
    }
}

/// Year, month, day, hour, minute and second of a moment in seconds since 1970, UTC. Howard Hinnant's
/// `civil_from_days`.
fn civil(seconds: i64) -> (i64, i64, i64, i64, i64, i64) {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// A moment for people: `2026-11-25 03:12`, UTC.
pub(crate) fn moment(seconds: impl Borrow<i64>) -> String {
    let (y, mo, d, h, mi, _) = civil(*seconds.borrow());
    format!("{y:04}-{mo:02}-{d:02} {h:02}:{mi:02}")
}

/// A moment with seconds, UTC.
pub(crate) fn second(seconds: impl Borrow<i64>) -> String {
    let seconds = *seconds.borrow();
    let (.., s) = civil(seconds);
    format!("{}:{s:02}", moment(seconds))
}

/// A moment for machines: RFC 3339.
pub(crate) fn stamp(seconds: i64) -> String {
    let mut text = second(seconds).replace(' ', "T");
    let _ = write!(text, "Z");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(count(0u64), "0");
        assert_eq!(count(999u64), "999");
        assert_eq!(count(1_234_567u64), "1\u{202f}234\u{202f}567");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_04), "< 0.01 %");
        assert_eq!(percent(0.0042), "0.42 %");
        assert_eq!(percent(0.999), "99.9 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(f64::NAN), NONE);
        assert_eq!(number(12.345), "12.3");
        assert_eq!(number(-1234.0), "-1\u{202f}234");
        assert_eq!(number(f64::INFINITY), "unbounded");
        assert_eq!(number(0.105), "0.105");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(999.7), "1\u{202f}000");
    }

    #[test]
    fn moments() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(stamp(1_795_576_331), "2026-11-25T03:12:11Z");
        assert_eq!(stamp(-1), "1969-12-31T23:59:59Z");
        assert_eq!(ago(100, 100), "just now");
        assert_eq!(ago(0, 7200), "2 h ago");
        assert_eq!(ago(7200, 0), "in 2 h");
    }
}
