//! Convolutions with small kernels that step by one, without laying out patches: what residual networks and LeNet are made
//! of.
//!
//! An image is copied once into planes with zeros around them, in which every place of the kernel is a plain shift. Zeros
//! that pad a row's end are those that pad the next row's beginning; results behind the end of a row are thrown away.
//!
//! Each result is one chain of fused multiply-adds over channels and places of the kernel in their order, so that its bits
//! depend on no tile, thread or vector width. The weight's gradient is such a chain over the pixels and images of a group;
//! groups are added up in their order.

use crate::conv2d::{GROUPS, Gradients};
use crate::isa::{Isa, multiversion};
use crate::patches::Geometry;
use crate::storage::{build_chunks, filled};
use rayon::prelude::*;

/// Output channels whose sums are computed together.
const OUTPUTS: usize = 4;

/// Pixels whose sums are computed together: with those of all [`OUTPUTS`], half of AVX2's registers.
const TILE: usize = 16;

/// The same where registers are 32, of 16 elements each.
const WIDE_TILE: usize = 64;

/// Output channels whose weight gradients are computed together.
const LANES: usize = 16;

/// What an element of an image is multiplied by for a block of outputs.
type Weights = [f32; OUTPUTS];

/// Sizes of the convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirectConv2d {
    /// Channels in and out.
    inputs: usize,
    outputs: usize,
    /// Height and width in and out.
    input: [usize; 2],
    output: [usize; 2],
    /// Height and width of the kernel.
    kernel: usize,
    padding: usize,
}

impl DirectConv2d {
    /// The convolution of `geometry`, if it is one of these and not much of what is computed is thrown away.
    pub(crate) fn of(geometry: &Geometry, outputs: usize) -> Option<Self> {
        let direct = Self {
            inputs: geometry.channels,
            outputs,
            input: geometry.input,
            output: geometry.output,
            kernel: geometry.kernel,
            padding: geometry.padding,
        };
        let fits = matches!(geometry.kernel, 3 | 5) && geometry.stride == 1 && geometry.padding < geometry.kernel;
        let is_empty = direct.image() * direct.result() == 0;
        (fits && !is_empty && direct.computed() <= 2 * geometry.patches()).then_some(direct)
    }

    /// The convolution that takes a result's gradient to the input's: the kernel is turned around.
    fn reversed(self) -> Self {
        Self {
            inputs: self.outputs,
            outputs: self.inputs,
            input: self.output,
            output: self.input,
            padding: self.kernel - 1 - self.padding,
            ..self
        }
    }

    /// Places of the kernel.
    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Elements of an image.
    fn image(&self) -> usize {
        self.inputs * self.input[0] * self.input[1]
    }

    /// Elements of a plane of the result.
    fn plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements of the result for an image.
    fn result(&self) -> usize {
        self.outputs * self.plane()
    }

    /// From one row to the next of a padded plane.
    fn stride(&self) -> usize {
        self.input[1] + self.padding
    }

    /// Results that are computed for a plane, in whole tiles.
    fn computed(&self) -> usize {
        (self.output[0] * self.stride()).next_multiple_of(TILE)
    }

    /// Elements of a padded plane: as far as the last tile reaches.
    fn padded(&self) -> usize {
        self.computed() + (self.kernel - 1) * (self.stride() + 1)
    }

    /// Zeros for the planes of an image, padded.
    fn blank(&self) -> Vec<f32> {
        vec![0.0; self.inputs * self.padded()]
    }

