//! The graph and the memory plan as a picture.

use std::fmt::Write as _;

use super::{Described, brackets, executor, quantized};
use crate::table::grouped;

/// Height of one step's row.
const ROW: usize = 30;
/// Where the rows begin.
const TOP: usize = 72;
/// Left edge and width of the boxes; skipping edges are drawn left of them.
const BOX: (usize, usize) = (110, 330);
/// Left edge and width of the memory plan.
const PLAN: (usize, usize) = (500, 560);

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// At most `n` characters.
fn short(text: &str, n: usize) -> String {
    if text.chars().count() <= n {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(n.saturating_sub(1)).collect::<String>())
    }
}

/// Draws it: steps downwards, what each reads as arrows; beside them which bytes of the arena are in use meanwhile.
pub(super) fn draw(d: &Described<'_>) -> String {
    let m = d.package.manifest();
    let rows = d.steps.len() + 2;
    let height = TOP + rows * ROW + 30;
    let y = |at: usize| TOP + at * ROW;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{height}\" viewBox=\"0 0 {w} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <style>text{{fill:#1b2a33}}.dim{{fill:#5c6f7a}}.b{{fill:#fff;stroke:#5c7f95}}.q{{fill:#dcefe6}}.f{{fill:#f6e7cf}}.t{{fill:#f3d6d6}}.e{{fill:none;stroke:#8aa1ae}}.m{{stroke:#fff;stroke-width:1}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fafcfd\"/>\n",
        w = PLAN.0 + PLAN.1 + 30,
    );
    let _ = writeln!(
        out,
        "<text x=\"20\" y=\"24\" font-size=\"16\" font-weight=\"600\">{} {}</text>",
        escape(m.name),
        escape(m.version)
    );
    let _ = writeln!(
        out,
        "<text x=\"20\" y=\"44\" class=\"dim\">{} steps, {} multiply-accumulates, {} bytes of weights. green: integers, yellow: floats, red: tract</text>",
        d.steps.len(),
        grouped(m.macs),
        grouped(u64::from(m.weight_bytes))
    );
    let arena = d.plan.arena_bytes().max(1);
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"58\" class=\"dim\">arena over time: {} bytes from left to right, {} at least</text>",
        PLAN.0,
        grouped(arena as u64),
        grouped(u64::from(m.lower_bound_bytes))
    );
    // Who wrote each tensor, so that arrows know where they start.
    let mut writer = vec![0usize; d.plan.tensor_count()];
    for (i, step) in d.steps.iter().enumerate() {
        for &id in &step.outputs {
            writer[usize::from(id)] = i + 1;
        }
    }
    // A view has no writer of its own: it starts where the last step wrote those bytes.
    let mut last_write: std::collections::HashMap<usize, usize> = std::collections::HashMap::new();
    let offset = |id: u16| d.lives.iter().find(|l| l.tensor == id).map(|l| l.offset);
    let mut edges = Vec::new();
    for (i, step) in d.steps.iter().enumerate() {
        for &id in &step.inputs {
            let from = match writer[usize::from(id)] {
                0 => offset(id).and_then(|o| last_write.get(&o).copied()).unwrap_or(0),
                step => step,
            };
            edges.push((from, i + 1));
        }
        for &id in &step.outputs {
            if let Some(o) = offset(id) {
                last_write.insert(o, i + 1);
            }
        }
    }
    for i in 0..d.plan.output_count() {
        let from = d.plan.output(i).map_or(0, |id| match writer[usize::from(id)] {
            0 => offset(id).and_then(|o| last_write.get(&o).copied()).unwrap_or(0),
            step => step,
        });
        edges.push((from, d.steps.len() + 1));
    }
    for (from, to) in edges {
        let (a, b) = (y(from) + ROW - 6, y(to));
        if to == from + 1 {
            let x = BOX.0 + BOX.1 / 2;
            let _ = writeln!(out, "<path class=\"e\" d=\"M{x} {a}V{b}\"/>");
        } else {
            let (a, b, x) = (a - ROW / 2 + 3, b + ROW / 2 - 3, BOX.0);
            let bend = x - (20 + 3 * (to - from)).min(90);
            let _ = writeln!(out, "<path class=\"e\" d=\"M{x} {a}C{bend} {a} {bend} {b} {x} {b}\"/>");
        }
    }
    let boxed = |out: &mut String, at: usize, class: &str, left: &str, right: &str, tip: &str| {
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect class=\"b {class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"4\"/><text x=\"{}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"dim\">{}</text></g>",
            escape(tip),
            BOX.0,
            y(at),
            BOX.1,
            ROW - 6,
            BOX.0 + 8,
            y(at) + 16,
            escape(left),
            BOX.0 + BOX.1 - 8,
            y(at) + 16,
            escape(right)
        );
    };
    let ports = |ports: dunlin::package::Ports<'_>| {
        ports.map(|p| format!("{} {}{}", p.name, p.dtype.name(), brackets(p.shape()))).collect::<Vec<_>>().join(", ")
    };
    boxed(&mut out, 0, "", "input", &short(&ports(m.inputs()), 46), &ports(m.inputs()));
    for (i, step) in d.steps.iter().enumerate() {
        let first = step.outputs.first().and_then(|&id| d.plan.tensor(id));
        let class = if executor(step.op) == "tract" {
            "t"
        } else if first.is_some_and(quantized) {
            "q"
        } else {
            "f"
        };
        let shape = first.map(|t| format!("{}{}", t.dtype.name(), brackets(t.shape()))).unwrap_or_default();
        let tip = format!(
            "{} {}\n{}\n{} MACs, {} bytes of weights",
            step.op.name(),
            step.node,
            step.note,
            step.macs,
            step.weights
        );
        boxed(
            &mut out,
            i + 1,
            class,
            &short(&format!("{i} {}  {}", step.op.name(), step.node), 38),
            &short(&shape, 22),
            &tip,
        );
    }
    boxed(&mut out, d.steps.len() + 1, "", "output", &short(&ports(m.outputs()), 46), &ports(m.outputs()));
    let _ = writeln!(
        out,
        "<rect x=\"{}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"#e9eff3\"/>",
        PLAN.0,
        PLAN.1,
        rows * ROW
    );
    for (n, life) in d.lives.iter().enumerate() {
        let x = PLAN.0 as f64 + PLAN.1 as f64 * life.offset as f64 / arena as f64;
        let w = (PLAN.1 as f64 * life.bytes as f64 / arena as f64).max(0.5);
        let (top, h) = (y(life.first), (life.last - life.first + 1) * ROW);
        let hue = (n * 137) % 360;
        let name = d.name(life.tensor);
        let _ = write!(
            out,
            "<g><title>{}: {} bytes at {}, moments {} to {}</title><rect class=\"m\" x=\"{x:.1}\" y=\"{top}\" width=\"{w:.1}\" height=\"{h}\" fill=\"hsl({hue} 45% 72%)\"/>",
            escape(name),
            life.bytes,
            life.offset,
            life.first,
            life.last
        );
        if w > 60.0 {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{}\">{}</text>",
                x + 4.0,
                top + 16,
                escape(&short(name, (w / 6.5) as usize))
            );
        }
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}
