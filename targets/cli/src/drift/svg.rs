//! Histograms and verdicts as a picture.

use std::fmt::Write as _;

use dunlin_telemetry::analysis::{Level, Verdict};

use super::terminal::numbers;
use super::{Drift, Panel};
use crate::table::grouped;

/// Width of the picture, and of a panel; panels stand two in a row.
const WIDTH: f64 = 1120.0;
const PANEL: (f64, f64) = (540.0, 250.0);
/// Margin of the picture, and the gap between panels.
const MARGIN: f64 = 20.0;
/// Where a panel's axes lie within it: left, top, width, height.
const PLOT: (f64, f64, f64, f64) = (48.0, 46.0, 480.0, 150.0);
/// Where the panels begin.
const TOP: f64 = 84.0;
/// Height of a verdict's rows.
const ROW: f64 = 40.0;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn short(text: &str, n: usize) -> String {
    if text.chars().count() <= n {
        return text.to_owned();
    }
    format!("{}…", text.chars().take(n.saturating_sub(1)).collect::<String>())
}

/// A step of the vertical axis that gives two to five lines up to `most`.
fn step(most: f64) -> f64 {
    let magnitude = 10f64.powf(most.max(1e-6).log10().floor());
    [0.2, 0.25, 0.5, 1.0].into_iter().map(|s| s * magnitude).find(|s| most / s <= 5.0).unwrap_or(2.0 * magnitude)
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::NotEnoughData => "#6b7a83",
        Level::Steady => "#2f7d4f",
        Level::Warn => "#a86a00",
        Level::Act => "#b3261e",
    }
}

fn panel(out: &mut String, panel: &Panel, left: f64, top: f64) {
    let (x, y, w, h) = (left + PLOT.0, top + PLOT.1, PLOT.2, PLOT.3);
    let _ = writeln!(
        out,
        "<text x=\"{left:.0}\" y=\"{:.0}\" class=\"title\">{}</text>\
         <text x=\"{:.0}\" y=\"{:.0}\" class=\"dim\" text-anchor=\"end\">{} now, {} in the reference</text>",
        top + 18.0,
        escape(&short(&panel.title, 36)),
        x + w,
        top + 18.0,
        grouped(panel.n),
        grouped(panel.m)
    );
    let most = panel.bins.iter().flat_map(|b| [b.now, b.reference]).fold(0.0, f64::max).max(1e-3);
    let step = step(most);
    let lines = (most / step).ceil().max(1.0);
    let scale = h / (lines * step);
    for i in 0..=lines as usize {
        let value = i as f64 * step;
        let at = y + h - value * scale;
        let digits = usize::from(step < 0.0099 || (step * 100.0).fract() > 1e-9);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {at:.1}h{w:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" class=\"dim\" text-anchor=\"end\">{:.digits$} %</text>",
            x - 6.0,
            at + 4.0,
            100.0 * value
        );
    }
    let slot = w / panel.bins.len().max(1) as f64;
    let bar = (slot * 0.38).min(36.0);
    // Labels stand level where they fit, else every label leans.
    let longest = panel.bins.iter().map(|b| b.label.chars().count()).max().unwrap_or(0);
    let lean = longest as f64 * 6.4 > slot - 4.0;
    for (i, bin) in panel.bins.iter().enumerate() {
        let middle = x + (i as f64 + 0.5) * slot;
        let _ = write!(
            out,
            "<g><title>{}: {:.2} % now, {:.2} % in the reference</title>",
            escape(&bin.label),
            100.0 * bin.now,
            100.0 * bin.reference
        );
        for (class, value, at) in [("r", bin.reference, middle - bar), ("n", bin.now, middle)] {
            let height = value * scale;
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{at:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\"/>",
                y + h - height
            );
        }
        let below = y + h + 15.0;
        if lean {
            let at = middle + 4.0;
            let label = escape(&short(&bin.label, 9));
            let _ = write!(
                out,
                "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"end\" transform=\"rotate(-35 {at:.1} {below:.1})\">{label}</text>"
            );
        } else {
            let _ = write!(
                out,
                "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{}</text>",
                escape(&bin.label)
            );
        }
        out.push_str("</g>\n");
    }
    let _ = writeln!(out, "<path class=\"axis\" d=\"M{x:.1} {:.1}h{w:.1}\"/>", y + h);
}

fn verdict(out: &mut String, verdict: &Verdict, top: f64) {
    let fill = colour(verdict.level);
    let name = format!("{}: {}", verdict.subject, verdict.statistic.name().replace('_', " "));
    let _ = writeln!(
        out,
        "<rect x=\"{MARGIN:.0}\" y=\"{:.1}\" width=\"118\" height=\"20\" rx=\"4\" fill=\"{fill}\"/>\
         <text x=\"{:.0}\" y=\"{:.1}\" style=\"fill:#fff\" text-anchor=\"middle\">{}</text>\
         <text x=\"150\" y=\"{:.1}\" font-weight=\"600\">{}</text>\
         <text x=\"400\" y=\"{:.1}\">{}</text>\
         <text x=\"400\" y=\"{:.1}\" class=\"dim\">{}</text>",
        top,
        MARGIN + 59.0,
        top + 14.0,
        verdict.level,
        top + 14.0,
        escape(&short(&name, 40)),
        top + 14.0,
        escape(&short(&numbers(verdict), 116)),
        top + 29.0,
        escape(&short(&verdict.reason, 116)),
    );
}

/// Draws it: panels two in a row, the reference left of now in every bin; below them the verdicts.
pub(super) fn draw(drift: &Drift) -> String {
    let rows = drift.panels.len().div_ceil(2) as f64;
    let below = TOP + rows * PANEL.1 + 16.0;
    let height = below + 30.0 + drift.verdicts.len() as f64 * ROW + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"11\">\n\
         <style>text{{fill:#1b2a33}}.dim{{fill:#5c6f7a}}.title{{font-size:13px;font-weight:600}}.n{{fill:#1f6f8b}}.r{{fill:#c3d0d6;stroke:#8aa1ae;stroke-width:.6}}.grid{{stroke:#e1e8ec}}.axis{{stroke:#5c6f7a}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fafcfd\"/>\n"
    );
    let _ = writeln!(
        out,
        "<text x=\"{MARGIN:.0}\" y=\"32\" font-size=\"17\" font-weight=\"600\">{}</text>\
         <text x=\"{MARGIN:.0}\" y=\"54\" class=\"dim\">{}</text>\
         <rect class=\"r\" x=\"{:.0}\" y=\"24\" width=\"12\" height=\"12\"/><text x=\"{:.0}\" y=\"34\">reference</text>\
         <rect class=\"n\" x=\"{:.0}\" y=\"24\" width=\"12\" height=\"12\"/><text x=\"{:.0}\" y=\"34\">now</text>",
        escape(&short(&drift.title, 80)),
        escape(&short(&drift.subtitle, 150)),
        WIDTH - 180.0,
        WIDTH - 162.0,
        WIDTH - 90.0,
        WIDTH - 72.0,
    );
    for (i, p) in drift.panels.iter().enumerate() {
        let left = MARGIN + (i % 2) as f64 * (PANEL.0 + 2.0);
        panel(&mut out, p, left, TOP + (i / 2) as f64 * PANEL.1);
    }
    for (i, v) in drift.verdicts.iter().enumerate() {
        verdict(&mut out, v, below + i as f64 * ROW);
    }
    out.push_str("</svg>\n");
    out
}
