//! Multi-head self-attention with its four projections as one op (Vaswani et al. 2017, section 3.2.2).
//!
//! Between forward and backward it keeps queries, keys, values and context; on CUDA scores and probabilities, too.

use crate::affine::{Affine, Kept, holds};
use crate::attention::{Attention, AttentionShape, attention};
use crate::dropout::Dropout;
use crate::precision::ProductPrecision;
use crate::product::Output;
use crate::storage::{cpu_slice, on_cuda, slice, tensor, zeros};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use std::borrow::Cow;

/// The projections of self-attention.
#[derive(Debug, Clone)]
pub struct Projections {
    /// Of the input, `n → m`.
    pub query: Affine,
    /// Of the input, `n → m`.
    pub key: Affine,
    /// Of the input, `n → m`.
    pub value: Affine,
    /// Of the heads side by side, `m → k`.
    pub output: Affine,
}

/// Which positions of a sequence attend to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queries {
    /// Every position.
    All,
    /// The first one alone, for a layer of whose output nothing else is read.
    First,
}

impl Queries {
    /// How many they are in a sequence of `length`.
    #[must_use]
    pub fn count(self, length: usize) -> usize {
        match self {
            Self::All => length,
            Self::First => length.min(1),
        }
    }

    /// Those positions of `x: [batch, length, ...]`.
    ///
    /// # Errors
    /// If `x` has fewer than two dimensions.
    pub fn of(self, x: &Tensor) -> Result<Tensor> {
        x.narrow(1, 0, self.count(x.dim(1)?))
    }
}

/// [`attention`] of `queries` over the projections of `x: [batch, length, n]`, and the projection of its result, to
/// `[batch, queries, k]`. `key_mask` and `dropout` as there.
///
/// The gradients of its parameters come through [`crate::gradients`], once for each graph.
///
/// # Errors
/// If the shapes do not fit, `heads` does not divide the width, or the dropout rate is not in [0, 1).
pub fn self_attention(
    x: &Tensor,
    projections: &Projections,
    key_mask: Option<&Tensor>,
    heads: usize,
    queries: Queries,
    dropout: Option<Dropout>,
    precision: ProductPrecision,
) -> Result<Tensor> {
    let (batch, length, width) = x.dims3()?;
    let Projections {
        query,
        key,
        value,
        output,
    } = projections;
    let (context, inputs) = query.widths()?;
    let (outputs, expected) = output.widths()?;
    let agree = key.widths()? == (context, inputs) && value.widths()? == (context, inputs);
    if !agree || width != inputs || context != expected {
        bail!(
            "self_attention of {:?} with {context} to {outputs} behind projections of {inputs} to {context}, {:?}, {:?}",
            x.dims(),
            key.weight.dims(),
            value.weight.dims()
        )
    }
    let parameters = [query, key, value, output].into_iter().flat_map(Affine::parameters);
    if !holds(x, parameters) {
        let q = query.apply(&queries.of(x)?, precision)?;
        let [k, v] = [key, value].map(|projection| projection.apply(x, precision));
        let context = attention(&q, &k?, &v?, key_mask, heads, dropout, precision)?;
        return output.apply(&context, precision);
    }
    let shape = AttentionShape {
        batch,
        queries: queries.count(length),
        length,
        width: context,
    };
    shape.check(key_mask, heads, dropout)?;
    on_cuda!(
        x,
        self_attention(x, projections, key_mask, heads, queries, dropout, precision)
    );
    x.contiguous()?.apply_op1(SelfAttention {
        projections: projections.clone(),
        attention: Attention::new(shape, key_mask, heads, dropout, precision)?,
        sequences: Sequences {
            batch,
            queries: shape.queries,
            length,
            width,
        },
        outputs,
        precision,
        activations: Kept::nothing(),
    })
}

/// A buffer `[batch, length, width]`, of which the first positions of each sequence are queries.
#[derive(Clone, Copy)]
struct Sequences {
    batch: usize,
    queries: usize,
    length: usize,
    width: usize,
}

