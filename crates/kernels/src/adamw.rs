//! Adam with decoupled weight decay as one pass over parameter, gradient and moments, in place.

use crate::isa::multiversion;
use crate::row_gradient::RowGradient;
use crate::storage::{TASK, change_in_place, is_fused, on_cuda, overwrite, rows_per_task, share_storage, slice};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

/// Settings of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate, the schedule's factor included.
    pub lr: f64,
    /// The gradient is multiplied by this first: below 1 where its norm is clipped.
    pub gradient_factor: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of the parameter that a unit of learning rate takes away.
    pub weight_decay: f64,
    /// Which step this is, from 1, for the correction of the moments' bias.
    pub step: u64,
}

/// The numbers that all elements share.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) gradient: f32,
    pub(crate) decay: f32,
    pub(crate) beta1: f32,
    pub(crate) beta1_rest: f32,
    pub(crate) beta2: f32,
    pub(crate) beta2_rest: f32,
    pub(crate) root: f32,
    pub(crate) eps: f32,
    pub(crate) rate: f32,
}

/// base^exponent by squaring, so that it does not depend on the C library.
fn power(base: f64, mut exponent: u64) -> f64 {
    let (mut square, mut result) = (base, 1.0);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    result
}

impl AdamWStep {
    fn factors(&self) -> Factors {
        Factors {
            gradient: self.gradient_factor as f32,
            decay: (1.0 - self.lr * self.weight_decay) as f32,
            beta1: self.beta1 as f32,
            beta1_rest: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            beta2_rest: (1.0 - self.beta2) as f32,
            root: (1.0 / (1.0 - power(self.beta2, self.step)).sqrt()) as f32,
            eps: self.eps as f32,
            rate: (self.lr / (1.0 - power(self.beta1, self.step))) as f32,
        }
    }
}

/// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2) on `param`, with moments `m` and `v`, all three in place; all
/// of one shape. `mask`, of 0 and 1, multiplies the parameter after the update.
///
/// # Errors
/// If shapes differ, tensors share a storage, one to change is not contiguous, or `step` is 0.
pub fn adamw_step(
    param: &Tensor,
    grad: &Tensor,
    m: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    cfg: &AdamWStep,
) -> Result<()> {
    let shape = param.shape();
    if [grad, m, v].into_iter().chain(mask).any(|t| t.shape() != shape) || cfg.step == 0 {
        bail!("adamw_step {} of tensors that do not fit {shape:?}", cfg.step)
    }
    if share_storage([param, grad, m, v].into_iter().chain(mask)) {
        bail!("adamw_step of tensors that share their storage")
    }
    on_cuda!(param, adamw_step(param, grad, m, v, mask, cfg.factors()));
    if !is_fused(param) {
        return reference(param, grad, m, v, mask, cfg);
    }
    let grad = grad.contiguous()?;
    let (g_storage, g_layout) = grad.storage_and_layout();
    let g = slice(&g_storage, g_layout)?;
    let mask = mask.map(Tensor::contiguous).transpose()?;
    let mask_storage = mask.as_ref().map(Tensor::storage_and_layout);
    let mask = mask_storage
        .as_ref()
        .map(|(storage, layout)| slice(storage, layout))
        .transpose()?;
    let factors = cfg.factors();
    change_in_place(param, |p| {
        change_in_place(m, |m| {
            change_in_place(v, |v| {
                update_all(p, g, m, v, mask, factors);
                Ok(())
            })
        })
    })
}

/// Which rows of a table have moments that may not be zero.
#[derive(Debug)]
pub struct MovingRows(Vec<bool>);

impl MovingRows {
    /// Those of a table whose moments are `m` and `v`, both `[rows, width]`.
    ///
    /// # Errors
    /// If they are of another type than f32, or not of two dimensions.
    pub fn of(m: &Tensor, v: &Tensor) -> Result<Self> {
        let (rows, _) = m.dims2()?;
        let mut is_moving = vec![false; rows];
        for moment in [m, v] {
            let moment = moment.detach().contiguous()?;
            let (storage, layout) = moment.storage_and_layout();
            let values = slice(&storage, layout)?;
            let width = values.len() / rows.max(1);
            for (row, is_moving) in values.chunks_exact(width.max(1)).zip(&mut is_moving) {
                *is_moving |= row.iter().any(|value| *value != 0.0);
            }
        }
        Ok(Self(is_moving))
    }
}

