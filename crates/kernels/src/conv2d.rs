//! Two-dimensional convolution: patches as columns, then a matrix product, image by image; small kernels that step by one
//! mostly go [another way](crate::direct_conv2d).
//!
//! The weight's gradient is summed over the images of a group, then over the groups in their order; groups depend on the
//! batch size alone.

use crate::direct_conv2d::DirectConv2d;
use crate::gradients::hand_over;
use crate::matrix::Matrix;
use crate::patches::Geometry;
use crate::precision::ProductPrecision;
use crate::product::{Output, Threads, multiply_into};
use crate::storage::{build_chunks, cpu_slice, filled, is_fused, slice, tensor};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Most groups that a batch is cut into for the weight's gradient.
pub(crate) const GROUPS: usize = 16;

/// Cross-correlation of `x: [batch, in, height, width]` with `w: [out, in, k, k]`, plus `bias: [out]`, over an image with
/// `padding` zeros on every side, to `[batch, out, height', width']` with height' = (height + 2 padding − k) / stride + 1.
///
/// The gradient of `x` is computed only if `x` depends on a variable. `precision` is that of matrix products: what is
/// computed without them is in f32.
///
/// # Errors
/// If the shapes do not fit, a channel or a pixel is not there, or the kernel is larger than the padded image.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    precision: ProductPrecision,
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (outputs, inputs, kernel, kernel_width) = w.dims4()?;
    if outputs == 0 || inputs != channels || kernel != kernel_width || bias.is_some_and(|b| b.dims() != [outputs]) {
        bail!(
            "conv2d of {:?} with weight {:?} and bias {:?}",
            x.dims(),
            w.dims(),
            bias.map(Tensor::dims)
        )
    }
    let geometry = Geometry::new(channels, [height, width], kernel, stride, padding)?;
    if !is_fused(x) {
        let y = if has_gradient_in_candle(x, w, &geometry) {
            x.conv2d(w, padding, stride, 1, 1)?
        } else {
            by_places(x, w, &geometry)?
        };
        return match bias {
            Some(bias) => y.broadcast_add(&bias.reshape((1, outputs, 1, 1))?),
            None => Ok(y),
        };
    }
    let (x, w, op) = (
        x.contiguous()?,
        w.contiguous()?,
        Conv2d {
            batch,
            outputs,
            geometry,
            precision,
        },
    );
    match bias {
        Some(bias) => x.apply_op3(&w, &bias.contiguous()?, op),
        None => x.apply_op2(&w, op),
    }
}

/// Whether candle's own convolution gives the gradients that are asked for, if any are. It takes the padding of its input's
/// gradient from the height alone, which fails for most images that are not square once it steps by more than one.
fn has_gradient_in_candle(x: &Tensor, w: &Tensor, geometry: &Geometry) -> bool {
    let [height, width] = geometry.input;
    !(x.track_op() || w.track_op()) || geometry.stride == 1 || height == width
}

/// A sum over the kernel's places, each a product of the weights there with every pixel that they meet.
fn by_places(x: &Tensor, w: &Tensor, geometry: &Geometry) -> Result<Tensor> {
    let &Geometry {
        kernel,
        stride,
        padding,
        output: [rows, columns],
        ..
    } = geometry;
    let (batch, channels, ..) = x.dims4()?;
    let outputs = w.dim(0)?;
    let padded = x
        .pad_with_zeros(2, padding, padding)?
        .pad_with_zeros(3, padding, padding)?;
    let every = |first: usize, count: usize| {
        let places: Vec<u32> = (0..count).map(|i| (first + i * stride) as u32).collect();
        Tensor::new(places, x.device())
    };
    let mut sum = Tensor::zeros((batch, outputs, rows * columns), x.dtype(), x.device())?;
    for ky in 0..kernel {
        let lines = padded.index_select(&every(ky, rows)?, 2)?;
        for kx in 0..kernel {
            let pixels = lines.index_select(&every(kx, columns)?, 3)?;
            let pixels = pixels.reshape((batch, channels, rows * columns))?;
            let w = w.narrow(2, ky, 1)?.narrow(3, kx, 1)?.reshape((1, outputs, channels))?;
            let w = w.broadcast_as((batch, outputs, channels))?.contiguous()?;
            sum = (sum + w.matmul(&pixels)?)?;
        }
    }
    sum.reshape((batch, outputs, rows, columns))
}

