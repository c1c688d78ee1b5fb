//! Whole models on 64-bit ARM under QEMU: packages that this machine compiled give their golden vectors bit for bit, on
//! every backend, with the dot product and without.

use std::path::{Path, PathBuf};
use std::process::Command;

use dunlin::onnx::compile;
use dunlin_tests::corpus::corpus;

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// What cannot be run here, with what to install; `None` when it can.
fn missing() -> Option<String> {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let target = sysroot.join("lib/rustlib").join(TARGET).join("lib").exists();
    let all = target && there("qemu-aarch64") && there("aarch64-linux-gnu-gcc");
    (!all).then(|| format!("rustup target add {TARGET}, qemu-user and gcc-aarch64-linux-gnu"))
}

#[test]
fn models_give_the_same_bits_on_64_bit_arm() {
    if let Some(what) = missing() {
        eprintln!("skipped: needs {what}");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "-p", "dunlin", "--example", "golden", "--target", TARGET])
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
        .env_remove("RUSTFLAGS")
        .current_dir(&root)
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = tempfile::tempdir().expect("a folder");
    let mut packages = Vec::new();
    for item in corpus(None).unwrap_or_else(|e| panic!("{}", e.text)).into_iter().filter(|item| item.exact) {
        let mut options = item.options();
        options.golden = item.samples.golden();
        let compiled = compile(&item.onnx, &options).unwrap_or_else(|e| panic!("{}: {e}", item.name));
        let path = folder.path().join(format!("{}.dunlin", item.name));
        std::fs::write(&path, compiled.package).expect("a package");
        packages.push(path);
    }
    assert!(packages.len() >= 4);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    for (cpu, backends) in [("max", &["scalar", "neon", "neondot"][..]), ("cortex-a53", &["scalar", "neon"])] {
        let output = Command::new("qemu-aarch64")
            .args(["-L", "/usr/aarch64-linux-gnu", "-cpu", cpu])
            .arg(target.join(TARGET).join("release/examples/golden"))
            .args(&packages)
            .output()
            .expect("qemu-aarch64");
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{cpu}\n{text}");
        assert!(output.status.success(), "{cpu}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        let ran: Vec<&str> = rows.iter().filter_map(|row| row["backend"].as_str()).take(backends.len()).collect();
        assert_eq!(ran, backends);
        assert_eq!(rows.len(), packages.len() * backends.len());
        assert!(rows.iter().all(|row| row["differing"] == 0 && row["bytes"].as_u64() > Some(0)), "{text}");
    }
}
