//! Scaled dot-product attention of several heads as one op (Vaswani et al. 2017, section 3.2).
//!
//! Heads stay where the projections put them, side by side in the last dimension. Each (sequence, head) pair is a task
//! that keeps its scores in a buffer of its own; the probabilities are computed again in the backward pass instead of
//! kept. Keys after the last attended one of a sequence are not computed at all.

use crate::dropout::Dropout;
use crate::matrix::Matrix;
use crate::precision::ProductPrecision;
use crate::product::{Output, Threads, multiply_into, multiply_shared};
use crate::softmax::{self, masked_softmax_rows, softmax_backward_rows};
use crate::storage::{Shared, cpu_slice, is_fused, on_cuda, slice, tensor, zeros};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// softmax(q kᵀ / √d) v in each head of d = width / heads elements. `q: [batch, queries, width]`, `k` and `v: [batch, length,
/// width]`, to the shape of `q`.
///
/// `key_mask: [batch, length]`, 0 for keys that nothing attends to; a query without any key gives zeros. `dropout` acts on
/// the probabilities, element (batch, head, query, key) in row-major order.
///
/// # Errors
/// If the shapes do not fit, `heads` does not divide the width, the dropout rate is not in [0, 1), or it drops from more than
/// 2³⁴ probabilities.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    key_mask: Option<&Tensor>,
    heads: usize,
    dropout: Option<Dropout>,
    precision: ProductPrecision,
) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let length = k.dim(1)?;
    if k.dims() != [batch, length, width] || v.dims() != k.dims() {
        bail!("attention over {:?}, {:?} and {:?}", q.dims(), k.dims(), v.dims())
    }
    let shape = AttentionShape {
        batch,
        queries,
        length,
        width,
    };
    shape.check(key_mask, heads, dropout)?;
    on_cuda!(q, attention(q, k, v, key_mask, heads, dropout, precision));
    if !is_fused(q) {
        return reference(q, k, v, key_mask, heads, dropout);
    }
    let op = Attention::new(shape, key_mask, heads, dropout, precision)?;
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// Of queries `[batch, queries, width]`, keys and values `[batch, length, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    pub(crate) batch: usize,
    pub(crate) queries: usize,
    pub(crate) length: usize,
    pub(crate) width: usize,
}

impl AttentionShape {
    /// Checks what comes beside queries, keys and values.
    pub(crate) fn check(self, key_mask: Option<&Tensor>, heads: usize, dropout: Option<Dropout>) -> Result<()> {
        let Self {
            batch,
            queries,
            length,
            width,
        } = self;
        if heads == 0 || width % heads != 0 {
            bail!("attention of {heads} heads over a width of {width}")
        }
        if let Some(mask) = key_mask
            && mask.dims() != [batch, length]
        {
            bail!(
                "attention over {:?} with a mask of {:?}",
                [batch, length, width],
                mask.dims()
            )
        }
        dropout.map_or(Ok(()), |dropout| dropout.check(&[batch, heads, queries, length]))
    }
}

fn reference(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    key_mask: Option<&Tensor>,
    heads: usize,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let (batch, length, width) = k.dims3()?;
    let depth = width / heads;
    let split = |x: &Tensor| {
        x.reshape((batch, x.dim(1)?, heads, depth))?
            .transpose(1, 2)?
            .contiguous()
    };
    let mut scores = (split(q)?.matmul(&split(k)?.t()?)? / (depth as f64).sqrt())?;
    let mask = match key_mask {
        Some(mask) => Some(
            mask.to_device(q.device())?
                .to_dtype(q.dtype())?
                .ne(0.0)?
                .to_dtype(q.dtype())?
                .reshape((batch, 1, 1, length))?,
        ),
        None => None,
    };
    if let Some(mask) = &mask {
        scores = scores.broadcast_add(&((mask - 1.0)? * 1e30)?)?;
    }
    let mut probabilities = softmax::reference(&scores)?;
    if let Some(mask) = &mask {
        probabilities = probabilities.broadcast_mul(mask)?;
    }
    if let Some(dropout) = dropout {
        let factors = dropout.factors(&probabilities)?;
        probabilities = (probabilities * factors)?;
    }
    probabilities.matmul(&split(v)?)?.transpose(1, 2)?.reshape(q.shape())
}

/// Which keys of each sequence are attended to.
struct Keys {
    /// One more than the last attended key, for each sequence.
    used: Vec<usize>,
    /// Added to the scores: 0 or −∞. `[batch, length]`.
    bias: Vec<f32>,
}

