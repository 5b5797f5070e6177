//! Gradient clipping and the in-place optimizers over all parameters of a model, in the order of their names.

use crate::error::Result;
use crate::masks::Masks;
use candle_core::{Tensor, Var};
use orchestrate_kernels::{
    AdamWStep, Gradient, Gradients, MovingRows, SgdStep, adamw_step, adamw_step_of_rows, sgd_step, squared_norm_of_all,
};
use serde::{Deserialize, Serialize};

/// Which update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019); betas 0.9 and 0.999, epsilon 1e-8.
    Adamw,
    /// Stochastic gradient descent with heavy-ball momentum (Sutskever et al. 2013).
    Sgd,
}

/// Settings of the update rule.
#[derive(Debug, Clone, Copy)]
pub struct OptimizerSettings {
    /// The rule.
    pub kind: OptimizerKind,
    /// Of [`OptimizerKind::Sgd`].
    pub momentum: f64,
    /// Applied to tensors of two and more dimensions only: not to biases and norms.
    pub weight_decay: f64,
    /// Largest global norm of the gradient (Pascanu et al. 2013); 0 for none.
    pub gradient_clip: f64,
}

struct Slot {
    name: String,
    parameter: Tensor,
    first: Tensor,
    second: Option<Tensor>,
    mask: Option<Tensor>,
    /// Of a table of which gradients hold single rows, as far as it is known.
    moving: Option<MovingRows>,
}

/// An optimizer with its moments.
pub struct Optimizer {
    settings: OptimizerSettings,
    slots: Vec<Slot>,
    steps: u64,
}

impl Optimizer {
    /// An optimizer over `variables`, whose masks it enforces after every step.
    ///
    /// # Errors
    /// If there is no memory for the moments.
    pub fn new<'a>(
        settings: OptimizerSettings,
        variables: impl Iterator<Item = (&'a String, &'a Var)>,
        masks: &Masks,
    ) -> Result<Self> {
        let slot = |(name, variable): (&String, &Var)| -> Result<Slot> {
            let parameter = variable.as_tensor().clone();
            let second = match settings.kind {
                OptimizerKind::Adamw => Some(parameter.zeros_like()?),
                OptimizerKind::Sgd => None,
            };
            let mask = masks.get(name).cloned();
            Ok(Slot {
                name: name.clone(),
                first: parameter.zeros_like()?,
                parameter,
                second,
                mask,
                moving: None,
            })
        };
        Ok(Self {
            settings,
            slots: variables.map(slot).collect::<Result<_>>()?,
            steps: 0,
        })
    }

    /// Its moments under the names that a checkpoint gives them.
    pub(crate) fn moments(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.slots.iter().flat_map(|slot| {
            let second = slot.second.as_ref().map(|second| (slot.name_of(2), second));
            std::iter::once((slot.name_of(1), &slot.first)).chain(second)
        })
    }

    /// Takes the place of one that has done `steps` steps and had the moments that `moment` tells, given their names and
    /// tensors of the same shape. If one is not to be had, all stays as it was.
    ///
    /// # Errors
    /// Those of `moment`.
    pub(crate) fn go_on_after(&mut self, steps: u64, moment: impl Fn(&str, &Tensor) -> Result<Tensor>) -> Result<()> {
        let moments = self.slots.iter().map(|slot| -> Result<_> {
            let second = slot.second.as_ref().map(|second| moment(&slot.name_of(2), second));
            Ok((moment(&slot.name_of(1), &slot.first)?, second.transpose()?))
        });
        let moments: Vec<_> = moments.collect::<Result<_>>()?;
        for (slot, (first, second)) in self.slots.iter_mut().zip(moments) {
            (slot.first, slot.second, slot.moving) = (first, second, None);
        }
        self.steps = steps;
        Ok(())
    }

    /// Names of the parameters that `gradients` does not reach.
    pub fn without_gradient(&self, gradients: &Gradients) -> Vec<String> {
        let missing = self.slots.iter().filter(|s| !gradients.has(&s.parameter));
        missing.map(|s| s.name.clone()).collect()
    }

    /// Clips and applies `gradients`; returns their global norm before clipping.
    ///
    /// A norm that is not finite is returned without any update.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn step(&mut self, mut gradients: Gradients, learning_rate: f64) -> Result<f64> {
        let mut reached = Vec::with_capacity(self.slots.len());
        for slot in &mut self.slots {
            if let Some(gradient) = gradients.take(&slot.parameter) {
                reached.push((slot, gradient));
            }
        }
        let norm = squared_norm_of_all(reached.iter().map(|(_, gradient)| gradient))?.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = self.settings.gradient_clip;
        let factor = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
        for (slot, gradient) in reached {
            slot.update(&gradient, factor, learning_rate, self.steps + 1, &self.settings)?;
        }
        self.steps += 1;
        Ok(norm)
    }
}

impl Slot {
    /// How a checkpoint calls its moment of that order.
    fn name_of(&self, order: u8) -> String {
        format!("moment-{order}:{}", self.name)
    }

