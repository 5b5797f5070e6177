//! AdamW, and the norm of all gradients.

use super::{address, blocks, device_of, elsewhere, launch, storage_of, threads, view};
use crate::adamw::Factors;
use candle_core::cuda_backend::CudaStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaViewMut, LaunchConfig};
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};
use std::cell::RefCell;

/// Squares that a block adds up, where a tensor is not too large for that.
const PART: usize = 8192;

/// Most blocks of a tensor.
const MOST_PARTS: usize = 1024;

/// One step on `p`, `m` and `v`, which share no storage with each other or with `g` and `mask`; all of one shape.
pub(crate) fn adamw_step(
    p: &Tensor,
    g: &Tensor,
    m: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    factors: Factors,
) -> Result<()> {
    let (device, count) = (device_of(p)?, p.elem_count() as u64);
    if count == 0 {
        return Ok(());
    }
    let (g, mask) = (g.contiguous()?, mask.map(Tensor::contiguous).transpose()?);
    let (storage, layout) = g.storage_and_layout();
    let (g, mask) = (view(storage_of(&storage)?, layout)?, address(mask.as_ref())?);
    let Factors {
        gradient,
        decay,
        beta1,
        beta1_rest,
        beta2,
        beta2_rest,
        root,
        eps,
        rate,
    } = factors;
    change_in_place(p, |mut p| {
        change_in_place(m, |mut m| {
            change_in_place(v, |mut v| {
                // SAFETY: all buffers have `count` elements, and none is another one that is written.
                unsafe {
                    launch!(
                        device,
                        "adamw",
                        threads(count)?,
                        &mut p,
                        &g,
                        &mut m,
                        &mut v,
                        &mask,
                        &count,
                        &gradient,
                        &decay,
                        &beta1,
                        &beta1_rest,
                        &beta2,
                        &beta2_rest,
                        &root,
                        &eps,
                        &rate
                    );
                }
                Ok(())
            })
        })
    })
}

/// Σ x² over all elements of all tensors, which are of one device. What the blocks of the kernels add up is
/// read back once.
pub(crate) fn squared_norm_of_all(tensors: &[&Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else {
        return Ok(0.0);
    };
    let device = device_of(first)?;
    let parts_of = |x: &Tensor| x.elem_count().div_ceil(PART).clamp(1, MOST_PARTS);
    let mut parts = device.alloc_zeros::<f64>(tensors.iter().map(|x| parts_of(x)).sum())?;
    let mut next = 0;
    for x in tensors {
        let grid = parts_of(x);
        let places = next..next + grid;
        next = places.end;
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let (x, count) = (view(storage_of(&storage)?, layout)?, layout.shape().elem_count() as u64);
        let mut out = parts.slice_mut(places);
        let config = LaunchConfig {
            grid_dim: (blocks(grid as u64)?, 1, 1),
            ..threads(1)?
        };
        // SAFETY: `x` has `count` elements, and `out` one for each block.
        unsafe { launch!(device, "squares", config, &x, &mut out, &count) };
    }
    Ok(device.clone_dtoh(&parts)?.into_iter().sum())
}

/// Runs `change` on the elements of `t`, which has to be contiguous. Calls may be nested for tensors that share no storage.
fn change_in_place(t: &Tensor, change: impl FnOnce(CudaViewMut<'_, f32>) -> Result<()>) -> Result<()> {
    t.inplace_op1(&Change(RefCell::new(Some(change))))
}

struct Change<F>(RefCell<Option<F>>);

impl<F: FnOnce(CudaViewMut<'_, f32>) -> Result<()>> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change_in_place"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        elsewhere()
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!(
                "a tensor must be contiguous to be changed in place: {:?}",
                layout.shape()
            )
        };
        let change = self.0.borrow_mut().take().expect("an in-place op runs once");
        change(storage.as_cuda_slice_mut::<f32>()?.slice_mut(start..end))
    }
}
