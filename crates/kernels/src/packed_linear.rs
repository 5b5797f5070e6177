//! The fully connected layer for inference, its weight laid out once in the order in which the product reads it.
//!
//! `gemm` lays the weight out afresh at every call, which at a few rows takes as long as the product.
//!
//! Invariant: the same bits as [`crate::linear`]. Where its product goes through `gemm`'s tiles, each element is a chain of
//! fused multiply-adds in the order of the inner dimension, cut at the same places; this is that chain, sixteen columns at a
//! time. What `gemm` sums up in another order (single rows, tiny products) goes to [`crate::linear`], as does everything
//! where there is no AVX-512. There is no gradient.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::isa::Isa;
use crate::linear::linear;
use crate::precision::ProductPrecision;
use crate::product::inner_block;
use crate::storage::{Shared, is_fused, slice, tensor};
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

/// Columns of a panel.
const PANEL: usize = 16;

/// Rows of a tile.
const ROWS: usize = 8;

/// Tiles of a task in each direction: what it reads stays in the second-level cache.
const TASK_ROWS: usize = 8;
const TASK_PAIRS: usize = 2;

/// Multiplications from which waking other threads pays.
const PARALLEL: usize = 1 << 19;

/// The largest product that `gemm` may sum up in another order.
const TINY: usize = 16 * 16;

/// Sixteen elements in a cache line of their own.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; PANEL]);

/// x · Wᵀ + b for a weight that does not change any more.
pub struct PackedLinear {
    weight: Tensor,
    bias: Tensor,
    /// Panels of 16 outputs, filled up with zeros; in a panel, a line for each input. Empty where it would not be used.
    panels: Vec<Line>,
    bias_values: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl PackedLinear {
    /// A layer of `weight: [out, in]` and `bias: [out]`.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let (weight, bias) = (weight.detach().contiguous()?, bias.detach().contiguous()?);
        let fused = is_fused(&weight) && is_fused(&bias) && bias.dims() == [outputs];
        let (mut panels, mut bias_values) = (Vec::new(), Vec::new());
        if fused && Isa::detect() >= Isa::Avx512 && inputs > 2 {
            let (storage, layout) = weight.storage_and_layout();
            panels = pack(slice(&storage, layout)?, outputs, inputs);
            bias_values = bias.to_vec1()?;
            bias_values.resize(panels.len() / inputs * PANEL, 0.0);
        }
        Ok(Self {
            weight,
            bias,
            panels,
            bias_values,
            inputs,
            outputs,
        })
    }

    /// `x: [..., in]` to `[..., out]`.
    ///
    /// # Errors
    /// If the last dimension is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let fits = shape.pop() == Some(self.inputs);
        let rows: usize = shape.iter().product();
        let in_tiles = rows > 1 && self.outputs > 1 && rows * self.outputs > TINY;
        if !fits || !in_tiles || self.panels.is_empty() || !is_fused(x) || Isa::current() < Isa::Avx512 {
            return linear(x, &self.weight, Some(&self.bias), ProductPrecision::F32);
        }
        debug_assert_eq!(x.dim(D::Minus1)?, self.inputs);
        shape.push(self.outputs);
        let x = x.detach().contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let mut out = vec![0.0; rows * self.outputs];
        self.multiply(slice(&storage, layout)?, rows, &mut out);
        tensor(out, shape)
    }

    fn multiply(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        let parallel = rows * self.outputs * self.inputs >= PARALLEL;
        let tiles = pack_rows(x, self.inputs, parallel);
        let pairs = self.panels.len().div_ceil(2 * self.inputs);
        let column_tasks = pairs.div_ceil(TASK_PAIRS);
        let row_blocks = rows.div_ceil(ROWS);
        let shared = Shared::new(out);
        let task = |index: usize| {
            let first = index / column_tasks * TASK_ROWS;
            let pair = index % column_tasks * TASK_PAIRS;
            for pair in pair..(pair + TASK_PAIRS).min(pairs) {
                for block in first..(first + TASK_ROWS).min(row_blocks) {
                    let height = ROWS.min(rows - block * ROWS);
                    let a = &tiles[block * ROWS * self.inputs..][..height * self.inputs];
                    self.tile(a, height, block * ROWS, pair, &shared);
                }
            }
        };
        let tasks = row_blocks.div_ceil(TASK_ROWS) * column_tasks;
        if parallel {
            (0..tasks).into_par_iter().for_each(task);
        } else {
            (0..tasks).for_each(task);
        }
    }

    fn tile(&self, a: &[f32], height: usize, row: usize, pair: usize, out: &Shared<'_, f32>) {
        match height {
            1 => self.rows::<1>(a, row, pair, out),
            2 => self.rows::<2>(a, row, pair, out),
            3 => self.rows::<3>(a, row, pair, out),
            4 => self.rows::<4>(a, row, pair, out),
            5 => self.rows::<5>(a, row, pair, out),
            6 => self.rows::<6>(a, row, pair, out),
            7 => self.rows::<7>(a, row, pair, out),
            _ => self.rows::<ROWS>(a, row, pair, out),
        }
    }

    /// `R` rows from `row` on, of the two panels of `pair`.
    fn rows<const R: usize>(&self, a: &[f32], row: usize, pair: usize, out: &Shared<'_, f32>) {
        let panel = |index: usize| &self.panels[index * self.inputs..][..self.inputs];
        let last = self.panels.len() / self.inputs - 1;
        let panels = [2 * pair, (2 * pair + 1).min(last)];
        let bias = panels.map(|index| {
            let mut line = Line([0.0; PANEL]);
            line.0.copy_from_slice(&self.bias_values[index * PANEL..][..PANEL]);
            line
        });
        let mut sums = [bias; R];
        let (panels, block) = (panels.map(panel), inner_block(self.inputs));
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `forward` comes here only where the processor has AVX-512.
        unsafe {
            avx512::tile(a, panels, block, &mut sums);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!(
            "{block} of {} lines in {}: there are panels on x86-64 alone",
            panels[0].len(),
            a.len()
        );
        let first = 2 * pair * PANEL;
        let width = (2 * PANEL).min(self.outputs - first);
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: each task has rows and columns of its own.
            let out = unsafe { out.range((row + r) * self.outputs + first, width) };
            for (out, line) in out.chunks_mut(PANEL).zip(sums) {
                out.copy_from_slice(&line.0[..out.len()]);
            }
        }
    }
}