/// [`adamw_step`] on the table `param: [rows, width]`, with the same bits as long as `eps` is above 0, without a look at what
/// does not change: a row that is not in `grad` and never was has moments of zero, and does no more than decay. `moving` has
/// the other ones and is kept up to date.
///
/// # Errors
/// As [`adamw_step`]; and if `moving` is of another number of rows, or the tensors are not f32 on the CPU.
pub fn adamw_step_of_rows(
    param: &Tensor,
    grad: &RowGradient,
    m: &Tensor,
    v: &Tensor,
    moving: &mut MovingRows,
    cfg: &AdamWStep,
) -> Result<()> {
    let [rows, width] = grad.dims();
    let fits = |t: &Tensor| t.dims() == [rows, width];
    if ![param, m, v].into_iter().all(fits) || moving.0.len() != rows || cfg.step == 0 {
        bail!(
            "adamw_step_of_rows {} of tensors that do not fit {:?}",
            cfg.step,
            param.dims()
        )
    }
    if share_storage([param, m, v]) {
        bail!("adamw_step_of_rows of tensors that share their storage")
    }
    for &number in grad.numbers() {
        moving.0[number as usize] = true;
    }
    let (factors, moving) = (cfg.factors(), moving.0.as_slice());
    change_in_place(param, |p| {
        change_in_place(m, |m| {
            change_in_place(v, |v| {
                update_rows(p, grad, m, v, moving, factors);
                Ok(())
            })
        })
    })
}

fn update_rows(p: &mut [f32], grad: &RowGradient, m: &mut [f32], v: &mut [f32], moving: &[bool], factors: Factors) {
    let [_, width] = grad.dims();
    let (rows, still) = (rows_per_task(width), vec![0.0; width]);
    let task = rows * width.max(1);
    let pieces = p
        .par_chunks_mut(task)
        .zip(m.par_chunks_mut(task))
        .zip(v.par_chunks_mut(task))
        .zip(moving.par_chunks(rows));
    pieces.enumerate().for_each(|(i, (((p, m), v), moving))| {
        let mut next = grad.numbers().partition_point(|&number| (number as usize) < i * rows);
        let piece = p
            .chunks_exact_mut(width)
            .zip(m.chunks_exact_mut(width))
            .zip(v.chunks_exact_mut(width));
        for ((number, ((p, m), v)), &is_moving) in (i * rows..).zip(piece).zip(moving) {
            let is_next = grad.numbers().get(next).is_some_and(|&next| next as usize == number);
            if is_next {
                update(p, grad.row(next), m, v, factors);
                next += 1;
            } else if is_moving {
                update(p, &still, m, v, factors);
            } else if factors.decay != 1.0 {
                p.iter_mut().for_each(|p| *p *= factors.decay);
            }
        }
    });
}

fn update_all(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], mask: Option<&[f32]>, factors: Factors) {
    let pieces = p
        .par_chunks_mut(TASK)
        .zip(g.par_chunks(TASK))
        .zip(m.par_chunks_mut(TASK))
        .zip(v.par_chunks_mut(TASK));
    pieces.enumerate().for_each(|(i, (((p, g), m), v))| {
        update(p, g, m, v, factors);
        if let Some(mask) = mask {
            p.iter_mut().zip(&mask[i * TASK..]).for_each(|(p, mask)| *p *= mask);
        }
    });
}

multiversion! {
    fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = f.gradient * g;
            *m = f.beta1 * *m + f.beta1_rest * g;
            *v = f.beta2 * *v + f.beta2_rest * (g * g);
            *p = f.decay * *p - f.rate * (*m / (v.sqrt() * f.root + f.eps));
        }
    }
}

