//! What the command says about models and files: chips, memory, float models, dynamic quantization, foreign files, ranges.

mod onnx;

use std::path::PathBuf;
use std::process::{Command, Output};

use dunlin::kernels::{Backend as _, Best, Scalar, available};
use dunlin::onnx::{Kernels, Options, compile, memory_on};
use dunlin::{Block, Model, Package, ops};
use dunlin_cli::chip;
use dunlin_models::{ALL, find};
use serde_json::Value;
use tempfile::TempDir;

use onnx::{Dim, Graph};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).expect("writable");
        self.path(name)
    }

    fn digits(&self) -> String {
        self.write("digits.onnx", find("digits", Some("2")).expect("digits 2").onnx)
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin")).args(arguments).output().expect("dunlin runs")
}

/// Standard output and error of a command that succeeds.
#[track_caller]
fn succeeds(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {err}");
    (out, err)
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[&["--json"], arguments].concat()).0).expect("one JSON object")
}

/// Exit code, standard output and error of a command that fails.
#[track_caller]
fn fails(arguments: &[&str]) -> (i32, String, String) {
    let output = run(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    let code = output.status.code().expect("not killed");
    assert!(code != 0 && code != 101 && !err.contains("panicked"), "{arguments:?} gave {code}: {err}");
    (code, out, err)
}

/// A model of the conformance cases.
fn case(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/cases.npz");
    let arrays = dunlin_cli::npz::read(&std::fs::read(path).expect("the cases")).expect("npz");
    arrays[&format!("{name}/model")].bytes.clone()
}

#[test]
fn one_figure_for_memory_everywhere() {
    let folder = Folder::new();
    for artifact in ALL {
        for target in ["any", "cortex-m4", "cortex-m0", "cortex-m33", "riscv32", "aarch64"] {
            let options = Options { target: target.into(), ..Options::default() };
            let compiled = compile(artifact.onnx, &options).unwrap_or_else(|e| panic!("{}: {e}", artifact.name));
            let bytes = Block::from(&compiled.package[..]);
            let package = Package::open(&bytes).expect("opens");
            let manifest = package.manifest();
            let figure = (manifest.arena_bytes + manifest.scratch_bytes) as usize;
            assert_eq!(figure, compiled.arena_bytes + compiled.scratch_bytes);
            assert_eq!(Some(figure), memory_on(&package, target).ok(), "{} for {target}", artifact.name);
            // What the engine asks for with the very kernels.
            let scalar = Model::<Scalar>::load_hybrid(&package, ops::all()).expect("loads").arena_len(Scalar);
            if matches!(target, "cortex-m0" | "cortex-m33" | "riscv32") {
                assert_eq!(figure, scalar, "{} for {target}", artifact.name);
            }
            if target == "any" {
                let model = Model::<Best>::load_hybrid(&package, ops::all()).expect("loads");
                for backend in available() {
                    let own = Kernels::ALL.into_iter().find(|k| k.name() == backend.name()).expect("known");
                    let formula = Model::<Kernels>::load_hybrid(&package, ops::all()).expect("loads").arena_len(own);
                    assert_eq!(formula, model.arena_len(backend), "{} with {}", artifact.name, backend.name());
                    assert!(figure >= formula, "{} with {}", artifact.name, backend.name());
                }
            }
        }
    }
    // The commands show the same.
    let (onnx, package) = (folder.digits(), folder.path("digits.dunlin"));
    let compiled = json(&["compile", &onnx, "-o", &package, "--target", "cortex-m4"]);
    let inspected = json(&["inspect", &package]);
    let (keys, release) = (folder.path("keys"), folder.path("digits.release"));
    succeeds(&["keys", "init", &keys]);
    succeeds(&["sign", "release", &package, "--keys", &keys, "--number", "1", "-o", &release]);
    let signed = json(&["inspect", "--trust", &release]);
    assert_eq!(compiled["memory_bytes"], inspected["memory_bytes"]);
    assert_eq!(compiled["memory_bytes"], signed["fields"]["memory_bytes"]);
    // The DSP kernels widen four rows at a time, where the scalar ones gather all of them.
    let any = json(&["inspect", &onnx]);
    let (m4, m0) = (&any["memory_by_target"]["cortex-m4"], &any["memory_by_target"]["cortex-m0"]);
    assert_eq!(m4, &compiled["memory_bytes"]);
    assert!(m4.as_u64() < m0.as_u64() && m0.as_u64() <= any["memory_bytes"].as_u64(), "{any}");
}

#[test]
fn every_chip_compiles_and_one_that_is_too_small_refuses() {
    let folder = Folder::new();
    let (onnx, out) = (folder.digits(), folder.path("out.dunlin"));
    let mut targets: Vec<&str> = chip::ALL.iter().map(|chip| chip.target).collect();
    targets.sort_unstable();
    targets.dedup();
    for target in targets {
        let chip = chip::ALL.iter().filter(|c| c.target == target).max_by_key(|c| c.ram_bytes).expect("a chip");
        let told = json(&["compile", &onnx, "-o", &out, "--chip", chip.name, "--no-fit-check"]);
        assert_eq!((&told["target"], &told["chip"]), (&target.into(), &chip.name.into()), "{told}");
        assert_eq!(json(&["inspect", &out])["target"], target);
    }
    let (text, _) = succeeds(&["compile", &onnx, "-o", &out, "--chip", "STM32F405RG"]);
    assert!(text.contains("stm32f405") && text.contains("of RAM"), "{text}");
    assert!(succeeds(&["inspect", &out, "--chip", "stm32f405"]).0.contains("% of flash"));
    // Another core than it was compiled for.
    let (code, _, text) = fails(&["inspect", &out, "--chip", "rp2350"]);
    assert!(code == 5 && text.contains("cortex-m33") && text.contains("hint"), "{code} {text}");
    std::fs::remove_file(&out).expect("removed");
    let (code, _, text) = fails(&["compile", &onnx, "-o", &out, "--chip", "stm32l053"]);
    assert!(code == 5 && text.contains("8,192") && text.contains("bytes of RAM") && text.contains("hint"), "{text}");
    assert!(!std::path::Path::new(&out).exists());
    succeeds(&["compile", &onnx, "-o", &out, "--chip", "stm32l053", "--no-fit-check"]);
    let (code, _, text) = fails(&["compile", &onnx, "-o", &out, "--chip", "stm32f999"]);
    assert!(code == 2 && text.contains("stm32f405"), "{text}");
}

#[test]
fn a_float_model_for_a_board_is_called_one() {
    let folder = Folder::new();
    let (onnx, out) = (folder.write("float.onnx", &case("conv_float")), folder.path("out.dunlin"));
    let (_, warning) = succeeds(&["compile", &onnx, "-o", &out, "--target", "cortex-m4"]);
    assert!(warning.contains("this is a float model") && warning.contains("quantize_static"), "{warning}");
    let told = json(&["compile", &onnx, "-o", &out, "--target", "cortex-m4"]);
    assert_eq!(told["warnings"].as_array().map(Vec::len), Some(1), "{told}");
    // Hosts run floats well, and an int8 model is none.
    assert_eq!(succeeds(&["compile", &onnx, "-o", &out]).1, "");
    assert_eq!(succeeds(&["compile", &folder.digits(), "-o", &out, "--target", "cortex-m4"]).1, "");
}

#[test]
fn dynamic_quantization_is_said_once() {
    let folder = Folder::new();
    let mut graph = Graph::default().input("x0", 1, &[Dim::Fixed(1), Dim::Fixed(4)]).int8("w", &[4, 4], &[1; 16]);
    for i in 0..20 {
        let name = |kind: &str| format!("{kind}{i}");
        graph = graph
            .node("DynamicQuantizeLinear", &[&name("x")], &[&name("q"), &name("s"), &name("z")])
            .node("MatMulInteger", &[&name("q"), "w", &name("z")], &[&name("m")])
            .cast(&name("m"), &name("f"), 1)
            .node("Mul", &[&name("f"), &name("s")], &[&format!("x{}", i + 1)]);
    }
    let onnx = folder.write("dynamic.onnx", &graph.output("x20", 1).bytes());
    let out = folder.path("out.dunlin");
    let (text, warning) = succeeds(&["compile", &onnx, "-o", &out]);
    let lines = text.lines().count() + warning.lines().count();
    assert!(lines <= 12, "{lines} lines: {text}{warning}");
    assert!(warning.contains("20 x DynamicQuantizeLinear") && warning.contains("20 x MatMulInteger"), "{warning}");
    assert!(warning.contains("quantize_static") && warning.contains("hint"), "{warning}");
    let (code, _, text) = fails(&["compile", &onnx, "-o", &out, "--target", "cortex-m4"]);
    assert!(code == 5 && text.lines().count() <= 6, "{code} {text}");
    assert!(text.contains("dynamic quantization") && text.contains("quantize_static"), "{text}");
}

#[test]
fn reasons_say_what_is_not_supported() {
    let folder = Folder::new();
    let out = folder.path("out.dunlin");
    let graph = Graph::default().input("x", 1, &[Dim::Fixed(1), Dim::Fixed(4)]);
    let onnx = graph.node("Sinh", &["x"], &["a"]).node("Sinh", &["a"], &["y"]).output("y", 1);
    let onnx = folder.write("sinh.onnx", &onnx.bytes());
    let (code, _, text) = fails(&["compile", &onnx, "-o", &out, "--target", "cortex-m4"]);
    assert!(code == 5 && text.contains("2 x Sinh") && text.contains("does not have this operator"), "{text}");
    let shape = [1, 1, 4, 4, 4].map(Dim::Fixed);
    let graph = Graph::default().input("x", 1, &shape).with_ints("MaxPool", &["x"], &["y"], "kernel_shape", &[2, 2, 2]);
    let onnx = folder.write("pool.onnx", &graph.output("y", 1).bytes());
    let (code, _, text) = fails(&["compile", &onnx, "-o", &out, "--target", "cortex-m4"]);
    assert!(code == 5 && text.contains("5 axes are not implemented (supported: 3 or 4)"), "{text}");
}

#[test]
fn inputs_are_listed_when_compiling_fails() {
    let folder = Folder::new();
    let onnx = Graph::default()
        .input("x", 1, &[Dim::Named("batch"), Dim::Fixed(4)])
        .input("state", 1, &[Dim::Fixed(2), Dim::Named("batch"), Dim::Fixed(8)])
        .node("Relu", &["x"], &["y"])
        .node("Relu", &["state"], &["z"])
        .output("y", 1)
        .output("z", 1);
    let onnx = folder.write("open.onnx", &onnx.bytes());
    let (code, out, text) = fails(&["inspect", &onnx]);
    assert_eq!(code, 5, "{text}");
    assert!(out.contains("input 'x' float32 [batch,4]") && out.contains("input 'state' float32 [2,batch,8]"), "{out}");
    assert!(text.contains("--input-shape x=1,4 --input-shape state=2,1,8"), "{text}");
    let (_, _, text) = fails(&["inspect", &onnx, "--input-shape", "x=1,4"]);
    assert!(text.contains("--input-shape state=2,1,8") && !text.contains("x=1,4"), "{text}");
    succeeds(&["inspect", &onnx, "--input-shape", "x=1,4", "--input-shape", "state=2,1,8"]);
}

#[test]
fn foreign_files_are_named_by_every_command_that_reads_a_model() {
    let folder = Folder::new();
    let tflite = folder.write("model.tflite", b"\x1c\0\0\0TFL3\0\0\0\0");
    let out = folder.path("out.dunlin");
    for arguments in [
        &["compile", &tflite, "-o", &out][..],
        &["inspect", &tflite],
        &["verify", &tflite],
        &["bench", &tflite],
        &["run", &tflite, "--inputs", &folder.write("in.npz", find("kws", None).expect("kws").golden)],
        &["sign", "release", &tflite, "--keys", &folder.path("keys"), "--number", "1", "-o", &out],
        &["delta", &tflite, &tflite, "-o", &out],
    ] {
        // Signing reads the keys first.
        if arguments[0] == "sign" {
            succeeds(&["keys", "init", &folder.path("keys")]);
        }
        let (code, _, text) = fails(arguments);
        assert!(code == 4 && text.contains("TensorFlow Lite") && text.contains("tf2onnx"), "{arguments:?}: {text}");
    }
    // Our own documents, and a model that is not compiled yet.
    let (onnx, package, release) = (folder.digits(), folder.path("d.dunlin"), folder.path("d.release"));
    succeeds(&["compile", &onnx, "-o", &package]);
    succeeds(&["sign", "release", &package, "--keys", &folder.path("keys"), "--number", "1", "-o", &release]);
    let (code, _, text) = fails(&["inspect", &release]);
    assert!(code == 4 && text.contains("signed release") && text.contains("--trust"), "{text}");
    let (code, _, text) = fails(&["inspect", "--trust", &package]);
    assert!(code == 4 && text.contains("this is a package"), "{text}");
    let (code, _, text) = fails(&["delta", &onnx, &package, "-o", &out]);
    assert!(code == 4 && text.contains("dunlin compile"), "{text}");
}

#[test]
fn data_beyond_the_models_range_is_a_warning_with_the_scale() {
    let folder = Folder::new();
    let (onnx, package) = (folder.digits(), folder.path("digits.dunlin"));
    succeeds(&["compile", &onnx, "-o", &package]);
    let data = folder.write("digits.test.npz", find("digits", Some("2")).expect("digits").test);
    let out = folder.path("calibrated.dunlin");
    let (_, warning) = succeeds(&["calibrate", &package, "--data", &data, "-o", &out]);
    assert!(warning.contains("outside of 0 to") && warning.contains("--scale 0.0039"), "{warning}");
    let calm = ["calibrate", &package, "--data", &data, "--scale", "0.003921569", "-o", &out];
    assert_eq!(succeeds(&calm).1, "");
    // The same data as they are, for `run`: the first ten, with the same warning.
    let (text, notes) = succeeds(&["run", &package, "--inputs", &data]);
    assert_eq!(text.lines().filter(|line| line.contains("largest at")).count(), 10, "{text}");
    assert!(notes.contains("--limit") && notes.contains("--scale"), "{notes}");
    let (text, notes) = succeeds(&["run", &package, "--inputs", &data, "--scale", "0.003921569", "--limit", "2"]);
    assert!(text.lines().filter(|line| line.contains("largest at")).count() == 2 && notes.is_empty(), "{notes}");
    // Numbers as people write them.
    let shown = succeeds(&["inspect", &package]).0;
    assert!(shown.contains("values 0 to 1") && shown.contains("zero point"), "{shown}");
    assert!(shown.contains("ops::conv::operator()") && !shown.contains("e-1-"), "{shown}");
}

#[test]
fn memory_of_a_benchmark_is_without_the_compiler() {
    let folder = Folder::new();
    let (onnx, package) = (folder.digits(), folder.path("digits.dunlin"));
    succeeds(&["compile", &onnx, "-o", &package]);
    let quick = ["--min-ms", "1", "--warmup-ms", "0"];
    let from_onnx = json(&[&["bench", &onnx][..], &quick].concat());
    let from_package = json(&[&["bench", &package][..], &quick].concat());
    for told in [&from_onnx, &from_package] {
        assert!(told["arena_bytes"].as_u64() > Some(0) && told["package_bytes"].as_u64() > Some(0), "{told}");
    }
    assert!(from_onnx["compile_ns"].is_u64() && from_package["compile_ns"].is_null());
    if let (Some(onnx), Some(package)) = (from_onnx["rss_kb"].as_u64(), from_package["rss_kb"].as_u64()) {
        // Pages of the program come and go; the compiler would take tens of megabytes.
        assert!(onnx.abs_diff(package) < 4096, "{onnx} KB and {package} KB");
    }
}