impl Keys {
    fn new(mask: Option<&Tensor>, batch: usize, length: usize) -> Result<Self> {
        let Some(mask) = mask else {
            return Ok(Self {
                used: vec![length; batch],
                bias: vec![0.0; batch * length],
            });
        };
        let mask = mask.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let used = mask
            .iter()
            .map(|row| row.iter().rposition(|m| *m != 0.0).map_or(0, |last| last + 1))
            .collect();
        let bias = mask
            .iter()
            .flatten()
            .map(|m| if *m != 0.0 { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        Ok(Self { used, bias })
    }
}

/// What is known before queries, keys and values.
pub(crate) struct Attention {
    batch: usize,
    queries: usize,
    length: usize,
    heads: usize,
    depth: usize,
    keys: Keys,
    dropout: Option<Dropout>,
    precision: ProductPrecision,
}

/// One head of one sequence: where it lies, and how many keys it looks at.
#[derive(Clone, Copy)]
struct Head {
    index: usize,
    sequence: usize,
    queries: Place,
    keys: Place,
}

/// Rows of a head within a `[batch, length, width]` buffer.
#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    rows: usize,
}

impl Attention {
    /// Of queries, keys and values of `shape`.
    ///
    /// # Errors
    /// As [`attention`].
    pub(crate) fn new(
        shape: AttentionShape,
        key_mask: Option<&Tensor>,
        heads: usize,
        dropout: Option<Dropout>,
        precision: ProductPrecision,
    ) -> Result<Self> {
        shape.check(key_mask, heads, dropout)?;
        let AttentionShape {
            batch,
            queries,
            length,
            width,
        } = shape;
        Ok(Self {
            batch,
            queries,
            length,
            heads,
            depth: width / heads,
            keys: Keys::new(key_mask, batch, length)?,
            dropout,
            precision,
        })
    }

    fn width(&self) -> usize {
        self.heads * self.depth
    }

    fn scale(&self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }

    fn heads(&self) -> impl IndexedParallelIterator<Item = Head> {
        (0..self.batch * self.heads).into_par_iter().map(|index| {
            let (sequence, head) = (index / self.heads, index % self.heads);
            let offset = |length: usize| sequence * length * self.width() + head * self.depth;
            Head {
                index,
                sequence,
                queries: Place {
                    offset: offset(self.queries),
                    rows: self.queries,
                },
                keys: Place {
                    offset: offset(self.length),
                    rows: self.keys.used[sequence],
                },
            }
        })
    }

