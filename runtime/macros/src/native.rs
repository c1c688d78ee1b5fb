//! Scratch memory of the kernels that a target has without being asked, computed on the machine that builds the program.

use dunlin_kernels::{Backend, Windows};

/// The kernels of `dunlin_kernels::native`, as far as their memory goes. Those of ARM exist only on their targets.
#[derive(Clone, Copy)]
pub(crate) enum Native {
    Scalar,
    Dsp,
    Mve,
}

impl Native {
    /// In the order of `dunlin_kernels::of_native`.
    pub(crate) const ALL: [Self; 3] = [Self::Scalar, Self::Dsp, Self::Mve];
}

/// Rows that the kernels for the DSP extension widen at a time.
const ROWS: usize = 4;
/// Words that four elements of as many rows take.
const WORDS: usize = 8;

/// Bytes of scratch of the DSP extension's product of `m` rows of `k`.
fn dsp(m: usize, k: usize) -> usize {
    let words = k.div_ceil(4).saturating_mul(if m == 1 { WORDS / ROWS } else { WORDS });
    words.saturating_add(1).saturating_mul(size_of::<u32>())
}

impl Backend for Native {
    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Dsp => "dsp",
            Self::Mve => "mve",
        }
    }

    fn gemm_scratch_len(self, m: usize, _: usize, k: usize) -> usize {
        match self {
            Self::Dsp => dsp(m, k),
            Self::Scalar | Self::Mve => 0,
        }
    }

    fn conv_scratch_len(self, windows: &Windows, n: usize) -> usize {
        match self {
            Self::Dsp => windows.row_len().saturating_mul(ROWS).saturating_add(dsp(ROWS, windows.row_len())),
            Self::Scalar | Self::Mve => dunlin_kernels::Scalar.conv_scratch_len(windows, n),
        }
    }
}
