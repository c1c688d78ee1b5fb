//! Runs the golden vectors of a package on the machine that compiles it.

use dunlin_engine::{Arena, Model, Session, ops};
use dunlin_kernels::best;
use dunlin_package::{DType, Package, Port};

use crate::compile::Golden;
use crate::error::{CompileError, ErrorKind};
use crate::foreign::Executor;

/// Elements of a tensor that differ from what is expected.
#[derive(Clone, Copy, Debug, Default)]
struct Difference {
    elements: usize,
    differing: usize,
    largest: f64,
}

impl Difference {
    /// Adds the elements of one tensor. Two NaNs are equal.
    fn add(&mut self, dtype: DType, got: &[u8], expected: &[u8]) {
        let (got, expected) = (values(dtype, got), values(dtype, expected));
        self.elements += expected.len();
        for (got, expected) in got.into_iter().zip(expected) {
            if got == expected || (got.is_nan() && expected.is_nan()) {
                continue;
            }
            let by = (got - expected).abs();
            self.differing += 1;
            self.largest = self.largest.max(if by.is_nan() { f64::INFINITY } else { by });
        }
    }
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::I8 => bytes.iter().map(|b| f64::from(b.cast_signed())).collect(),
        DType::U8 | DType::Bool => bytes.iter().map(|&b| f64::from(b)).collect(),
        DType::I32 => bytes.as_chunks().0.iter().map(|c| f64::from(i32::from_le_bytes(*c))).collect(),
        DType::F32 => bytes.as_chunks().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect(),
        DType::I64 => bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c) as f64).collect(),
    }
}

/// Zeroed memory for `len` bytes at a multiple of 16, as packages and arenas need it.
fn aligned(len: usize) -> Vec<u128> {
    vec![0; len.div_ceil(size_of::<u128>())]
}

/// Refuses vectors that have not one array of the right length for each port.
fn fit<'p>(
    vector: usize,
    what: &str,
    ports: impl Iterator<Item = Port<'p>>,
    arrays: &[Vec<u8>],
) -> Result<(), CompileError> {
    let ports: Vec<Port<'p>> = ports.collect();
    let wrong = |text: String| {
        CompileError::new(ErrorKind::Golden, format!("golden vector {vector}: {text}"))
            .hint("`dunlin inspect` lists the inputs and outputs with their types and shapes")
    };
    if arrays.len() != ports.len() {
        return Err(wrong(format!("{} {what}s where the model has {}", arrays.len(), ports.len())));
    }
    for (port, array) in ports.iter().zip(arrays) {
        let bytes = port.elements() * port.dtype.size_bytes();
        if array.len() != bytes {
            let (name, has) = (port.name, array.len());
            return Err(wrong(format!("{what} '{name}' has {has} bytes where the model has {bytes}")));
        }
    }
    Ok(())
}

/// Runs golden vectors on the fastest kernels of this machine.
///
/// # Errors
/// [`ErrorKind::Golden`] when a vector does not fit the model, [`ErrorKind::Differs`] when an output differs by more than
/// `tolerance`.
pub(crate) fn golden(package: &[u8], vectors: &[Golden], tolerance: f32) -> Result<(), CompileError> {
    if vectors.is_empty() {
        return Ok(());
    }
    let internal = |e: &dyn std::fmt::Display| CompileError::internal(e.to_string());
    let mut bytes = aligned(package.len());
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut bytes);
    bytes[..package.len()].copy_from_slice(package);
    let package = Package::open(&bytes[..package.len()]).map_err(|e| internal(&e))?;
    let model = Model::load_hybrid(&package, ops::all()).map_err(|e| internal(&e))?;
    let backend = best();
    let mut memory = aligned(model.arena_len(backend));
    let mut packed = aligned(model.packed_len(backend));
    let packed: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut packed)[..model.packed_len(backend)];
    model.pack(backend, packed);
    let arena = Arena::new(bytemuck::cast_slice_mut(&mut memory));
    let mut session = Session::with_packed(&model, arena, packed, backend).map_err(|e| internal(&e))?;
    let mut executor = Executor::new(package.foreign().into_iter().flat_map(|f| f.blobs()))?;
    let manifest = package.manifest();
    let mut differences = vec![Difference::default(); manifest.outputs().len()];
    for (number, vector) in vectors.iter().enumerate() {
        fit(number, "input", manifest.inputs(), &vector.inputs)?;
        fit(number, "output", manifest.outputs(), &vector.outputs)?;
        for (i, bytes) in vector.inputs.iter().enumerate() {
            session.input(i).into_bytes().copy_from_slice(bytes);
        }
        if session.run_with(&mut executor).is_err() {
            let why = executor.last_error().unwrap_or("no reason given");
            return Err(CompileError::unsupported(format!("golden vector {number}: tract: {why}")));
        }
        for ((i, port), expected) in manifest.outputs().enumerate().zip(&vector.outputs) {
            if let Some(difference) = differences.get_mut(i) {
                difference.add(port.dtype, session.output(i).bytes(), expected);
            }
        }
    }
    for (port, difference) in manifest.outputs().zip(&differences) {
        if difference.largest > f64::from(tolerance) {
            let Difference { elements, differing, largest } = difference;
            return Err(CompileError::new(
                ErrorKind::Differs,
                format!("output '{}' differs in {differing} of {elements} elements, by {largest:.6} at most", port.name),
            )
            .hint("vectors of ONNX Runtime's int8 kernels match exactly (session.qdqisint8allowed=1); a tolerance allows a difference"));
        }
    }
    Ok(())
}
