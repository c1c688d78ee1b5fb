//! Puts the memory layout where the linker looks for it, and the package where the program does.

use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("memory.x"), include_bytes!("memory.x")).expect("OUT_DIR can be written");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=memory.x");
    // SysTick of the emulated boards has 25 MHz; that of the Cortex-M55's has 32.
    let target = std::env::var("TARGET").unwrap_or_default();
    let picoseconds = if target.starts_with("thumbv8m") { 31_250 } else { 40_000 };
    println!("cargo:rustc-env=DUNLIN_TICK_PS={picoseconds}");
    println!("cargo:rerun-if-env-changed=DUNLIN_PACKAGE");
    let package = std::env::var("DUNLIN_PACKAGE").unwrap_or_else(|_| "../recorder/data/kws.dunlin".into());
    println!("cargo:rerun-if-changed={package}");
    std::fs::copy(&package, out.join("package.dunlin")).unwrap_or_else(|e| panic!("DUNLIN_PACKAGE={package}: {e}"));
}
