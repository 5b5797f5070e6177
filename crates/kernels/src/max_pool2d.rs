//! Max pooling with any stride, and its gradient.

use crate::patches::Geometry;
use crate::storage::{build_chunks, cpu_slice, filled, is_fused, slice, tensor};
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
                if v > best.1 || (v.is_nan() && !best.1.is_nan()) {
                    best = (start + i, v);
                }
            }
        }
        best
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
            for (y, out) in out.chunks_exact_mut(columns).enumerate() {
                for (x, out) in out.iter_mut().enumerate() {
                    *out = self.largest(image, y, x).1;
                }
            }
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
            .for_each(|((out, image), gradient)| {
                for (i, g) in gradient.iter().enumerate() {
                    out[self.largest(image, i / columns, i % columns).0] += g;
                }
            });
        tensor(values, x.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, check, same_bits_everywhere, sample};
    use candle_core::{Device, Var};

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
        let x = Var::zeros((1, 1, 2, 2), candle_core::DType::F32, &Device::Cpu)?;
        let gradients = max_pool2d(&x, 2, 2)?.sum_all()?.backward()?;
        let gradient = gradients
            .get(&x)
            .expect("x is a variable")
            .flatten_all()?
            .to_vec1::<f32>()?;
        assert_eq!(gradient, [1.0, 0.0, 0.0, 0.0]);
        Ok(())
    }

    #[test]
    fn not_a_number_comes_through() -> Result<()> {
        let x = Tensor::new(&[1f32, f32::NAN, 3.0, 2.0], &Device::Cpu)?.reshape((1, 1, 2, 2))?;
        assert!(max_pool2d(&x, 2, 2)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
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
