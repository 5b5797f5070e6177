//! Stochastic gradient descent with momentum as one pass, in place.

use crate::isa::multiversion;
use crate::storage::{TASK, change_in_place, is_fused, overwrite, share_storage, slice};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

/// Settings of one SGD step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate, the schedule's factor included.
    pub lr: f64,
    /// The gradient is multiplied by this first: below 1 where its norm is clipped.
    pub gradient_factor: f64,
    /// Share of the velocity that stays; 0 for plain descent.
    pub momentum: f64,
    /// L2 penalty: this share of the parameter is added to the gradient.
    pub weight_decay: f64,
    /// Whether to look ahead along the velocity (Nesterov).
    pub nesterov: bool,
}

#[derive(Clone, Copy)]
struct Factors {
    gradient: f32,
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    nesterov: bool,
}

/// One step of momentum SGD (Sutskever et al. 2013, in the form without dampening: velocity = momentum · velocity + g,
/// param −= lr · velocity) on `param` and `velocity`, in place; all of one shape. The velocity begins at zero. `mask`, of
/// 0 and 1, multiplies the parameter after the update.
///
/// # Errors
/// If shapes differ, tensors share a storage, or one to change is not contiguous.
pub fn sgd_step(param: &Tensor, grad: &Tensor, velocity: &Tensor, mask: Option<&Tensor>, cfg: &SgdStep) -> Result<()> {
    let shape = param.shape();
    if [grad, velocity].into_iter().chain(mask).any(|t| t.shape() != shape) {
        bail!("sgd_step of tensors that do not fit {shape:?}")
    }
    if !is_fused(param) {
        return reference(param, grad, velocity, mask, cfg);
    }
    if share_storage([param, grad, velocity].into_iter().chain(mask)) {
        bail!("sgd_step of tensors that share their storage")
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
    let factors = Factors {
        gradient: cfg.gradient_factor as f32,
        lr: cfg.lr as f32,
        momentum: cfg.momentum as f32,
        weight_decay: cfg.weight_decay as f32,
        nesterov: cfg.nesterov,
    };
    change_in_place(param, |p| {
        change_in_place(velocity, |v| {
            let pieces = p
                .par_chunks_mut(TASK)
                .zip(g.par_chunks(TASK))
                .zip(v.par_chunks_mut(TASK));
            pieces.enumerate().for_each(|(i, ((p, g), v))| {
                update(p, g, v, factors);
                if let Some(mask) = mask {
                    p.iter_mut().zip(&mask[i * TASK..]).for_each(|(p, mask)| *p *= mask);
                }
            });
            Ok(())
        })
    })
}

multiversion! {
    fn update(p: &mut [f32], g: &[f32], v: &mut [f32], f: Factors) {
        let (along_gradient, along_velocity) = if f.nesterov { (1.0, f.momentum) } else { (0.0, 1.0) };
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let g = f.gradient * g + f.weight_decay * *p;
            *v = f.momentum * *v + g;
            *p -= f.lr * (along_gradient * g + along_velocity * *v);
        }
    }
}

fn reference(p: &Tensor, g: &Tensor, velocity: &Tensor, mask: Option<&Tensor>, cfg: &SgdStep) -> Result<()> {
    let (p_now, velocity_now) = (p.detach(), velocity.detach());
    let mut g = g.detach();
    if cfg.gradient_factor != 1.0 {
        g = (g * cfg.gradient_factor)?;
    }
    let g = (g + (&p_now * cfg.weight_decay)?)?;
    let next = ((velocity_now * cfg.momentum)? + &g)?;
    let direction = if cfg.nesterov {
        (g + (&next * cfg.momentum)?)?
    } else {
        next.clone()
    };
    let mut updated = (p_now - (direction * cfg.lr)?)?;
    if let Some(mask) = mask {
        updated = (updated * mask)?;
    }
    overwrite(velocity, &next)?;
    overwrite(p, &updated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SIZES, devices, in_f64, sample};
    use candle_core::{DType, Device, Var};

    #[test]
    fn five_steps_agree_with_the_composition_in_f64() -> Result<()> {
        for (n, nesterov) in SIZES.into_iter().chain([4099]).zip([false, true].into_iter().cycle()) {
            let cfg = SgdStep {
                lr: 0.1,
                gradient_factor: 0.7,
                momentum: 0.9,
                weight_decay: 0.01,
                nesterov,
            };
            let mask = sample(&[n], 9).ge(0.0)?;
            let run = |dtype: DType, device: &Device| -> Result<[Vec<f64>; 2]> {
                let there = |t: Tensor| t.to_dtype(dtype)?.to_device(device);
                let p = Var::from_tensor(&there(sample(&[n], 1))?)?;
                let (velocity, mask) = (p.zeros_like()?, there(mask.clone())?);
                for step in 0..5 {
                    sgd_step(&p, &there(sample(&[n], 10 + step))?, &velocity, Some(&mask), &cfg)?;
                }
                Ok([in_f64(&p)?, in_f64(&velocity)?])
            };
            let expected = run(DType::F64, &Device::Cpu)?;
            let masked = mask.to_vec1::<u8>()?;
            for device in devices() {
                let got = run(DType::F32, device)?;
                for (ours, theirs) in got.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((ours - theirs).abs() < 5e-6, "{ours} and {theirs} on {device:?}");
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
    fn a_clipped_gradient_has_the_bits_of_one_that_was_multiplied() -> Result<()> {
        let g = sample(&[TASK + 3], 2);
        let multiplied = (&g * 0.7)?;
        let run = |g: &Tensor, gradient_factor| -> Result<[Vec<f32>; 2]> {
            let cfg = SgdStep {
                lr: 0.1,
                gradient_factor,
                momentum: 0.9,
                weight_decay: 0.01,
                nesterov: true,
            };
            let (p, velocity) = (sample(&[TASK + 3], 1), sample(&[TASK + 3], 3));
            sgd_step(&p, g, &velocity, None, &cfg)?;
            Ok([p.to_vec1()?, velocity.to_vec1()?])
        };
        assert_eq!(run(&g, 0.7)?, run(&multiplied, 1.0)?);
        Ok(())
    }

    #[test]
    fn closed_form_of_two_steps() -> Result<()> {
        let p = Var::new(&[1f32], &Device::Cpu)?;
        let (g, velocity) = (Tensor::new(&[4f32], &Device::Cpu)?, p.zeros_like()?);
        let cfg = SgdStep {
            lr: 0.5,
            gradient_factor: 0.5,
            momentum: 0.5,
            weight_decay: 0.0,
            nesterov: false,
        };
        sgd_step(&p, &g, &velocity, None, &cfg)?;
        sgd_step(&p, &g, &velocity, None, &cfg)?;
        // 1 − 0.5 · 2 − 0.5 · 3.
        assert_eq!(p.to_vec1::<f32>()?, [-1.5]);
        assert!(sgd_step(&p, &sample(&[2], 1), &velocity, None, &cfg).is_err());
        assert!(sgd_step(&p, &p.as_tensor().clone(), &velocity, None, &cfg).is_err());
        Ok(())
    }
}
