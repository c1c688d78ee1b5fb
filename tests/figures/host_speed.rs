//! Latency beside the peers that are there, one thread each, interleaved round by round.
//!
//! `cargo run --release -p dunlin-tests --example host_speed [-- [FOLDER] [--rounds N] [--round-ms MS]]`
//!
//! tract runs in this process; ONNX Runtime in Python when `python3` has it (twice: with `session.qdqisint8allowed`,
//! and as it comes). A ratio is the median over rounds of Dunlin's median over the peer's; below 1 Dunlin is faster.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin::Block;
use dunlin::kernels::best;
use dunlin_cli::model::{self, fill};
use dunlin_tests::corpus::{Item, corpus};
use serde_json::json;
use tract_onnx::prelude::*;

/// The peer in Python: loads a model, then times it on request.
const PYTHON: &str = include_str!("host_speed/onnxruntime_peer.py");

/// Microseconds of each run within `ms` milliseconds, three at least.
type Timed<'a> = Box<dyn FnMut(f64) -> Option<Vec<f64>> + 'a>;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn time(ms: f64, mut run: impl FnMut() -> bool) -> Option<Vec<f64>> {
    let end = Instant::now() + Duration::from_secs_f64(ms / 1e3);
    let mut all = Vec::new();
    while all.len() < 3 || Instant::now() < end {
        let start = Instant::now();
        if !run() {
            return None;
        }
        all.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    Some(all)
}

/// tract as it comes, with the vectors' shapes and inputs.
fn tract(item: &Item) -> TractResult<Timed<'static>> {
    let inputs = item.samples.inputs.first().cloned().unwrap_or_default();
    let mut onnx = tract_onnx::onnx().model_for_read(&mut &item.onnx[..])?;
    let mut values: TVec<TValue> = tvec!();
    for (i, array) in inputs.iter().enumerate() {
        let dtype = match array.dtype.as_str() {
            "<f4" => DatumType::F32,
            "|i1" => DatumType::I8,
            "|u1" => DatumType::U8,
            "<i8" => DatumType::I64,
            other => return Err(TractError::msg(format!("input of type {other}"))),
        };
        onnx = onnx.with_input_fact(i, InferenceFact::dt_shape(dtype, &array.shape))?;
        values.push(tensor(dtype, &array.shape, &array.bytes)?.into());
    }
    let plan = onnx.into_optimized()?.into_runnable()?;
    plan.run(values.clone())?;
    Ok(Box::new(move |ms| time(ms, || plan.run(values.clone()).is_ok())))
}

fn tensor(dtype: DatumType, shape: &[usize], bytes: &[u8]) -> TractResult<Tensor> {
    match dtype {
        DatumType::F32 => {
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
            Tensor::from_shape(shape, &values)
        }
        DatumType::I8 => Tensor::from_shape(shape, &bytes.iter().map(|b| b.cast_signed()).collect::<Vec<i8>>()),
        DatumType::U8 => Tensor::from_shape(shape, bytes),
        _ => {
            let values: Vec<i64> = bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
            Tensor::from_shape(shape, &values)
        }
    }
}

/// ONNX Runtime in a process of its own.
struct Python {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Python {
    fn start(model: &std::path::Path, vectors: &std::path::Path, int8: bool) -> Option<Self> {
        let mut child = Command::new("python3")
            .args(["-c", PYTHON])
            .arg(model)
            .arg(vectors)
            .arg(if int8 { "1" } else { "0" })
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut python = Self { child, to, from };
        python.line().filter(|l| l.trim() == "ready")?;
        Some(python)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.from.read_line(&mut line).ok()? > 0).then_some(line)
    }