struct Conv2d {
    batch: usize,
    outputs: usize,
    geometry: Geometry,
    precision: ProductPrecision,
}

/// Gradients of one op, each flat.
pub(crate) struct Gradients {
    pub(crate) input: Option<Vec<f32>>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// What a group of images adds to the gradients of weight and bias, and its room for patches.
struct Group {
    weight: Vec<f32>,
    bias: Vec<f32>,
    columns: Vec<f32>,
    column_gradients: Vec<f32>,
}

impl Conv2d {
    fn shape(&self) -> Shape {
        Shape::from((
            self.batch,
            self.outputs,
            self.geometry.output[0],
            self.geometry.output[1],
        ))
    }

    fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        if let Some(direct) = DirectConv2d::of(&self.geometry, self.outputs) {
            return direct.forward(x, w, bias);
        }
        let (patch, patches) = (self.geometry.patch(), self.geometry.patches());
        let len = self.outputs * patches;
        let w = Matrix::new(w, self.outputs, patch);
        build_chunks(self.batch * len, len.max(1), |offset, piece| {
            let out = filled(piece, 0.0);
            if let Some(bias) = bias {
                for (row, &b) in out.chunks_exact_mut(patches).zip(bias) {
                    row.fill(b);
                }
            }
            let image = &x[offset / len * self.geometry.image()..][..self.geometry.image()];
            let mut columns = vec![0.0; patch * patches];
            self.geometry.write_columns(image, 0.0, &mut columns);
            multiply_into(
                out,
                w,
                Matrix::new(&columns, patch, patches),
                if bias.is_some() { Output::Add } else { Output::PLAIN },
                self.precision,
                Threads::One,
            );
            out
        })
    }

    fn backward(&self, g: &[f32], x: &[f32], w: &[f32], needs_input: bool) -> Gradients {
        if let Some(direct) = DirectConv2d::of(&self.geometry, self.outputs) {
            return direct.backward(g, x, w, needs_input);
        }
        let (patch, patches, image) = (self.geometry.patch(), self.geometry.patches(), self.geometry.image());
        let group = self.batch.div_ceil(GROUPS).max(1);
        let mut input = vec![0.0; if needs_input { x.len() } else { 0 }];
        let mut input_groups: Vec<&mut [f32]> = input.chunks_mut(group * image).collect();
        input_groups.resize_with(self.batch.div_ceil(group), Default::default);
        let groups: Vec<Group> = input_groups
            .into_par_iter()
            .zip(g.par_chunks(group * self.outputs * patches))
            .zip(x.par_chunks(group * image))
            .map(|((input, g), x)| {
                let mut sums = Group {
                    weight: vec![0.0; self.outputs * patch],
                    bias: vec![0.0; self.outputs],
                    columns: vec![0.0; patch * patches],
                    column_gradients: vec![0.0; if needs_input { patch * patches } else { 0 }],
                };
                for (i, (g, x)) in g
                    .chunks_exact(self.outputs * patches)
                    .zip(x.chunks_exact(image))
                    .enumerate()
                {
                    let input = needs_input.then(|| &mut input[i * image..(i + 1) * image]);
                    self.backward_image(g, x, w, input, &mut sums);
                }
                sums
            })
            .collect();
        let mut total = (vec![0.0; self.outputs * patch], vec![0.0; self.outputs]);
        for sums in groups {
            total.0.iter_mut().zip(sums.weight).for_each(|(t, s)| *t += s);
            total.1.iter_mut().zip(sums.bias).for_each(|(t, s)| *t += s);
        }
        Gradients {
            input: needs_input.then_some(input),
            weight: total.0,
            bias: total.1,
        }
    }

