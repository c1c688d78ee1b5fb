//! Tells which 32-bit ARM targets have the DSP extension, a floating-point unit with its fused multiply-add, and vectors:
//! stable Rust has no `cfg` for them.

fn main() {
    for cfg in ["arm_dsp", "arm_vfp", "arm_fma", "arm_mve"] {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let target = std::env::var("TARGET").unwrap_or_default();
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // ARMv7E-M has it, and every ARM with A-profile instructions from ARMv6 on.
    let dsp = ["thumbv7em-", "thumbv7neon-", "thumbv7a-", "armv7-", "armv7a-", "armv7s-", "arm-unknown-linux-"];
    let dsp = dsp.iter().any(|prefix| target.starts_with(prefix));
    // The vectors of ARMv8.1-M, Helium, with integers at least: by the name of the CPU.
    let mve =
        target.starts_with("thumbv8m.main-") && ["cortex-m55", "cortex-m85"].iter().any(|cpu| flags.contains(cpu));
    let float = target.ends_with("hf");
    let cortex_m = mve || target.starts_with("thumbv7em-");
    // Linux on ARMv7 does not promise a fused multiply-add.
    let found =
        [("arm_dsp", dsp || mve), ("arm_vfp", (dsp || mve) && float), ("arm_fma", cortex_m && float), ("arm_mve", mve)];
    for (cfg, _) in found.iter().filter(|(_, found)| *found) {
        println!("cargo::rustc-cfg={cfg}");
    }
}