impl Sequences {
    /// The queries alone, `[batch, queries, width]`.
    fn queries_of<'a>(&self, values: &'a [f32]) -> Cow<'a, [f32]> {
        if self.queries == self.length {
            return Cow::Borrowed(values);
        }
        let sequences = values.chunks_exact(self.length * self.width);
        Cow::Owned(
            sequences
                .flat_map(|sequence| &sequence[..self.queries * self.width])
                .copied()
                .collect(),
        )
    }

    /// The queries at their places, all else zero.
    fn with_zeros(&self, queries: Vec<f32>) -> Vec<f32> {
        if self.queries == self.length {
            return queries;
        }
        let mut all = zeros(self.batch * self.length * self.width);
        let sequences = all.chunks_exact_mut(self.length * self.width);
        for (sequence, queries) in sequences.zip(queries.chunks_exact(self.queries * self.width)) {
            sequence[..queries.len()].copy_from_slice(queries);
        }
        all
    }
}

struct SelfAttention {
    projections: Projections,
    attention: Attention,
    sequences: Sequences,
    outputs: usize,
    precision: ProductPrecision,
    activations: Kept<Activations>,
}

struct Activations {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    context: Vec<f32>,
}

impl CustomOp1 for SelfAttention {
    fn name(&self) -> &'static str {
        "self_attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let query = self
            .projections
            .query
            .forward(&self.sequences.queries_of(x), self.precision)?;
        let key = self.projections.key.forward(x, self.precision)?;
        let value = self.projections.value.forward(x, self.precision)?;
        let context = self.attention.forward(&query, &key, &value);
        let out = self.projections.output.forward(&context, self.precision)?;
        self.activations.put(Activations {
            query,
            key,
            value,
            context,
        });
        let Sequences { batch, queries, .. } = self.sequences;
        Ok((CpuStorage::F32(out), Shape::from((batch, queries, self.outputs))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (g, g_layout) = gradient.storage_and_layout();
        let (x_storage, x_layout) = x.storage_and_layout();
        let (g, x_values) = (slice(&g, g_layout)?, slice(&x_storage, x_layout)?);
        let Activations {
            query,
            key,
            value,
            mut context,
        } = self.activations.take()?;
        let Projections {
            query: to_query,
            key: to_key,
            value: to_value,
            output,
        } = &self.projections;
        output.parameter_gradients(&context, g, self.precision)?;
        output.input_gradient_into(g, &mut context, Output::PLAIN, self.precision)?;
        let [of_query, of_key, of_value] = self.attention.backward(&context, &query, &key, &value);
        drop([query, key, value, context]);
        let of_queries = to_query.input_gradient(&of_query, self.precision)?;
        let mut input = self.sequences.with_zeros(of_queries);
        to_query.parameter_gradients(&self.sequences.queries_of(x_values), &of_query, self.precision)?;
        for (projection, g) in [(to_key, of_key), (to_value, of_value)] {
            projection.input_gradient_into(&g, &mut input, Output::Add, self.precision)?;
            projection.parameter_gradients(x_values, &g, self.precision)?;
        }
        tensor(input, x.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::ProductPrecision::F32;
    use super::Queries::{All, First};
    use super::*;
    use crate::gradients::gradients;
    use crate::testing::{DROPOUT, Differences, check, same_bits_everywhere, sample};
    use candle_core::{Device, Var};

    /// Input, then weight and bias of query, key, value and output.
    fn samples(batch: usize, length: usize, [inputs, context, outputs]: [usize; 3]) -> [Tensor; 9] {
        let [wide, narrow] = [[context, inputs], [outputs, context]];
        [
            sample(&[batch, length, inputs], 1),
            sample(&wide, 2),
            sample(&[context], 3),
            sample(&wide, 4),
            sample(&[context], 5),
            sample(&wide, 6),
            sample(&[context], 7),
            sample(&narrow, 8),
            sample(&[outputs], 9),
        ]
    }

    fn projections(t: &[&Tensor]) -> Projections {
        let affine = |first: usize| Affine {
            weight: t[first].clone(),
            bias: t[first + 1].clone(),
        };
        Projections {
            query: affine(1),
            key: affine(3),
            value: affine(5),
            output: affine(7),
        }
    }

    fn composed(
        t: &[&Tensor],
        mask: Option<&Tensor>,
        heads: usize,
        queries: Queries,
        dropout: Option<Dropout>,
    ) -> Result<Tensor> {
        let p = projections(t);
        let q = p.query.apply(&queries.of(t[0])?, F32)?;
        let [k, v] = [&p.key, &p.value].map(|projection| projection.apply(t[0], F32));
        p.output
            .apply(&attention(&q, &k?, &v?, mask, heads, dropout, F32)?, F32)
    }

    #[test]
    fn gradients_with_and_without_mask_and_dropout() -> Result<()> {
        for (length, inputs, depth, heads) in [(1, 1, 1, 1), (3, 7, 7, 2), (7, 17, 3, 3), (17, 3, 1, 2), (5, 63, 17, 1)]
        {
            let samples = samples(2, length, [inputs, heads * depth, 3]);
            let mask: Vec<u32> = (0..2 * length).map(|i| u32::from(i % length <= i / length)).collect();
            let mask = Tensor::from_vec(mask, (2, length), &Device::Cpu)?;
            for (mask, dropout, queries) in [
                (None, None, All),
                (Some(&mask), None, All),
                (Some(&mask), Some(DROPOUT), All),
                (None, Some(DROPOUT), First),
                (Some(&mask), None, First),
            ] {
                check(
                    &samples.each_ref(),
                    |t| self_attention(t[0], &projections(t), mask, heads, queries, dropout, F32),
                    |t| composed(t, mask, heads, queries, dropout),
                    Differences::Central,
                    1e-4,
                )?;
            }
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let samples = samples(3, 33, [65, 34, 17]);
        for precision in ProductPrecision::ALL {
            for queries in [All, First] {
                same_bits_everywhere(&samples.each_ref(), |t| {
                    self_attention(t[0], &projections(t), None, 2, queries, Some(DROPOUT), precision)
                })?;
            }
        }
        Ok(())
    }

    #[test]
    fn the_output_has_the_bits_of_the_composition() -> Result<()> {
        let samples = samples(3, 33, [65, 34, 17]);
        let x = Var::from_tensor(&samples[0])?;
        let mut t = samples.each_ref();
        t[0] = x.as_tensor();
        let all = self_attention(t[0], &projections(&t), None, 2, All, None, F32)?;
        let expected = composed(&t, None, 2, All, None)?;
        assert_eq!(all.to_vec3::<f32>()?, expected.to_vec3::<f32>()?);
        let first = self_attention(t[0], &projections(&t), None, 2, First, None, F32)?;
        assert_eq!(first.to_vec3::<f32>()?, all.narrow(1, 0, 1)?.to_vec3::<f32>()?);
        Ok(())
    }

    #[test]
    fn candles_own_pass_and_a_second_one_are_refused_rather_than_wrong() -> Result<()> {
        let variables: Vec<Var> = samples(2, 3, [4, 4, 4])
            .iter()
            .map(Var::from_tensor)
            .collect::<Result<_>>()?;
        let t: Vec<&Tensor> = variables.iter().map(Var::as_tensor).collect();
        let loss = || self_attention(t[0], &projections(&t), None, 2, All, None, F32)?.sum_all();
        assert!(loss()?.backward().is_err());
        let loss = loss()?;
        gradients(&loss)?;
        let message = gradients(&loss).expect_err("nothing was kept").to_string();
        assert!(message.contains("computed already"), "{message}");
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_shapes() -> Result<()> {
        let empty = samples(0, 3, [4, 6, 2]);
        let of = |t: &[&Tensor], heads| self_attention(t[0], &projections(t), None, heads, All, None, F32);
        assert_eq!(of(&empty.each_ref(), 2)?.dims(), [0, 3, 2]);
        let t = empty.each_ref();
        let first = self_attention(t[0], &projections(&t), None, 2, First, None, F32)?;
        assert_eq!(first.dims(), [0, 1, 2]);
        let samples = samples(2, 3, [4, 6, 2]);
        assert!(
            of(&samples.each_ref(), 4).is_err(),
            "heads that do not divide the width"
        );
        for wrong in 1..9 {
            let other = sample(&[5; 2][..samples[wrong].rank()], 1);
            let mut t = samples.each_ref();
            t[wrong] = &other;
            assert!(of(&t, 2).is_err(), "parameter {wrong}");
        }
        Ok(())
    }
}
