//! A backward pass in which the gradients of parameters are handed over beside candle's store.
//!
//! candle adds every gradient to a buffer of zeros that it allocates first: for the parameters of a model, two more passes
//! over all of them at every step. Our ops hand the gradient of a variable over as it is instead. What other ops give goes
//! through candle as ever, and both are added up.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    /// The gradients that were handed over so far, while a pass of this thread is under way.
    static HANDED_OVER: RefCell<Option<HashMap<TensorId, Tensor>>> = const { RefCell::new(None) };
}

/// The gradients of one scalar with respect to the variables that it depends on.
#[derive(Debug)]
pub struct Gradients {
    by_candle: GradStore,
    handed_over: HashMap<TensorId, Tensor>,
}

impl Gradients {
    /// The gradient of `variable`, in its shape; `None` if the scalar does not depend on it. It is taken out.
    ///
    /// # Errors
    /// If the sum of two parts cannot be computed.
    pub fn take(&mut self, variable: &Tensor) -> Result<Option<Tensor>> {
        match (self.handed_over.remove(&variable.id()), self.by_candle.remove(variable)) {
            (Some(ours), Some(candles)) => (ours + candles).map(Some),
            (ours, candles) => Ok(ours.or(candles)),
        }
    }

    /// Whether there is a gradient of `variable`.
    pub fn has(&self, variable: &Tensor) -> bool {
        self.handed_over.contains_key(&variable.id()) || self.by_candle.get(variable).is_some()
    }
}

/// The gradients of the scalar `loss`.
///
/// # Errors
/// If an op on the way has no backward pass.
pub fn gradients(loss: &Tensor) -> Result<Gradients> {
    let outer = HANDED_OVER.replace(Some(HashMap::new()));
    let by_candle = loss.backward();
    let handed_over = HANDED_OVER.replace(outer).expect("it was put there above");
    Ok(Gradients {
        by_candle: by_candle?,
        handed_over,
    })
}

/// Hands the `gradient` of an op's input over if the input is a variable and [`gradients`] is at work; else gives it back,
/// for candle.
pub(crate) fn hand_over(input: &Tensor, gradient: Tensor) -> Result<Option<Tensor>> {
    HANDED_OVER.with_borrow_mut(|handed_over| match handed_over {
        Some(handed_over) if input.is_variable() => {
            let sum = match handed_over.remove(&input.id()) {
                Some(earlier) => (earlier + gradient)?,
                None => gradient,
            };
            handed_over.insert(input.id(), sum);
            Ok(None)
        }
        Some(_) | None => Ok(Some(gradient)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use crate::{embedding, layer_norm, linear};
    use candle_core::{Device, Var};

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|t| t.to_vec1()).expect("a tensor of f32")
    }

    /// A loss in which a weight is used twice by our ops and once by candle's.
    #[test]
    fn they_equal_candles_own() -> Result<()> {
        let variable = |dims: &[usize], seed| Var::from_tensor(&sample(dims, seed));
        let (table, weight) = (variable(&[9, 6], 1)?, variable(&[6, 6], 2)?);
        let (bias, gain) = (variable(&[6], 3)?, variable(&[6], 4)?);
        let ids = Tensor::new(&[3u32, 1, 3, 8], &Device::Cpu)?;
        let x = embedding(table.as_tensor(), &ids)?;
        let x = linear(&x, weight.as_tensor(), Some(bias.as_tensor()))?;
        let x = layer_norm(&x, gain.as_tensor(), bias.as_tensor(), 1e-5)?;
        let x = linear(&x, weight.as_tensor(), None)?;
        let loss = ((x.sqr()?.sum_all()? + weight.as_tensor().sqr()?.sum_all()?)? + bias.as_tensor().sum_all()?)?;
        let expected = loss.backward()?;
        let mut got = gradients(&loss)?;
        for variable in [&table, &weight, &bias, &gain] {
            let expected = expected.get(variable).expect("candle reaches it");
            assert!(got.has(variable));
            let got = got.take(variable)?.expect("it is there");
            assert_eq!(got.dims(), expected.dims());
            for (a, b) in values(&got).iter().zip(values(expected)) {
                assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
            }
        }
        assert!(got.take(table.as_tensor())?.is_none(), "it was taken out");
        assert!(loss.backward()?.get(&table).is_some(), "candle's own pass is as before");
        Ok(())
    }
}
