//! Bare-metal programs of `firmware-examples`: built, measured and run under QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Boards' targets.
pub const TARGETS: [&str; 2] = ["thumbv7em-none-eabihf", "thumbv6m-none-eabi"];

/// A Cortex-M55, as `.cargo/config.toml` has it.
pub const HELIUM: &str = "thumbv8m.main-none-eabihf";

/// A program that was built, and what it takes.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    target: &'static str,
    /// Bytes of code, constants and vectors, without what stands for the device's surroundings.
    pub flash: u64,
    /// Bytes of static memory.
    pub memory: u64,
    /// Symbols in flash.
    pub symbols: Vec<String>,
}

/// Where the programs are.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware-examples"))
}

fn sysroot() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).current_dir(folder()).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Why nothing can be built or run here, with what to install; `None` when it can.
#[must_use]
pub fn missing() -> Option<&'static str> {
    if Command::new("qemu-system-arm").arg("--version").output().is_err() {
        return Some("qemu-system-arm (apt install qemu-system-arm)");
    }
    let root = sysroot()?;
    let has = |path: &str| root.join("lib/rustlib").join(path).exists();
    let source = || has("src/rust/library/Cargo.toml");
    let fetched = || Command::new(folder().join("../.ci/rust-src")).output().is_ok_and(|o| o.status.success());
    let there = TARGETS.iter().all(|target| has(&format!("{target}/lib"))) || source() || (fetched() && source());
    (!there).then_some("the boards' targets (rustup target add) or the standard library's source (.ci/rust-src)")
}

/// Builds a program, for a target that is installed or with the standard library's source.
///
/// # Errors
/// What cargo said.
pub fn build(target: &'static str, program: &str, features: &[&str]) -> Result<Image, String> {
    build_with(target, program, features, &[])
}

/// As [`build`], with variables of the environment.
///
/// # Errors
/// What cargo said.
pub fn build_with(
    target: &'static str,
    program: &str,
    features: &[&str],
    variables: &[(&str, &Path)],
) -> Result<Image, String> {
    let installed = sysroot().is_some_and(|root| root.join("lib/rustlib").join(target).join("lib").exists());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--locked", "--target", target, "--bin", program]);
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    cargo.envs(variables.iter().copied());
    if !installed {
        cargo.arg("-Zbuild-std=core").env("RUSTC_BOOTSTRAP", "1");
    }
    // What the tests' own build sets is not the firmware's.
    let cargo = cargo.current_dir(folder()).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    let output = cargo.output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let path = folder().join("target").join(target).join("release").join(program);
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    measure(path, target, &bytes).ok_or_else(|| "no ELF file of 32 bits".into())
}

/// Sections and symbols of an ELF file of 32 bits, little endian.
fn measure(path: PathBuf, target: &'static str, elf: &[u8]) -> Option<Image> {
    let word = |at: usize| elf.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
    let half = |at: usize| elf.get(at..)?.first_chunk().map(|b| usize::from(u16::from_le_bytes(*b)));
    let (table, entry, count) = (word(32)? as usize, half(46)?, half(48)?);
    let section = |i: usize, field: usize| word(table + i * entry + field * 4);
    let mut image = Image { path, target, flash: 0, memory: 0, symbols: Vec::new() };
    for i in 0..count {
        let (kind, flags, address, len) = (section(i, 1)?, section(i, 2)?, section(i, 3)?, section(i, 5)?);
        // SHF_ALLOC; where memory.x puts flash and memory.
        if flags & 2 != 0 {
            match address {
                0..0x10_0000 => image.flash += u64::from(len),
                0x2000_0000..0x2010_0000 => image.memory += u64::from(len),
                _ => {}
            }
            // Initial values of static memory lie in flash besides.
            if (0x2000_0000..0x2010_0000).contains(&address) && kind == 1 {
                image.flash += u64::from(len);
            }
        }
        // SHT_SYMTAB
        if kind == 2 {
            let (start, names) = (section(i, 4)? as usize, section(section(i, 6)? as usize, 4)? as usize);
            for symbol in (start..start + len as usize).step_by(16) {
                let name = elf.get(names + word(symbol)? as usize..)?;
                let name = name.split(|b| *b == 0).next()?;
                if word(symbol + 4)? < 0x10_0000 {
                    image.symbols.push(String::from_utf8_lossy(name).into_owned());
                }
            }
        }
    }
    Some(image)
}

impl Image {
    /// Where the ELF file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it and gives the line of JSON that it prints.
    ///
    /// # Errors
    /// What it printed, when it did not go well.
    pub fn run(&self) -> Result<serde_json::Value, String> {
        // QEMU has no Cortex-M0 with so much memory; a Cortex-M3 runs what is built for one. With `-icount` the clock
        // goes by instructions.
        let board = match self.target {
            "thumbv6m-none-eabi" => "mps2-an385",
            HELIUM => "mps3-an547",
            _ => "mps2-an386",
        };
        let output = Command::new("qemu-system-arm")
            .args(["-M", board, "-nographic", "-monitor", "none", "-serial", "null", "-icount", "shift=0"])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(&self.path)
            .output()
            .map_err(|e| e.to_string())?;
        // QEMU's console of single characters is its standard error.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| line.starts_with('{')).filter(|_| output.status.success());
        line.and_then(|line| serde_json::from_str(line).ok()).ok_or_else(|| text.into_owned())
    }
}
