//! Golden vectors of a package that is to be trusted.

use dunlin_engine::Session;
use dunlin_kernels::Backend;
use dunlin_package::{Case, DType, Golden};

/// Whether there are golden vectors and each gives its outputs: bit for bit, or in floats within `tolerance` if that is
/// not 0.
pub fn holds<B: Backend>(golden: Golden<'_>, session: &mut Session<'_, '_, B>, tolerance: f32) -> bool {
    let holds = |case: Case<'_>| {
        for tensor in case.inputs() {
            let input = session.input(usize::from(tensor.port)).into_bytes();
            if input.len() != tensor.data.len() {
                return false;
            }
            input.iter_mut().zip(tensor.data).for_each(|(to, from)| *to = *from);
        }
        session.run();
        case.outputs().all(|tensor| {
            let output = session.output(usize::from(tensor.port)).bytes();
            output == tensor.data || (tensor.dtype == DType::F32 && close(output, tensor.data, tolerance))
        })
    };
    !golden.is_empty() && golden.cases().all(holds)
}

/// Whether floats of equal number differ by `tolerance` at most.
fn close(a: &[u8], b: &[u8], tolerance: f32) -> bool {
    fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
        bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| f32::from_le_bytes(*b))
    }
    tolerance > 0.0 && a.len() == b.len() && floats(a).zip(floats(b)).all(|(a, b)| (a - b).abs() <= tolerance)
}