    fn backward_image(&self, g: &[f32], x: &[f32], w: &[f32], input: Option<&mut [f32]>, sums: &mut Group) {
        let (patch, patches) = (self.geometry.patch(), self.geometry.patches());
        self.geometry.write_columns(x, 0.0, &mut sums.columns);
        let columns = Matrix::new(&sums.columns, patch, patches);
        let gradient = Matrix::new(g, self.outputs, patches);
        multiply_into(
            &mut sums.weight,
            gradient,
            columns.transposed(),
            Output::Add,
            self.precision,
            Threads::One,
        );
        for (sum, row) in sums.bias.iter_mut().zip(g.chunks_exact(patches)) {
            *sum += crate::reduction::sum(row);
        }
        if let Some(input) = input {
            let w = Matrix::new(w, self.outputs, patch);
            multiply_into(
                &mut sums.column_gradients,
                w.transposed(),
                gradient,
                Output::PLAIN,
                self.precision,
                Threads::One,
            );
            self.geometry.add_columns(&sums.column_gradients, input);
        }
    }

    fn gradients(&self, x: &Tensor, w: &Tensor, gradient: &Tensor) -> Result<Gradients> {
        let gradient = gradient.contiguous()?;
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let (x_storage, x_layout) = x.storage_and_layout();
        let (w_storage, w_layout) = w.storage_and_layout();
        let (g, x_values) = (slice(&g_storage, g_layout)?, slice(&x_storage, x_layout)?);
        Ok(self.backward(g, x_values, slice(&w_storage, w_layout)?, x.track_op()))
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.forward(cpu_slice(x, x_layout)?, cpu_slice(w, w_layout)?, None);
        Ok((CpuStorage::F32(out), self.shape()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients = self.gradients(x, w, gradient)?;
        let input = gradients.input.map(|values| tensor(values, x.shape())).transpose()?;
        Ok((input, hand_over(w, tensor(gradients.weight, w.shape())?)?))
    }
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let bias = Some(cpu_slice(bias, bias_layout)?);
        let out = self.forward(cpu_slice(x, x_layout)?, cpu_slice(w, w_layout)?, bias);
        Ok((CpuStorage::F32(out), self.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = self.gradients(x, w, gradient)?;
        let input = gradients.input.map(|values| tensor(values, x.shape())).transpose()?;
        Ok((
            input,
            hand_over(w, tensor(gradients.weight, w.shape())?)?,
            hand_over(bias, tensor(gradients.bias, bias.shape())?)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::ProductPrecision::{Bf16, Bf16Amx, F32};
    use super::*;
    use crate::testing::{Differences, check, same_bits_everywhere, sample};

    /// [`by_places`] with a bias, whatever the image.
    fn reference(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: &Geometry) -> Result<Tensor> {
        let y = by_places(x, w, geometry)?;
        match bias {
            Some(bias) => y.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?),
            None => Ok(y),
        }
    }

    #[test]
    fn gradients() -> Result<()> {
        for (batch, channels, side, outputs, kernel, stride, padding) in [
            (2, 1, 7, 3, 3, 1, 1),
            (1, 3, 1, 17, 3, 1, 1),
            (18, 17, 3, 5, 3, 1, 1),
            (17, 3, 5, 2, 3, 2, 1),
            (1, 2, 6, 7, 5, 1, 0),
            (18, 3, 7, 17, 3, 1, 1),
            (17, 3, 9, 5, 5, 1, 0),
            (2, 2, 6, 3, 5, 1, 1),
            (1, 3, 5, 5, 5, 1, 3),
            (1, 2, 3, 3, 3, 1, 3),
            (2, 3, 5, 17, 5, 1, 2),
            (2, 2, 3, 3, 5, 1, 4),
            (2, 5, 6, 3, 3, 1, 0),
            (2, 1, 3, 4, 3, 1, 2),
            (3, 7, 3, 1, 1, 1, 0),
            (2, 1, 9, 2, 2, 3, 2),
            (2, 3, 7, 5, 1, 2, 0),
        ] {
            let x = sample(&[batch, channels, side, side + 2], 1);
            let w = sample(&[outputs, channels, kernel, kernel], 2);
            let bias = sample(&[outputs], 3);
            let geometry = Geometry::new(channels, [side, side + 2], kernel, stride, padding)?;
            check(
                &[&x, &w, &bias],
                |t| conv2d(t[0], t[1], Some(t[2]), stride, padding, F32),
                |t| reference(t[0], t[1], Some(t[2]), &geometry),
                Differences::Central,
                1e-5,
            )?;
            check(
                &[&x, &w],
                |t| conv2d(t[0], t[1], None, stride, padding, F32),
                |t| reference(t[0], t[1], None, &geometry),
                Differences::Skip,
                1e-5,
            )?;
            let ours = conv2d(&x, &w, None, stride, padding, F32)?;
            let worst = (ours - x.conv2d(&w, padding, stride, 1, 1)?)?
                .abs()?
                .max_all()?
                .to_scalar::<f32>()?;
            assert!(worst < 1e-4, "{worst} away from candle's own");
        }
        Ok(())
    }

    /// What runs where the fused op does not: f64 here, another device elsewhere.
    #[test]
    fn other_types_have_gradients_of_any_image() -> Result<()> {
        for (height, width, kernel, stride, padding) in [
            (8, 5, 3, 2, 1),
            (5, 8, 3, 2, 0),
            (9, 4, 2, 3, 1),
            (4, 9, 1, 2, 0),
            (7, 7, 3, 2, 1),
            (6, 9, 5, 1, 0),
        ] {
            let (x, w, bias) = (
                sample(&[2, 3, height, width], 1),
                sample(&[4, 3, kernel, kernel], 2),
                sample(&[4], 3),
            );
            let in_f64 = |t: &[&Tensor]| {
                let [x, w, bias] = [t[0], t[1], t[2]].map(|t| t.to_dtype(candle_core::DType::F64));
                conv2d(&x?, &w?, Some(&bias?), stride, padding, F32)
            };
            check(
                &[&x, &w, &bias],
                |t| conv2d(t[0], t[1], Some(t[2]), stride, padding, F32),
                in_f64,
                Differences::Central,
                1e-5,
            )?;
            let [x, w] = [&x, &w].map(|t| t.to_dtype(candle_core::DType::F64));
            let (x, w) = (x?, w?);
            let ours = by_places(&x, &w, &Geometry::new(3, [height, width], kernel, stride, padding)?)?;
            let theirs = x.conv2d(&w, padding, stride, 1, 1)?;
            assert_eq!(ours.dims(), theirs.dims());
            let worst = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(worst < 1e-12, "{worst} away from candle's own");
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let (x, w, bias) = (sample(&[35, 3, 9, 9], 1), sample(&[5, 3, 3, 3], 2), sample(&[5], 3));
        same_bits_everywhere(&[&x, &w, &bias], |t| conv2d(t[0], t[1], Some(t[2]), 2, 1, F32))?;
        same_bits_everywhere(&[&x, &w, &bias], |t| conv2d(t[0], t[1], Some(t[2]), 1, 1, F32))?;
        let (x, w, bias) = (sample(&[3, 2, 17, 9], 4), sample(&[18, 2, 5, 5], 5), sample(&[18], 6));
        same_bits_everywhere(&[&x, &w, &bias], |t| conv2d(t[0], t[1], Some(t[2]), 1, 0, F32))
    }

    #[test]
    fn gradients_in_bf16_are_near_and_the_same_everywhere() -> Result<()> {
        let (x, w, bias) = (sample(&[35, 3, 9, 9], 1), sample(&[5, 3, 3, 3], 2), sample(&[5], 3));
        for precision in [Bf16, Bf16Amx] {
            check(
                &[&x, &w, &bias],
                |t| conv2d(t[0], t[1], Some(t[2]), 2, 1, precision),
                |t| reference(t[0], t[1], Some(t[2]), &Geometry::new(3, [9, 9], 3, 2, 1)?),
                Differences::Skip,
                1e-2,
            )?;
            same_bits_everywhere(&[&x, &w, &bias], |t| conv2d(t[0], t[1], Some(t[2]), 2, 1, precision))?;
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_shapes() -> Result<()> {
        let (w, bias) = (sample(&[5, 3, 3, 3], 2), sample(&[5], 3));
        assert_eq!(
            conv2d(&sample(&[0, 3, 9, 9], 1), &w, Some(&bias), 1, 0, F32)?.dims(),
            [0, 5, 7, 7]
        );
        assert!(conv2d(&sample(&[1, 2, 9, 9], 1), &w, None, 1, 0, F32).is_err());
        assert!(conv2d(&sample(&[1, 3, 2, 9], 1), &w, None, 1, 0, F32).is_err());
        assert!(conv2d(&sample(&[1, 3, 9, 9], 1), &sample(&[0, 3, 3, 3], 2), None, 1, 0, F32).is_err());
        Ok(())
    }
}
