//! Attention: two products, and one kernel between them.

use super::product::{Transposed, product};
use super::{Dropping, WARP, address, blocks, buffer, launch, not_on_cpu, output, view, width_of};
use crate::dropout::Dropout;
use crate::precision::ProductPrecision;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};

/// Rows of a block, each of which a warp has.
const ROWS: u32 = 4;

/// As [`crate::attention`].
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    key_mask: Option<&Tensor>,
    heads: usize,
    dropout: Option<Dropout>,
    precision: ProductPrecision,
) -> Result<Tensor> {
    let (batch, _, width) = q.dims3()?;
    let depth = width / heads;
    let split = |x: &Tensor| x.reshape((batch, x.dim(1)?, heads, depth))?.transpose(1, 2);
    let scores = product(&split(q)?, &split(k)?, Transposed::RIGHT, precision)?;
    let scale = 1.0 / (depth as f64).sqrt();
    let shares = probabilities(&scores, &Mask::new(key_mask, q)?, scale, dropout)?;
    product(&shares, &split(v)?, Transposed::NEITHER, precision)?
        .transpose(1, 2)?
        .reshape(q.shape())
}

/// Which keys are attended to: f32 `[batch, length]`, 0 where not; all where there is none.
#[derive(Clone)]
pub(super) struct Mask(Option<Tensor>);

impl Mask {
    /// `mask` on the device of `like`.
    pub(super) fn new(mask: Option<&Tensor>, like: &Tensor) -> Result<Self> {
        let there = |mask: &Tensor| {
            mask.detach()
                .to_device(like.device())?
                .to_dtype(DType::F32)?
                .contiguous()
        };
        mask.map(there).transpose().map(Self)
    }
}

/// The softmax of `scores: [batch, heads, queries, length]` times `scale`, over the keys that the mask has, with dropout. A row
/// without any key is zeros.
pub(super) fn probabilities(scores: &Tensor, mask: &Mask, scale: f64, dropout: Option<Dropout>) -> Result<Tensor> {
    scores.contiguous()?.apply_op1(Probabilities::new(mask, scale, dropout))
}

/// The gradient of the scores, from that of [`probabilities`]; both contiguous.
pub(super) fn probabilities_gradient(
    scores: &Tensor,
    gradient: &Tensor,
    mask: &Mask,
    scale: f64,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    Probabilities::new(mask, scale, dropout).gradient(scores, gradient)
}

struct Probabilities {
    mask: Mask,
    scale: f32,
    dropping: Dropping,
}

impl Probabilities {
    fn new(mask: &Mask, scale: f64, dropout: Option<Dropout>) -> Self {
        Self {
            mask: mask.clone(),
            scale: scale as f32,
            dropping: dropout.map_or(Dropping::NOTHING, Dropping::from),
        }
    }

    fn gradient(&self, scores: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        scores.apply_op2_no_bwd(gradient, &ProbabilitiesGradient(self))
    }
}

/// Rows of a shape, the width of each, how many follow each other with one mask, and a warp for each.
fn rows_of(shape: &Shape) -> Result<(u64, u32, u64, LaunchConfig)> {
    let (batch, heads, queries, length) = shape.dims4()?;
    let rows = (batch * heads * queries) as u64;
    let config = LaunchConfig {
        grid_dim: (blocks(rows.div_ceil(ROWS.into()))?, 1, 1),
        block_dim: (WARP, ROWS, 1),
        shared_mem_bytes: 0,
    };
    Ok((rows, width_of(length)?, (heads * queries) as u64, config))
}

impl CustomOp1 for Probabilities {
    fn name(&self) -> &'static str {
        "attention_probabilities"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, scores: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (&scores.device, layout.shape());
        let mut y = buffer(device, shape.elem_count())?;
        if shape.elem_count() > 0 {
            let (rows, length, of_mask, config) = rows_of(shape)?;
            let (scores, mask) = (view(scores, layout)?, address(self.mask.0.as_ref())?);
            let (scale, dropping) = (&self.scale, &self.dropping);
            // SAFETY: scores and `y` have `rows` rows of `length`; the mask, if any, a row for each `of_mask` of them.
            unsafe {
                launch!(
                    device,
                    "attention_probabilities",
                    config,
                    &scores,
                    &mask,
                    &mut y,
                    &rows,
                    &length,
                    &of_mask,
                    scale,
                    dropping
                );
            }
        }
        Ok(output(y, device, shape))
    }

    fn bwd(&self, scores: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.gradient(scores, &gradient.contiguous()?).map(Some)
    }
}

/// Of the scores and the gradient of the probabilities.
struct ProbabilitiesGradient<'a>(&'a Probabilities);

impl CustomOp2 for ProbabilitiesGradient<'_> {
    fn name(&self) -> &'static str {
        "attention_gradient"
    }

    not_on_cpu!(2);

    fn cuda_fwd(
        &self,
        scores: &CudaStorage,
        layout: &Layout,
        g: &CudaStorage,
        g_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (&scores.device, layout.shape());
        let mut out = buffer(device, shape.elem_count())?;
        if shape.elem_count() > 0 {
            let (rows, length, of_mask, config) = rows_of(shape)?;
            let (scores, g) = (view(scores, layout)?, view(g, g_layout)?);
            let Probabilities { mask, scale, dropping } = self.0;
            let mask = address(mask.0.as_ref())?;
            // SAFETY: as in the forward pass; the gradient has the shape of what it is of.
            unsafe {
                launch!(
                    device,
                    "attention_gradient",
                    config,
                    &scores,
                    &mask,
                    &g,
                    &mut out,
                    &rows,
                    &length,
                    &of_mask,
                    scale,
                    dropping
                );
            }
        }
        Ok(output(out, device, shape))
    }
}
