//! Memory that kernels need besides their operands, computed on any machine.

use crate::{Backend, Windows};

/// Kernels of a target, as far as their memory goes: the results are those of the scalar reference.
///
/// A compiler runs on one machine and writes packages for others, and what it writes must not depend on the machine it runs
/// on. Backends exist only on their own target; these are their formulas on every one. Tests compare them with every backend
/// that the machine has, and with what firmware reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// The portable reference: Cortex-M0 to M3 and M33, RISC-V, Xtensa, WebAssembly.
    Scalar,
    /// AVX2 on x86-64.
    Avx2,
    /// AVX-512 with VNNI on x86-64.
    Avx512Vnni,
    /// NEON on 64-bit ARM.
    Neon,
    /// NEON with its dot product.
    NeonDot,
    /// The DSP extension of Cortex-M4 and M7.
    Dsp,
    /// Helium on Cortex-M55 and M85.
    Mve,
}

/// Rows that [`Kernels::Dsp`] widens at a time.
const DSP_ROWS: usize = 4;
/// Words that four of `k` take in as many rows with [`Kernels::Dsp`].
const DSP_WORDS: usize = 8;

impl Kernels {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Scalar, Self::Avx2, Self::Avx512Vnni, Self::Neon, Self::NeonDot, Self::Dsp, Self::Mve];

    /// Returns the kernels that can run on a target of the compiler; every one of them for `any`, `host` and unknown names.
    #[must_use]
    pub fn of(target: &str) -> &'static [Self] {
        match target {
            "cortex-m4" | "cortex-m7" => &[Self::Dsp],
            // Helium is a build option of the firmware.
            "cortex-m55" => &[Self::Scalar, Self::Mve],
            "cortex-m0" | "cortex-m3" | "cortex-m33" | "riscv32" | "wasm32" | "xtensa" => &[Self::Scalar],
            "aarch64" => &[Self::Scalar, Self::Neon, Self::NeonDot],
            _ => &Self::ALL,
        }
    }

    /// Bytes of activations that are laid out anew at a time: rows per tile, bytes of a row, bytes to aim for.
    fn tiles(m: usize, rows: usize, row: usize, block: usize) -> usize {
        let tiles = (block / row.max(1).saturating_mul(rows)).max(1);
        m.min(tiles * rows).saturating_mul(row)
    }
}

/// Bytes of scratch of a DSP product of `m` rows of `k`.
fn dsp_scratch(m: usize, k: usize) -> usize {
    let words = k.div_ceil(4).saturating_mul(if m == 1 { DSP_WORDS / DSP_ROWS } else { DSP_WORDS });
    words.saturating_add(1).saturating_mul(4)
}

impl Backend for Kernels {
    fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::Dsp => "dsp",
            Self::Mve => "mve",
        }
    }

    fn gemm_scratch_len(self, m: usize, _n: usize, k: usize) -> usize {
        match self {
            Self::Scalar | Self::Mve => 0,
            Self::Avx2 => Self::tiles(m, 6, k.div_ceil(2).saturating_mul(4), 64 * 1024),
            Self::Avx512Vnni => Self::tiles(m, 12, k.div_ceil(4).saturating_mul(4), 128 * 1024),
            Self::Neon => Self::tiles(m, 4, k.div_ceil(8).saturating_mul(16), 64 * 1024),
            Self::NeonDot => Self::tiles(m, 4, k.div_ceil(16).saturating_mul(16), 64 * 1024),
            Self::Dsp => dsp_scratch(m, k),
        }
    }

    fn conv_scratch_len(self, windows: &Windows, n: usize) -> usize {
        let k = windows.row_len();
        if self == Self::Dsp {
            return k.saturating_mul(DSP_ROWS).saturating_add(dsp_scratch(DSP_ROWS, k));
        }
        let rows = windows.block_rows(1);
        let gathered = rows.saturating_mul(k).div_ceil(64).saturating_mul(64);
        gathered.saturating_add(self.gemm_scratch_len(rows, n, k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;

    #[test]
    fn formulas_are_those_of_the_backends_of_this_machine() {
        for backend in available() {
            let kernels = Kernels::ALL.into_iter().find(|k| k.name() == backend.name());
            let kernels = kernels.unwrap_or_else(|| panic!("no formula for {}", backend.name()));
            for (m, k) in [(1, 1), (1, 9), (4, 27), (5, 64), (49, 576), (784, 16), (3136, 1152), (7, 4096)] {
                for n in [1, 16, 100] {
                    let (own, theirs) = (kernels.gemm_scratch_len(m, n, k), backend.gemm_scratch_len(m, n, k));
                    assert_eq!(own, theirs, "gemm of {m}x{n}x{k} with {}", backend.name());
                }
            }
            for (size, channels, kernel) in [(8, 1, 3), (28, 16, 3), (96, 3, 7), (112, 64, 1)] {
                let windows = Windows {
                    batch: 1,
                    in_h: size,
                    in_w: size,
                    channels,
                    first: 0,
                    taken: channels,
                    out_h: size,
                    out_w: size,
                    kernel: [kernel, kernel],
                    stride: [1, 1],
                    dilation: [1, 1],
                    pad: [kernel / 2, kernel / 2],
                };
                let (own, theirs) = (kernels.conv_scratch_len(&windows, 32), backend.conv_scratch_len(&windows, 32));
                assert_eq!(own, theirs, "convolution of {size}x{size}x{channels} with {}", backend.name());
            }
        }
    }

    #[test]
    fn boards_are_given_the_kernels_that_their_firmware_links() {
        assert_eq!(Kernels::of("cortex-m4"), [Kernels::Dsp]);
        assert_eq!(Kernels::of("cortex-m33"), [Kernels::Scalar]);
        assert_eq!(Kernels::of("any"), Kernels::ALL);
        assert_eq!(dsp_scratch(1, 9), 28);
        assert_eq!(dsp_scratch(4, 9), 100);
    }
}
