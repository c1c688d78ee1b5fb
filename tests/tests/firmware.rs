//! The firmware: Cortex-M under QEMU verifies and applies a signed difference, tries it and keeps it, in the flash and
//! memory that it may take.

use dunlin::onnx::{Options, compile, memory_on};
use dunlin::{Block, Package};
use dunlin_tests::firmware::{HELIUM, TARGETS, build, folder, missing};
use dunlin_update::delta::{EncodeOptions, encode};

/// Most bytes of flash and of memory, static and stack: verifying and applying have to stay within 24 KiB and 8 KiB; the
/// whole updater takes more flash.
const BUDGETS: [(&str, u64, u64); 2] = [("apply", 24 * 1024, 8 * 1024), ("update", 32 * 1024, 8 * 1024)];

#[test]
fn boards_update_within_their_budgets() {
    if let Some(what) = missing() {
        eprintln!("skipped: needs {what}");
        return;
    }
    for target in TARGETS {
        for (program, flash, memory) in BUDGETS {
            let image = build(target, program, &[]).unwrap_or_else(|e| panic!("{program} for {target}: {e}"));
            let told = image.run().unwrap_or_else(|e| panic!("{program} on {target}: {e}"));
            println!("{program} {target}: {} bytes of flash, {} static, {told}", image.flash, image.memory);
            assert_eq!(told["ok"], true);
            let stack = told["stack_bytes"].as_u64().expect("a number");
            assert!(image.flash <= flash, "{program} for {target} takes {} bytes of flash", image.flash);
            assert!(image.memory + stack <= memory, "{program} for {target} takes {} + {stack}", image.memory);
            // Nothing can panic, and nothing makes text.
            let unwanted = |name: &&String| name.contains("panicking") || name.contains("4core3fmt");
            assert_eq!(image.symbols.iter().find(unwanted), None, "{program} for {target}");
        }
    }
}

fn package(onnx: &[u8], version: &str) -> Vec<u8> {
    let options =
        Options { name: "digits".into(), version: version.into(), target: "cortex-m4".into(), ..Options::default() };
    compile(onnx, &options).expect("it compiles").package
}

/// The packages and the difference are what the compiler and the encoder make today. With `DUNLIN_WRITE` the difference
/// is written anew.
#[test]
fn its_data_is_not_stale() {
    let data = |name: &str| folder().join("update/data").join(name);
    let onnx = dunlin_models::find("digits", Some("2")).expect("digits 2").onnx;
    let old = std::fs::read(data("old.dunlin")).expect("the firmware's package");
    assert!(package(onnx, "2") == old, "run firmware-examples/update/data/make");
    let variant = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/variants/fine-tuned.onnx");
    let new = package(&std::fs::read(variant).expect("the variant"), "3");
    let patch = encode(Some(&old), &new, &EncodeOptions { block: 8192 }).expect("they have a difference").patch;
    if std::env::var_os("DUNLIN_WRITE").is_some() {
        std::fs::write(data("new.patch"), &patch).expect("it can be written");
    }
    assert!(std::fs::read(data("new.patch")).expect("the difference") == patch, "run this once with DUNLIN_WRITE=1");
}

/// The kernels that a board has of its own run, and give the bits of the scalar ones on shapes of every remainder and those of
/// ONNX Runtime on the keyword model, in fewer instructions.
#[test]
fn boards_run_their_own_kernels() {
    if let Some(what) = missing() {
        eprintln!("skipped: needs {what}");
        return;
    }
    let bytes = Block::from(&std::fs::read(folder().join("recorder/data/kws.dunlin")).expect("its package")[..]);
    let package = Package::open(&bytes).expect("opens");
    let boards = [(TARGETS[0], "dsp", "cortex-m4"), (TARGETS[1], "scalar", "cortex-m0"), (HELIUM, "mve", "cortex-m55")];
    for (target, backend, name) in boards {
        let image = build(target, "inference", &[]).unwrap_or_else(|e| panic!("{target}: {e}"));
        let told = image.run().unwrap_or_else(|e| panic!("{target}: {e}"));
        println!("{target}: {told}");
        assert_eq!((&told["right"], &told["backend"]), (&true.into(), &backend.into()));
        let count = |key: &str| told[key].as_u64().expect("a number");
        assert_eq!(count("shapes"), 3 * 9 * 27 + 9 * 4 * 2 + 8 * 4 * 2);
        // The compiler knows what the firmware asks for.
        assert_eq!(memory_on(&package, name).ok(), usize::try_from(count("arena")).ok(), "{target}");
        assert!(backend == "scalar" || count("instructions") < count("scalar") * 2 / 3, "{told}");
    }
}