fn reference(p: &Tensor, g: &Tensor, m: &Tensor, v: &Tensor, mask: Option<&Tensor>, cfg: &AdamWStep) -> Result<()> {
    let (p_now, m_now, v_now) = (p.detach(), m.detach(), v.detach());
    let g = if cfg.gradient_factor == 1.0 {
        g.detach()
    } else {
        (g.detach() * cfg.gradient_factor)?
    };
    let first = ((m_now * cfg.beta1)? + (&g * (1.0 - cfg.beta1))?)?;
    let second = ((v_now * cfg.beta2)? + (g.sqr()? * (1.0 - cfg.beta2))?)?;
    let root = ((&second / (1.0 - power(cfg.beta2, cfg.step)))?.sqrt()? + cfg.eps)?;
    let rate = cfg.lr / (1.0 - power(cfg.beta1, cfg.step));
    let mut updated = ((p_now * (1.0 - cfg.lr * cfg.weight_decay))? - ((&first / root)? * rate)?)?;
    if let Some(mask) = mask {
        updated = (updated * mask)?;
    }
    overwrite(m, &first)?;
    overwrite(v, &second)?;
    overwrite(p, &updated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SIZES, devices, in_f64, sample};
    use candle_core::{DType, Device, Var};

    const STEP: AdamWStep = AdamWStep {
        lr: 0.01,
        gradient_factor: 0.7,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
    };

    #[test]
    fn five_steps_agree_with_the_composition_in_f64() -> Result<()> {
        for n in SIZES.into_iter().chain([4099]) {
            let mask = sample(&[n], 9).ge(0.0)?;
            let run = |dtype: DType, device: &Device| -> Result<[Vec<f64>; 3]> {
                let there = |t: Tensor| t.to_dtype(dtype)?.to_device(device);
                let p = Var::from_tensor(&there(sample(&[n], 1))?)?;
                let (m, v, mask) = (p.zeros_like()?, p.zeros_like()?, there(mask.clone())?);
                for step in 1..=5 {
                    let g = there(sample(&[n], 10 + step))?;
                    adamw_step(&p, &g, &m, &v, Some(&mask), &AdamWStep { step, ..STEP })?;
                }
                Ok([in_f64(&p)?, in_f64(&m)?, in_f64(&v)?])
            };
            let expected = run(DType::F64, &Device::Cpu)?;
            let masked = mask.to_vec1::<u8>()?;
            for device in devices() {
                let got = run(DType::F32, device)?;
                for (ours, theirs) in got.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((ours - theirs).abs() < 2e-6, "{ours} and {theirs} on {device:?}");
                }
                assert!(
                    got[0].iter().zip(&masked).all(|(p, mask)| *mask == 1 || *p == 0.0),
                    "a masked parameter is not zero on {device:?}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn steps_on_rows_have_the_bits_of_steps_on_the_table() -> Result<()> {
        for (rows, width) in [(1, 1), (7, 3), (300, 17), (65, 513), (5000, 16)] {
            let p = sample(&[rows, width], 1);
            let whole = [p.copy()?, p.zeros_like()?, p.zeros_like()?];
            let by_rows = [p.copy()?, p.zeros_like()?, p.zeros_like()?];
            let mut moving = MovingRows::of(&by_rows[1], &by_rows[2])?;
            for step in 1..=5 {
                let weight_decay = if step % 2 == 0 { 0.0 } else { 0.1 };
                let cfg = AdamWStep {
                    step,
                    weight_decay,
                    ..STEP
                };
                let ids: Vec<u32> = (0..9).map(|i| (i * i * step as usize % rows) as u32).collect();
                let values = sample(&[9, width], 10 + step).flatten_all()?.to_vec1()?;
                let gradient = RowGradient::scatter(&ids, &values, rows, width);
                adamw_step(&whole[0], &gradient.to_dense()?, &whole[1], &whole[2], None, &cfg)?;
                if step == 4 {
                    // As after a checkpoint.
                    moving = MovingRows::of(&by_rows[1], &by_rows[2])?;
                }
                adamw_step_of_rows(&by_rows[0], &gradient, &by_rows[1], &by_rows[2], &mut moving, &cfg)?;
                for (a, b) in whole.iter().zip(&by_rows) {
                    let bits = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
                    let [a, b] =
                        [bits(a)?, bits(b)?].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>());
                    assert!(a == b, "{rows} of {width}, step {step}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate() -> Result<()> {
        let p = Var::from_tensor(&sample(&[100], 1).zeros_like()?)?;
        let g = sample(&[100], 2);
        adamw_step(&p, &g, &p.zeros_like()?, &p.zeros_like()?, None, &STEP)?;
        for (p, g) in p.to_vec1::<f32>()?.into_iter().zip(g.to_vec1::<f32>()?) {
            assert!((p + 0.01 * g.signum()).abs() < 1e-5, "{p} {g}");
        }
        Ok(())
    }

    #[test]
    fn a_clipped_gradient_has_the_bits_of_one_that_was_multiplied() -> Result<()> {
        let g = sample(&[TASK + 3], 2);
        let multiplied = (&g * STEP.gradient_factor)?;
        let unclipped = AdamWStep {
            gradient_factor: 1.0,
            ..STEP
        };
        let run = |g: &Tensor, cfg: &AdamWStep| -> Result<[Vec<f32>; 3]> {
            let (p, m, v) = (sample(&[TASK + 3], 1), g.zeros_like()?, g.zeros_like()?);
            adamw_step(&p, g, &m, &v, None, cfg)?;
            Ok([p.to_vec1()?, m.to_vec1()?, v.to_vec1()?])
        };
        assert_eq!(run(&g, &STEP)?, run(&multiplied, &unclipped)?);
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads() -> Result<()> {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool can be started");
            pool.install(|| {
                let p = sample(&[10_001], 1);
                let v = sample(&[10_001], 4).abs()?;
                adamw_step(&p, &sample(&[10_001], 2), &sample(&[10_001], 3), &v, None, &STEP)?;
                p.to_vec1::<f32>()
            })
        };
        assert_eq!(run(1)?, run(2)?);
        Ok(())
    }

    #[test]
    fn wrong_shapes_and_step_zero_are_errors() {
        let (p, q) = (sample(&[3], 1), sample(&[4], 1));
        let zeros = || p.zeros_like().expect("zeros");
        assert!(adamw_step(&p, &q, &zeros(), &zeros(), None, &STEP).is_err());
        assert!(adamw_step(&p, &p.copy().expect("a copy"), &zeros(), &zeros(), Some(&q), &STEP).is_err());
        let zeroth = AdamWStep { step: 0, ..STEP };
        assert!(adamw_step(&p, &p.copy().expect("a copy"), &zeros(), &zeros(), None, &zeroth).is_err());
    }

    #[test]
    fn rows_that_do_not_fit_are_errors() -> Result<()> {
        let p = sample(&[3, 2], 1);
        let (m, v) = (p.zeros_like()?, p.zeros_like()?);
        let mut moving = MovingRows::of(&m, &v)?;
        let gradient = |rows| RowGradient::scatter(&[1], &[0.5, 0.25], rows, 2);
        assert!(adamw_step_of_rows(&p, &gradient(4), &m, &v, &mut moving, &STEP).is_err());
        assert!(adamw_step_of_rows(&p, &gradient(3), &m, &m.clone(), &mut moving, &STEP).is_err());
        let zeroth = AdamWStep { step: 0, ..STEP };
        assert!(adamw_step_of_rows(&p, &gradient(3), &m, &v, &mut moving, &zeroth).is_err());
        assert!(adamw_step_of_rows(&p, &gradient(3), &m, &v, &mut MovingRows(vec![]), &STEP).is_err());
        adamw_step_of_rows(&p, &gradient(3), &m, &v, &mut moving, &STEP)
    }

    #[test]
    fn a_shared_storage_is_an_error() -> Result<()> {
        let p = sample(&[3], 1);
        let v = p.zeros_like()?;
        assert!(adamw_step(&p, &sample(&[3], 2), &p.clone(), &v, None, &STEP).is_err());
        assert!(adamw_step(&p, &p.clone(), &p.zeros_like()?, &v, None, &STEP).is_err());
        Ok(())
    }

    #[test]
    fn powers_by_squaring() {
        assert_eq!(power(0.5, 10), 1.0 / 1024.0);
        assert_eq!(power(3.0, 0), 1.0);
        assert_eq!(power(0.999, u64::MAX), 0.0);
    }
}
