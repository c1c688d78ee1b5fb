//! The command as a person meets it: good files, bad files, exit codes, and nothing half-written.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dunlin_models::find;
use serde_json::Value;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dunlin-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.0.join(name), bytes).expect("writable");
        self.path(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left-overs in the temporary folder harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn dunlin(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin")).args(arguments).output().expect("dunlin runs")
}

/// Exit code and standard error; a signal or panic is a failure of the test.
fn fails(arguments: &[&str]) -> (i32, String) {
    let output = dunlin(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().unwrap_or_else(|| panic!("{arguments:?} was killed: {text}"));
    assert!(code != 0 && code != 101 && code != 6, "{arguments:?} gave {code}: {text}");
    assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    (code, text)
}

fn succeeds(arguments: &[&str]) -> String {
    let output = dunlin(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(arguments);
    serde_json::from_str(&succeeds(&all)).expect("one JSON object")
}

/// The digits model and its package in a folder.
fn digits(folder: &Folder) -> (String, String, String) {
    let artifact = find("digits", Some("1")).expect("digits 1");
    let onnx = folder.write("digits.onnx", artifact.onnx);
    let golden = folder.write("golden.npz", artifact.golden);
    let labels = folder.write("labels.txt", artifact.labels.join("\n").as_bytes());
    let package = folder.path("digits.dunlin");
    let report = folder.path("report.json");
    succeeds(&[
        "compile",
        &onnx,
        "-o",
        &package,
        "--golden",
        &golden,
        "--labels",
        &labels,
        "--report",
        &report,
        "--target",
        "cortex-m4",
        "--version",
        "1.2.0",
    ]);
    (onnx, golden, package)
}

#[test]
fn a_model_goes_the_whole_way() {
    let folder = Folder::new("whole");
    let (onnx, golden, package) = digits(&folder);
    let verified = json(&["verify", &package, "--backend", "all"]);
    assert_eq!(verified["pass"], true);
    assert!(verified["outputs"].as_array().is_some_and(|o| !o.is_empty() && o.iter().all(|o| o["differing"] == 0)));
    assert_eq!(json(&["verify", &onnx, "--golden", &golden])["pass"], true);

    let out = folder.path("out.npz");
    let ran = json(&["run", &package, "--inputs", &golden, "--outputs", &out]);
    assert_eq!(ran["outputs"].as_array().map(Vec::len), Some(3));
    assert!(ran["outputs"][0]["label"].is_string());
    let written = dunlin_cli::npz::read(&std::fs::read(&out).expect("written")).expect("npz");
    let expected = dunlin_cli::npz::read(find("digits", Some("1")).expect("digits").golden).expect("npz");
    assert_eq!(written["out1_0"].bytes, expected["out1_0"].bytes);

    let bench = json(&["bench", &package, "--min-ms", "1", "--warmup-ms", "0"]);
    assert!(bench["ns"].as_array().is_some_and(|n| n.len() >= 3) && bench["max_abs_diff"][0] == 0.0);

    let svg = folder.path("digits.svg");
    let inspected = json(&["inspect", &package, "--svg", &svg]);
    assert_eq!(inspected["version"], "1.2.0");
    assert_eq!(inspected["target"], "cortex-m4");
    let sum: u64 = inspected["steps"].as_array().expect("steps").iter().filter_map(|s| s["macs"].as_u64()).sum();
    assert_eq!(inspected["macs"].as_u64(), Some(sum), "the steps' MACs are those of the manifest");
    let svg = std::fs::read_to_string(svg).expect("picture");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path("report.json")).expect("report")).expect("JSON");
    assert_eq!(report["steps"].as_array().map(Vec::len), inspected["steps"].as_array().map(Vec::len));
    assert!(succeeds(&["inspect", &package]).contains("conv"));
}

#[test]
fn the_same_file_gives_the_same_package() {
    let folder = Folder::new("same");
    let (onnx, golden, package) = digits(&folder);
    let again = folder.path("again.dunlin");
    let labels = folder.path("labels.txt");
    succeeds(&[
        "compile",
        &onnx,
        "-o",
        &again,
        "--golden",
        &golden,
        "--labels",
        &labels,
        "--target",
        "cortex-m4",
        "--version",
        "1.2.0",
    ]);
    assert_eq!(std::fs::read(package).expect("package"), std::fs::read(again).expect("package"));
}

#[test]
fn arrays_may_be_named_as_the_inputs_are() {
    let folder = Folder::new("named");
    let (_, golden, package) = digits(&folder);
    let name = json(&["inspect", &package])["inputs"][0]["name"].as_str().expect("name").to_owned();
    let arrays = dunlin_cli::npz::read(&std::fs::read(golden).expect("golden")).expect("npz");
    let bytes = dunlin_cli::npz::write(&[(name, arrays["in0_0"].clone())]).expect("npz");
    let inputs = folder.write("named.npz", &bytes);
    assert_eq!(json(&["run", &package, "--inputs", &inputs])["outputs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn differences_are_counted_and_refused() {
    let folder = Folder::new("differences");
    let (onnx, golden, package) = digits(&folder);
    let mut arrays: Vec<_> =
        dunlin_cli::npz::read(&std::fs::read(golden).expect("golden")).expect("npz").into_iter().collect();
    for (key, array) in &mut arrays {
        if key == "out2_0" {
            array.bytes[..4].copy_from_slice(&99.5f32.to_le_bytes());
        }
    }
    let wrong = folder.write("wrong.npz", &dunlin_cli::npz::write(&arrays).expect("npz"));
    let output = dunlin(&["--json", "verify", &package, "--golden", &wrong]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["pass"], &first["outputs"][0]["differing"]), (&Value::Bool(false), &Value::from(1)));
    succeeds(&["verify", &package, "--golden", &wrong, "--tolerance", "1000"]);
    let target = folder.path("never.dunlin");
    let (code, text) = fails(&["compile", &onnx, "-o", &target, "--golden", &wrong]);
    assert_eq!(code, 1);
    assert!(text.contains("1 of") && text.contains("hint"), "{text}");
    assert!(!Path::new(&target).exists());
}

#[test]
fn damaged_packages_are_named_and_never_panic() {
    let folder = Folder::new("damaged");
    let (_, _, package) = digits(&folder);
    let bytes = std::fs::read(package).expect("package");
    let step = bytes.len() / 12;
    for at in (0..bytes.len()).step_by(step) {
        let bad = folder.write("bad.dunlin", &bytes[..at]);
        let (code, text) = fails(&["inspect", &bad]);
        assert!(code == 4 && text.contains("bad.dunlin"), "truncated at {at}: {code} {text}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let bad = folder.write("bad.dunlin", &flipped);
        let (code, text) = fails(&["verify", &bad]);
        assert!(code == 4 && text.contains("bad.dunlin"), "flipped at {at}: {code} {text}");
    }
    let mut longer = bytes;
    longer.extend([0; 100]);
    let bad = folder.write("bad.dunlin", &longer);
    assert_eq!(fails(&["inspect", &bad]).0, 4);
}

#[test]
fn bad_arguments_and_files_have_their_codes() {
    let folder = Folder::new("bad");
    let (onnx, golden, package) = digits(&folder);
    let missing = folder.path("missing.onnx");
    assert_eq!(fails(&["inspect", &missing]).0, 3);
    assert_eq!(fails(&["frobnicate"]).0, 2);
    assert_eq!(fails(&["compile", &onnx, "-o", &package, "--target", "toaster"]).0, 2);
    assert_eq!(fails(&["compile", &onnx, "-o", &package, "--input-shape", "x"]).0, 2);
    assert_eq!(fails(&["verify", &package, "--backend", "abacus"]).0, 2);
    assert_eq!(fails(&["compile", &onnx, "-o", &folder.path("no/such/folder/x.dunlin")]).0, 3);
    assert_eq!(fails(&["compile", &package, "-o", &folder.path("x.dunlin")]).0, 4);
    for (name, bytes) in [("empty.onnx", &b""[..]), ("text.onnx", b"this is no model\n"), ("zip.onnx", b"PK\x03\x04")] {
        let path = folder.write(name, bytes);
        let (code, text) = fails(&["compile", &path, "-o", &folder.path("x.dunlin")]);
        assert!(code == 4 && text.contains(name), "{name}: {code} {text}");
        assert_eq!(fails(&["run", &package, "--inputs", &path]).0, 4);
    }
    let cut = std::fs::read(&onnx).expect("model");
    let cut = folder.write("cut.onnx", &cut[..cut.len() / 2]);
    assert_eq!(fails(&["compile", &cut, "-o", &folder.path("x.dunlin")]).0, 4);
    // The other model's vectors have other shapes.
    let other = folder.write("other.npz", find("kws", None).expect("kws").golden);
    let (code, text) = fails(&["verify", &package, "--golden", &other]);
    assert!(code == 4 && text.contains("in0_0") && text.contains("float32 [1,1,28,28]"), "{code} {text}");
    let unvectored = folder.path("plain.dunlin");
    succeeds(&["compile", &onnx, "-o", &unvectored]);
    assert!(fails(&["verify", &unvectored]).1.contains("--golden"));
    assert_eq!(fails(&["compile", &onnx, "-o", &golden.replace("golden.npz", ""), "--version", "2"]).0, 3);
    let names = folder.names();
    assert!(!names.iter().any(|n| n.contains("part") || n == "x.dunlin"), "left behind: {names:?}");
}

#[test]
fn help_and_completions_print() {
    assert!(succeeds(&["--help"]).contains("Exit codes"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(succeeds(&["completions", shell]).contains("dunlin"));
    }
}

#[test]
fn keys_sign_and_documents_are_judged() {
    let folder = Folder::new("keys");
    let keys = folder.path("keys");
    let (_, _, package) = digits(&folder);
    succeeds(&["keys", "init", &keys, "--targets", "2/2"]);
    let first = format!("{keys}/1.root");
    let (release, rollout) = (folder.path("d.release"), folder.path("d.rollout"));
    succeeds(&["sign", "release", &package, "--keys", &keys, "--number", "1", "-o", &release]);
    succeeds(&["sign", "rollout", &release, "--keys", &keys, "--sequence", "1", "--percent", "5", "-o", &rollout]);
    for document in [&release, &rollout] {
        assert_eq!(json(&["inspect", "--trust", document, "--root", &first])["believed"], true);
    }
    let text = succeeds(&["inspect", "--trust", &release, "--root", &first]);
    assert!(text.contains("valid: signed by 2 of 2 targets keys, 2 required, root version 1: "), "{text}");
    let unchecked = succeeds(&["inspect", "--trust", &release]);
    assert!(unchecked.contains("signatures not checked: pass --root") && !unchecked.contains("valid:"), "{unchecked}");
    // Keys are replaced: the chain is followed, and what the old keys signed is worth nothing under the new.
    succeeds(&["keys", "rotate", &keys, "--role", "targets"]);
    let second = format!("{keys}/2.root");
    assert_eq!(json(&["inspect", "--trust", &second, "--root", &first])["believed"], true);
    let (code, text) = fails(&["inspect", "--trust", &release, "--root", &second]);
    assert!(code == 7 && text.contains("0 valid signatures of the role targets, 2 are needed"), "{code}: {text}");
    // One of two keys is elsewhere: the release waits for its signature.
    let root = json(&["inspect", "--trust", &second]);
    let name = root["fields"]["roles"]["targets"]["keys"][0].as_str().expect("a key").to_owned();
    let (here, elsewhere) = (format!("{keys}/{name}.key"), folder.path("elsewhere.key"));
    std::fs::rename(&here, &elsewhere).expect("it can be moved");
    let half = folder.path("half.release");
    let (code, text) = fails(&["sign", "release", &package, "--keys", &keys, "--number", "2", "-o", &half]);
    assert!(
        code == 7 && text.contains("1 valid signatures of the role targets") && text.contains("sign add"),
        "{text}"
    );
    succeeds(&["sign", "add", &half, "--key", &elsewhere, "--role", "targets"]);
    assert_eq!(json(&["inspect", "--trust", &half, "--root", &second])["believed"], true);
    // Wrong files and words.
    assert_eq!(fails(&["inspect", "--trust", &package]).0, 4);
    assert_eq!(fails(&["sign", "rollout", &rollout, "--keys", &keys, "--sequence", "1", "-o", &half]).0, 4);
    assert_eq!(fails(&["keys", "init", &keys]).0, 2);
    assert_eq!(fails(&["keys", "rotate", &keys, "--role", "king"]).0, 2);
    assert_eq!(fails(&["keys", "rotate", &folder.path("nowhere"), "--role", "root"]).0, 3);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&elsewhere).expect("the key").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others can read the key");
    }
}

#[test]
fn differences_are_made_and_named() {
    let folder = Folder::new("delta");
    let (_, _, old) = digits(&folder);
    let onnx = folder.write("two.onnx", find("digits", Some("2")).expect("digits 2").onnx);
    let (new, patch) = (folder.path("two.dunlin"), folder.path("two.patch"));
    succeeds(&["compile", &onnx, "-o", &new]);
    let told = json(&["delta", &old, &new, "-o", &patch]);
    let size = std::fs::metadata(&patch).expect("the patch").len();
    assert_eq!(told["bytes"], size);
    assert!(size < std::fs::metadata(&new).expect("the package").len());
    assert!(succeeds(&["delta", &new, &new, "-o", &patch, "--regions"]).contains("copy"));
    assert!(std::fs::metadata(&patch).expect("the patch").len() < 130);
    let before = folder.names();
    let (code, text) = fails(&["delta", &onnx, &new, "-o", &folder.path("bad.patch")]);
    assert!(code == 4 && text.contains("two.onnx"), "{code}: {text}");
    assert_eq!(folder.names(), before);
}
