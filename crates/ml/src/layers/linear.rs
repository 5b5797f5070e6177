//! Fully connected layer.

use super::simulation::Simulation;
use crate::error::Result;
use crate::parameters::{Initial, Parameters, Use, Weight};
use crate::pass::Pass;
use candle_core::Tensor;
use orchestrate_kernels::{Affine, Int8Linear, PackedInt8, PackedLinear, linear};

/// `y = x Wᵀ + b` with `W: [out, in]`, in the precision that its weights were found in.
pub struct Linear {
    operand: Operand,
}

enum Operand {
    Float { simulation: Simulation, bias: Tensor },
    Packed(Box<PackedLinear>),
    Integer(Box<Int8Linear>),
}

impl Linear {
    /// Builds the layer from `path.weight` and `path.bias`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape, or an integer weight has no input quantizer.
    pub fn new(p: &mut Parameters, path: &str, inputs: usize, outputs: usize, initial: Initial) -> Result<Self> {
        let weight = p.weight(&format!("{path}.weight"), &[outputs, inputs], initial)?;
        let bias = p.float(&format!("{path}.bias"), &[outputs], Initial::Zeros)?;
        let operand = match weight {
            Weight::Float(weight) => match p.observer(path) {
                None if p.purpose() == Use::Infer => Operand::Packed(Box::new(PackedLinear::new(&weight, &bias)?)),
                observer => Operand::Float {
                    simulation: Simulation::new(p, path, weight, observer)?,
                    bias,
                },
            },
            Weight::Integer(weight) => {
                let input = p.quantizer_of_integers(path)?;
                let packed = PackedInt8::pack(&weight.values, outputs, inputs)?;
                Operand::Integer(Box::new(Int8Linear::new(
                    packed,
                    weight.scales,
                    Some(bias.to_vec1()?),
                    input,
                )))
            }
        };
        Ok(Self { operand })
    }

    /// Weight and bias for an op that includes this layer, where it is nothing but their product and sum.
    pub(super) fn affine(&self) -> Option<Affine> {
        match &self.operand {
            Operand::Float { simulation, bias } => Some(Affine {
                weight: simulation.plain_weight()?.clone(),
                bias: bias.clone(),
            }),
            Operand::Packed(_) | Operand::Integer(_) => None,
        }
    }

    /// The layer on integers, where it runs on them.
    pub(super) fn integers(&self) -> Option<&Int8Linear> {
        match &self.operand {
            Operand::Integer(layer) => Some(layer),
            Operand::Float { .. } | Operand::Packed(_) => None,
        }
    }

    /// `x: [..., in]` to `[..., out]`.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.operand {
            Operand::Float { simulation, bias } => {
                let (x, weight) = simulation.operands(x, pass)?;
                Ok(linear(&x, &weight, Some(bias), pass.precision())?)
            }
            Operand::Packed(layer) => Ok(layer.forward(x, pass.precision())?),
            Operand::Integer(layer) => Ok(layer.forward(x)?),
        }
    }
}
