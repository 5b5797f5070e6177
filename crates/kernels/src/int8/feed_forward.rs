//! The feed-forward part of a transformer layer on integers.

use super::linear::Int8Linear;
use candle_core::{Result, Tensor};

/// `outer(gelu(inner(x)))` (Vaswani et al. 2017, section 3.3, with gelu), the neurons in bytes alone. `x: [..., n]`, to
/// `[..., k]`; the same bits as of the layers one by one. There is no gradient.
///
/// # Errors
/// If the shapes do not fit, or `x` is not f32 on the CPU.
pub fn int8_feed_forward(x: &Tensor, inner: &Int8Linear, outer: &Int8Linear) -> Result<Tensor> {
    outer.forward_bytes(&inner.gelu_bytes(&inner.quantize(x)?, outer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::gelu;
    use crate::fake_quantize::{ActivationQuantizer, quantize_per_channel, symmetric_scales};
    use crate::int8::PackedInt8;
    use crate::isa::{Isa, with_isa};
    use crate::testing::sample;

    fn layer(n: usize, k: usize, scale: f32, zero_point: u8) -> Result<Int8Linear> {
        let (w, bias) = (sample(&[n, k], 2), sample(&[n], 3));
        let scales = symmetric_scales(&w, 8)?;
        let packed = PackedInt8::pack(&quantize_per_channel(&w, &scales, 8)?, n, k)?;
        let input = ActivationQuantizer { scale, zero_point };
        Ok(Int8Linear::new(packed, scales.to_vec1()?, Some(bias.to_vec1()?), input))
    }

    #[test]
    fn same_bits_as_layer_by_layer_everywhere() -> Result<()> {
        for (rows, inputs, neurons, outputs) in [
            (1, 1, 1, 1),
            (3, 7, 17, 5),
            (17, 65, 63, 3),
            (65, 513, 130, 17),
            (130, 63, 513, 65),
            (7, 3, 129, 513),
        ] {
            let x = sample(&[1, rows, inputs], 1);
            let (inner, outer) = (layer(neurons, inputs, 0.031, 119)?, layer(outputs, neurons, 0.017, 11)?);
            let one_by_one = outer.forward(&gelu(&inner.forward(&x)?)?)?;
            assert_eq!(one_by_one.dims(), [1, rows, outputs]);
            let expected = one_by_one.to_vec3::<f32>()?;
            for isa in Isa::available() {
                let got = with_isa(isa, || int8_feed_forward(&x, &inner, &outer))?;
                assert_eq!(
                    got.to_vec3::<f32>()?,
                    expected,
                    "{isa:?}: {rows} {inputs} {neurons} {outputs}"
                );
            }
            for threads in 1..=3 {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let got = pool
                    .expect("a pool can be started")
                    .install(|| int8_feed_forward(&x, &inner, &outer))?;
                assert_eq!(got.to_vec3::<f32>()?, expected, "{threads} threads");
            }
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_what_does_not_fit() -> Result<()> {
        let (inner, outer) = (layer(4, 3, 0.03, 7)?, layer(2, 4, 0.02, 9)?);
        assert_eq!(int8_feed_forward(&sample(&[0, 3], 1), &inner, &outer)?.dims(), [0, 2]);
        assert!(int8_feed_forward(&sample(&[5, 4], 1), &inner, &outer).is_err());
        assert!(int8_feed_forward(&sample(&[5, 4], 1), &outer, &outer).is_err());
        let x = sample(&[5, 3], 1);
        let (same, other) = (layer(6, 3, 0.03, 7)?, layer(6, 3, 0.03, 8)?);
        assert!(same.quantizes_like(&inner) && !other.quantizes_like(&inner));
        let bytes = inner.quantize(&x)?;
        assert_eq!(
            same.forward_bytes(&bytes)?.to_vec2::<f32>()?,
            same.forward(&x)?.to_vec2::<f32>()?
        );
        assert!(other.forward_bytes(&bytes).is_err());
        Ok(())
    }
}