    /// Copies an image's planes into `padded`, where all but their elements is zero and stays so.
    fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let [height, width] = self.input;
        let planes = padded.chunks_exact_mut(self.padded());
        for (target, plane) in planes.zip(image.chunks_exact(height * width)) {
            let rows = target[self.padding * (self.stride() + 1)..].chunks_mut(self.stride());
            for (target, row) in rows.zip(plane.chunks_exact(width)) {
                target[..width].copy_from_slice(row);
            }
        }
    }

    /// The weights `of(output, input, place)` by block of outputs, input and place, zeros where a block is not full.
    fn pack(&self, of: impl Fn(usize, usize, usize) -> f32) -> Vec<Weights> {
        let row = self.inputs * self.taps();
        let mut packed = vec![[0.0; OUTPUTS]; self.outputs.div_ceil(OUTPUTS) * row];
        for output in 0..self.outputs {
            let block = &mut packed[output / OUTPUTS * row..][..row];
            for (input, weights) in block.chunks_exact_mut(self.taps()).enumerate() {
                for (tap, weights) in weights.iter_mut().enumerate() {
                    weights[output % OUTPUTS] = of(output, input, tap);
                }
            }
        }
        packed
    }

    /// The result for one image, which is padded; `block` is for a block's sums.
    fn put(&self, padded: &[f32], weights: &[Weights], bias: Option<&[f32]>, block: &mut [f32], out: &mut [f32]) {
        let blocks = out.chunks_mut(OUTPUTS * self.plane());
        let blocks = blocks.zip(weights.chunks_exact(self.inputs * self.taps()));
        for (index, (out, weights)) in blocks.enumerate() {
            correlate(padded, self.padded(), self.stride(), self.kernel, weights, block);
            let planes = out.chunks_exact_mut(self.plane());
            for (o, (out, sums)) in planes.zip(block.chunks_exact(self.computed())).enumerate() {
                let bias = bias.map_or(0.0, |bias| bias[index * OUTPUTS + o]);
                for (out, sums) in out.chunks_exact_mut(self.output[1]).zip(sums.chunks(self.stride())) {
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum + bias;
                    }
                }
            }
        }
    }

    /// All images, with `weights` as [`DirectConv2d::pack`] gives them.
    fn images(&self, x: &[f32], weights: &[Weights], bias: Option<&[f32]>) -> Vec<f32> {
        let (image, result) = (self.image(), self.result());
        build_chunks(x.len() / image * result, result, |offset, piece| {
            let out = filled(piece, 0.0);
            let (mut padded, mut block) = (self.blank(), vec![0.0; OUTPUTS * self.computed()]);
            self.pad(&x[offset / result * image..][..image], &mut padded);
            self.put(&padded, weights, bias, &mut block, out);
            out
        })
    }

    /// The convolution of every image of `x` with `w: [outputs, inputs, kernel, kernel]`.
    pub(crate) fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let taps = self.taps();
        let weights = self.pack(|output, input, tap| w[(output * self.inputs + input) * taps + tap]);
        self.images(x, &weights, bias)
    }

    /// All gradients; that of `x` only if it is asked for.
    pub(crate) fn backward(&self, g: &[f32], x: &[f32], w: &[f32], needs_input: bool) -> Gradients {
        let taps = self.taps();
        let input = needs_input.then(|| {
            let reversed = self.reversed();
            let weights = reversed.pack(|input, output, tap| w[(output * self.inputs + input) * taps + taps - 1 - tap]);
            reversed.images(g, &weights, None)
        });
        let group = (x.len() / self.image()).div_ceil(GROUPS).max(1);
        let groups: Vec<(Vec<[f32; LANES]>, Vec<f32>)> = g
            .par_chunks(group * self.result())
            .zip(x.par_chunks(group * self.image()))
            .map(|(g, x)| self.group_sums(g, x))
            .collect();
        let rows = self.inputs * taps;
        let mut totals = vec![[0.0; LANES]; self.outputs.div_ceil(LANES) * rows];
        let mut bias = vec![0.0; self.outputs];
        for (sums, bias_sums) in groups {
            let (totals, sums) = (totals.as_flattened_mut(), sums.as_flattened());
            totals.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
            bias.iter_mut().zip(bias_sums).for_each(|(t, s)| *t += s);
        }
        let mut weight = vec![0.0; w.len()];
        for (output, weight) in weight.chunks_exact_mut(rows).enumerate() {
            let totals = &totals[output / LANES * rows..][..rows];
            weight.iter_mut().zip(totals).for_each(|(w, t)| *w = t[output % LANES]);
        }
        Gradients { input, weight, bias }
    }

    /// What the images of a group add to the gradients of the weight, by block of outputs, input and place, and of the bias.
    fn group_sums(&self, g: &[f32], x: &[f32]) -> (Vec<[f32; LANES]>, Vec<f32>) {
        let (taps, width) = (self.taps(), self.output[1]);
        let blocks = self.outputs.div_ceil(LANES);
        let mut sums = vec![[0.0; LANES]; blocks * self.inputs * taps];
        let mut bias = vec![0.0; self.outputs];
        let (mut padded, mut pixels) = (self.blank(), vec![[0.0; LANES]; self.plane()]);
        for (g, x) in g.chunks_exact(self.result()).zip(x.chunks_exact(self.image())) {
            for (sum, plane) in bias.iter_mut().zip(g.chunks_exact(self.plane())) {
                *sum += crate::reduction::sum(plane);
            }
            self.pad(x, &mut padded);
            let blocks = g.chunks(LANES * self.plane());
            for (g, sums) in blocks.zip(sums.chunks_exact_mut(self.inputs * taps)) {
                self.by_pixel(g, &mut pixels);
                for (x, sums) in padded.chunks_exact(self.padded()).zip(sums.chunks_exact_mut(taps)) {
                    add_products(x, self.stride(), self.kernel, width, &pixels, sums);
                }
            }
        }
        (sums, bias)
    }

    /// The planes of a block of outputs, pixel by pixel.
    fn by_pixel(&self, planes: &[f32], pixels: &mut [[f32; LANES]]) {
        for (at, pixels) in pixels.chunks_mut(LANES).enumerate() {
            for (lane, plane) in planes.chunks_exact(self.plane()).enumerate() {
                let elements = &plane[at * LANES..][..pixels.len()];
                pixels.iter_mut().zip(elements).for_each(|(pixel, &g)| pixel[lane] = g);
            }
        }
    }
}

