//! Any bytes as a plan: it is refused, or it runs without a panic. The first four bytes say how long the plan is; the
//! rest are its weights.

#![no_main]

use dunlin_engine::{Arena, Model, Session, ops};
use dunlin_kernels::{Backend, Scalar, available};
use dunlin_package::plan::Plan;
use libfuzzer_sys::fuzz_target;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[expect(dead_code, reason = "read as bytes")] [u8; 64]);

/// Bytes of tensors, and products of two of them, that are still worth a run.
const MOST: usize = 1 << 16;
const MOST_PRODUCTS: usize = 1 << 26;

fn bytes(lines: &mut [Line]) -> &mut [u8] {
    lines.as_flattened_mut_bytes()
}

trait Flat {
    fn as_flattened_mut_bytes(&mut self) -> &mut [u8];
}

impl Flat for [Line] {
    fn as_flattened_mut_bytes(&mut self) -> &mut [u8] {
        // SAFETY: a line is 64 bytes without padding, and any bytes are valid in it.
        unsafe { core::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), core::mem::size_of_val(self)) }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return };
    let length = u32::from_le_bytes(*length) as usize;
    if length > rest.len() {
        return;
    }
    let (plan, data) = rest.split_at(length);
    let mut weights = vec![Line([0; 64]); data.len().div_ceil(64).max(1)];
    bytes(&mut weights)[..data.len()].copy_from_slice(data);
    let weights = &bytes(&mut weights)[..data.len()];
    let Ok(read) = Plan::read(plan) else { return };
    let work: usize = read.tensors().map(|t| t.bytes()).fold(0, usize::saturating_add);
    let Ok(model) = Model::<Scalar>::from_parts(plan, weights, ops::all()) else { return };
    // A kernel multiplies each element of one tensor by each of another at most; the limits keep a run within the
    // fuzzer's timeout.
    let mut sizes: Vec<usize> = read.tensors().map(|t| t.bytes()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let products: usize = sizes.iter().take(2).fold(1, |product, &size| product.saturating_mul(size));
    if work > MOST || products > MOST_PRODUCTS || model.arena_len(Scalar) > 1 << 22 {
        return;
    }
    let mut outputs: Option<Vec<u8>> = None;
    for backend in available() {
        let Ok(model) = Model::from_parts(plan, weights, ops::all()) else { panic!("{} refuses it", backend.name()) };
        let mut memory = vec![Line([0x5A; 64]); model.arena_len(backend).div_ceil(64).max(1)];
        let mut packed = vec![Line([0; 64]); model.packed_len(backend).div_ceil(64).max(1)];
        let packed = &mut bytes(&mut packed)[..model.packed_len(backend)];
        model.pack(backend, packed);
        let Ok(mut session) = Session::with_packed(&model, Arena::new(bytes(&mut memory)), packed, backend) else {
            panic!("the arena is what the model asked for")
        };
        session.run();
        let got: Vec<u8> = (0..model.plan().output_count()).flat_map(|i| session.output(i).bytes().to_vec()).collect();
        // Floats may be NaNs of other bits; the bytes of integers are the same everywhere.
        let integers = model.plan().tensors().all(|t| t.dtype != dunlin_package::DType::F32);
        match &outputs {
            Some(before) if integers => assert_eq!(*before, got, "{} differs from scalar", backend.name()),
            Some(_) => {}
            None => outputs = Some(got),
        }
    }
});
