//! Rows in columns.

use crate::output::{Tone, paint};

/// Columns of a terminal that a text takes; colours take none.
fn width_of(text: &str) -> usize {
    console::strip_ansi_codes(text).chars().count()
}

/// A table as text: the first row is the heading, columns named in `right` are numbers.
#[must_use]
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| width_of(s)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - width_of(cell));
            let (before, after) = if right.contains(&c) { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        let line = line.trim_end();
        text.push_str(&if number == 0 { paint(Tone::Heading, line) } else { line.to_owned() });
        text.push('\n');
    }
    text
}

/// Digits in groups of three.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A fraction with at most so many digits after the point, without zeros at the end.
#[must_use]
pub fn decimal(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A number that may be small or large, with four digits that count: `0.0515`, `12.5`, `3.2e-8`.
#[must_use]
pub fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let before = magnitude.log10().floor() as i32;
    decimal(value, usize::try_from(3 - before).unwrap_or(0))
}

/// A time in the unit that gives the fewest digits before the point.
#[must_use]
pub fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!(significant(0.051_517), "0.05152");
        assert_eq!(significant(0.5), "0.5");
        assert_eq!(significant(3.0), "3");
        assert_eq!(significant(-1454.4), "-1454");
        assert_eq!(significant(1e-9), "1.000e-9");
        assert_eq!(significant(0.0), "0");
        assert_eq!(duration(46_700.0), "46.7 us");
        assert_eq!(duration(7_707_700.0), "7.71 ms");
        assert_eq!((decimal(1.5, 3), decimal(10.0, 0)), ("1.5".to_owned(), "10".to_owned()));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "n".to_owned()], vec!["bcd".to_owned(), "12".to_owned()]];
        assert_eq!(table(&rows, &[1]), "a     n\nbcd  12\n");
        assert_eq!((grouped(7), grouped(1234567)), ("7".to_owned(), "1,234,567".to_owned()));
    }
}