/// The sums of a block's outputs at the `T` places from `first` on, as in [`correlate`].
#[inline(always)]
fn tile<const K: usize, const T: usize>(
    padded: &[f32],
    plane: usize,
    stride: usize,
    weights: &[Weights],
    first: usize,
) -> [[f32; T]; OUTPUTS] {
    let mut sums = [[0.0; T]; OUTPUTS];
    for (x, weights) in padded.chunks_exact(plane).zip(weights.chunks_exact(K * K)) {
        for (row, weights) in weights.chunks_exact(K).enumerate() {
            let x = &x[first + row * stride..][..T + K - 1];
            for (column, weights) in weights.iter().enumerate() {
                let x = &x[column..][..T];
                for (sums, w) in sums.iter_mut().zip(weights) {
                    for i in 0..T {
                        sums[i] = x[i].mul_add(*w, sums[i]);
                    }
                }
            }
        }
    }
    sums
}

/// The sums of whole tiles of `T` places from `first` on, as in [`correlate`]; where the rest begins.
#[inline(always)]
fn tiles<const K: usize, const T: usize>(
    padded: &[f32],
    plane: usize,
    stride: usize,
    weights: &[Weights],
    out: &mut [f32],
    mut first: usize,
) -> usize {
    let places = out.len() / OUTPUTS;
    while first + T <= places {
        let sums = tile::<K, T>(padded, plane, stride, weights, first);
        for (out, sums) in out.chunks_exact_mut(places).zip(&sums) {
            out[first..first + T].copy_from_slice(sums);
        }
        first += T;
    }
    first
}

/// As [`correlate`], for a kernel of `K`.
#[inline(always)]
fn correlate_all<const K: usize>(padded: &[f32], plane: usize, stride: usize, weights: &[Weights], out: &mut [f32]) {
    let mut done = 0;
    if Isa::current() >= Isa::Avx512 {
        done = tiles::<K, WIDE_TILE>(padded, plane, stride, weights, out, done);
    }
    tiles::<K, TILE>(padded, plane, stride, weights, out, done);
}

