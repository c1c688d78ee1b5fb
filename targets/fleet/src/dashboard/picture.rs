//! Small pictures as inline SVG: geometry in attributes and colours by class, so that the policy can forbid inline style.
//!
//! Each picture stands beside the numbers it draws, so it is hidden from assistive technology.

use std::fmt::Write as _;

use super::markup::Html;

const OPEN: &str = r#"<svg aria-hidden="true" focusable="false" preserveAspectRatio="none""#;

/// A part of a whole as a bar. Anything past the whole fills it.
pub(crate) fn bar(part: f64, class: &str) -> Html {
    let width = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) * 100.0 };
    Html(format!(
        r#"{OPEN} class="bar" viewBox="0 0 100 8"><rect class="track" width="100" height="8"/><rect class="{class}" width="{width:.2}" height="8"/></svg>"#
    ))
}

/// An interval of a difference, with the place of no difference and the margin that it has to stay below.
pub(crate) fn interval(low: f64, high: f64, margin: f64, class: &str) -> Html {
    let (low, high) =
        (if low.is_nan() { f64::NEG_INFINITY } else { low }, if high.is_nan() { f64::INFINITY } else { high });
    // The axis shows no difference and the margin always, and the interval when it is not absurdly wide.
    let reach = margin.abs().max(f64::MIN_POSITIVE);
    let left = low.max(-3.0 * reach).min(-0.5 * reach);
    let right = high.min(4.0 * reach).max(1.5 * reach);
    let place = |value: f64| ((value - left) / (right - left) * 200.0).clamp(0.0, 200.0);
    let (from, to) = (place(low), place(high));
    let middle = f64::midpoint(from, to);
    let (none, margin) = (place(0.0), place(margin));
    Html(format!(
        r#"{OPEN} class="interval" viewBox="0 0 200 20"><rect class="beyond" x="{margin:.1}" width="{:.1}" height="20"/><line class="none" x1="{none:.1}" x2="{none:.1}" y2="20"/><line class="margin" x1="{margin:.1}" x2="{margin:.1}" y2="20"/><line class="{class}" x1="{from:.1}" x2="{to:.1}" y1="10" y2="10"/><rect class="{class}" x="{:.1}" y="5" width="3" height="10"/></svg>"#,
        200.0 - margin,
        middle - 1.5
    ))
}

/// Counts of now as bars, of the reference as a line of steps, both as shares of their sums.
pub(crate) fn histogram(now: &[u64], reference: &[u64]) -> Html {
    let bins = now.len().max(reference.len());
    if bins == 0 {
        return Html(String::new());
    }
    let shares = |counts: &[u64]| -> Vec<f64> {
        let all = counts.iter().sum::<u64>().max(1) as f64;
        (0..bins).map(|i| counts.get(i).map_or(0.0, |n| *n as f64 / all)).collect()
    };
    let (now, reference) = (shares(now), shares(reference));
    let top = now.iter().chain(&reference).copied().fold(f64::MIN_POSITIVE, f64::max);
    let width = 320.0 / bins as f64;
    let height = |share: &f64| share / top * 108.0;
    let mut svg = format!(r#"{OPEN} class="histogram" viewBox="0 0 320 120">"#);
    for (i, share) in now.iter().enumerate() {
        let (x, tall) = (i as f64 * width + width * 0.12, height(share));
        let _ = write!(
            svg,
            r#"<rect class="now" x="{x:.1}" y="{:.1}" width="{:.1}" height="{tall:.1}"/>"#,
            119.0 - tall,
            width * 0.76
        );
    }
    let mut steps = String::new();
    for (i, share) in reference.iter().enumerate() {
        let y = 119.0 - height(share);
        let _ = write!(
            steps,
            "{}{:.1},{y:.1} {:.1},{y:.1}",
            if i == 0 { "" } else { " " },
            i as f64 * width,
            (i + 1) as f64 * width
        );
    }
    let _ = write!(
        svg,
        r#"<polyline class="reference" points="{steps}"/><line class="floor" x2="320" y1="119.5" y2="119.5"/></svg>"#
    );
    Html(svg)
}

/// Hours side by side, each divided among two that take turns: the first from below, the second above it.
pub(crate) fn turns(hours: &[(u64, u64)]) -> Html {
    if hours.is_empty() {
        return Html(String::new());
    }
    let width = 320.0 / hours.len() as f64;
    let mut svg = format!(r#"{OPEN} class="turns" viewBox="0 0 320 60">"#);
    for (i, (first, second)) in hours.iter().enumerate() {
        let whole = (*first as f64 + *second as f64).max(1.0);
        let (below, above) = (*first as f64 / whole * 60.0, *second as f64 / whole * 60.0);
        let (x, wide) = (i as f64 * width + width * 0.08, width * 0.84);
        let _ = write!(
            svg,
            r#"<rect class="hue0" x="{x:.1}" y="{:.1}" width="{wide:.1}" height="{below:.1}"/><rect class="hue1" x="{x:.1}" y="{:.1}" width="{wide:.1}" height="{above:.1}"/>"#,
            60.0 - below,
            60.0 - below - above
        );
    }
    svg.push_str("</svg>");
    Html(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number in the attributes of a picture.
    fn numbers(svg: &str) -> Vec<f64> {
        let values = svg.split('"').skip(1).step_by(2);
        values.flat_map(|v| v.split([' ', ','])).filter_map(|n| n.parse().ok()).collect()
    }

    #[test]
    fn pictures_have_finite_numbers_inside_their_frame() {
        let odd = [0.0, -1.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-300];
        for a in odd {
            assert!(numbers(&bar(a, "good").0).iter().all(|n| (0.0..=100.0).contains(n)), "{a}");
            for b in odd {
                for margin in [0.0, 0.1, 1e9] {
                    let svg = interval(a, b, margin, "good");
                    assert!(numbers(&svg.0).iter().all(|n| (-2.0..=200.0).contains(n)), "{a} {b} {margin}: {svg:?}");
                }
            }
        }
        for hours in [&[][..], &[(0, 0)], &[(0, 7), (7, 0), (3, 4)], &[(u64::MAX, u64::MAX), (1, 0)]] {
            let svg = turns(hours);
            assert!(numbers(&svg.0).iter().all(|n| (-0.1..=320.0).contains(n)), "{svg:?}");
        }
        for counts in [&[][..], &[0], &[0, 0], &[1, u64::MAX / 4, 3]] {
            for reference in [&[][..], &[0], &[5, 6, 7, 8]] {
                let svg = histogram(counts, reference);
                assert!(numbers(&svg.0).iter().all(|n| (-1.0..=321.0).contains(n)), "{svg:?}");
            }
        }
    }

    #[test]
    fn an_interval_beyond_its_margin_is_drawn_beyond_it() {
        let svg = interval(0.2, 0.3, 0.1, "bad");
        let after = |mark: &str| -> f64 {
            let rest = svg.0.split_once(mark).map_or("", |(_, rest)| rest);
            rest.split('"').next().and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
        };
        assert!(after(r#"class="bad" x1=""#) > after(r#"class="margin" x1=""#));
    }
}