    fn update(
        &mut self,
        gradient: &Gradient,
        gradient_factor: f64,
        learning_rate: f64,
        step: u64,
        settings: &OptimizerSettings,
    ) -> Result<()> {
        let weight_decay = if self.parameter.rank() >= 2 {
            settings.weight_decay
        } else {
            0.0
        };
        let mask = self.mask.as_ref();
        match &self.second {
            Some(second) => {
                let rule = AdamWStep {
                    lr: learning_rate,
                    gradient_factor,
                    beta1: 0.9,
                    beta2: 0.999,
                    eps: 1e-8,
                    weight_decay,
                    step,
                };
                if let (Gradient::Rows(rows), None) = (gradient, mask) {
                    let mut moving = match self.moving.take() {
                        Some(moving) => moving,
                        None => MovingRows::of(&self.first, second)?,
                    };
                    adamw_step_of_rows(&self.parameter, rows, &self.first, second, &mut moving, &rule)?;
                    self.moving = Some(moving);
                } else {
                    let gradient = gradient.to_dense()?;
                    adamw_step(&self.parameter, &gradient, &self.first, second, mask, &rule)?;
                    self.moving = None;
                }
            }
            None => {
                let rule = SgdStep {
                    lr: learning_rate,
                    gradient_factor,
                    momentum: settings.momentum,
                    weight_decay,
                    nesterov: false,
                };
                sgd_step(&self.parameter, &gradient.to_dense()?, &self.first, mask, &rule)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use orchestrate_kernels::{embedding, gradients};

    /// More than one task has.
    const ROWS: usize = 3000;
    const WIDTH: usize = 6;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0)
            .collect()
    }

    /// The gradients of a table of which a few rows are read twice over: as our op gives them, or as candle's own does.
    fn of_rows(table: &Tensor, step: usize, by_rows: bool) -> Gradients {
        let mut all = Gradients::default();
        for part in 0..2 {
            let ids: Vec<u32> = (0..5)
                .map(|i| ((i * i * 331 + step * 3 + part * 7) % ROWS) as u32)
                .collect();
            let ids = Tensor::new(ids, &Device::Cpu).unwrap();
            let read = if by_rows {
                embedding(table, &ids)
            } else {
                table.index_select(&ids, 0)
            };
            let weights = Tensor::from_vec(numbers(5 * WIDTH, step + part), (5, WIDTH), &Device::Cpu).unwrap();
            let loss = (read.unwrap() * weights).unwrap().sum_all().unwrap();
            all.add(gradients(&loss).unwrap()).unwrap();
        }
        all
    }

    /// The table, its moments and the norms after some steps, one of them after a checkpoint.
    fn trained(kind: OptimizerKind, gradient_clip: f64, mask: bool, by_rows: bool) -> (Vec<Vec<u32>>, Vec<u64>) {
        let table = Tensor::from_vec(numbers(ROWS * WIDTH, 1), (ROWS, WIDTH), &Device::Cpu).unwrap();
        let variables = [("table".to_owned(), Var::from_tensor(&table).unwrap())];
        let mut masks = Masks::new();
        if mask {
            masks.insert(
                "table".to_owned(),
                table.ge(0f32).unwrap().to_dtype(table.dtype()).unwrap(),
            );
        }
        let settings = OptimizerSettings {
            kind,
            momentum: 0.9,
            weight_decay: 0.01,
            gradient_clip,
        };
        let new = || {
            Optimizer::new(
                settings,
                variables.iter().map(|(name, variable)| (name, variable)),
                &masks,
            )
            .unwrap()
        };
        let (mut optimizer, mut norms) = (new(), Vec::new());
        for step in 0..6 {
            if step == 3 {
                let kept: Vec<(String, Tensor)> = optimizer
                    .moments()
                    .map(|(name, moment)| (name, moment.copy().unwrap()))
                    .collect();
                optimizer = new();
                let moment = |name: &str, _: &Tensor| Ok(kept.iter().find(|(kept, _)| kept == name).unwrap().1.clone());
                optimizer.go_on_after(3, moment).unwrap();
            }
            // A whole gradient in between makes all rows move.
            let gradients = of_rows(variables[0].1.as_tensor(), step, by_rows && step != 4);
            norms.push(optimizer.step(gradients, 0.01).unwrap().to_bits());
        }
        let moments = optimizer.moments().map(|(_, moment)| moment.clone());
        let bits = |tensor: Tensor| -> Vec<u32> {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        (
            moments.chain([variables[0].1.as_tensor().clone()]).map(bits).collect(),
            norms,
        )
    }

    #[test]
    fn gradients_of_rows_train_as_whole_ones_do() {
        for kind in [OptimizerKind::Adamw, OptimizerKind::Sgd] {
            for (gradient_clip, mask) in [(0.0, false), (0.5, false), (0.5, true)] {
                let [by_rows, whole] = [true, false].map(|by_rows| trained(kind, gradient_clip, mask, by_rows));
                assert!(
                    by_rows == whole,
                    "{kind:?} with clipping at {gradient_clip}, masked: {mask}"
                );
            }
        }
    }
}
