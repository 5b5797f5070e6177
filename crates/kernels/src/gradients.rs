//! A backward pass in which the gradients of parameters are handed over beside candle's store.
//!
//! candle adds every gradient to a buffer of zeros that it allocates first: for the parameters of a model, two more passes
//! over all of them at every step. Our ops hand the gradient of a variable over as it is instead. What other ops give goes
//! through candle as ever, and both are added up.

use crate::reduction::{squared_norm, squared_norm_of_rows};
use crate::row_gradient::RowGradient;
use candle_core::{Result, Tensor, TensorId, bail};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

thread_local! {
    /// The gradients that were handed over so far, while a pass of this thread is under way.
    static HANDED_OVER: RefCell<Option<Gradients>> = const { RefCell::new(None) };
}

/// The gradient of a variable.
#[derive(Debug)]
pub enum Gradient {
    /// In the variable's shape.
    Dense(Tensor),
    /// The rows of a table that the scalar depends on.
    Rows(RowGradient),
}

impl Gradient {
    /// All of it, in the variable's shape.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn to_dense(&self) -> Result<Tensor> {
        match self {
            Self::Dense(gradient) => Ok(gradient.clone()),
            Self::Rows(rows) => rows.to_dense(),
        }
    }

    /// Σ g² in f64, in an order that depends on the variable's shape alone.
    fn squared_norm(&self) -> Result<f64> {
        match self {
            Self::Dense(gradient) => squared_norm(gradient),
            Self::Rows(rows) => Ok(squared_norm_of_rows(rows)),
        }
    }

    fn plus(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (Self::Rows(a), Self::Rows(b)) => Ok(Self::Rows(a.plus(b))),
            (Self::Dense(_), _) | (_, Self::Dense(_)) => {
                let sum = (self.to_dense()? + other.to_dense()?)?;
                // What is kept must not keep the graph that it was computed by.
                Ok(Self::Dense(sum.detach()))
            }
        }
    }
}

impl From<Tensor> for Gradient {
    fn from(gradient: Tensor) -> Self {
        Self::Dense(gradient)
    }
}

impl From<RowGradient> for Gradient {
    fn from(rows: RowGradient) -> Self {
        Self::Rows(rows)
    }
}

/// The gradients of one scalar with respect to the variables that it depends on.
#[derive(Debug, Default)]
pub struct Gradients {
    by_variable: HashMap<TensorId, Gradient>,
}

impl Gradients {
    /// The gradient of `variable`; `None` if the scalar does not depend on it. It is taken out.
    pub fn take(&mut self, variable: &Tensor) -> Option<Gradient> {
        self.by_variable.remove(&variable.id())
    }

    /// That of one variable.
    fn of(variable: &Tensor, gradient: Gradient) -> Self {
        Self {
            by_variable: HashMap::from([(variable.id(), gradient)]),
        }
    }

    /// Whether there is a gradient of `variable`.
    pub fn has(&self, variable: &Tensor) -> bool {
        self.by_variable.contains_key(&variable.id())
    }

    /// Adds those of another scalar: the gradients of the sum of both.
    ///
    /// # Errors
    /// If two gradients of one variable cannot be added.
    pub fn add(&mut self, other: Self) -> Result<()> {
        other
            .by_variable
            .into_iter()
            .try_for_each(|(id, gradient)| self.insert(id, gradient))
    }

    fn insert(&mut self, id: TensorId, gradient: Gradient) -> Result<()> {
        match self.by_variable.entry(id) {
            Entry::Occupied(mut entry) => {
                let sum = entry.get().plus(&gradient)?;
                entry.insert(sum);
            }
            Entry::Vacant(entry) => {
                entry.insert(gradient);
            }
        }
        Ok(())
    }
}

/// Σ g² over all elements of all `gradients`, in f64, in an order that depends on their shapes alone.
///
/// # Errors
/// If a tensor operation fails.
pub fn squared_norm_of_all<'a>(gradients: impl IntoIterator<Item = &'a Gradient>) -> Result<f64> {
    #[cfg(feature = "cuda")]
    let mut on_cuda: Vec<&Tensor> = Vec::new();
    let mut sum = 0.0;
    for gradient in gradients {
        match gradient {
            // Waiting for the device at every tensor takes longer than to add them up.
            #[cfg(feature = "cuda")]
            Gradient::Dense(dense) if dense.device().is_cuda() && dense.dtype() == candle_core::DType::F32 => {
                on_cuda.push(dense);
            }
            gradient => sum += gradient.squared_norm()?,
        }
    }
    #[cfg(feature = "cuda")]
    {
        sum += crate::cuda::squared_norm_of_all(&on_cuda)?;
    }
    Ok(sum)
}

