//! The models of this repository, compiled and scored on real test data.

use std::io::IsTerminal;
use std::time::Instant;

use dunlin::kernels::{Backend, available, best};
use dunlin::onnx::Options;
use dunlin_models::{ALL, Artifact, Metric};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::{Code, Failure, Outcome};
use crate::model::{self, File, Running};
use crate::npz::{self, Array};
use crate::samples::Samples;
use crate::table::{grouped, table};
use crate::verify;

/// What came of one model.
struct Score {
    artifact: &'static Artifact,
    metric: f64,
    items: usize,
    package: usize,
    arena: usize,
    compile_ms: f64,
    median_us: f64,
    golden: usize,
    differing: usize,
}

/// An array's elements as floats.
fn floats(array: &Array, path: &str) -> Outcome<Vec<f32>> {
    let bytes = &array.bytes;
    Ok(match array.dtype.as_str() {
        "|u1" => bytes.iter().map(|&b| f32::from(b)).collect(),
        "|i1" => bytes.iter().map(|&b| f32::from(b.cast_signed())).collect(),
        "<i2" => bytes.as_chunks().0.iter().map(|c| f32::from(i16::from_le_bytes(*c))).collect(),
        "<f4" => bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect(),
        other => return Err(Failure::damaged(path, format!("test data of type {other}"))),
    })
}

/// Area under the ROC curve: how often an item of label 1 scores above one of label 0, ties counting half.
fn auc(scores: &[(f64, i64)]) -> f64 {
    let of = |label: i64| scores.iter().filter(move |s| s.1 == label).map(|s| s.0);
    let pairs = of(1).count() * of(0).count();
    let wins: f64 = of(1)
        .flat_map(|a| {
            of(0).map(move |b| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            })
        })
        .sum();
    wins / pairs.max(1) as f64
}

fn infer(running: &mut Running<'_, '_>, x: &[f32], path: &str) -> Outcome<Vec<f32>> {
    running.session.input(0).copy_from_slice(x).map_err(|e| Failure::damaged(path, e))?;
    running.run()?;
    running
        .session
        .output(0)
        .as_slice::<f32>()
        .map(<[f32]>::to_vec)
        .ok_or_else(|| Failure::damaged(path, "has no float output"))
}

fn score(artifact: &'static Artifact, bar: &ProgressBar) -> Outcome<Score> {
    let path = format!("{} {}", artifact.name, artifact.version);
    bar.set_message(path.clone());
    let golden = Samples::from_bytes(&path, artifact.golden)?;
    let options = Options {
        name: artifact.name.into(),
        version: artifact.version.into(),
        labels: if artifact.metric == Metric::Accuracy {
            artifact.labels.iter().map(|&l| l.into()).collect()
        } else {
            vec![]
        },
        golden: golden.golden(),
        // A device target: nothing of these models may be left to tract.
        target: "cortex-m4".into(),
        ..Options::default()
    };
    let start = Instant::now();
    let file = File::from_bytes(&path, artifact.onnx, &options)?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut differing = 0;
    for backend in available() {
        differing +=
            verify::differences(&path, &file.bytes, backend, &golden)?.iter().map(|d| d.differing).sum::<usize>();
    }
    let mut test = npz::read(artifact.test).map_err(|e| Failure::damaged(&path, e))?;
    let mut take = |key: &str| test.remove(key).ok_or_else(|| Failure::damaged(&path, format!("no array '{key}'")));
    let (x, y) = (take("x")?, take("y")?);
    let x: Vec<f32> = floats(&x, &path)?.iter().map(|v| v * artifact.input_scale + artifact.input_offset).collect();
    let labels: Vec<i64> = y.bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
    model::with(&path, &file.bytes, best(), |_, running| {
        let mut scores = Vec::new();
        let mut times = Vec::new();
        let items = x.chunks_exact((x.len() / labels.len().max(1)).max(1));
        bar.set_length(labels.len() as u64);
        for (item, &label) in items.zip(&labels) {
            let start = Instant::now();
            let out = infer(running, item, &path)?;
            times.push(start.elapsed().as_nanos() as f64 / 1e3);
            scores.push(match artifact.metric {
                Metric::Accuracy => {
                    let top = running.session.output(0).argmax();
                    (f64::from(u8::from(top.is_some_and(|t| t as i64 == label))), label)
                }
                Metric::Auc => {
                    let squares = item.iter().zip(&out).map(|(a, b)| f64::from(a - b).powi(2));
                    (squares.sum::<f64>() / item.len() as f64, label)
                }
            });
            bar.inc(1);
        }
        bar.reset();
        times.sort_by(f64::total_cmp);
        let metric = match artifact.metric {
            Metric::Accuracy => scores.iter().map(|s| s.0).sum::<f64>() / scores.len().max(1) as f64,
            Metric::Auc => auc(&scores),
        };
        Ok(Score {
            artifact,
            metric,
            items: scores.len(),
            package: file.bytes.len(),
            arena: running.arena,
            compile_ms,
            median_us: times.get(times.len() / 2).copied().unwrap_or(0.0),
            golden: golden.inputs.len(),
            differing,
        })
    })
}

