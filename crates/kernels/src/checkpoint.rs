//! Gradient checkpointing (Chen et al. 2016, section 3): a part of a network keeps its input alone, and is run once more when
//! its gradients are asked for. Memory for its activations is paid in time. The gradients have the same bits as without, as
//! long as no parameter is used twice: then the order of the sum differs.

use crate::gradients::{gradients, hand_on};
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Storage, Tensor, Var, bail,
};
use std::sync::{Mutex, PoisonError};

/// `segment(x)`, without its activations being kept. `segment` must give the same on every call; the parameters that it
/// uses get their gradients through [`gradients`]. Any device and floating-point type.
///
/// # Errors
/// As `segment`.
pub fn checkpoint(x: &Tensor, segment: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static) -> Result<Tensor> {
    let mut output = segment(&x.detach())?.detach();
    if !output.is_contiguous() || output.layout().start_offset() != 0 {
        output = output.force_contiguous()?;
    }
    x.apply_op1(Checkpoint {
        output: Mutex::new(Some(output)),
        segment,
    })
}

struct Checkpoint<F> {
    /// What the segment gave, until the op's forward pass takes it.
    output: Mutex<Option<Tensor>>,
    segment: F,
}

impl<F> Checkpoint<F> {
    /// What `copy` makes of the output's storage, and the output's shape.
    fn forward<S>(&self, copy: impl Fn(&Storage, &Layout) -> Option<Result<S>>) -> Result<(S, Shape)> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(output) = output else {
            bail!("a checkpoint is applied once")
        };
        let (storage, layout) = output.storage_and_layout();
        match copy(&storage, layout) {
            Some(copied) => Ok((copied?, layout.shape().clone())),
            None => bail!("a segment moved its input to another device"),
        }
    }
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Send + Sync> CustomOp1 for Checkpoint<F> {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(|output, layout| match output {
            Storage::Cpu(output) => Some(output.try_clone(layout)),
            Storage::Cuda(_) | Storage::Metal(_) => None,
        })
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(|output, layout| match output {
            Storage::Cuda(output) => Some(output.try_clone(layout)),
            Storage::Cpu(_) | Storage::Metal(_) => None,
        })
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.forward(|output, layout| match output {
            Storage::Metal(output) => Some(output.try_clone(layout)),
            Storage::Cpu(_) | Storage::Cuda(_) => None,
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let x = Var::from_tensor(&x.detach())?;
        let y = (self.segment)(x.as_tensor())?;
        let seeded = y.contiguous()?.apply_op1(Seeded(gradient.clone()))?;
        let mut inner = gradients(&seeded)?;
        let own = inner.take(x.as_tensor());
        hand_on(inner)?;
        own.map(|own| own.to_dense()).transpose()
    }
}

/// A scalar whose gradient with respect to the op's input is the one that is held.
struct Seeded(Tensor);

/// That scalar, as anything: it is not read.
fn scalar<S>(like: &S) -> Result<(S, Shape)>
where
    S: BackendStorage<Device: BackendDevice<Storage = S>>,
{
    let shape = Shape::from(());
    Ok((like.device().zeros_impl(&shape, like.dtype())?, shape))
}

impl CustomOp1 for Seeded {
    fn name(&self) -> &'static str {
        "seeded"
    }

    fn cpu_fwd(&self, y: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        scalar(y)
    }

    fn cuda_fwd(&self, y: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        scalar(y)
    }

    fn metal_fwd(&self, y: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        scalar(y)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{devices, sample};
    use crate::{ProductPrecision, gelu, layer_norm, linear};

    fn bits(tensor: &Tensor) -> Vec<u32> {
        let values: Vec<f32> = tensor.flatten_all().and_then(|t| t.to_vec1()).expect("a tensor of f32");
        values.into_iter().map(f32::to_bits).collect()
    }

    /// Two segments in a row, each with parameters of its own, one of which candle's own ops use.
    #[test]
    fn gradients_have_the_same_bits_as_without() -> Result<()> {
        for (rows, device) in [1, 7, 65]
            .into_iter()
            .flat_map(|rows| devices().map(move |d| (rows, d)))
        {
            let variable = |dims: &[usize], seed| Var::from_tensor(&sample(dims, seed).to_device(device)?);
            let input = variable(&[rows, 17], 0)?;
            let parameters: Vec<[Var; 5]> = (0..2)
                .map(|i| {
                    let vector = |seed| variable(&[17], 10 * i + seed);
                    Ok([
                        variable(&[17, 17], 10 * i + 1)?,
                        vector(2)?,
                        vector(3)?,
                        vector(4)?,
                        vector(5)?,
                    ])
                })
                .collect::<Result<_>>()?;
            let run = |checkpointed: bool| -> Result<(Tensor, Vec<Vec<u32>>)> {
                let mut x = input.as_tensor().clone();
                for own in &parameters {
                    let own = own.each_ref().map(|v| v.as_tensor().clone());
                    let segment = move |x: &Tensor| -> Result<Tensor> {
                        let [weight, bias, scale, gain, shift] = &own;
                        let y = gelu(&linear(x, weight, Some(bias), ProductPrecision::F32)?)?.broadcast_mul(scale)?;
                        layer_norm(&(y + x)?, gain, shift, 1e-5)
                    };
                    x = if checkpointed {
                        checkpoint(&x, segment)?
                    } else {
                        segment(&x)?
                    };
                }
                let mut all = gradients(&(x.sqr()? * 0.5)?.sum_all()?)?;
                let variables = parameters.iter().flatten().chain([&input]);
                let taken = variables.map(|v| {
                    bits(
                        &all.take(v.as_tensor())
                            .expect("it is reached")
                            .to_dense()
                            .expect("a tensor"),
                    )
                });
                Ok((x, taken.collect()))
            };
            let ((plain, expected), (kept, got)) = (run(false)?, run(true)?);
            assert_eq!(bits(&plain), bits(&kept));
            assert!(got == expected, "{rows} rows");
        }
        Ok(())
    }

    #[test]
    fn candles_own_pass_is_refused_rather_than_wrong() -> Result<()> {
        let weight = Var::from_tensor(&sample(&[3, 3], 1))?;
        let parameter = weight.as_tensor().clone();
        let x = Var::from_tensor(&sample(&[2, 3], 2))?;
        let y = checkpoint(x.as_tensor(), move |x| {
            linear(x, &parameter, None, ProductPrecision::F32)
        })?;
        assert!(y.sum_all()?.backward().is_err());
        Ok(())
    }
}
