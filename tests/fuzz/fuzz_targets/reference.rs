//! Any bytes as a package's reference; what is read reduces inferences.
#![no_main]

use dunlin_telemetry::{Observation, Recorder, Reference, Sample, Values};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(reference) = Reference::read(bytes) else { return };
    let q: [i8; 12] = [1, -128, 127, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let tensors = [Values::F32(&[0.5, f32::NAN, 3.0]), Values::I8 { q: &q, scale: 0.1, zero_point: 3 }];
    let seen = Observation { inputs: &tensors, outputs: &tensors, ..Observation::default() }.classified();
    let mut recorder = Recorder::<10, 4>::new(0, 0).shaped(&reference);
    recorder.add(&Sample::of(&reference, &seen));
    let mut report = [0; 1024];
    recorder.take(1).encode(dunlin_telemetry::Profile::Full, &mut report).expect("there is room");
});
