//! The blocks of a transformer. Each does what the composition beside the CPU's op of that name does.

use super::attention::{Mask, probabilities, probabilities_gradient};
use super::block::{block, block2};
use super::elementwise::{dropout, gelu, gelu_gradient};
use super::embedding::{embedding, scatter};
use super::layer_norm::{layer_norm, layer_norm_gradients};
use super::linear::{column_sums, linear};
use super::product::{Transposed, plain_product};
use crate::affine::{Affine, hand_over_all};
use crate::dropout::Dropout;
use crate::precision::ProductPrecision;
use crate::self_attention::{Projections, Queries};
use candle_core::{Result, Tensor};

/// The layer at `x`, without a graph.
fn forward(layer: &Affine, x: &Tensor, precision: ProductPrecision) -> Result<Tensor> {
    linear(x, &layer.weight.detach(), Some(&layer.bias.detach()), precision)
}

/// Hands the gradients of the layer's parameters over, and gives that of its input: `g` is that of its output at `x`.
fn backward(layer: &Affine, x: &Tensor, g: &Tensor, precision: ProductPrecision) -> Result<Tensor> {
    let (outputs, inputs) = layer.widths()?;
    let (x_rows, g) = (x.reshape(((), inputs))?, g.reshape(((), outputs))?);
    if layer.weight.track_op() {
        hand_over_all(&layer.weight, plain_product(&g, &x_rows, Transposed::LEFT, precision)?)?;
    }
    if layer.bias.track_op() {
        hand_over_all(&layer.bias, column_sums(&g)?)?;
    }
    plain_product(&g, &layer.weight.detach(), Transposed::NEITHER, precision)?.reshape(x.shape())
}

/// The gradient of what is normalized, `x`, from that of its norm; those of gain and bias are handed over.
fn norm_backward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, g: &Tensor) -> Result<Tensor> {
    let (of_x, by_weight) = layer_norm_gradients(x, &weight.detach(), g, eps)?;
    if weight.track_op() {
        hand_over_all(weight, column_sums(&by_weight)?)?;
    }
    if bias.track_op() {
        hand_over_all(bias, column_sums(g)?)?;
    }
    Ok(of_x)
}

/// As [`crate::feed_forward`].
pub(crate) fn feed_forward(x: &Tensor, inner: &Affine, outer: &Affine, precision: ProductPrecision) -> Result<Tensor> {
    let at = x.detach().contiguous()?;
    let neurons = forward(inner, &at, precision)?;
    let active = gelu(&neurons)?;
    let y = forward(outer, &active, precision)?;
    let (inner, outer) = (inner.clone(), outer.clone());
    block(x, y, move |g| {
        let of_active = backward(&outer, &active, g, precision)?;
        drop(active);
        let of_neurons = gelu_gradient(&neurons, &of_active)?;
        drop((neurons, of_active));
        backward(&inner, &at, &of_neurons, precision)
    })
}

/// As [`crate::add_norm`].
pub(crate) fn add_norm(
    x: &Tensor,
    branch: &Tensor,
    dropped: Option<Dropout>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let drop_from = move |t: Tensor| match dropped {
        Some(rate) => dropout(&t, rate),
        None => Ok(t),
    };
    let sum = (drop_from(branch.detach())? + x.detach())?;
    let y = layer_norm(&sum, &weight.detach(), &bias.detach(), eps)?;
    let (weight, bias) = (weight.clone(), bias.clone());
    block2(x, branch, y, move |g| {
        let of_sum = norm_backward(&sum, &weight, &bias, eps, g)?;
        Ok([of_sum.clone(), drop_from(of_sum)?])
    })
}

/// As [`crate::embedding_norm`], of `ids` that the table has.
pub(crate) fn embedding_norm(
    places: &Tensor,
    table: &Tensor,
    ids: Vec<u32>,
    shape: Vec<usize>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let words = embedding(&table.detach(), ids.clone(), shape.into())?;
    let sum = words.broadcast_add(&places.detach())?;
    let y = layer_norm(&sum, &weight.detach(), &bias.detach(), eps)?;
    let (table, weight, bias) = (table.clone(), weight.clone(), bias.clone());
    let places_shape = places.shape().clone();
    block(places, y, move |g| {
        let of_sum = norm_backward(&sum, &weight, &bias, eps, g)?;
        if table.track_op() {
            hand_over_all(&table, scatter(&of_sum, &ids, table.dims2()?)?)?;
        }
        column_sums(&of_sum.reshape(((), places_shape.elem_count()))?)?.reshape(&places_shape)
    })
}

/// As [`crate::self_attention`].
pub(crate) fn self_attention(
    x: &Tensor,
    projections: &Projections,
    key_mask: Option<&Tensor>,
    heads: usize,
    queries: Queries,
    dropout: Option<Dropout>,
    precision: ProductPrecision,
) -> Result<Tensor> {
    let projections = projections.clone();
    let (width, _) = projections.query.widths()?;
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    // `[batch, length, width]` to `[batch, heads, length, depth]`, and back.
    let split = move |t: &Tensor| {
        let (batch, length, width) = t.dims3()?;
        t.reshape((batch, length, heads, width / heads))?
            .transpose(1, 2)?
            .contiguous()
    };
    let join = move |t: &Tensor| t.transpose(1, 2)?.flatten_from(2)?.contiguous();
    let mask = Mask::new(key_mask, x)?;
    let at = x.detach().contiguous()?;
    let asking = queries.of(&at)?.contiguous()?;
    let q = split(&forward(&projections.query, &asking, precision)?)?;
    let k = split(&forward(&projections.key, &at, precision)?)?;
    let v = split(&forward(&projections.value, &at, precision)?)?;
    let scores = plain_product(&q, &k, Transposed::RIGHT, precision)?;
    let shares = probabilities(&scores, &mask, scale, dropout)?;
    let context = join(&plain_product(&shares, &v, Transposed::NEITHER, precision)?)?;
    let y = forward(&projections.output, &context, precision)?;
    block(x, y, move |g| {
        let of_context = split(&backward(&projections.output, &context, g, precision)?)?;
        drop(context);
        let of_v = plain_product(&shares, &of_context, Transposed::LEFT, precision)?;
        let of_shares = plain_product(&of_context, &v, Transposed::RIGHT, precision)?;
        drop((shares, v));
        let of_scores = probabilities_gradient(&scores, &of_shares, &mask, scale, dropout)?;
        drop((scores, of_shares));
        let of_q = plain_product(&of_scores, &k, Transposed::NEITHER, precision)?;
        let of_k = plain_product(&of_scores, &q, Transposed::LEFT, precision)?;
        drop((of_scores, q, k));
        let by_key = backward(&projections.key, &at, &join(&of_k)?, precision)?;
        let by_value = backward(&projections.value, &at, &join(&of_v)?, precision)?;
        let by_query = backward(&projections.query, &asking, &join(&of_q)?, precision)?;
        let missing = at.dim(1)? - by_query.dim(1)?;
        let by_query = if missing > 0 {
            by_query.pad_with_zeros(1, 0, missing)?
        } else {
            by_query
        };
        (by_key + by_value)? + by_query
    })
}
