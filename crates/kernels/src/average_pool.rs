//! Global average pooling, and its gradient. Each plane's sum is one of [`crate::lanes`].

use crate::reduction::sum;
use crate::storage::{Planes, build_chunks, cpu_slice, filled, is_fused, slice, tensor};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

/// Planes of one task.
const PLANES: usize = 64;

/// The mean of each plane (Lin et al. 2014, section 3.2): `[batch, channels, height, width]` to `[batch, channels]`.
///
/// # Errors
/// If `x` has not four dimensions, or a plane has no element.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    let planes = Planes::of(x.shape())?;
    if planes.plane == 0 {
        bail!("the mean of planes without elements: {:?}", x.dims())
    }
    if is_fused(x) {
        x.contiguous()?.apply_op1(GlobalAveragePool(planes))
    } else {
        x.flatten_from(2)?.mean(D::Minus1)
    }
}

struct GlobalAveragePool(Planes);

impl CustomOp1 for GlobalAveragePool {
    fn name(&self) -> &'static str {
        "global_average_pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, Planes { batch, channels, plane }) = (cpu_slice(storage, layout)?, self.0);
        let values = build_chunks(batch * channels, PLANES, |first, piece| {
            let out = filled(piece, 0.0);
            let planes = x[first * plane..].chunks_exact(plane);
            for (mean, x) in out.iter_mut().zip(planes) {
                *mean = sum(x) / plane as f32;
            }
            out
        });
        Ok((CpuStorage::F32(values), Shape::from((batch, channels))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (storage, layout) = gradient.storage_and_layout();
        let (g, plane) = (slice(&storage, layout)?, self.0.plane);
        let values = build_chunks(x.elem_count(), PLANES * plane, |offset, piece| {
            let out = filled(piece, 0.0);
            for (out, g) in out.chunks_exact_mut(plane).zip(&g[offset / plane..]) {
                out.fill(g / plane as f32);
            }
            out
        });
        tensor(values, x.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, check, same_bits_everywhere, sample};

    #[test]
    fn gradients() -> Result<()> {
        for (batch, channels, height, width) in [(1, 1, 1, 1), (3, 7, 5, 3), (17, 33, 1, 17), (2, 1, 9, 9)] {
            check(
                &[&sample(&[batch, channels, height, width], 1)],
                |t| global_average_pool(t[0]),
                |t| global_average_pool(t[0]),
                Differences::Central,
                2e-6,
            )?;
        }
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        same_bits_everywhere(&[&sample(&[9, 17, 7, 7], 1)], |t| global_average_pool(t[0]))
    }

    #[test]
    fn empty_batch_and_empty_planes() -> Result<()> {
        assert_eq!(global_average_pool(&sample(&[0, 3, 4, 4], 1))?.dims(), [0, 3]);
        assert!(global_average_pool(&sample(&[2, 3, 0, 4], 1)).is_err());
        Ok(())
    }
}
