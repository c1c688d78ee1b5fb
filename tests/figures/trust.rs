//! Forgeries that were tried and how many were taken; and, where QEMU and the boards' targets are, what verifying and
//! applying, the whole updater, and one signature take: flash, memory, instructions.
//!
//! Peers, as they were published (bytes of flash of a bootloader that swaps images, with the signature's verification):
//!
//! - MCUboot for the nRF52840 with Ed25519: 40,422, and 39,918 without ASN.1 (github.com/mcu-tools/mcuboot/pull/2089,
//!   October 2024). The smallest that users report, for a Cortex-M0+: 16,032 (github.com/mcu-tools/mcuboot/discussions/1806).
//! - embassy-boot: about 8 kB, and 20 KiB more with `salty`, 68 KiB more with `ed25519-dalek` (measured in 2023, in its
//!   documentation on verification).
//!
//! Neither applies differences.

use dunlin_tests::firmware::{Image, TARGETS, build, missing};

// The tests' own bench and forgeries. They have more than is counted here.
#[allow(dead_code)]
#[path = "../../runtime/update/tests/trust/bench.rs"]
mod bench;
#[path = "../../runtime/update/tests/trust/tally.rs"]
mod tally;

/// Bytes of flash of MCUboot with Ed25519.
const MCUBOOT: u64 = 39_918;
/// Bytes of flash of embassy-boot with `salty`, and with `ed25519-dalek`.
const EMBASSY_SALTY: u64 = 8_000 + 20 * 1024;
const EMBASSY_DALEK: u64 = 8_000 + 68 * 1024;

fn print(name: &str, value: u64, unit: &str, target: Option<u64>, peer: Option<u64>) {
    let ratio = peer.map(|peer| value as f64 / peer as f64);
    let line = serde_json::json!({
        "figure": format!("trust/{name}"), "value": value, "unit": unit, "better": "lower", "target": target,
        "peer": peer, "ratio": ratio,
    });
    println!("{line}");
}

fn measure(program: &str, target: &'static str, features: &[&str]) -> (Image, serde_json::Value) {
    let image = build(target, program, features).unwrap_or_else(|e| panic!("{program} for {target}: {e}"));
    let told = image.run().unwrap_or_else(|e| panic!("{program} on {target}: {e}"));
    (image, told)
}

fn main() {
    let bits = [0, 1, 2, 3, 4, 5, 6, 7];
    let (mut tried, mut accepted) = (0, 0);
    for kind in tally::all(&bits) {
        print(&format!("{}/tried", kind.name), kind.tried, "forgeries", None, None);
        print(&format!("{}/accepted", kind.name), kind.accepted, "forgeries", Some(0), None);
        (tried, accepted) = (tried + kind.tried, accepted + kind.accepted);
    }
    print("all/tried", tried, "forgeries", None, None);
    print("all/accepted", accepted, "forgeries", Some(0), None);
    if let Some(what) = missing() {
        eprintln!("no flash and memory: needs {what}");
        return;
    }
    for target in TARGETS {
        for (program, flash) in [("apply", Some(24_576)), ("update", None)] {
            let (image, told) = measure(program, target, &[]);
            let memory = image.memory + told["stack_bytes"].as_u64().expect("a number");
            print(&format!("{target}/{program}/flash-over-mcuboot"), image.flash, "bytes", flash, Some(MCUBOOT));
            print(
                &format!("{target}/{program}/flash-over-embassy-salty"),
                image.flash,
                "bytes",
                flash,
                Some(EMBASSY_SALTY),
            );
            print(
                &format!("{target}/{program}/flash-over-embassy-dalek"),
                image.flash,
                "bytes",
                flash,
                Some(EMBASSY_DALEK),
            );
            print(&format!("{target}/{program}/memory"), memory, "bytes", Some(8_192), None);
        }
        let (own, told) = measure("verify", target, &[]);
        let numbers = |image: &Image, told: &serde_json::Value| {
            [image.flash, told["stack_bytes"].as_u64().unwrap_or(0), told["instructions"].as_u64().unwrap_or(0)]
        };
        let ours = numbers(&own, &told);
        for (peer, feature) in [("ed25519-compact", "compact"), ("ed25519-dalek", "dalek")] {
            let (image, told) = measure("verify", target, &[feature]);
            let theirs = numbers(&image, &told);
            let units = [("flash", "bytes"), ("stack", "bytes"), ("instructions", "instructions")];
            for ((what, unit), (value, peer_value)) in units.into_iter().zip(ours.into_iter().zip(theirs)) {
                print(&format!("{target}/signature/{what}-over-{peer}"), value, unit, None, Some(peer_value));
            }
        }
    }
}
