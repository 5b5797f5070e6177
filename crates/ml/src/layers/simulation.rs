//! The float side of a quantizable layer: its weight, and the fake quantization of weight and input where ranges exist.

use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::quantize::observer::{Observer, Ranges};
use crate::quantize::{LONGEST_SUM, fake_quantize};
use candle_core::Tensor;
use orchestrate_kernels::{Codebook, fake_quantize_per_tensor};
use std::sync::Arc;

/// A float weight `[out, …]` with the observer of its layer's input, if the layer is being quantized.
pub struct Simulation {
    weight: Tensor,
    codebook: Option<Arc<Codebook>>,
    observer: Option<Arc<Observer>>,
}

impl Simulation {
    /// The weight of the layer `path` of `p`, with its codebook, if it has one; its input `observer` watches.
    ///
    /// # Errors
    /// If the layer is being quantized and has too many inputs for sums of integers.
    pub fn new(p: &Parameters, path: &str, weight: Tensor, observer: Option<Arc<Observer>>) -> Result<Self> {
        let codebook = p.codebook(&format!("{path}.weight"));
        let inputs: usize = weight.dims().iter().skip(1).product();
        if observer.is_some() && inputs > LONGEST_SUM {
            return Err(Error::Unsuited(format!(
                "{path} sums {inputs} products, which could overflow in 8-bit integers: up to {} do not, so prune more \
                 or make the layer before it narrower",
                LONGEST_SUM
            )));
        }
        Ok(Self {
            weight,
            codebook,
            observer,
        })
    }

    /// The weight, if nothing is quantized here.
    pub fn plain_weight(&self) -> Option<&Tensor> {
        self.observer.is_none().then_some(&self.weight)
    }

    /// The input and the weight as the layer's product is to see them: fake-quantized with the straight-through
    /// estimator (Jacob et al. 2018, section 3; Bengio et al. 2013) once there are ranges, else as they are.
    pub fn operands(&self, x: &Tensor, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let Some(observer) = &self.observer else {
            return Ok((x.clone(), self.weight.clone()));
        };
        match pass.ranges() {
            Ranges::Calibrate => {
                observer.observe(x)?;
                return Ok((x.clone(), self.weight.clone()));
            }
            Ranges::Track => observer.observe(x)?,
            Ranges::Fixed => {}
        }
        let Some(quantizer) = observer.quantizer() else {
            return Ok((x.clone(), self.weight.clone()));
        };
        let weight = fake_quantize(&self.weight, self.codebook.as_deref())?;
        Ok((fake_quantize_per_tensor(x, quantizer)?, weight))
    }
}
