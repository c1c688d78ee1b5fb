//! The firmware as a file, where the tools for it are.

use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "thumbv7em-none-eabihf";

/// Builds a firmware of `firmware-examples`, with the standard library that rustup has for the board or, where only its
/// source is there, with one built from it. `Ok(None)`, and words on standard error, when neither is there or QEMU is not.
///
/// # Errors
/// The compiler's words.
pub fn build(name: &str) -> Result<Option<PathBuf>, String> {
    let qemu = Command::new("qemu-system-arm").arg("--version").output().is_ok();
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().map_err(|e| format!("rustc: {e}"))?;
    let library = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib");
    let target = library.join(TARGET).join("lib").exists();
    let source = library.join("src/rust/library/Cargo.toml").exists();
    if !qemu || !(target || source) {
        eprintln!(
            "skipped: needs qemu-system-arm (apt install qemu-system-arm) and rustup target add {TARGET}, \
             or the library's source (rustup component add rust-src)"
        );
        return Ok(None);
    }
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-examples"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "--bin", name])
        .current_dir(folder)
        // What the tests' own build sets is not the firmware's.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    if !target {
        cargo.arg("-Zbuild-std=core").env("RUSTC_BOOTSTRAP", "1");
    }
    let output = cargo.output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(Some(folder.join("target").join(TARGET).join("release").join(name)))
}
