//! The fully connected layer for inference in f32, its weight laid out once: at a few rows that takes as long as the product.
//!
//! Invariant: the same bits as [`crate::linear`]. There is no gradient.

use crate::linear::linear;
use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::product::{COLUMNS, Panels, multiply_panels};
use crate::storage::{is_fused, slice, tensor};
use candle_core::{Result, Tensor, bail};

/// x · Wᵀ + b for a weight that does not change any more.
pub struct PackedLinear {
    weight: Tensor,
    bias: Tensor,
    /// The weight laid out and the bias, where the layer is fused.
    packed: Option<(Panels<COLUMNS>, Vec<f32>)>,
}

impl PackedLinear {
    /// A layer of `weight: [out, in]` and `bias: [out]`.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        if bias.dims() != [outputs] {
            bail!("a weight {:?} with bias {:?}", weight.dims(), bias.dims())
        }
        let (weight, bias) = (weight.detach().contiguous()?, bias.detach().contiguous()?);
        let mut packed = None;
        if is_fused(&weight) && is_fused(&bias) {
            let (storage, layout) = weight.storage_and_layout();
            let matrix = Matrix::new(slice(&storage, layout)?, outputs, inputs);
            packed = Some((Panels::to_keep(matrix.transposed()), bias.to_vec1()?));
        }
        Ok(Self { weight, bias, packed })
    }

    /// `x: [..., in]` to `[..., out]`.
    ///
    /// # Errors
    /// If the last dimension is not the layer's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        match &self.packed {
            Some((panels, bias)) if is_fused(x) && shape.pop() == Some(inputs) => {
                let x = x.detach().contiguous()?;
                let (storage, layout) = x.storage_and_layout();
                let x = Matrix::new(slice(&storage, layout)?, shape.iter().product(), inputs);
                shape.push(outputs);
                tensor(multiply_panels(x, panels, bias), shape)
            }
            _ => linear(x, &self.weight, Some(&self.bias), ProductPrecision::F32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bits, sample};

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