fn pack(weight: &[f32], outputs: usize, inputs: usize) -> Vec<Line> {
    let mut panels = vec![Line([0.0; PANEL]); outputs.div_ceil(PANEL) * inputs];
    for (panel, rows) in panels.chunks_exact_mut(inputs).zip(weight.chunks(PANEL * inputs)) {
        for (lane, row) in rows.chunks_exact(inputs).enumerate() {
            for (line, value) in panel.iter_mut().zip(row) {
                line.0[lane] = *value;
            }
        }
    }
    panels
}

/// Blocks of [`ROWS`] rows, the last perhaps lower, each with the elements of one place of the inner dimension side by side.
fn pack_rows(x: &[f32], inputs: usize, parallel: bool) -> Vec<f32> {
    let mut packed = vec![0.0; x.len()];
    let block = |(packed, x): (&mut [f32], &[f32])| {
        let height = x.len() / inputs;
        for (r, row) in x.chunks_exact(inputs).enumerate() {
            for (place, value) in packed[r..].iter_mut().step_by(height).zip(row) {
                *place = *value;
            }
        }
    };
    let size = ROWS * inputs;
    if parallel {
        packed.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(block);
    } else {
        packed.chunks_mut(size).zip(x.chunks(size)).for_each(block);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;

    fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f32::to_bits).collect())
    }

    #[test]
    fn the_same_bits_as_linear() -> Result<()> {
        for rows in [1, 2, 3, 7, 8, 9, 16, 31, 64, 70] {
            for (inputs, outputs) in [
                (1, 40),
                (2, 300),
                (3, 200),
                (17, 5),
                (64, 33),
                (128, 128),
                (500, 257),
                (512, 96),
                (513, 64),
                (2048, 48),
                (1537, 16),
            ] {
                let (x, weight, bias) = (
                    sample(&[rows, inputs], 1),
                    sample(&[outputs, inputs], 2),
                    sample(&[outputs], 3),
                );
                let packed = PackedLinear::new(&weight, &bias)?.forward(&x)?;
                let plain = linear(&x, &weight, Some(&bias), ProductPrecision::F32)?;
                assert_eq!(packed.dims(), plain.dims());
                assert!(bits(&packed)? == bits(&plain)?, "{rows}×{inputs} to {outputs}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_same_bits_for_all_threads() -> Result<()> {
        let (x, weight, bias) = (sample(&[2, 65, 600], 1), sample(&[150, 600], 2), sample(&[150], 3));
        let layer = PackedLinear::new(&weight, &bias)?;
        let expected = bits(&linear(&x, &weight, Some(&bias), ProductPrecision::F32)?)?;
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool can be started");
            assert!(
                pool.install(|| bits(&layer.forward(&x)?))? == expected,
                "{threads} threads"
            );
        }
        Ok(())
    }

    #[test]
    fn empty_batches_and_wrong_widths() -> Result<()> {
        let layer = PackedLinear::new(&sample(&[40, 30], 1), &sample(&[40], 2))?;
        assert_eq!(layer.forward(&sample(&[0, 30], 1))?.dims(), [0, 40]);
        assert!(layer.forward(&sample(&[9, 31], 1)).is_err());
        Ok(())
    }
}
