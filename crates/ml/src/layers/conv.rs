//! Two-dimensional convolution with a square kernel.

use super::simulation::Simulation;
use crate::error::Result;
use crate::parameters::{Initial, Parameters, Weight};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{Int8Conv2d, conv2d};

/// Shape of a convolution; stride 1.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Zeros added on every side.
    pub padding: usize,
}

/// Convolution with bias, in the precision that its weights were found in.
pub struct Conv2d {
    padding: usize,
    operand: Operand,
}

enum Operand {
    Float { simulation: Simulation, bias: Tensor },
    Integer(Box<Int8Conv2d>),
}

impl Conv2d {
    /// Builds the layer from `path.weight` (`[out, in, k, k]`) and `path.bias`.
    ///
    /// # Errors
    /// As [`super::Linear::new`].
    pub fn new(p: &mut Parameters, path: &str, shape: ConvShape) -> Result<Self> {
        let ConvShape {
            inputs,
            outputs,
            kernel,
            padding,
        } = shape;
        let initial = Initial::HeUniform {
            fan_in: inputs * kernel * kernel,
        };
        let weight = p.weight(&format!("{path}.weight"), &[outputs, inputs, kernel, kernel], initial)?;
        let bias = p.float(&format!("{path}.bias"), &[outputs], Initial::Zeros)?;
        let operand = match weight {
            Weight::Float(weight) => Operand::Float {
                simulation: Simulation::new(weight, p.observer(path)),
                bias,
            },
            Weight::Integer(weight) => {
                let input = p.quantizer_of_integers(path)?;
                let shape = [outputs, inputs, kernel, kernel];
                let bias = Some(bias.to_vec1()?);
                Operand::Integer(Box::new(Int8Conv2d::new(
                    &weight.values,
                    shape,
                    weight.scales,
                    bias,
                    input,
                    1,
                    padding,
                )))
            }
        };
        Ok(Self { padding, operand })
    }

    /// `x: [B, in, H, W]` to `[B, out, H', W']`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.operand {
            Operand::Float { simulation, bias } => {
                let (x, weight) = simulation.operands(x, pass)?;
                Ok(conv2d(&x, &weight, Some(bias), 1, self.padding, pass.precision())?)
            }
            Operand::Integer(layer) => Ok(layer.forward(x)?),
        }
    }
}
