//! Multi-head self-attention (Vaswani et al. 2017, section 3.2.2).

use super::linear::Linear;
use crate::error::Result;
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{Projections, Queries, attention, self_attention};

/// Heads over projections of one input, and the projection of what they give.
pub struct SelfAttention {
    /// How many heads there are.
    pub heads: usize,
    /// To what is looked for.
    pub query: Linear,
    /// To what is compared with it.
    pub key: Linear,
    /// To what is gathered.
    pub value: Linear,
    /// From the heads side by side.
    pub output: Linear,
}

impl SelfAttention {
    /// `x: [B, S, width]` to `[B, queries, width]`; `mask: [B, S]`, 1 where a token is.
    pub fn forward(&self, x: &Tensor, queries: Queries, mask: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let (dropout, precision) = (pass.next_dropout(), pass.precision());
        if let Some(projections) = self.projections() {
            return Ok(self_attention(
                x,
                &projections,
                mask,
                self.heads,
                queries,
                dropout,
                precision,
            )?);
        }
        let [q, k, v] = self.project(x, queries, pass)?;
        let context = attention(&q, &k, &v, mask, self.heads, dropout, precision)?;
        self.output.forward(&context, pass)
    }

    /// Queries, keys and values. On integers, `x` is quantized once for all that read it in the same way; what the queries of
    /// some positions read has a scale of its own.
    fn project(&self, x: &Tensor, queries: Queries, pass: &Pass) -> Result<[Tensor; 3]> {
        let (Some(key), Some(value)) = (self.key.integers(), self.value.integers()) else {
            return Ok([
                self.query.forward(&queries.of(x)?, pass)?,
                self.key.forward(x, pass)?,
                self.value.forward(x, pass)?,
            ]);
        };
        let bytes = key.quantize(x)?;
        let q = match (queries, self.query.integers()) {
            (Queries::All, Some(query)) if query.quantizes_like(key) => query.forward_bytes(&bytes)?,
            (Queries::All | Queries::First, _) => self.query.forward(&queries.of(x)?, pass)?,
        };
        let v = if value.quantizes_like(key) {
            value.forward_bytes(&bytes)?
        } else {
            self.value.forward(x, pass)?
        };
        Ok([q, key.forward_bytes(&bytes)?, v])
    }

    fn projections(&self) -> Option<Projections> {
        Some(Projections {
            query: self.query.affine()?,
            key: self.key.affine()?,
            value: self.value.affine()?,
            output: self.output.affine()?,
        })
    }
}
