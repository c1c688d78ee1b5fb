//! The table of what became of every operator's cases.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::suite::{Claims, Outcome, Record};

/// Counts of one operator.
#[derive(Clone, Copy, Default)]
struct Row {
    cases: usize,
    claimed: usize,
    constants: usize,
    native: usize,
    hybrid: usize,
    refused: usize,
    failed: usize,
}

impl Row {
    fn count(&mut self, record: &Record) {
        self.cases += 1;
        self.claimed += usize::from(record.unclaimed.is_none());
        self.constants += usize::from(record.needs_constants());
        *match record.outcome() {
            Outcome::Native => &mut self.native,
            Outcome::Hybrid => &mut self.hybrid,
            Outcome::Refused(_) => &mut self.refused,
            Outcome::Wrong(_) | Outcome::Fault(_) => &mut self.failed,
        } += 1;
    }

    fn line(&self, name: &str) -> String {
        let Self { cases, claimed, constants, native, hybrid, refused, failed } = self;
        format!("| {name} | {cases} | {claimed} | {native} | {hybrid} | {constants} | {refused} | {failed} |\n")
    }
}

const HEAD: &str = "| operator | cases | claimed | engine | tract | only with constants | named error | failed |\n\
    |---|--:|--:|--:|--:|--:|--:|--:|\n";

fn rows<'r>(text: &mut String, records: impl Iterator<Item = &'r Record>) {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut total = Row::default();
    for record in records {
        rows.entry(&record.operator).or_default().count(record);
        total.count(record);
    }
    text.push_str(HEAD);
    for (name, row) in &rows {
        text.push_str(&row.line(name));
    }
    text.push_str(&total.line("**all**"));
}

/// One line of a list, short enough to be read.
fn item(text: &mut String, name: &str, reason: &str) {
    let short: String = reason.chars().take(300).collect();
    let cut = if short.len() < reason.len() { " ..." } else { "" };
    let _ = writeln!(text, "- `{name}`: {}{cut}", short.replace('|', "\\|").replace('<', "&lt;"));
}

/// Writes the table, whole or not at all.
pub(crate) fn write(path: &Path, version: &str, claims: &Claims, records: &[Record]) -> std::io::Result<()> {
    let mut text = format!(
        "# ONNX backend node tests\n\nCases of the Python package `onnx` {version}, run by Dunlin's compiler and engine. Written by\n\
         `cargo run --release -p dunlin-tests --example conformance -- --table`; not to be edited.\n\n\
         Each case is run as it is and with all its inputs but the first turned into constants, as real models have them,\n\
         with the portable kernels and with those of the machine, which have to agree to the bit. A case is *failed* when\n\
         either form gives wrong numbers, panics, cannot run or is given up with an internal error; else it is passed when\n\
         either form is right: *engine* when every step is Dunlin's own, *tract* when some of it ran there. *Only with\n\
         constants* counts those of both whose other form is refused. A *named error* says what the compiler cannot do.\n\
         Floats may differ by 1e-3 relative and 1e-7 absolute as in ONNX's own runner, anything else not at all.\n\n\
         Claimed are the operators in `claimed.txt`, for tensors of float, int8, uint8, int32, int64 and bool with at most\n\
         6 axes and data that has elements, without training, without blocked quantization, and without the cases in\n\
         `excluded.txt`.\n\n## Operators claimed\n\n"
    );
    let about = |r: &&Record| r.unclaimed.is_none() || claims.operators.contains(&r.operator);
    rows(&mut text, records.iter().filter(about));
    text.push_str("\n## Operators not claimed\n\n");
    rows(&mut text, records.iter().filter(|r| !about(r)));
    text.push_str("\n## Claimed cases that did not pass\n\n");
    let mut none = true;
    for record in records.iter().filter(|r| r.unclaimed.is_none()) {
        if let Some(reason) = record.reason() {
            item(&mut text, &record.name, &reason);
            none = false;
        }
    }
    if none {
        text.push_str("None.\n");
    }
    text.push_str("\n## Cases of claimed operators that are not claimed\n\n");
    for record in records.iter().filter(about) {
        if let Some(reason) = &record.unclaimed {
            item(&mut text, &record.name, reason);
        }
    }
    text.push_str("\n## Failures in cases that are not claimed\n\n");
    for record in records.iter().filter(|r| r.unclaimed.is_some() && r.outcome().failed()) {
        item(&mut text, &record.name, &record.reason().unwrap_or_default());
    }
    let temporary = path.with_extension("md.partial");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}
