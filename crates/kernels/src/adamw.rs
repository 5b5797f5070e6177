//! Adam with decoupled weight decay as one pass over parameter, gradient and moments, in place.

use crate::isa::multiversion;
use crate::storage::{TASK, change_in_place, is_fused, overwrite, share_storage, slice};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

/// Settings of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate, the schedule's factor included.
    pub lr: f64,
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
struct Factors {
    decay: f32,
    beta1: f32,
    beta1_rest: f32,
    beta2: f32,
    beta2_rest: f32,
    root: f32,
    eps: f32,
    rate: f32,
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
    if !is_fused(param) {
        return reference(param, grad, m, v, mask, cfg);
    }
    if share_storage([param, grad, m, v].into_iter().chain(mask)) {
        bail!("adamw_step of tensors that share their storage")
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
            *m = f.beta1 * *m + f.beta1_rest * g;
            *v = f.beta2 * *v + f.beta2_rest * (g * g);
            *p = f.decay * *p - f.rate * (*m / (v.sqrt() * f.root + f.eps));
        }
    }
}

fn reference(p: &Tensor, g: &Tensor, m: &Tensor, v: &Tensor, mask: Option<&Tensor>, cfg: &AdamWStep) -> Result<()> {
    let (p_now, g, m_now, v_now) = (p.detach(), g.detach(), m.detach(), v.detach());
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
    use crate::testing::{SIZES, sample};
    use candle_core::{DType, Var};

    const STEP: AdamWStep = AdamWStep {
        lr: 0.01,
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
            let mut tensors = Vec::new();
            for dtype in [DType::F32, DType::F64] {
                let p = Var::from_tensor(&sample(&[n], 1).to_dtype(dtype)?)?;
                let (m, v, mask) = (p.zeros_like()?, p.zeros_like()?, mask.to_dtype(dtype)?);
                for step in 1..=5 {
                    let g = sample(&[n], 10 + step).to_dtype(dtype)?;
                    adamw_step(&p, &g, &m, &v, Some(&mask), &AdamWStep { step, ..STEP })?;
                }
                tensors.push([p.as_tensor().clone(), m, v].map(|t| t.to_dtype(DType::F64)));
            }
            for (ours, theirs) in tensors[0].iter().zip(&tensors[1]) {
                let (ours, theirs) = (ours.as_ref().expect("converted"), theirs.as_ref().expect("converted"));
                let worst = (ours - theirs)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(worst < 2e-6, "{worst}");
            }
            let p = tensors[0][0].as_ref().expect("converted").to_vec1::<f64>()?;
            let masked = mask.to_vec1::<u8>()?;
            assert!(
                p.iter().zip(masked).all(|(p, mask)| mask == 1 || *p == 0.0),
                "a masked parameter is not zero"
            );
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