/// As [`add_products`], for a kernel of `K` rows, of which `R` from `first` on are looked at.
#[inline(always)]
fn add_rows<const K: usize, const R: usize>(
    x: &[f32],
    stride: usize,
    width: usize,
    first: usize,
    g: &[[f32; LANES]],
    sums: &mut [[f32; LANES]],
) {
    let sums = &mut sums.as_chunks_mut::<K>().0[first..];
    let sums: &mut [[[f32; LANES]; K]; R] = sums.first_chunk_mut().expect("the kernel has the rows");
    let mut local = *sums;
    for (y, g) in g.chunks_exact(width).enumerate() {
        let rows: [&[f32]; R] = std::array::from_fn(|row| &x[(y + first + row) * stride..][..width + K - 1]);
        for (i, g) in g.iter().enumerate() {
            for (local, row) in local.iter_mut().zip(rows) {
                let x: &[f32; K] = row[i..].first_chunk().expect("a row is as long");
                for (sums, x) in local.iter_mut().zip(x) {
                    for lane in 0..LANES {
                        sums[lane] = x.mul_add(g[lane], sums[lane]);
                    }
                }
            }
        }
    }
    *sums = local;
}

/// As [`add_products`], for a kernel of `K`: all rows at once where registers are enough.
#[inline(always)]
fn add_all<const K: usize>(x: &[f32], stride: usize, width: usize, g: &[[f32; LANES]], sums: &mut [[f32; LANES]]) {
    if Isa::current() >= Isa::Avx512 {
        add_rows::<K, K>(x, stride, width, 0, g, sums);
    } else {
        for row in 0..K {
            add_rows::<K, 1>(x, stride, width, row, g, sums);
        }
    }
}

multiversion! {
    /// For each of a block's outputs, the sums at all places of a plane: `out: [OUTPUTS, places]`. `padded` has planes of
    /// `plane` elements in rows `stride` apart, one for each input of `weights`.
    fn correlate(
        padded: &[f32],
        plane: usize,
        stride: usize,
        kernel: usize,
        weights: &[Weights],
        out: &mut [f32],
    ) {
        match kernel {
            3 => correlate_all::<3>(padded, plane, stride, weights, out),
            5 => correlate_all::<5>(padded, plane, stride, weights, out),
            _ => unreachable!("a kernel of 3 or 5"),
        }
    }

    /// sums[place] += Σ x[pixel + place] · g[pixel], over the pixels of a plane in rows of `width`; `x` is padded, its rows
    /// `stride` apart.
    fn add_products(
        x: &[f32],
        stride: usize,
        kernel: usize,
        width: usize,
        g: &[[f32; LANES]],
        sums: &mut [[f32; LANES]],
    ) {
        match kernel {
            3 => add_all::<3>(x, stride, width, g, sums),
            5 => add_all::<5>(x, stride, width, g, sums),
            _ => unreachable!("a kernel of 3 or 5"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_mostly_be_thrown_away_is_left_to_products() -> candle_core::Result<()> {
        for (channels, input, kernel, stride, padding, is_direct) in [
            (3, [7, 9], 3, 1, 1, true),
            (20, [12, 12], 5, 1, 0, true),
            (1, [1, 30], 3, 1, 1, true),
            (1, [40, 1], 3, 1, 2, true),
            // Of 9 rows' 5 elements 1 is wanted; of a tile 9.
            (1, [9, 5], 5, 1, 0, false),
            (1, [3, 3], 3, 1, 0, false),
            (3, [8, 8], 3, 2, 1, false),
            (3, [8, 8], 3, 1, 3, false),
            (3, [8, 8], 4, 1, 1, false),
        ] {
            let geometry = Geometry::new(channels, input, kernel, stride, padding)?;
            assert_eq!(DirectConv2d::of(&geometry, 4).is_some(), is_direct, "{geometry:?}");
        }
        Ok(())
    }
}
