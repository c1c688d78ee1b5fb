//! Any bytes as an npz file.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../../targets/cli/src/npz.rs"]
mod npz;

fuzz_target!(|bytes: &[u8]| {
    let Ok(arrays) = npz::read(bytes) else { return };
    let arrays: Vec<_> = arrays.into_iter().collect();
    // What was read can be written, and is read again.
    if let Ok(written) = npz::write(&arrays) {
        assert_eq!(npz::read(&written).map(|a| a.into_iter().collect::<Vec<_>>()), Ok(arrays));
    }
});
