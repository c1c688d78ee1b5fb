//! Histograms and verdicts on a terminal.

use std::fmt::Write as _;

use dunlin_telemetry::analysis::{Level, Verdict};

use super::Panel;
use crate::table::grouped;

/// Columns of a line where nobody says how many there are.
const WIDTH: usize = 100;
/// Eighths of a full block, from none to seven.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// How a terminal is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of a line.
    pub width: usize,
    /// Whether to colour.
    pub colour: bool,
}

impl Style {
    /// That of standard output: coloured on a terminal unless `NO_COLOR` is set, as wide as it is. `COLUMNS` has the
    /// last word on the width.
    #[must_use]
    pub fn of_stdout() -> Self {
        let term = console::Term::stdout();
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        let size = term.size_checked().map(|(_, columns)| usize::from(columns));
        Self { width: columns.or(size).unwrap_or(WIDTH).clamp(40, 200), colour: term.is_term() && !set("NO_COLOR") }
    }

    /// Text that stands out.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.paint(text, "1")
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Text in the colour of a level.
    #[must_use]
    pub fn level(self, level: Level, text: &str) -> String {
        self.paint(
            text,
            match level {
                Level::NotEnoughData => "2",
                Level::Steady => "32",
                Level::Warn => "33",
                Level::Act => "1;31",
            },
        )
    }
}

/// A bar of `share` of `width` columns, with a mark where the other share ends.
fn bar(share: f64, mark: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut cells: Vec<&str> = vec!["█"; eighths / 8];
    if !eighths.is_multiple_of(8) {
        cells.push(EIGHTHS[eighths % 8]);
    }
    cells.resize(width, " ");
    let at = ((mark.clamp(0.0, 1.0) * width as f64).round() as usize).min(width - 1);
    if let Some(cell) = cells.get_mut(at) {
        *cell = "│";
    }
    cells.concat()
}

/// Words in lines of at most `width` columns, all but the first begun with `indent`.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(indent);
            column = indent.chars().count();
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

/// The panel's histogram: a line a bin, now as a bar, the reference as a mark in it.
#[must_use]
pub fn histogram(panel: &Panel, style: Style) -> String {
    let mut out = String::new();
    let counts = format!("{} now, {} in the reference (│)", grouped(panel.n), grouped(panel.m));
    let _ = writeln!(out, "{}  {counts}", style.bold(&panel.title));
    let labels = panel.bins.iter().map(|b| b.label.chars().count()).max().unwrap_or(0).min(style.width / 4);
    // Two columns before the label, two after, and the shares: ` 12.3 %  12.3 %`.
    let width = style.width.saturating_sub(labels + 4 + 18).clamp(8, 60);
    let most = panel.bins.iter().flat_map(|b| [b.now, b.reference]).fold(0.0, f64::max);
    let scale = if most > 0.0 { 1.0 / most } else { 0.0 };
    for bin in &panel.bins {
        let label: String = bin.label.chars().take(labels).collect();
        let drawn = bar(bin.now * scale, bin.reference * scale, width);
        let _ = writeln!(
            out,
            "  {label:>labels$}  {} {:>5.1} % {:>5.1} %",
            style.paint(&drawn, "36"),
            100.0 * bin.now,
            100.0 * bin.reference
        );
    }
    out
}

/// A number as short as it can be told.
pub(super) fn short(value: f64) -> String {
    let text = if value != 0.0 && value.abs() < 0.0005 { format!("{value:.1e}") } else { format!("{value:.3}") };
    if text == "-0.000" { "0.000".to_owned() } else { text }
}

/// A verdict's numbers in one line.
pub(super) fn numbers(verdict: &Verdict) -> String {
    let mut text = verdict.value.map_or("-".to_owned(), short);
    if let Some(interval) = verdict.interval {
        let _ = write!(text, " [{}, {}] by {}", short(interval.low), short(interval.high), interval.unit.name());
    }
    let _ = write!(text, "; warns at {}, acts at {}", verdict.warn, verdict.act);
    let (n, m, devices) = (grouped(verdict.n), grouped(verdict.m), grouped(verdict.devices));
    let _ = write!(text, "; n {n}, m {m}, {devices} device{}", if verdict.devices == 1 { "" } else { "s" });
    if let Some(p) = verdict.p {
        let _ = write!(text, "; p {p:.1e} if independent");
    }
    text
}

/// The verdict: level, statistic and numbers, then the reason.
#[must_use]
pub fn verdict(verdict: &Verdict, style: Style) -> String {
    let level = format!("{:15}", verdict.level.to_string());
    let name = verdict.statistic.name().replace('_', " ");
    let indent = " ".repeat(17);
    let text = wrap(&format!("{name} {}", numbers(verdict)), style.width.saturating_sub(17), &indent);
    let reason = wrap(&verdict.reason, style.width.saturating_sub(17), &indent);
    format!("  {}{text}\n{indent}{reason}\n", style.level(verdict.level, &level))
}

#[cfg(test)]
mod tests {
    use dunlin_telemetry::analysis::{ByDevice, Criteria, Statistic};

    use super::super::Bin;
    use super::*;

    fn panel() -> Panel {
        let bin = |label: &str, now, reference| Bin { label: label.to_owned(), now, reference };
        Panel {
            subject: "class".into(),
            title: "class".into(),
            n: 1200,
            m: 900,
            bins: vec![
                bin("zero", 0.5, 0.25),
                bin("one", 0.5, 0.75),
                bin("a long name of a class that is cut", 0.0, 0.0),
            ],
        }
    }

    #[test]
    fn bars_have_their_length_and_marks_their_place() {
        assert_eq!(bar(0.5, 1.0, 8), "████   │");
        assert_eq!(bar(1.0, 0.25, 8), "██│█████");
        assert_eq!(bar(0.0, 0.0, 4), "│   ");
        assert_eq!(bar(3.0 / 64.0, 0.5, 8), "▍   │   ");
        assert_eq!(bar(f64::NAN, f64::NAN, 3).chars().count(), 3);
    }

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        for width in [40, 60, 80, 132] {
            let style = Style { width, colour: false };
            let mut text = histogram(&panel(), style);
            let mut now = ByDevice::new(3);
            (0..9).for_each(|_| now.push([50, 50, 0]));
            for reference in [[225, 675, 0], [0, 0, 1]] {
                let v = Verdict::of_counts("class", Statistic::Psi, &now, &reference, None, &Criteria::default());
                text.push_str(&verdict(&v, style));
            }
            for line in text.lines() {
                assert!(line.chars().count() <= width.max(48), "{width}: {line}");
            }
            assert!(!text.contains('\x1b') && text.contains("50.0 %") && text.contains("not enough data"), "{text}");
        }
        assert!(histogram(&panel(), Style { width: 80, colour: true }).contains("\x1b[36m"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, -0.0001, 0.1234, 12.0].map(short), ["0.000", "-1.0e-4", "0.123", "12.000"]);
    }
}
