//! The fully connected layer for inference, its weight laid out once: at a few rows that takes as long as the product.
//!
//! Invariant: the same bits as [`crate::linear`]. There is no gradient.

use crate::linear::linear;
use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::product::Kept;
use crate::storage::{is_fused, slice, tensor};
use candle_core::{Result, Tensor, bail};
use std::sync::OnceLock;

/// x · Wᵀ + b for a weight that does not change any more.
pub struct PackedLinear {
    weight: Tensor,
    bias: Tensor,
    /// The weight laid out for the precision of the first product, and the bias, where the layer is fused.
    packed: OnceLock<(Kept, Vec<f32>)>,
}

impl PackedLinear {
    /// A layer of `weight: [out, in]` and `bias: [out]`.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (outputs, _) = weight.dims2()?;
        if bias.dims() != [outputs] {
            bail!("a weight {:?} with bias {:?}", weight.dims(), bias.dims())
        }
        let (weight, bias) = (weight.detach().contiguous()?, bias.detach().contiguous()?);
        Ok(Self {
            weight,
            bias,
            packed: OnceLock::new(),
        })
    }

    /// `x: [..., in]` to `[..., out]`, its product in `precision`. The weight is laid out for that of the first call; in another
    /// one each call lays it out for itself.
    ///
    /// # Errors
    /// If the last dimension is not the layer's.
    pub fn forward(&self, x: &Tensor, precision: ProductPrecision) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if shape.pop() != Some(inputs) || ![x, &self.weight, &self.bias].into_iter().all(is_fused) {
            return linear(x, &self.weight, Some(&self.bias), precision);
        }
        let (weight, bias) = self.packed(precision)?;
        if weight.precision() != precision {
            return linear(x, &self.weight, Some(&self.bias), precision);
        }
        let x = x.detach().contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let x = Matrix::new(slice(&storage, layout)?, shape.iter().product(), inputs);
        shape.push(outputs);
        tensor(weight.multiply(x, bias), shape)
    }

    /// Weight and bias for the precision of the first product. Threads that come first together each lay the weight out, and
    /// one copy is kept: laying it out takes the pool, which could come back here for what it was to make.
    fn packed(&self, precision: ProductPrecision) -> Result<&(Kept, Vec<f32>)> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let (outputs, inputs) = self.weight.dims2()?;
        let (storage, layout) = self.weight.storage_and_layout();
        let weight = Matrix::new(slice(&storage, layout)?, outputs, inputs);
        let packed = (Kept::new(weight.transposed(), precision), self.bias.to_vec1()?);
        Ok(self.packed.get_or_init(|| packed))
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
                for precision in ProductPrecision::ALL {
                    let packed = PackedLinear::new(&weight, &bias)?.forward(&x, precision)?;
                    let plain = linear(&x, &weight, Some(&bias), precision)?;
                    assert_eq!(packed.dims(), plain.dims());
                    assert!(
                        bits(&packed)? == bits(&plain)?,
                        "{rows}×{inputs} to {outputs} in {precision:?}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_same_bits_for_all_threads() -> Result<()> {
        let (x, weight, bias) = (sample(&[2, 65, 600], 1), sample(&[150, 600], 2), sample(&[150], 3));
        let layer = PackedLinear::new(&weight, &bias)?;
        // The first of them is what the weight is laid out for.
        for precision in ProductPrecision::ALL {
            let expected = bits(&linear(&x, &weight, Some(&bias), precision)?)?;
            for threads in 1..=3 {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("a pool can be started");
                assert!(
                    pool.install(|| bits(&layer.forward(&x, precision)?))? == expected,
                    "{threads} threads in {precision:?}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn empty_batches_and_wrong_widths() -> Result<()> {
        let layer = PackedLinear::new(&sample(&[40, 30], 1), &sample(&[40], 2))?;
        for precision in ProductPrecision::ALL {
            assert_eq!(layer.forward(&sample(&[0, 30], 1), precision)?.dims(), [0, 40]);
            assert!(layer.forward(&sample(&[9, 31], 1), precision).is_err());
        }
        Ok(())
    }
}
