//! Batch normalization (Ioffe & Szegedy 2015) of images, in PyTorch's names and with its running statistics.
//!
//! Training normalizes by the batch and moves the running statistics, which are states and not parameters; inference
//! normalizes by these. Exists in f32 only: a model that is quantized or exported has its norms folded.

use crate::error::Result;
use crate::parameters::{Initial, NormAfter, Parameters, Use};
use crate::pass::{Pass, Statistics};
use candle_core::{Tensor, Var};
use orchestrate_kernels::{BatchStatistics, batch_norm, batch_norm_relu, relu, scale_channels};
use std::collections::BTreeMap;

/// Share of a batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// Gain, bias, running statistics and epsilon.
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Var,
    variance: Var,
    epsilon: f64,
    /// What the running statistics come to, where they cannot change.
    fixed: Option<Scaling>,
}

/// Normalization by fixed statistics: x · scale + shift, each `[channels]`.
pub(super) struct Scaling {
    pub scale: Tensor,
    pub shift: Tensor,
}

impl Scaling {
    fn new(weight: &Tensor, bias: &Tensor, mean: &Tensor, variance: &Tensor, epsilon: f64) -> Result<Self> {
        let scale = (weight / (variance + epsilon)?.sqrt()?)?;
        let shift = (bias - (mean * &scale)?)?;
        Ok(Self { scale, shift })
    }

    /// Takes the tensors of `norm` out of `tensors`; `None` if one of them is not there.
    pub fn take(norm: &NormAfter, tensors: &mut BTreeMap<String, Tensor>) -> Result<Option<Self>> {
        let mut take = |name: &str| tensors.remove(&format!("{}.{name}", norm.path));
        let all = [take("weight"), take("bias"), take("running_mean"), take("running_var")];
        let [Some(weight), Some(bias), Some(mean), Some(variance)] = all else {
            return Ok(None);
        };
        Self::new(&weight, &bias, &mean, &variance, norm.epsilon).map(Some)
    }
}

