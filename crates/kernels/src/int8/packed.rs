//! Weights in the order in which the kernels read them.

use crate::aligned::Aligned;
use candle_core::{Result, bail};
use std::mem::MaybeUninit;

/// Columns of a panel: i32 lanes of an AVX-512 register.
pub(super) const PANEL: usize = 16;

/// Consecutive elements of the inner dimension that a lane takes at a time.
pub(super) const GROUP: usize = 4;

/// An `[n, k]` matrix of i8 weights, packed: panels of 16 rows; in a panel, groups of 4 along k; in a group, the 4 bytes of
/// each row in turn. What is missing at the ends is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedInt8 {
    bytes: Aligned<i8>,
    n: usize,
    k: usize,
}

impl PackedInt8 {
    /// Largest inner dimension: 2³¹ / (255 · 128), so that no sum overflows.
    pub const LONGEST: usize = 65_793;

    /// Packs row-major `weights` of `n` rows (output channels) of `k`.
    ///
    /// # Errors
    /// If `k` is above [`PackedInt8::LONGEST`].
    ///
    /// # Panics
    /// If there are not n · k weights.
    pub fn pack(weights: &[i8], n: usize, k: usize) -> Result<Self> {
        assert_eq!(weights.len(), n * k, "an {n}×{k} matrix");
        if k > Self::LONGEST {
            bail!(
                "a sum of {k} products of 8-bit integers could overflow: layers have up to {} inputs",
                Self::LONGEST
            )
        }
        let groups = k.div_ceil(GROUP);
        let pack = |bytes: &mut [MaybeUninit<i8>]| {
            bytes.fill(MaybeUninit::new(0));
            for (row, values) in weights.chunks_exact(k.max(1)).enumerate() {
                let panel = &mut bytes[row / PANEL * groups * PANEL * GROUP..];
                for (i, &value) in values.iter().enumerate() {
                    panel[(i / GROUP * PANEL + row % PANEL) * GROUP + i % GROUP].write(value);
                }
            }
        };
        // SAFETY: all are written first.
        let bytes = unsafe { Aligned::build(n.div_ceil(PANEL) * groups * PANEL * GROUP, pack) };
        Ok(Self { bytes, n, k })
    }

    /// Rows of the unpacked matrix: output channels.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of the unpacked matrix: the inner dimension.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Groups along k.
    pub(super) fn groups(&self) -> usize {
        self.k.div_ceil(GROUP)
    }

    /// Bytes from one row of activations to the next: k rounded up to whole groups.
    pub(super) fn row_stride(&self) -> usize {
        self.groups() * GROUP
    }

    /// Panels, the last one filled up.
    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// `count` panels from `first` on.
    pub(super) fn panel(&self, first: usize, count: usize) -> &[i8] {
        let size = self.groups() * PANEL * GROUP;
        &self.bytes[first * size..(first + count) * size]
    }

    /// The sum of each row of the unpacked matrix.
    pub(super) fn row_sums(&self) -> Vec<i32> {
        let size = (self.groups() * PANEL * GROUP).max(1);
        let mut sums = vec![0i32; self.panels() * PANEL];
        for (panel, sums) in self.bytes.chunks_exact(size).zip(sums.chunks_exact_mut(PANEL)) {
            for group in panel.chunks_exact(PANEL * GROUP) {
                for (sum, bytes) in sums.iter_mut().zip(group.chunks_exact(GROUP)) {
                    *sum += bytes.iter().map(|&b| i32::from(b)).sum::<i32>();
                }
            }
        }
        sums.truncate(self.n);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_rows_of_odd_sizes() -> Result<()> {
        for (n, k) in [(1, 1), (3, 7), (17, 5), (33, 64), (2, 0)] {
            let weights: Vec<i8> = (0..n * k).map(|i| (i * 31 % 255) as u8 as i8).collect();
            let expected: Vec<i32> = (0..n)
                .map(|row| weights[row * k..(row + 1) * k].iter().map(|&w| i32::from(w)).sum())
                .collect();
            assert_eq!(PackedInt8::pack(&weights, n, k)?.row_sums(), expected);
        }
        Ok(())
    }

    #[test]
    fn an_inner_dimension_that_could_overflow_is_refused() {
        let weights = vec![-128; PackedInt8::LONGEST + 1];
        assert!(PackedInt8::pack(&weights[1..], 1, PackedInt8::LONGEST).is_ok());
        let refused = PackedInt8::pack(&weights, 1, PackedInt8::LONGEST + 1);
        assert!(refused.is_err_and(|e| e.to_string().contains("could overflow")));
    }
}
