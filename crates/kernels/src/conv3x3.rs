//! Convolutions with 3×3 kernels that keep the image's size, without laying out patches: what residual networks are made
//! of.
//!
//! An image is copied once into planes with zeros around them, in which every place of the kernel is a plain shift. A row is
//! followed by one zero, which pads its end and the next row's beginning; results behind the end of a row are thrown away.
//!
//! Each result is summed over channels and places of the kernel in one order, and no multiplication is fused with an
//! addition, so that its bits depend on no tile, thread or vector width. The weight's gradient is summed over the pixels and
//! images of a group, then over the groups in their order.

use crate::conv2d::{GROUPS, Gradients};
use crate::isa::multiversion;
use crate::patches::Geometry;
use crate::storage::{build_chunks, filled};
use rayon::prelude::*;

/// Places of the kernel.
const TAPS: usize = 9;

/// Pixels whose sums are computed together.
const TILE: usize = 64;

/// The same at the end of a plane.
const LAST_TILE: usize = 16;

/// Output channels whose sums are computed together.
const OUTPUTS: usize = 2;

/// Output channels whose weight gradients are computed together.
const LANES: usize = 16;

/// Sizes of the convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv3x3 {
    inputs: usize,
    outputs: usize,
    height: usize,
    width: usize,
}

impl Conv3x3 {
    /// The convolution of `geometry`, if it is one of these.
    pub(crate) fn of(geometry: &Geometry, outputs: usize) -> Option<Self> {
        let fits = geometry.kernel == 3 && geometry.stride == 1 && geometry.padding == 1;
        let [height, width] = geometry.input;
        (fits && height * width * geometry.channels * outputs > 0).then_some(Self {
            inputs: geometry.channels,
            outputs,
            height,
            width,
        })
    }

    /// The convolution that takes a result's gradient to the input's: the kernel is turned around.
    fn reversed(self) -> Self {
        Self {
            inputs: self.outputs,
            outputs: self.inputs,
            ..self
        }
    }

    /// Pixels of a plane.
    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// From one row to the next of a padded plane.
    fn stride(&self) -> usize {
        self.width + 1
    }

    /// Results that are computed for a plane, in whole tiles.
    fn computed(&self) -> usize {
        (self.height * self.stride()).next_multiple_of(LAST_TILE)
    }

    /// Elements of a padded plane: as far as the last tile reaches.
    fn padded(&self) -> usize {
        self.computed() + 2 * self.stride() + 2
    }

    /// The planes of an image, padded.
    fn pad(&self, image: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; image.len() / self.plane() * self.padded()];
        for (target, plane) in padded
            .chunks_exact_mut(self.padded())
            .zip(image.chunks_exact(self.plane()))
        {
            let rows = target[self.stride() + 1..].chunks_mut(self.stride());
            for (target, row) in rows.zip(plane.chunks_exact(self.width)) {
                target[..self.width].copy_from_slice(row);
            }
        }
        padded
    }

    /// Weights in rows by output, input and place: `of(output, input, place)`, with rows of zeros up to a whole block.
    fn pack(&self, of: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
        let row = self.inputs * TAPS;
        let mut packed = vec![0.0; self.outputs.next_multiple_of(OUTPUTS) * row];
        for (index, weight) in packed[..self.outputs * row].iter_mut().enumerate() {
            *weight = of(index / row, index % row / TAPS, index % TAPS);
        }
        packed
    }

    /// One image, `out: [outputs, height, width]`.
    fn image(&self, image: &[f32], weights: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let padded = self.pad(image);
        let mut block = vec![0.0; OUTPUTS * self.computed()];
        let blocks = out.chunks_mut(OUTPUTS * self.plane());
        for (index, (out, weights)) in blocks
            .zip(weights.chunks_exact(OUTPUTS * self.inputs * TAPS))
            .enumerate()
        {
            correlate(&padded, self.padded(), self.stride(), weights, &mut block);
            let planes = out
                .chunks_exact_mut(self.plane())
                .zip(block.chunks_exact(self.computed()));
            for (o, (out, sums)) in planes.enumerate() {
                let bias = bias.map_or(0.0, |bias| bias[index * OUTPUTS + o]);
                for (out, sums) in out.chunks_exact_mut(self.width).zip(sums.chunks(self.stride())) {
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum + bias;
                    }
                }
            }
        }
    }

    /// All images, with `weights` as [`Conv3x3::pack`] gives them.
    fn images(&self, x: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (size, image) = (self.outputs * self.plane(), self.inputs * self.plane());
        build_chunks(x.len() / image * size, size, |offset, piece| {
            let out = filled(piece, 0.0);
            self.image(&x[offset / size * image..][..image], weights, bias, out);
            out
        })
    }

    /// The convolution of every image of `x` with `w: [outputs, inputs, 3, 3]`.
    pub(crate) fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let weights = self.pack(|output, input, tap| w[(output * self.inputs + input) * TAPS + tap]);
        self.images(x, &weights, bias)
    }

    /// All gradients; that of `x` only if it is asked for.
    pub(crate) fn backward(&self, g: &[f32], x: &[f32], w: &[f32], needs_input: bool) -> Gradients {
        let input = needs_input.then(|| {
            let reversed = self.reversed();
            let weights = reversed.pack(|input, output, tap| w[(output * self.inputs + input) * TAPS + TAPS - 1 - tap]);
            reversed.images(g, &weights, None)
        });
        let (size, image) = (self.outputs * self.plane(), self.inputs * self.plane());
        let group = (x.len() / image).div_ceil(GROUPS).max(1);
        let groups: Vec<(Vec<[f32; LANES]>, Vec<f32>)> = g
            .par_chunks(group * size)
            .zip(x.par_chunks(group * image))
            .map(|(g, x)| self.group_sums(g, x))
            .collect();
        let (mut weight, mut bias) = (vec![0.0; w.len()], vec![0.0; self.outputs]);
        for (sums, bias_sums) in groups {
            for (index, target) in weight.iter_mut().enumerate() {
                let (output, place) = (index / (self.inputs * TAPS), index % (self.inputs * TAPS));
                *target += sums[output / LANES * self.inputs * TAPS + place][output % LANES];
            }
            bias.iter_mut().zip(bias_sums).for_each(|(t, s)| *t += s);
        }
        Gradients { input, weight, bias }
    }

    /// What the images of a group add to the gradients of the weight, by block of outputs, input and place, and of the bias.
    fn group_sums(&self, g: &[f32], x: &[f32]) -> (Vec<[f32; LANES]>, Vec<f32>) {
        let blocks = self.outputs.div_ceil(LANES);
        let mut sums = vec![[0.0; LANES]; blocks * self.inputs * TAPS];
        let mut bias = vec![0.0; self.outputs];
        let mut pixels = vec![[0.0; LANES]; self.plane()];
        let images = g.chunks_exact(self.outputs * self.plane());
        for (g, x) in images.zip(x.chunks_exact(self.inputs * self.plane())) {
            for (sum, plane) in bias.iter_mut().zip(g.chunks_exact(self.plane())) {
                *sum += crate::reduction::sum(plane);
            }
            let x = self.pad(x);
            let blocks = g.chunks(LANES * self.plane());
            for (g, sums) in blocks.zip(sums.chunks_exact_mut(self.inputs * TAPS)) {
                for (lane, plane) in g.chunks_exact(self.plane()).enumerate() {
                    pixels.iter_mut().zip(plane).for_each(|(pixel, &g)| pixel[lane] = g);
                }
                for (x, sums) in x.chunks_exact(self.padded()).zip(sums.as_chunks_mut::<TAPS>().0) {
                    add_products(x, self.stride(), self.width, &pixels, sums);
                }
            }
        }
        (sums, bias)
    }
}

