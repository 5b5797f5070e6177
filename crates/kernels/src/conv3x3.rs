//! Convolutions with 3×3 kernels that keep the image's size, without laying out patches: what residual networks are made
//! of.
//!
//! An image is copied once into planes with zeros around them, in which every place of the kernel is a plain shift. A row is
//! followed by one zero, which pads its end and the next row's beginning; results behind the end of a row are thrown away.
//!
//! Each result is one chain of fused multiply-adds over channels and places of the kernel in their order, so that its bits
//! depend on no tile, thread or vector width. The weight's gradient is such a chain over the pixels and images of a group;
//! groups are added up in their order.

use crate::conv2d::{GROUPS, Gradients};
use crate::isa::{Isa, multiversion};
use crate::patches::Geometry;
use crate::storage::{build_chunks, filled};
use rayon::prelude::*;

/// Places of the kernel.
const TAPS: usize = 9;

/// Output channels whose sums are computed together.
const OUTPUTS: usize = 4;

/// Pixels whose sums are computed together: with those of all [`OUTPUTS`], half of AVX2's registers.
const TILE: usize = 16;

/// The same where registers are 32, of 16 elements each.
const WIDE_TILE: usize = 64;

/// Output channels whose weight gradients are computed together.
const LANES: usize = 16;

/// What one input adds to a block of outputs, by place of the kernel.
type Taps = [[f32; OUTPUTS]; TAPS];

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
        (self.height * self.stride()).next_multiple_of(TILE)
    }

    /// Elements of a padded plane: as far as the last tile reaches.
    fn padded(&self) -> usize {
        self.computed() + 2 * self.stride() + 2
    }

    /// Zeros for the planes of an image, padded.
    fn blank(&self) -> Vec<f32> {
        vec![0.0; self.inputs * self.padded()]
    }

    /// Copies an image's planes into `padded`, where all but their elements is zero and stays so.
    fn pad(&self, image: &[f32], padded: &mut [f32]) {
        let planes = padded.chunks_exact_mut(self.padded());
        for (target, plane) in planes.zip(image.chunks_exact(self.plane())) {
            let rows = target[self.stride() + 1..].chunks_mut(self.stride());
            for (target, row) in rows.zip(plane.chunks_exact(self.width)) {
                target[..self.width].copy_from_slice(row);
            }
        }
    }

    /// The weights `of(output, input, place)` by block of outputs and input, zeros where a block is not full.
    fn pack(&self, of: impl Fn(usize, usize, usize) -> f32) -> Vec<Taps> {
        let mut packed = vec![[[0.0; OUTPUTS]; TAPS]; self.outputs.div_ceil(OUTPUTS) * self.inputs];
        for output in 0..self.outputs {
            let block = &mut packed[output / OUTPUTS * self.inputs..][..self.inputs];
            for (input, taps) in block.iter_mut().enumerate() {
                for (tap, weights) in taps.iter_mut().enumerate() {
                    weights[output % OUTPUTS] = of(output, input, tap);
                }
            }
        }
        packed
    }

    /// One image that is padded, `out: [outputs, height, width]`; `block` is for a block's sums.
    fn image(&self, padded: &[f32], weights: &[Taps], bias: Option<&[f32]>, block: &mut [f32], out: &mut [f32]) {
        let blocks = out.chunks_mut(OUTPUTS * self.plane());
        for (index, (out, weights)) in blocks.zip(weights.chunks_exact(self.inputs)).enumerate() {
            correlate(padded, self.padded(), self.stride(), weights, block);
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
    fn images(&self, x: &[f32], weights: &[Taps], bias: Option<&[f32]>) -> Vec<f32> {
        let (size, image) = (self.outputs * self.plane(), self.inputs * self.plane());
        let images = x.len() / image;
        build_chunks(images * size, group(images) * size, |offset, piece| {
            let out = filled(piece, 0.0);
            let (mut padded, mut block) = (self.blank(), vec![0.0; OUTPUTS * self.computed()]);
            let images = x[offset / size * image..].chunks_exact(image);
            for (x, out) in images.zip(out.chunks_exact_mut(size)) {
                self.pad(x, &mut padded);
                self.image(&padded, weights, bias, &mut block, out);
            }
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
        let group = group(x.len() / image);
        let groups: Vec<(Vec<[f32; LANES]>, Vec<f32>)> = g
            .par_chunks(group * size)
            .zip(x.par_chunks(group * image))
            .map(|(g, x)| self.group_sums(g, x))
            .collect();
        let rows = self.inputs * TAPS;
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
        let blocks = self.outputs.div_ceil(LANES);
        let mut sums = vec![[0.0; LANES]; blocks * self.inputs * TAPS];
        let mut bias = vec![0.0; self.outputs];
        let (mut padded, mut pixels) = (self.blank(), vec![[0.0; LANES]; self.plane()]);
        let images = g.chunks_exact(self.outputs * self.plane());
        for (g, x) in images.zip(x.chunks_exact(self.inputs * self.plane())) {
            for (sum, plane) in bias.iter_mut().zip(g.chunks_exact(self.plane())) {
                *sum += crate::reduction::sum(plane);
            }
            self.pad(x, &mut padded);
            let blocks = g.chunks(LANES * self.plane());
            for (g, sums) in blocks.zip(sums.chunks_exact_mut(self.inputs * TAPS)) {
                self.by_pixel(g, &mut pixels);
                for (x, sums) in padded.chunks_exact(self.padded()).zip(sums.as_chunks_mut::<TAPS>().0) {
                    add_products(x, self.stride(), self.width, &pixels, sums);
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

/// How many of so many images are a task.
fn group(images: usize) -> usize {
    images.div_ceil(GROUPS).max(1)
}

/// The sums of a block's outputs at the `T` places from `first` on, as in [`correlate`].
#[inline(always)]
fn tile<const T: usize>(
    padded: &[f32],
    plane: usize,
    stride: usize,
    weights: &[Taps],
    first: usize,
) -> [[f32; T]; OUTPUTS] {
    let mut sums = [[0.0; T]; OUTPUTS];
    for (x, weights) in padded.chunks_exact(plane).zip(weights) {
        for row in 0..3 {
            let x = &x[first + row * stride..][..T + 2];
            for column in 0..3 {
                let x = &x[column..][..T];
                let weights = &weights[3 * row + column];
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
fn tiles<const T: usize>(
    padded: &[f32],
    plane: usize,
    stride: usize,
    weights: &[Taps],
    out: &mut [f32],
    mut first: usize,
) -> usize {
    let places = out.len() / OUTPUTS;
    while first + T <= places {
        let sums = tile::<T>(padded, plane, stride, weights, first);
        for (out, sums) in out.chunks_exact_mut(places).zip(&sums) {
            out[first..first + T].copy_from_slice(sums);
        }
        first += T;
    }
    first
}

multiversion! {
    /// For each of a block's outputs, the sums at all places of a plane: `out: [OUTPUTS, places]`. `padded` has planes of
    /// `plane` elements in rows `stride` apart, one for each input of `weights`.
    fn correlate(padded: &[f32], plane: usize, stride: usize, weights: &[Taps], out: &mut [f32]) {
        let mut done = 0;
        if Isa::current() >= Isa::Avx512 {
            done = tiles::<WIDE_TILE>(padded, plane, stride, weights, out, done);
        }
        tiles::<TILE>(padded, plane, stride, weights, out, done);
    }

    /// sums[place] += Σ x[pixel + place] · g[pixel], over the pixels of a plane in rows of `width`; `x` is padded, its rows
    /// `stride` apart.
    fn add_products(x: &[f32], stride: usize, width: usize, g: &[[f32; LANES]], sums: &mut [[f32; LANES]; TAPS]) {
        let mut local = *sums;
        for (y, g) in g.chunks_exact(width).enumerate() {
            let [top, middle, bottom] = [0, 1, 2].map(|row| x[(y + row) * stride..][..width + 2].array_windows::<3>());
            for (((g, [a, b, c]), [d, e, f]), [h, i, j]) in g.iter().zip(top).zip(middle).zip(bottom) {
                for (sums, x) in local.iter_mut().zip([a, b, c, d, e, f, h, i, j]) {
                    for lane in 0..LANES {
                        sums[lane] = x.mul_add(g[lane], sums[lane]);
                    }
                }
            }
        }
        *sums = local;
    }
}
