//! Two-dimensional convolution with a square kernel.

use super::simulation::Simulation;
use crate::error::Result;
use crate::parameters::{Initial, Parameters, Weight};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{Int8Conv2d, conv2d};

/// Shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels from one place of the kernel to the next.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
}

/// Convolution, in the precision that its weights were found in.
pub struct Conv2d {
    stride: usize,
    padding: usize,
    operand: Operand,
}

enum Operand {
    Float {
        simulation: Simulation,
        bias: Option<Tensor>,
    },
    Integer(Box<Int8Conv2d>),
}

impl Conv2d {
    /// Builds the layer from `path.weight` (`[out, in, k, k]`) and `path.bias`.
    ///
    /// # Errors
    /// As [`super::Linear::new`].
    pub fn new(p: &mut Parameters, path: &str, shape: ConvShape) -> Result<Self> {
        Self::build(p, path, shape, true)
    }

    /// As [`Conv2d::new`] without a bias, for a convolution that a norm follows.
    ///
    /// # Errors
    /// As [`super::Linear::new`].
    pub fn without_bias(p: &mut Parameters, path: &str, shape: ConvShape) -> Result<Self> {
        Self::build(p, path, shape, false)
    }

    fn build(p: &mut Parameters, path: &str, shape: ConvShape, with_bias: bool) -> Result<Self> {
        let ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
            padding,
        } = shape;
        let initial = Initial::HeUniform {
            fan_in: inputs * kernel * kernel,
        };
        let weight = p.weight(&format!("{path}.weight"), &[outputs, inputs, kernel, kernel], initial)?;
        let bias = with_bias
            .then(|| p.float(&format!("{path}.bias"), &[outputs], Initial::Zeros))
            .transpose()?;
        let operand = match weight {
            Weight::Float(weight) => {
                let observer = p.observer(path);
                Operand::Float {
                    simulation: Simulation::new(p, path, weight, observer)?,
                    bias,
                }
            }
            Weight::Integer(weight) => {
                let input = p.quantizer_of_integers(path)?;
                let shape = [outputs, inputs, kernel, kernel];
                let bias = bias.map(|bias| bias.to_vec1()).transpose()?;
                Operand::Integer(Box::new(Int8Conv2d::new(
                    &weight.values,
                    shape,
                    weight.scales,
                    bias,
                    input,
                    stride,
                    padding,
                )?))
            }
        };
        Ok(Self {
            stride,
            padding,
            operand,
        })
    }

    /// `x: [B, in, H, W]` to `[B, out, H', W']`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.operand {
            Operand::Float { simulation, bias } => {
                let (x, weight) = simulation.operands(x, pass)?;
                let (stride, padding) = (self.stride, self.padding);
                Ok(conv2d(&x, &weight, bias.as_ref(), stride, padding, pass.precision())?)
            }
            Operand::Integer(layer) => Ok(layer.forward(x)?),
        }
    }
}