/// The sums of a block's outputs at the `T` places from `first` on, as in [`correlate`].
#[inline(always)]
fn tile<const T: usize>(
    padded: &[f32],
    plane: usize,
    stride: usize,
    weights: &[f32],
    first: usize,
) -> [[f32; T]; OUTPUTS] {
    let (upper, lower) = weights.split_at(weights.len() / OUTPUTS);
    let mut sums = [[0.0; T]; OUTPUTS];
    for (channel, x) in padded.chunks_exact(plane).enumerate() {
        for tap in 0..TAPS {
            let x = &x[first + tap / 3 * stride + tap % 3..][..T];
            let weights = [upper[channel * TAPS + tap], lower[channel * TAPS + tap]];
            for (sums, w) in sums.iter_mut().zip(weights) {
                for i in 0..T {
                    sums[i] += w * x[i];
                }
            }
        }
    }
    sums
}

multiversion! {
    /// For each of a block's outputs, the sums at all places of a plane: `out: [OUTPUTS, places]`. `padded` has planes of
    /// `plane` elements in rows `stride` apart, `weights` a row for each output.
    fn correlate(padded: &[f32], plane: usize, stride: usize, weights: &[f32], out: &mut [f32]) {
        let places = out.len() / OUTPUTS;
        let mut first = 0;
        while first + TILE <= places {
            let sums = tile::<TILE>(padded, plane, stride, weights, first);
            for (out, sums) in out.chunks_exact_mut(places).zip(&sums) {
                out[first..first + TILE].copy_from_slice(sums);
            }
            first += TILE;
        }
        while first < places {
            let sums = tile::<LAST_TILE>(padded, plane, stride, weights, first);
            for (out, sums) in out.chunks_exact_mut(places).zip(&sums) {
                out[first..first + LAST_TILE].copy_from_slice(sums);
            }
            first += LAST_TILE;
        }
    }

    /// sums[place] += Σ x[pixel + place] · g[pixel], over the pixels of a plane in rows of `width`; `x` is padded, its rows
    /// `stride` apart.
    fn add_products(x: &[f32], stride: usize, width: usize, g: &[[f32; LANES]], sums: &mut [[f32; LANES]; TAPS]) {
        let mut local = *sums;
        for (y, g) in g.chunks_exact(width).enumerate() {
            let [top, middle, bottom] = [0, 1, 2].map(|row| &x[(y + row) * stride..][..width + 2]);
            for (i, g) in g.iter().enumerate() {
                let around = [
                    top[i], top[i + 1], top[i + 2],
                    middle[i], middle[i + 1], middle[i + 2],
                    bottom[i], bottom[i + 1], bottom[i + 2],
                ];
                for (sums, x) in local.iter_mut().zip(around) {
                    for lane in 0..LANES {
                        sums[lane] += x * g[lane];
                    }
                }
            }
        }
        *sums = local;
    }
}
