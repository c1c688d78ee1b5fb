//! `dunlin calibrate` and `dunlin drift`: a reference from data, reports of devices against it, and what is wrong told.

use std::path::PathBuf;
use std::process::{Command, Output};

use dunlin_models::find;
use dunlin_telemetry::archive::{self, Record};
use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample};
use serde_json::Value;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dunlin-drift-{name}-{}", std::process::id()));
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

fn json(arguments: &[&str]) -> Value {
    let output = dunlin(&[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Exit code and words of a failure that is not a panic.
fn fails(arguments: &[&str]) -> (i32, String) {
    let output = dunlin(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().expect("an exit code");
    assert!(code != 0 && code != 101 && !text.contains("panicked"), "{arguments:?} gave {code}: {text}");
    (code, text)
}

/// The digits model, calibrated on its test data.
fn calibrated(folder: &Folder, more: &[&str]) -> (Value, String) {
    let artifact = find("digits", Some("2")).expect("digits 2");
    let onnx = folder.write("digits.onnx", artifact.onnx);
    let data = folder.write("data.npz", artifact.test);
    let package = folder.path("calibrated.dunlin");
    let scale = artifact.input_scale.to_string();
    let all = [&["calibrate", &onnx, "--data", &data, "--scale", &scale, "-o", &package], more].concat();
    (json(&all), package)
}

/// A window of `classes.len()` devices, each with `n` inferences of its class mix.
fn archive(model: u16, devices: usize, n: u32, class: impl Fn(usize, u32) -> u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for device in 0..devices {
        let mut recorder = Recorder::<10, 4>::new(1, model);
        for i in 0..n {
            let class = Some(class(device, i));
            let seen = Observation { micros: 900, class, confidence: Some(0.97), ..Observation::default() };
            recorder.add(&Sample::of(&Reference::NONE, &seen));
        }
        let mut report = [0; 512];
        let len = recorder.take(3600).encode(Profile::Full, &mut report).expect("there is room");
        let device = format!("device-{device}");
        let record = Record { device: &device, received: 1_764_000_000, report: &report[..len] };
        archive::append(&mut bytes, &record).expect("a record");
    }
    bytes
}

#[test]
fn devices_are_compared_with_the_reference() {
    let folder = Folder::new("whole");
    let (told, package) = calibrated(&folder, &[]);
    assert!(told.to_string().contains("digest"), "{told}");
    let inspected = json(&["inspect", &package]);
    let digest = inspected["digest"].as_str().expect("a digest").to_owned();
    let model = u16::from_str_radix(&digest[..4], 16).expect("hexadecimal");
    // Every class as often as in the data, whatever the device: nothing to see.
    let steady = folder.write("steady.bin", &archive(model, 30, 40, |device, i| ((device as u32 + i) % 10) as u16));
    // Every device sees one class.
    let skewed = folder.write("skewed.bin", &archive(model, 30, 40, |_, i| u16::from(i % 8 == 0)));
    let level = |file: &str| {
        let told = json(&["drift", file, "--reference", &package]);
        assert_eq!((told["reports"].as_u64(), told["duplicates"].as_u64()), (Some(30), Some(0)), "{told}");
        let verdicts = told["windows"][0]["verdicts"].as_array().expect("verdicts").clone();
        let of_class = verdicts.iter().filter(|v| v["subject"] == "class" && v["statistic"] == "psi");
        of_class.map(|v| v["level"].as_str().expect("a level").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(level(&steady), ["steady"]);
    assert_eq!(level(&skewed), ["act"]);
    // The same reports twice count once; the picture and the exports are written.
    let svg = folder.path("drift.svg");
    let export = format!("prometheus={}", folder.path("drift.prom"));
    let told = json(&["drift", &steady, &steady, "--reference", &package, "--svg", &svg, "--export", &export]);
    assert_eq!(told["duplicates"], 30, "{told}");
    let svg = std::fs::read_to_string(svg).expect("the picture");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    let text = std::fs::read_to_string(folder.path("drift.prom")).expect("the export");
    assert!(text.contains("dunlin_inferences_total") && text.contains("1200"), "{text}");
}

#[test]
fn what_is_not_to_be_watched_is_not() {
    let folder = Folder::new("none");
    let (told, package) =
        calibrated(&folder, &["--watch", "none", "--embedding", "none", "--class-output", "0", "--deadline", "2000"]);
    assert_eq!(told["embedding"], Value::Null, "{told}");
    assert!(std::fs::metadata(package).expect("the package").len() > 30_000);
}

#[test]
fn what_is_wrong_is_told() {
    let folder = Folder::new("wrong");
    let (_, package) = calibrated(&folder, &[]);
    let other = folder.write("other.bin", &archive(0x0001, 3, 5, |_, _| 0));
    let (_, text) = fails(&["drift", &other, "--reference", &package]);
    assert!(text.contains("no report is of the model") && text.contains("hint"), "{text}");
    let cut = std::fs::read(&other).expect("the archive");
    let cut = folder.write("cut.bin", &cut[..cut.len() - 3]);
    let (code, text) = fails(&["drift", &cut]);
    assert!(code == 4 && text.contains("cut short"), "{code}: {text}");
    let plain = folder.write("plain.onnx", find("digits", Some("2")).expect("digits 2").onnx);
    let data = folder.path("data.npz");
    for wrong in [
        &["--embedding", "output:9"][..],
        &["--embedding", "middle"],
        &["--watch", "input:0:median"],
        &["--class-output", "7"],
    ] {
        let out = folder.path("not.dunlin");
        let (_, text) = fails(&[&["calibrate", &plain, "--data", &data, "-o", &out], wrong].concat());
        assert!(text.contains(wrong[1]) || text.contains(wrong[0]), "{wrong:?}: {text}");
        assert!(!std::path::Path::new(&out).exists(), "{wrong:?} left a file");
    }
    let (_, text) = fails(&["calibrate", &plain, "--data", &folder.path("nothing.npz")]);
    assert!(text.contains("nothing.npz"), "{text}");
}