    /// What lies at `place` in `values`.
    fn part<'a>(&self, values: &'a [f32], Place { offset, rows }: Place) -> Matrix<'a> {
        Matrix::strided(&values[offset.min(values.len())..], rows, self.depth, self.width())
    }

    /// a · b to `place` in `out`.
    ///
    /// # Safety
    /// No other task has this head.
    unsafe fn multiply(&self, out: &Shared<'_, f32>, place: Place, a: Matrix<'_>, b: Matrix<'_>) {
        let place = [place.offset, self.width()];
        // SAFETY: the head's columns in its own sequence are this task's alone, by this function's contract.
        unsafe { multiply_shared(out, place, a, b, Output::PLAIN, self.precision) };
    }

    /// softmax(q kᵀ / √d) as `[queries, used keys]`.
    fn probabilities(&self, head: Head, q: &[f32], k: &[f32], out: &mut [f32]) {
        let (q, k) = (self.part(q, head.queries), self.part(k, head.keys));
        let scaled = Output::Replace { factor: self.scale() };
        multiply_into(out, q, k.transposed(), scaled, self.precision, Threads::One);
        let bias = &self.keys.bias[head.sequence * self.length..][..head.keys.rows];
        masked_softmax_rows(out, head.keys.rows, bias);
    }

    /// Multiplies `[queries, used keys]` by the dropout factors of this head.
    fn drop(&self, head: Head, values: &mut [f32]) {
        if let Some(dropout) = self.dropout {
            let first = head.index * self.queries;
            for (i, row) in values.chunks_exact_mut(head.keys.rows).enumerate() {
                dropout.apply((first + i) * self.length, row);
            }
        }
    }

    /// The context, in the shape of `q`.
    pub(crate) fn forward(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let mut out = zeros(q.len());
        let shared = Shared::new(&mut out);
        self.heads().filter(|head| head.keys.rows > 0).for_each_init(
            || vec![0.0; self.queries * self.length],
            |scores, head| {
                let scores = &mut scores[..self.queries * head.keys.rows];
                self.probabilities(head, q, k, scores);
                self.drop(head, scores);
                let probabilities = Matrix::new(scores, self.queries, head.keys.rows);
                let v = self.part(v, head.keys);
                // SAFETY: a task writes the columns of its own head in its own sequence, which no other task has.
                unsafe { self.multiply(&shared, head.queries, probabilities, v) };
            },
        );
        out
    }

    /// The gradients of q, k and v.
    pub(crate) fn backward(&self, g: &[f32], q: &[f32], k: &[f32], v: &[f32]) -> [Vec<f32>; 3] {
        let mut gradients = [q, k, v].map(|values| zeros(values.len()));
        let shared = gradients.each_mut().map(|gradient| Shared::new(gradient));
        self.heads().filter(|head| head.keys.rows > 0).for_each_init(
            || [(); 3].map(|()| vec![0.0; self.queries * self.length]),
            |buffers, head| {
                let size = self.queries * head.keys.rows;
                let buffers = buffers.each_mut().map(|buffer| &mut buffer[..size]);
                self.backward_head(head, [g, q, k, v], buffers, &shared);
            },
        );
        gradients
    }

    fn backward_head(
        &self,
        head: Head,
        [g, q, k, v]: [&[f32]; 4],
        [probabilities, dropped, scores]: [&mut [f32]; 3],
        [dq, dk, dv]: &[Shared<'_, f32>; 3],
    ) {
        let (queries, used) = (self.queries, head.keys.rows);
        let g = self.part(g, head.queries);
        self.probabilities(head, q, k, probabilities);
        multiply_into(
            scores,
            g,
            self.part(v, head.keys).transposed(),
            Output::PLAIN,
            self.precision,
            Threads::One,
        );
        let dropped = if self.dropout.is_some() {
            dropped.copy_from_slice(probabilities);
            self.drop(head, dropped);
            self.drop(head, scores);
            dropped
        } else {
            &mut *probabilities
        };
        let dropped = Matrix::new(dropped, queries, used);
        // SAFETY: a task writes the columns of its own head in its own sequence, which no other task has.
        unsafe { self.multiply(dv, head.keys, dropped.transposed(), g) };
        softmax_backward_rows(scores, probabilities, used, self.scale());
        let scores = Matrix::new(scores, queries, used);
        // SAFETY: as above.
        unsafe { self.multiply(dq, head.queries, scores, self.part(k, head.keys)) };
        let q = self.part(q, head.queries);
        // SAFETY: as above.
        unsafe { self.multiply(dk, head.keys, scores.transposed(), q) };
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.forward(
            cpu_slice(q, q_layout)?,
            cpu_slice(k, k_layout)?,
            cpu_slice(v, v_layout)?,
        );
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (g_storage, g_layout) = gradient.storage_and_layout();
        let (q_storage, q_layout) = q.storage_and_layout();
        let (k_storage, k_layout) = k.storage_and_layout();
        let (v_storage, v_layout) = v.storage_and_layout();
        let [dq, dk, dv] = self.backward(
            slice(&g_storage, g_layout)?,
            slice(&q_storage, q_layout)?,
            slice(&k_storage, k_layout)?,
            slice(&v_storage, v_layout)?,
        );
        Ok((
            Some(tensor(dq, q.shape())?),
            Some(tensor(dk, k.shape())?),
            Some(tensor(dv, v.shape())?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::ProductPrecision::{Bf16, Bf16Amx, F32};
    use super::*;
    use crate::testing::{DROPOUT, Differences, check, same_bits_everywhere, sample};
    use candle_core::Device;

    fn inputs(batch: usize, length: usize, width: usize) -> [Tensor; 3] {
        [1, 2, 3].map(|seed| sample(&[batch, length, width], seed))
    }

    fn of_width(batch: usize, queries: usize, length: usize, width: usize) -> AttentionShape {
        AttentionShape {
            batch,
            queries,
            length,
            width,
        }
    }

    fn check_gradients(qkv: &[Tensor; 3], mask: Option<&Tensor>, heads: usize, d: Option<Dropout>) -> Result<()> {
        check(
            &qkv.each_ref(),
            |t| attention(t[0], t[1], t[2], mask, heads, d, F32),
            |t| reference(t[0], t[1], t[2], mask, heads, d),
            Differences::Central,
            5e-6,
        )
    }

    #[test]
    fn gradients() -> Result<()> {
        for (length, depth, heads) in [(1, 1, 1), (3, 7, 2), (7, 3, 3), (17, 1, 2), (5, 17, 1), (63, 2, 1)] {
            let qkv = inputs(2, length, heads * depth);
            check_gradients(&qkv, None, heads, None)?;
            check_gradients(&qkv, None, heads, Some(DROPOUT))?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_fewer_and_of_more_queries_than_keys() -> Result<()> {
        for (queries, length) in [(1, 1), (1, 7), (3, 17), (7, 3), (65, 1)] {
            let [_, k, v] = inputs(2, length, 6);
            let qkv = [sample(&[2, queries, 6], 4), k, v];
            let mask =
                Tensor::from_iter((0..2 * length).map(|i| u8::from(i % 5 < 3)), &Device::Cpu)?.reshape((2, length))?;
            check_gradients(&qkv, None, 2, Some(DROPOUT))?;
            check_gradients(&qkv, Some(&mask), 2, None)?;
        }
        Ok(())
    }

    #[test]
    fn a_query_gets_what_it_gets_among_others() -> Result<()> {
        let [q, k, v] = inputs(3, 17, 6);
        let all = attention(&q, &k, &v, None, 2, None, F32)?;
        let one = attention(&q.narrow(1, 0, 1)?, &k, &v, None, 2, None, F32)?;
        assert_eq!(one.to_vec3::<f32>()?, all.narrow(1, 0, 1)?.to_vec3::<f32>()?);
        Ok(())
    }

    #[test]
    fn gradients_under_masks() -> Result<()> {
        let qkv = inputs(4, 5, 6);
        // A prefix, holes, everything, nothing.
        let mask = [[1u8, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]];
        let mask = Tensor::new(&mask, &Device::Cpu)?;
        check_gradients(&qkv, Some(&mask), 2, None)?;
        check_gradients(&qkv, Some(&mask.to_dtype(DType::F32)?), 2, Some(DROPOUT))
    }

    #[test]
    fn a_sequence_without_keys_gives_zeros() -> Result<()> {
        let [q, k, v] = inputs(1, 4, 6);
        let mask = Tensor::zeros((1, 4), DType::F32, &Device::Cpu)?;
        let out = attention(&q, &k, &v, Some(&mask), 3, None, F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        assert_eq!(out, [0.0; 24]);
        Ok(())
    }

    #[test]
    fn padding_does_not_reach_the_result() -> Result<()> {
        let [q, k, v] = inputs(1, 4, 6);
        let mask = Tensor::new(&[[1f32, 1., 0., 0.]], &Device::Cpu)?;
        let long = attention(&q, &k, &v, Some(&mask), 2, None, F32)?.narrow(1, 0, 2)?;
        let [q, k, v] = [q, k, v].map(|x| x.narrow(1, 0, 2));
        let short = attention(&q?, &k?, &v?, None, 2, None, F32)?;
        assert_eq!(long.to_vec3::<f32>()?, short.to_vec3::<f32>()?);
        Ok(())
    }

    #[test]
    fn dropout_from_more_probabilities_than_random_numbers_is_an_error() {
        let of = |batch, dropout| Attention::new(of_width(batch, 8192, 8192, 8), None, 4, dropout, F32);
        assert!(of(64, Some(DROPOUT)).is_ok());
        let error = of(65, Some(DROPOUT)).err().expect("65 · 4 · 8192² is above 2^34");
        assert!(error.to_string().contains("[65, 4, 8192, 8192]"), "{error}");
        assert!(of(65, None).is_ok());
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let qkv = inputs(3, 65, 34);
        same_bits_everywhere(&qkv.each_ref(), |t| {
            attention(t[0], t[1], t[2], None, 2, Some(DROPOUT), F32)
        })
    }

    #[test]
    fn gradients_in_bf16_are_near_and_the_same_everywhere() -> Result<()> {
        let qkv = inputs(3, 65, 34);
        for precision in [Bf16, Bf16Amx] {
            check(
                &qkv.each_ref(),
                |t| attention(t[0], t[1], t[2], None, 2, Some(DROPOUT), precision),
                |t| reference(t[0], t[1], t[2], None, 2, Some(DROPOUT)),
                Differences::Skip,
                2e-2,
            )?;
            same_bits_everywhere(&qkv.each_ref(), |t| {
                attention(t[0], t[1], t[2], None, 2, Some(DROPOUT), precision)
            })?;
        }
        Ok(())
    }

    #[test]
    fn empty_batch_and_wrong_shapes() -> Result<()> {
        let [q, k, v] = inputs(0, 4, 6);
        assert_eq!(attention(&q, &k, &v, None, 2, None, F32)?.dims(), [0, 4, 6]);
        assert_eq!(
            attention(&q.narrow(1, 0, 1)?, &k, &v, None, 2, None, F32)?.dims(),
            [0, 1, 6]
        );
        let [q, k, v] = inputs(2, 4, 6);
        assert!(attention(&q, &k, &v, None, 4, None, F32).is_err());
        assert!(attention(&q, &k, &sample(&[2, 4, 5], 1), None, 2, None, F32).is_err());
        assert!(attention(&q, &k, &sample(&[2, 3, 6], 1), None, 2, None, F32).is_err());
        assert!(attention(&q, &sample(&[1, 4, 6], 1), &sample(&[1, 4, 6], 1), None, 2, None, F32).is_err());
        assert!(attention(&q, &k, &v, Some(&sample(&[2, 3], 1)), 2, None, F32).is_err());
        Ok(())
    }
}
