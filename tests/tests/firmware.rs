//! The firmware: a Cortex-M4 under QEMU takes a signed difference, tries it and keeps it, in the flash and memory that
//! its linker script allows.

use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin::onnx::{Options, compile};

const TARGET: &str = "thumbv7em-none-eabihf";

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-examples"))
}

/// Whether the standard library for the boards is there.
fn has_target() -> bool {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = String::from_utf8(output.stdout).expect("a path");
    Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").exists()
}

#[test]
fn a_board_updates_its_model() {
    let qemu = Command::new("qemu-system-arm").arg("--version").output().is_ok();
    if !qemu || !has_target() {
        eprintln!("skipped: needs qemu-system-arm (apt install qemu-system-arm) and rustup target add {TARGET}");
        return;
    }
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--locked", "--target", TARGET, "--bin", "update"])
        .current_dir(folder())
        // What the tests' own build sets is not the firmware's.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON object");
    println!("{told}");
    assert_eq!(told["updated"], true);
    assert!(told["stack_bytes"].as_u64().expect("a number") <= 20 * 1024, "the stack grew: {told}");
    assert!(told["updater_bytes"].as_u64().expect("a number") <= 9 * 1024, "the updater grew: {told}");
}

/// The package that the firmware was made with is what the compiler makes today.
#[test]
fn its_package_is_not_stale() {
    let onnx = dunlin_models::find("digits", Some("2")).expect("digits 2").onnx;
    let options =
        Options { name: "digits".into(), version: "2".into(), target: "cortex-m4".into(), ..Options::default() };
    let package = compile(onnx, &options).expect("it compiles").package;
    let old = std::fs::read(folder().join("update/data/old.dunlin")).expect("the firmware's package");
    assert!(package == old, "run firmware-examples/update/data/make");
}
