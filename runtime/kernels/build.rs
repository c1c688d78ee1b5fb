//! Tells which 32-bit ARM targets have the DSP extension and a floating-point unit: stable Rust has no `cfg` for them.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(arm_dsp)");
    println!("cargo::rustc-check-cfg=cfg(arm_vfp)");
    println!("cargo::rustc-check-cfg=cfg(arm_fma)");
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    // ARMv7E-M has it, and every ARM with A-profile instructions from ARMv6 on.
    let has = ["thumbv7em-", "thumbv7neon-", "thumbv7a-", "armv7-", "armv7a-", "armv7s-", "arm-unknown-linux-"];
    if has.iter().any(|prefix| target.starts_with(prefix)) {
        println!("cargo::rustc-cfg=arm_dsp");
        if target.ends_with("hf") {
            println!("cargo::rustc-cfg=arm_vfp");
            // A Cortex-M's unit has the fused multiply-add; Linux on ARMv7 does not promise it.
            if target.starts_with("thumbv7em-") {
                println!("cargo::rustc-cfg=arm_fma");
            }
        }
    }
}
