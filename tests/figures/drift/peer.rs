//! Raw values for the peer in Python, and its rows.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use dunlin_cli::npz::{self, Array};
use serde_json::Value;

use crate::fleet::{FEATURES, Seen};

/// The script, which is also there to be run by hand.
const SCRIPT: &str = include_str!("../../reference/drift_peer.py");

/// Values by column.
#[derive(Default)]
pub(crate) struct Raw {
    arrays: Vec<(String, Array)>,
}

fn floats(values: impl Iterator<Item = f64>, shape: Vec<usize>) -> Array {
    let bytes = values.flat_map(|v| (v as f32).to_le_bytes()).collect();
    Array { dtype: "<f4".into(), shape, bytes }
}

impl Raw {
    /// Adds columns of values, which lie in arrays of this shape.
    pub(crate) fn add(&mut self, scenario: &str, seen: &[&Seen], shape: &[usize]) {
        let bytes = seen.iter().flat_map(|s| (s.class as i32).to_le_bytes()).collect();
        let class = Array { dtype: "<i4".into(), shape: shape.to_vec(), bytes };
        self.arrays.push((format!("{scenario}/class"), class));
        let mut column = |name: &str, values: &mut dyn Iterator<Item = f64>| {
            self.arrays.push((format!("{scenario}/{name}"), floats(values, shape.to_vec())));
        };
        column("confidence", &mut seen.iter().map(|s| s.confidence));
        for (i, name) in FEATURES.iter().enumerate() {
            column(name, &mut seen.iter().map(|s| s.features[i]));
        }
    }

    /// The npz file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        npz::write(&self.arrays).expect("arrays that can be written")
    }
}

/// For a scenario and statistic, by column: for every run and window whether the peer calls it drift, and its score.
#[derive(Default)]
pub(crate) struct Rows {
    rows: BTreeMap<(String, String), Vec<Row>>,
}

/// The peer on one column.
pub(crate) struct Row {
    /// The column.
    pub(crate) column: String,
    /// Scores by run and window.
    pub(crate) scores: Vec<Vec<f64>>,
    /// Whether that is drift.
    pub(crate) drifted: Vec<Vec<bool>>,
}

impl Rows {
    /// Reads what the script printed.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut rows = Self::default();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let row: Value = serde_json::from_str(line).map_err(|e| format!("{line}: {e}"))?;
            let string = |key: &str| row[key].as_str().map(str::to_owned).ok_or(format!("{line}: no {key}"));
            let lists = |key: &str| row[key].as_array().cloned().ok_or(format!("{line}: no {key}"));
            let inner = |v: &Value| v.as_array().cloned().unwrap_or_default();
            rows.rows.entry((string("scenario")?, string("statistic")?)).or_default().push(Row {
                column: string("column")?,
                scores: lists("scores")?
                    .iter()
                    .map(|r| inner(r).iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect())
                    .collect(),
                drifted: lists("drifted")?
                    .iter()
                    .map(|r| inner(r).iter().map(|v| v.as_bool().unwrap_or(false)).collect())
                    .collect(),
            });
        }
        Ok(rows)
    }

    /// Runs the script on raw values, if this Python and its library are there.
    pub(crate) fn run(python: &str, raw: &Raw) -> Result<Self, String> {
        let there = Command::new(python).args(["-c", "import evidently"]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|s| s.success()) {
            return Err(format!("{python} is not there or has no evidently"));
        }
        let folder = std::env::temp_dir().join(format!("dunlin-drift-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let path = folder.join("raw.npz");
        let output = std::fs::write(&path, raw.bytes())
            .and_then(|()| Command::new(python).arg("-c").arg(SCRIPT).arg(&path).stderr(Stdio::inherit()).output());
        // Left-overs in the temporary folder harm nobody.
        let _ = std::fs::remove_dir_all(&folder);
        let output = output.map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("{python} failed on the script"));
        }
        Self::read(&String::from_utf8_lossy(&output.stdout))
    }

    /// The rows of a scenario and statistic.
    pub(crate) fn of(&self, scenario: &str, statistic: &str) -> &[Row] {
        self.rows.get(&(scenario.to_owned(), statistic.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// For every run, the windows at which two consecutive windows of one column were called drift, counted from 1.
    pub(crate) fn alarms(&self, scenario: &str, statistic: &str) -> Option<Vec<Vec<usize>>> {
        let rows = self.of(scenario, statistic);
        let runs = rows.first()?.drifted.len();
        let alarms = |run: usize| {
            let mut windows: Vec<usize> = rows
                .iter()
                .filter_map(|row| row.drifted.get(run))
                .flat_map(|d| d.windows(2).enumerate().filter(|(_, w)| w.iter().all(|&d| d)).map(|(i, _)| i + 2))
                .collect();
            windows.sort_unstable();
            windows.dedup();
            windows
        };
        Some((0..runs).map(alarms).collect())
    }
}