/// The gradients of the scalar `loss`.
///
/// # Errors
/// If an op on the way has no backward pass.
pub fn gradients(loss: &Tensor) -> Result<Gradients> {
    let outer = HANDED_OVER.replace(Some(Gradients::default()));
    let by_candle = loss.backward();
    let mut all = HANDED_OVER.replace(outer).expect("it was put there above");
    let by_candle = by_candle?;
    for id in by_candle.get_ids() {
        if let Some(gradient) = by_candle.get_id(*id) {
            // What is kept must not keep the graph that it was computed by.
            all.insert(*id, gradient.detach().into())?;
        }
    }
    Ok(all)
}

/// Hands `gradients` of variables on to the pass that is under way around this one.
pub(crate) fn hand_on(gradients: Gradients) -> Result<()> {
    // Sums are computed by all threads. A thread that waits for others may take up another pass: nothing is borrowed then.
    let Some(mut outer) = HANDED_OVER.take() else {
        bail!("a checkpoint's gradients are for `gradients`, not for candle's own backward pass")
    };
    let added = outer.add(gradients);
    HANDED_OVER.set(Some(outer));
    added
}

/// Hands the `gradient` of an op's input over if the input is a variable and [`gradients`] is at work; else gives it back,
/// for candle.
pub(crate) fn hand_over(input: &Tensor, gradient: impl Into<Gradient>) -> Result<Option<Tensor>> {
    let gradient = gradient.into();
    let is_taken = HANDED_OVER.with_borrow(|handed_over| handed_over.is_some() && input.is_variable());
    if is_taken {
        hand_on(Gradients::of(input, gradient))?;
        return Ok(None);
    }
    gradient.to_dense().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{devices, devices_with_own_ops, sample};
    use crate::{ProductPrecision, embedding, layer_norm, linear};
    use candle_core::{Device, Var};

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|t| t.to_vec1()).expect("a tensor of f32")
    }

    #[test]
    fn the_norm_of_all_is_that_of_their_elements() -> Result<()> {
        let tensors = [1, 3, 8193, 100_003].map(|count| sample(&[count], count as u64));
        let all = tensors.iter().flat_map(values).map(|v| f64::from(v).powi(2));
        let expected: f64 = all.sum();
        for device in devices() {
            let gradients: Vec<Gradient> = tensors
                .iter()
                .map(|t| t.to_device(device).map(Gradient::from))
                .collect::<Result<_>>()?;
            let norm = squared_norm_of_all(&gradients)?;
            assert!((norm - expected).abs() < 1e-6 * expected, "{norm} on {device:?}");
        }
        for device in devices_with_own_ops() {
            // Squares that f32 has not.
            let (large, small) = (
                Tensor::new(&[1e20f32, 0.0], device)?,
                Tensor::new(&[1e-25f32; 3], device)?,
            );
            assert!(
                (squared_norm_of_all(&[large.into()])? / 1e40 - 1.0).abs() < 1e-6,
                "{device:?}"
            );
            assert!(
                (squared_norm_of_all(&[small.into()])? / 3e-50 - 1.0).abs() < 1e-6,
                "{device:?}"
            );
        }
        assert_eq!(squared_norm_of_all([])?, 0.0);
        Ok(())
    }

    /// A loss in which a weight is used twice by our ops and once by candle's.
    #[test]
    fn they_equal_candles_own() -> Result<()> {
        let variable = |dims: &[usize], seed| Var::from_tensor(&sample(dims, seed));
        let (table, weight) = (variable(&[9, 6], 1)?, variable(&[6, 6], 2)?);
        let (bias, gain) = (variable(&[6], 3)?, variable(&[6], 4)?);
        let ids = Tensor::new(&[3u32, 1, 3, 8], &Device::Cpu)?;
        let x = embedding(table.as_tensor(), &ids)?;
        let x = linear(&x, weight.as_tensor(), Some(bias.as_tensor()), ProductPrecision::F32)?;
        let x = layer_norm(&x, gain.as_tensor(), bias.as_tensor(), 1e-5)?;
        let x = linear(&x, weight.as_tensor(), None, ProductPrecision::F32)?;
        let loss = ((x.sqr()?.sum_all()? + weight.as_tensor().sqr()?.sum_all()?)? + bias.as_tensor().sum_all()?)?;
        let expected = loss.backward()?;
        let mut got = gradients(&loss)?;
        for variable in [&table, &weight, &bias, &gain] {
            let expected = expected.get(variable).expect("candle reaches it");
            assert!(got.has(variable));
            let got = got.take(variable).expect("it is there").to_dense()?;
            assert_eq!(got.dims(), expected.dims());
            for (a, b) in values(&got).iter().zip(values(expected)) {
                assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
            }
        }
        assert!(got.take(table.as_tensor()).is_none(), "it was taken out");
        assert!(loss.backward()?.get(&table).is_some(), "candle's own pass is as before");
        Ok(())
    }
}
