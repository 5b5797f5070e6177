//! The integers that weights become: evenly spaced, or the levels of a codebook, whose indices a file holds packed.

use crate::error::Result;
use crate::parameters::IntegerWeight;
use candle_core::Tensor;
use orchestrate_kernels::{
    Codebook, fake_quantize_by_codebook, fake_quantize_per_channel, quantize_per_channel, symmetric_scales,
};
use serde::{Deserialize, Serialize};

/// Bits of the integers that weights are multiplied as.
pub const WEIGHT_BITS: u32 = 8;

/// Which of these integers the weights of a tensor may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "scheme")]
pub enum WeightScheme {
    /// All of them (Jacob et al. 2018, section 2).
    #[default]
    Uniform,
    /// As many as indices of so many bits tell apart, chosen for each tensor (Han et al. 2016, *Deep Compression*, section 3).
    Codebook {
        /// One of [`Codebook::BITS`].
        bits: u32,
    },
}

impl WeightScheme {
    /// Fewest and most bits of the indices of a codebook.
    pub const INDEX_BITS: [u32; 2] = [*Codebook::BITS.start(), *Codebook::BITS.end()];

    /// Whether settings leave it out: what was written before there was a choice keeps its key.
    pub(crate) fn is_uniform(&self) -> bool {
        *self == Self::Uniform
    }

    /// The codebook for the weight `w: [out, ...]`, if this scheme has codebooks.
    ///
    /// # Errors
    /// If the weight cannot be read, or there are no codebooks of that size.
    pub fn codebook(self, w: &Tensor) -> Result<Option<Codebook>> {
        match self {
            Self::Uniform => Ok(None),
            Self::Codebook { bits } => Ok(Some(Codebook::fit(w, &symmetric_scales(w, WEIGHT_BITS)?, bits)?)),
        }
    }
}

/// The weight `w: [out, ...]` as it comes back from its integers, differentiable.
///
/// # Errors
/// If a tensor operation fails.
pub fn fake_quantize(w: &Tensor, codebook: Option<&Codebook>) -> Result<Tensor> {
    let scales = symmetric_scales(w, WEIGHT_BITS)?;
    Ok(match codebook {
        None => fake_quantize_per_channel(w, &scales, WEIGHT_BITS)?,
        Some(codebook) => fake_quantize_by_codebook(w, &scales, codebook)?,
    })
}

/// The integers of `w: [out, ...]`, row-major, with their scales `[out]`.
///
/// # Errors
/// If the weight cannot be read.
pub(crate) fn integers_of(w: &Tensor) -> Result<(Vec<i8>, Tensor)> {
    let scales = symmetric_scales(w, WEIGHT_BITS)?;
    Ok((quantize_per_channel(w, &scales, WEIGHT_BITS)?, scales))
}

/// Indices of a codebook's levels: for each output channel the indices of its weights, the first in the lowest bits of the first
/// byte, up to a whole byte.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PackedIndices {
    pub bytes: Vec<u8>,
    pub row_bytes: usize,
}

impl PackedIndices {
    /// Of the levels nearest to `integers`, channels of `width` each.
    pub fn of(integers: &[i8], width: usize, codebook: &Codebook) -> Self {
        let (bits, row_bytes) = (codebook.bits(), row_bytes(width, codebook.bits()));
        let mut bytes = Vec::with_capacity(integers.len().checked_div(width).unwrap_or(0) * row_bytes);
        for row in integers.chunks_exact(width.max(1)) {
            let (mut held, mut count) = (0u32, 0);
            for &q in row {
                held |= u32::from(codebook.index_of(q)) << count;
                count += bits;
                while count >= 8 {
                    bytes.push((held & 0xff) as u8);
                    (held, count) = (held >> 8, count - 8);
                }
            }
            if count > 0 {
                bytes.push((held & 0xff) as u8);
            }
        }
        Self { bytes, row_bytes }
    }

    /// The levels that they stand for, `width` a channel; `None` if channels of that width take other room.
    pub fn unpack(&self, width: usize, codebook: &Codebook, scales: &[f32]) -> Option<IntegerWeight> {
        if self.row_bytes != row_bytes(width, codebook.bits()) {
            return None;
        }
        let (bits, mask) = (codebook.bits(), (1u32 << codebook.bits()) - 1);
        let mut values = Vec::with_capacity(scales.len() * width);
        for row in self.bytes.chunks_exact(self.row_bytes.max(1)) {
            let (mut held, mut count, mut bytes) = (0u32, 0, row.iter());
            for _ in 0..width {
                if count < bits {
                    held |= u32::from(*bytes.next()?) << count;
                    count += 8;
                }
                values.push(codebook.levels()[(held & mask) as usize]);
                (held, count) = (held >> bits, count - bits);
            }
        }
        Some(IntegerWeight {
            values,
            scales: scales.to_vec(),
        })
    }
}

fn row_bytes(width: usize, bits: u32) -> usize {
    (width * bits as usize).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_is_unpacked() {
        for bits in Codebook::BITS {
            let half = 1i8 << (bits - 1);
            let codebook = Codebook::new((-half..half).collect()).unwrap();
            for width in [1, 2, 3, 7, 8, 9, 65] {
                let integers: Vec<i8> = (0..3 * width)
                    .map(|i| codebook.levels()[i * 7919 % codebook.levels().len()])
                    .collect();
                let packed = PackedIndices::of(&integers, width, &codebook);
                assert_eq!(packed.bytes.len(), 3 * (width * bits as usize).div_ceil(8));
                let unpacked = packed.unpack(width, &codebook, &[1.0; 3]).unwrap();
                assert_eq!(unpacked.values, integers, "{bits} bits, {width} a channel");
                assert!(packed.unpack(width + 8, &codebook, &[1.0; 3]).is_none());
            }
        }
    }

    #[test]
    fn the_first_weight_is_in_the_lowest_bits() {
        let codebook = Codebook::new(vec![-9, 0, 4, 8]).unwrap();
        let packed = PackedIndices::of(&[8, -9, 0, 4, 4], 5, &codebook);
        assert_eq!(packed.bytes, [0b10_01_00_11, 0b10]);
    }
}