impl BatchNorm {
    /// Builds the layer from `path.weight`, `path.bias`, `path.running_mean` and `path.running_var`, all `[channels]`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn new(p: &mut Parameters, path: &str, channels: usize, epsilon: f64) -> Result<Self> {
        let shape = [channels];
        let weight = p.float(&format!("{path}.weight"), &shape, Initial::Ones)?;
        let bias = p.float(&format!("{path}.bias"), &shape, Initial::Zeros)?;
        let mean = p.state(&format!("{path}.running_mean"), &shape, Initial::Zeros)?;
        let variance = p.state(&format!("{path}.running_var"), &shape, Initial::Ones)?;
        let mut norm = Self {
            weight,
            bias,
            mean,
            variance,
            epsilon,
            fixed: None,
        };
        if p.purpose() == Use::Infer {
            norm.fixed = Some(norm.scaling()?);
        }
        Ok(norm)
    }

    /// `x: [B, channels, H, W]`, the same shape out.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass.statistics() {
            Statistics::Running => self.by_running_statistics(x),
            Statistics::Track | Statistics::Repeat => {
                let (y, batch) = batch_norm(x, &self.weight, &self.bias, self.epsilon)?;
                self.track(&batch, pass)?;
                Ok(y)
            }
        }
    }

    /// [`BatchNorm::forward`] with a rectifier behind it.
    pub fn forward_relu(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match pass.statistics() {
            Statistics::Running => Ok(relu(&self.by_running_statistics(x)?)?),
            Statistics::Track | Statistics::Repeat => {
                let (y, batch) = batch_norm_relu(x, &self.weight, &self.bias, self.epsilon)?;
                self.track(&batch, pass)?;
                Ok(y)
            }
        }
    }

    fn scaling(&self) -> Result<Scaling> {
        let (mean, variance) = (self.mean.as_detached_tensor(), self.variance.as_detached_tensor());
        Scaling::new(
            &self.weight.detach(),
            &self.bias.detach(),
            &mean,
            &variance,
            self.epsilon,
        )
    }

    fn by_running_statistics(&self, x: &Tensor) -> Result<Tensor> {
        let now;
        let scaling = match &self.fixed {
            Some(fixed) => fixed,
            None => {
                now = self.scaling()?;
                &now
            }
        };
        Ok(scale_channels(x, &scaling.scale, &scaling.shift)?)
    }

    /// Moves the running statistics towards those of a batch, whose variance is taken unbiased, as PyTorch does.
    fn track(&self, batch: &BatchStatistics, pass: &Pass) -> Result<()> {
        if pass.statistics() != Statistics::Track || batch.count == 0 {
            return Ok(());
        }
        let unbiased = batch.count as f64 / (batch.count - 1).max(1) as f64;
        for (running, batch) in [
            (&self.mean, &batch.mean),
            (&self.variance, &(&batch.variance * unbiased)?),
        ] {
            let past = running.as_detached_tensor();
            running.set(&((past * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::Parts;
    use crate::quantize::observer::Ranges;
    use candle_core::Device;

    fn norm() -> (Parameters, BatchNorm) {
        let mut parameters = Parameters::create(1, &Device::Cpu);
        let norm = BatchNorm::new(&mut parameters, "bn", 1, 0.0).expect("built");
        (parameters, norm)
    }

    fn images(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (values.len(), 1, 1, 1), &Device::Cpu).expect("a small tensor")
    }

    fn state(parameters: &Parameters, name: &str) -> f32 {
        let (_, state) = parameters.states().find(|(n, _)| *n == name).expect("a state");
        state.to_vec1::<f32>().expect("values")[0]
    }

    #[test]
    fn running_statistics_follow_the_batches_and_are_what_inference_sees() {
        let (parameters, norm) = norm();
        let (batch, training) = (images(&[1.0, 3.0]), Pass::training(0.0, 0, 0, Ranges::Fixed));
        norm.forward(&batch, &training).expect("run");
        // The mean of the batch is 2, its unbiased variance 2.
        assert!((state(&parameters, "bn.running_mean") - 0.2).abs() < 1e-6);
        assert!((state(&parameters, "bn.running_var") - 1.1).abs() < 1e-6);
        norm.forward(&batch, &Pass::inference()).expect("run");
        norm.forward(&images(&[]), &training).expect("run");
        assert!((state(&parameters, "bn.running_mean") - 0.2).abs() < 1e-6);
        let y = norm.forward(&images(&[1.3]), &Pass::inference()).expect("run");
        let y = y.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values")[0];
        assert!((y - 1.1 / 1.1f32.sqrt()).abs() < 1e-6, "{y}");
    }

    #[test]
    fn states_are_saved_by_name_counted_by_no_one_and_can_be_set() {
        let (parameters, norm) = norm();
        assert_eq!(parameters.count(), 2);
        assert_eq!(parameters.variables().count(), 2);
        assert_eq!(parameters.floats().len(), 4);
        let (_, mean) = parameters.states().next().expect("two states");
        mean.set(&Tensor::new(&[5f32], &Device::Cpu).expect("a tensor"))
            .expect("set");
        let y = norm.forward(&images(&[5.0]), &Pass::inference()).expect("run");
        assert_eq!(y.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values"), [0.0]);
    }

    #[test]
    fn a_part_that_is_run_once_more_moves_nothing() {
        let (parameters, norm) = norm();
        // Only what is not the last part is run once more.
        let parts: Parts<Option<BatchNorm>> = [Some(norm), None].into_iter().collect();
        let pass = Pass::training(0.0, 0, 0, Ranges::Fixed).with_checkpoints(true);
        let x = Var::from_tensor(&images(&[1.0, 3.0])).expect("a variable");
        let y = parts.forward(x.as_tensor().clone(), &pass, |norm, x, pass| match norm {
            Some(norm) => norm.forward(x, pass),
            None => Ok(x.clone()),
        });
        let y = y.expect("run");
        orchestrate_kernels::gradients(&y.sqr().and_then(|y| y.sum_all()).expect("a sum")).expect("gradients");
        assert!((state(&parameters, "bn.running_mean") - 0.2).abs() < 1e-6);
    }
}
