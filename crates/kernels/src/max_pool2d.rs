//! Max pooling with any stride, and its gradient. Windows of 2 × 2 side by side, the usual ones, have loops of their own
//! without branches, which give the same bits.

use crate::isa::multiversion;
use crate::patches::Geometry;
use crate::storage::{build_chunks, cpu_slice, filled, is_fused, on_cuda, slice, tensor};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// The largest element of each `kernel` × `kernel` window, windows `stride` apart, without padding; what does not fill a
/// window is left out. `[batch, channels, height, width]` to `[batch, channels, height', width']`.
///
/// Of equal elements the first, row by row, gets the gradient. NaN is larger than everything.
///
/// # Errors
/// If the kernel or the stride is 0, or the kernel is larger than the image.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let geometry = Geometry::new(1, [height, width], kernel, stride, 0)?;
    on_cuda!(x, max_pool2d(x, geometry));
    if is_fused(x) {
        x.contiguous()?.apply_op1(MaxPool2d(geometry))
    } else {
        reference(x, geometry)
    }
}

/// The maximum over the window's places, each a strided view.
fn reference(x: &Tensor, geometry: Geometry) -> Result<Tensor> {
    let [rows, columns] = geometry.output;
    let every = |first: usize, count: usize| {
        let places: Vec<u32> = (0..count).map(|i| (first + i * geometry.stride) as u32).collect();
        Tensor::new(places, x.device())
    };
    let mut largest: Option<Tensor> = None;
    for y in 0..geometry.kernel {
        for column in 0..geometry.kernel {
            let place = x
                .index_select(&every(y, rows)?, 2)?
                .index_select(&every(column, columns)?, 3)?;
            largest = Some(match largest {
                Some(largest) => largest.maximum(&place)?,
                None => place,
            });
        }
    }
    Ok(largest.expect("a kernel has at least one place"))
}

struct MaxPool2d(Geometry);

impl MaxPool2d {
    /// Index and value of the largest element of the window of output (y, x).
    #[inline(always)]
    fn largest(&self, image: &[f32], y: usize, x: usize) -> (usize, f32) {
        let Geometry {
            input: [_, width],
            kernel,
            stride,
            ..
        } = self.0;
        let corner = y * stride * width + x * stride;
        let mut best = (corner, image[corner]);
        for row in 0..kernel {
            let start = corner + row * width;
            for (i, &v) in image[start..start + kernel].iter().enumerate() {
                if exceeds(v, best.1) {
                    best = (start + i, v);
                }
            }
        }
        best
    }

    /// Whether windows are 2 × 2 and lie side by side.
    fn is_of_pairs(&self) -> bool {
        (self.0.kernel, self.0.stride) == (2, 2)
    }

    fn forward_image(&self, image: &[f32], out: &mut [f32]) {
        let ([_, width], [_, columns]) = (self.0.input, self.0.output);
        if self.is_of_pairs() {
            return largest_of_pairs(image, width, out, columns);
        }
        for (y, out) in out.chunks_exact_mut(columns).enumerate() {
            for (x, out) in out.iter_mut().enumerate() {
                *out = self.largest(image, y, x).1;
            }
        }
    }

    /// `out` is zero.
    fn backward_image(&self, image: &[f32], gradient: &[f32], out: &mut [f32]) {
        let ([_, width], [_, columns]) = (self.0.input, self.0.output);
        if self.is_of_pairs() {
            return scatter_to_pairs(image, width, gradient, columns, out);
        }
        for (i, g) in gradient.iter().enumerate() {
            out[self.largest(image, i / columns, i % columns).0] += g;
        }
    }
}

/// Whether `v` takes the place of the largest so far.
#[inline(always)]
fn exceeds(v: f32, largest: f32) -> bool {
    (v > largest) | (v.is_nan() & !largest.is_nan())
}

/// The larger of two, the first of equal ones.
#[inline(always)]
fn larger(largest: f32, v: f32) -> f32 {
    if exceeds(v, largest) { v } else { largest }
}