    fn time(&mut self, ms: f64) -> Option<Vec<f64>> {
        writeln!(self.to, "{ms}").ok()?;
        serde_json::from_str(&self.line()?).ok()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rounds of everyone, in an order that rotates; medians by peer and round.
fn rounds(peers: &mut [(String, Timed<'_>)], count: usize, ms: f64) -> Vec<Vec<f64>> {
    let mut medians = vec![Vec::new(); peers.len()];
    for round in 0..=count {
        for i in 0..peers.len() {
            let at = (i + round) % peers.len();
            let Some((_, run)) = peers.get_mut(at) else { continue };
            let timed = run(ms).map_or(f64::NAN, median);
            // The first round warms up.
            if round > 0 {
                medians[at].push(timed);
            }
        }
    }
    medians
}

fn report(item: &Item, peers: &[(String, Timed<'_>)], medians: &[Vec<f64>]) {
    let ours = &medians[0];
    println!(
        "{}",
        json!({"figure": format!("host_speed/{}", item.name), "value": median(ours.clone()), "unit": "us",
        "better": "lower", "target": null, "peer": null, "ratio": null})
    );
    for ((name, _), theirs) in peers.iter().zip(medians).skip(1) {
        let ratio = median(ours.iter().zip(theirs).map(|(a, b)| a / b).collect());
        // The targets are those of quantized models.
        let target = match name.as_str() {
            "tract" if item.exact => Some(1.0),
            "onnxruntime" if item.name == "mobilenetv2" => Some(3.0),
            _ => None,
        };
        println!(
            "{}",
            json!({"figure": format!("host_speed/{}/{name}", item.name), "value": ratio, "unit": "times the peer's latency",
            "better": "lower", "target": target, "peer": format!("{name}: {:.1} us", median(theirs.clone())), "ratio": ratio})
        );
    }
}

fn measure(item: &Item, count: usize, ms: f64) -> Result<(), String> {
    let compiled = dunlin::onnx::compile(&item.onnx, &item.options()).map_err(|e| e.to_string())?;
    let bytes = Block::from(&compiled.package[..]);
    let folder = std::env::temp_dir().join(format!("dunlin-host-speed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let (onnx, vectors) = (folder.join("model.onnx"), folder.join("vectors.npz"));
    let inputs = item.samples.inputs.first().cloned().unwrap_or_default();
    let named: Vec<_> = inputs.iter().enumerate().map(|(i, a)| (format!("in0_{i}"), a.clone())).collect();
    let written = dunlin_cli::npz::write(&named)
        .and_then(|npz| std::fs::write(&vectors, npz).map_err(|e| e.to_string()))
        .and_then(|()| std::fs::write(&onnx, &item.onnx).map_err(|e| e.to_string()));
    let mut pythons: Vec<(String, Python)> = Vec::new();
    for (name, int8) in [("onnxruntime", false), ("onnxruntime-int8", true)] {
        if item.exact || !int8 {
            pythons.extend(Python::start(&onnx, &vectors, int8).map(|p| (name.to_owned(), p)));
        }
    }
    let result = written.and_then(|()| {
        model::with(&item.name, &bytes, best(), |_, running| {
            for (i, array) in inputs.iter().enumerate() {
                fill(running, i, "of the model", &format!("in0_{i}"), array)?;
            }
            let mut peers: Vec<(String, Timed<'_>)> =
                vec![("dunlin".to_owned(), Box::new(|ms| time(ms, || running.run().is_ok())))];
            match tract(item) {
                Ok(run) => peers.push(("tract".to_owned(), run)),
                Err(error) => eprintln!("{}: tract does not run it: {error:#}", item.name),
            }
            for (name, python) in &mut pythons {
                peers.push((name.clone(), Box::new(|ms| python.time(ms))));
            }
            let medians = rounds(&mut peers, count, ms);
            report(item, &peers, &medians);
            Ok(())
        })
        .map_err(|e| e.text)
    });
    // Temporary files only.
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn main() {
    let (mut folder, mut count, mut ms) = (None, 9, 60.0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse::<f64>().ok()).expect("a number follows");
        match argument.as_str() {
            "--rounds" => count = number() as usize,
            "--round-ms" => ms = number(),
            _ => folder = Some(argument),
        }
    }
    let items = corpus(folder.as_deref()).unwrap_or_else(|e| panic!("{}", e.text));
    for item in items {
        if let Err(error) = measure(&item, count, ms) {
            eprintln!("{}: {error}", item.name);
        }
    }
}