/// Compiles all models, scores them on their test data and checks their golden vectors: the record of it, and a failure of
/// [`Code::Differs`] when a golden vector or a score is not that of ONNX Runtime.
///
/// # Errors
/// When a model does not compile or run.
pub(super) fn run(quiet: bool) -> Outcome<(Value, Outcome<()>)> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(1) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{msg:16} {bar:40} {pos}/{len}") {
        bar.set_style(style);
    }
    let mut scores = Vec::new();
    for artifact in ALL {
        scores.push(score(artifact, &bar)?);
    }
    bar.finish_and_clear();
    let backends: Vec<&str> = available().map(Backend::name).collect();
    let metric = |a: &Artifact| if a.metric == Metric::Accuracy { "accuracy" } else { "AUC" };
    // The references have six places.
    let same = |s: &Score| (s.metric - f64::from(s.artifact.reference)).abs() < 2e-6;
    let records: Vec<Value> = scores
        .iter()
        .map(|s| {
            json!({"model": s.artifact.name, "version": s.artifact.version, "title": s.artifact.title,
            "metric": metric(s.artifact), "score": s.metric, "reference": s.artifact.reference,
            "float_reference": s.artifact.float_reference, "items": s.items, "package_bytes": s.package,
            "onnx_bytes": s.artifact.onnx.len(), "arena_bytes": s.arena, "compile_ms": s.compile_ms,
            "median_us": s.median_us, "golden": s.golden, "golden_differing": s.differing})
        })
        .collect();
    let record = json!({"backend": best().name(), "checked_backends": backends, "models": records});
    if !quiet {
        println!("Int8 models compiled from ONNX and run by Dunlin's engine ({} kernels, one thread)\n", best().name());
        let mut rows = vec![
            [
                "model",
                "what it does",
                "score",
                "ONNX Runtime",
                "float",
                "items",
                "package",
                "arena",
                "compiled",
                "each",
                "golden",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for s in &scores {
            let a = s.artifact;
            rows.push(vec![
                format!("{} {}", a.name, a.version),
                a.title.to_owned(),
                format!("{} {:.4}", metric(a), s.metric),
                format!("{:.4}", a.reference),
                format!("{:.4}", a.float_reference),
                s.items.to_string(),
                grouped(s.package as u64),
                grouped(s.arena as u64),
                format!("{:.0} ms", s.compile_ms),
                format!("{:.1} us", s.median_us),
                if s.differing == 0 {
                    format!("{} of {} exact", s.golden, s.golden)
                } else {
                    format!("{} elements differ", s.differing)
                },
            ]);
        }
        let text = table(&rows, &[3, 4, 5, 6, 7, 8, 9]);
        let term = console::Term::stdout();
        let longest = text.lines().map(|l| l.chars().count()).max().unwrap_or(0);
        if term.is_term() && longest > usize::from(term.size().1) {
            // Lines that wrap are no table; what each model does is in the README of the models.
            rows.iter_mut().for_each(|row| drop(row.remove(1)));
            print!("{}", table(&rows, &[2, 3, 4, 5, 6, 7, 8]));
        } else {
            print!("{text}");
        }
        println!(
            "\nPackage and arena in bytes. Golden vectors are ONNX Runtime's, compared bit for bit with {} kernels.",
            backends.join(" and ")
        );
    }
    let wrong: Vec<String> = scores
        .iter()
        .filter(|s| s.differing > 0 || !same(s))
        .map(|s| format!("{} {}", s.artifact.name, s.artifact.version))
        .collect();
    let text = || format!("not as in ONNX Runtime: {}", wrong.join(", "));
    let verdict = if wrong.is_empty() { Ok(()) } else { Err(Failure::new(Code::Differs, text())) };
    Ok((record, verdict))
}

#[cfg(test)]
mod tests {
    use super::auc;

    #[test]
    fn auc_counts_pairs() {
        assert!((auc(&[(1.0, 0), (2.0, 1)]) - 1.0).abs() < 1e-12);
        assert!((auc(&[(2.0, 0), (2.0, 1)]) - 0.5).abs() < 1e-12);
        assert!((auc(&[(2.0, 0), (1.0, 1), (3.0, 1)]) - 0.5).abs() < 1e-12);
    }
}