multiversion! {
    fn largest_of_pairs(image: &[f32], width: usize, out: &mut [f32], columns: usize) {
        for (out, rows) in out.chunks_exact_mut(columns).zip(image.chunks_exact(2 * width)) {
            let (top, bottom) = rows.split_at(width);
            let (top, bottom) = (top.as_chunks::<2>().0, bottom.as_chunks::<2>().0);
            for ((out, top), bottom) in out.iter_mut().zip(top).zip(bottom) {
                *out = larger(larger(larger(top[0], top[1]), bottom[0]), bottom[1]);
            }
        }
    }

    fn scatter_to_pairs(image: &[f32], width: usize, gradient: &[f32], columns: usize, out: &mut [f32]) {
        let windows = out.chunks_exact_mut(2 * width).zip(image.chunks_exact(2 * width));
        for (gradient, (out, rows)) in gradient.chunks_exact(columns).zip(windows) {
            let (top, bottom) = rows.split_at(width);
            let (top, bottom) = (top.as_chunks::<2>().0, bottom.as_chunks::<2>().0);
            let (out_top, out_bottom) = out.split_at_mut(width);
            let outs = out_top.as_chunks_mut::<2>().0.iter_mut().zip(out_bottom.as_chunks_mut::<2>().0);
            for (((g, top), bottom), (out_top, out_bottom)) in gradient.iter().zip(top).zip(bottom).zip(outs) {
                // As if added to zero: a gradient of −0 becomes 0.
                let g = 0.0 + *g;
                let second = exceeds(top[1], top[0]);
                let upper = larger(top[0], top[1]);
                let fourth = exceeds(bottom[1], larger(upper, bottom[0]));
                let third = exceeds(bottom[0], upper) & !fourth;
                let in_top = !third & !fourth;
                out_top[0] = if in_top & !second { g } else { 0.0 };
                out_top[1] = if in_top & second { g } else { 0.0 };
                out_bottom[0] = if third { g } else { 0.0 };
                out_bottom[1] = if fourth { g } else { 0.0 };
            }
        }
    }
}

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, _, _) = layout.shape().dims4()?;
        let [rows, columns] = self.0.output;
        let x = cpu_slice(storage, layout)?;
        let values = build_chunks(batch * channels * rows * columns, rows * columns, |offset, piece| {
            let image = &x[offset / (rows * columns) * self.0.image()..][..self.0.image()];
            let out = filled(piece, 0.0);
            self.forward_image(image, out);
            out
        });
        Ok((CpuStorage::F32(values), Shape::from((batch, channels, rows, columns))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (x_storage, x_layout) = x.storage_and_layout();
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let [rows, columns] = self.0.output;
        let (images, gradients) = (slice(&x_storage, x_layout)?, slice(&g_storage, g_layout)?);
        let mut values = vec![0.0; images.len()];
        values
            .par_chunks_exact_mut(self.0.image())
            .zip(images.par_chunks_exact(self.0.image()))
            .zip(gradients.par_chunks_exact(rows * columns))
            .for_each(|((out, image), gradient)| self.backward_image(image, gradient, out));
        tensor(values, x.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, check, devices_with_own_ops, same_bits_everywhere, sample};
    use candle_core::Var;

    /// The values and the gradients of 2 × 2 windows, found window by window.
    #[test]
    fn pairs_have_the_bits_of_any_windows() -> Result<()> {
        let special = [
            f32::NAN,
            0.0,
            -0.0,
            1.0,
            1.0,
            f32::INFINITY,
            -f32::NAN,
            -2.0,
            f32::NEG_INFINITY,
        ];
        for (height, width) in [(2, 2), (6, 9), (24, 24), (7, 34)] {
            let pool = MaxPool2d(Geometry::new(1, [height, width], 2, 2, 0)?);
            let [rows, columns] = pool.0.output;
            let image: Vec<f32> = (0..height * width)
                .map(|i| special[i * i % 31 % special.len()])
                .collect();
            let gradient: Vec<f32> = (0..rows * columns).map(|i| [-0.0, 2.0, -3.5][i % 3]).collect();
            let (mut values, mut scattered) = (vec![0.0; rows * columns], vec![0.0; image.len()]);
            pool.forward_image(&image, &mut values);
            pool.backward_image(&image, &gradient, &mut scattered);
            let (mut expected, mut plain) = (values.clone(), vec![0.0; image.len()]);
            for (i, g) in gradient.iter().enumerate() {
                let (place, value) = pool.largest(&image, i / columns, i % columns);
                expected[i] = value;
                plain[place] += g;
            }
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&values), bits(&expected));
            assert_eq!(bits(&scattered), bits(&plain));
        }
        Ok(())
    }

    #[test]
    fn gradients() -> Result<()> {
        for (side, kernel, stride) in [(4, 2, 2), (7, 3, 2), (5, 2, 3), (6, 3, 1), (1, 1, 1), (17, 5, 4)] {
            let x = sample(&[2, 3, side, side + 1], 1);
            let geometry = Geometry::new(1, [side, side + 1], kernel, stride, 0)?;
            check(
                &[&x],
                |t| max_pool2d(t[0], kernel, stride),
                |t| reference(t[0], geometry),
                Differences::Central,
                1e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn the_first_of_equals_gets_the_gradient() -> Result<()> {
        for device in devices_with_own_ops() {
            let x = Var::zeros((1, 1, 2, 2), candle_core::DType::F32, device)?;
            let gradients = max_pool2d(&x, 2, 2)?.sum_all()?.backward()?;
            let gradient = gradients.get(&x).expect("x is a variable").flatten_all()?;
            assert_eq!(gradient.to_vec1::<f32>()?, [1.0, 0.0, 0.0, 0.0], "{device:?}");
        }
        Ok(())
    }

    #[test]
    fn not_a_number_comes_through() -> Result<()> {
        for device in devices_with_own_ops() {
            let x = Tensor::new(&[1f32, f32::NAN, 3.0, 2.0], device)?.reshape((1, 1, 2, 2))?;
            let pooled = max_pool2d(&x, 2, 2)?.flatten_all()?.to_vec1::<f32>()?;
            assert!(pooled[0].is_nan(), "{device:?}");
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        same_bits_everywhere(&[&sample(&[9, 5, 9, 9], 1)], |t| max_pool2d(t[0], 3, 2))
    }

    #[test]
    fn empty_batch_and_impossible_windows() -> Result<()> {
        assert_eq!(max_pool2d(&sample(&[0, 3, 4, 4], 1), 2, 2)?.dims(), [0, 3, 2, 2]);
        assert!(max_pool2d(&sample(&[1, 1, 4, 4], 1), 5, 1).is_err());
        assert!(max_pool2d(&sample(&[1, 1, 4, 4], 1), 2, 0).is_err());
        Ok(())
    }
}
