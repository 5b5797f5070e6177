//! Images whose channels are scaled and shifted: a batch norm by statistics that are known. Inference only.

use crate::batch_norm::{check_shapes, per_channel};
use crate::isa::multiversion;
use crate::storage::{Planes, build_chunks, cpu_slice, is_fused};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// x · scale + shift, each `[channels]`: what normalization by fixed statistics comes to. `x: [batch, channels, height,
/// width]`.
///
/// The fused op has no gradient, and its backward pass is an error.
///
/// # Errors
/// If the shapes do not fit.
pub fn scale_channels(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    check_shapes(x, scale, shift)?;
    if is_fused(x) {
        return x
            .contiguous()?
            .apply_op3(&scale.contiguous()?, &shift.contiguous()?, ScaleChannels);
    }
    x.broadcast_mul(&per_channel(scale)?)?
        .broadcast_add(&per_channel(shift)?)
}

struct ScaleChannels;

impl CustomOp3 for ScaleChannels {
    fn name(&self) -> &'static str {
        "scale_channels"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let planes = Planes::of(x_layout.shape())?;
        let (scale, shift) = (cpu_slice(scale, scale_layout)?, cpu_slice(shift, shift_layout)?);
        let x = cpu_slice(x, x_layout)?;
        let values = build_chunks(x.len(), planes.plane.max(1), |offset, piece| {
            let piece = piece.write_copy_of_slice(&x[offset..offset + planes.plane]);
            let channel = offset / planes.plane % planes.channels;
            scale_plane(piece, scale[channel], shift[channel]);
            piece
        });
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }
}

multiversion! {
    fn scale_plane(x: &mut [f32], scale: f32, shift: f32) {
        for v in x {
            *v = *v * scale + shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use candle_core::{DType, Var};

    #[test]
    fn the_fused_op_agrees_with_the_composition_and_refuses_gradients() -> Result<()> {
        for (batch, channels, height, width) in [(1, 1, 1, 1), (3, 5, 3, 7), (17, 2, 9, 1)] {
            let x = sample(&[batch, channels, height, width], 1);
            let (scale, shift) = (sample(&[channels], 2), sample(&[channels], 3));
            let ours = scale_channels(&x, &scale, &shift)?;
            let [a, b, c] = [&x, &scale, &shift].map(|t| t.to_dtype(DType::F64));
            let expected = scale_channels(&a?, &b?, &c?)?.to_dtype(DType::F32)?;
            assert!((ours - expected)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
            let variable = Var::from_tensor(&x)?;
            assert!(
                scale_channels(&variable, &scale, &shift)?
                    .sum_all()?
                    .backward()
                    .is_err()
            );
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_width() -> Result<()> {
        let (scale, shift) = (sample(&[5], 2), sample(&[5], 3));
        assert_eq!(
            scale_channels(&sample(&[0, 5, 3, 3], 1), &scale, &shift)?.dims(),
            [0, 5, 3, 3]
        );
        assert!(scale_channels(&sample(&[2, 4, 3, 3], 1), &scale, &shift).is_err());
        Ok(())
    }
}
