//! The state that the steps of a training change, to a file and back: parameters, running statistics, the optimizer's
//! moments, the ranges that observers have seen, and the losses so far. Random streams have no state: they are keyed by
//! step.

use crate::artifact::LoadedModel;
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::quantize::Observer;
use candle_core::{DType, Tensor, Var};
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

/// What each step told.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Mean loss of each batch.
    pub losses: Vec<f64>,
    /// Share of each batch that was predicted right.
    pub accuracies: Vec<f64>,
}

/// The state that steps change.
pub(crate) struct State<'a> {
    pub trainee: &'a LoadedModel,
    pub optimizer: Optimizer,
    pub history: History,
}

impl State<'_> {
    /// Writes it to a new file and makes that last.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = safetensors::serialize_to_file(self.tensors(), None, path).map_err(std::io::Error::other);
        let synced = written.and_then(|()| File::open(path)?.sync_all());
        synced.map_err(Error::io("write", path))
    }

    fn tensors(&self) -> BTreeMap<String, Kept> {
        let variables = moved(self.trainee);
        let parameters = variables.map(|(name, variable)| (parameter(name), variable.as_detached_tensor()));
        let moments = self.optimizer.moments().map(|(name, moment)| (name, moment.clone()));
        let floats = parameters
            .chain(moments)
            .map(|(name, tensor)| (name, Kept::Floats(tensor)));
        let observers = self.trainee.parameters.observers().iter();
        let ranges = observers.filter_map(|(path, observer)| Some((range(path), Kept::numbers(&observer.seen()?))));
        let history = [
            ("losses".to_owned(), Kept::numbers(&self.history.losses)),
            ("accuracies".to_owned(), Kept::numbers(&self.history.accuracies)),
        ];
        floats.chain(ranges).chain(history).collect()
    }

    /// Brings it to what the file at `path` holds, written after `steps` steps, if that is of the same training.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file is of another training, [`Error::Io`].
    pub fn read(&mut self, path: &Path, steps: usize) -> Result<()> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let corrupt = |detail: String| Error::Corrupt {
            path: path.into(),
            expected: "checkpoint",
            detail,
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| corrupt(error.to_string()))?;
        let floats = |name: &str, like: &Tensor| -> Result<Tensor> {
            let view = file.tensor(name).map_err(|error| corrupt(error.to_string()))?;
            if (view.dtype(), view.shape()) != (Dtype::F32, like.dims()) {
                return Err(corrupt(format!("{name} is {:?} {:?}", view.dtype(), view.shape())));
            }
            let values: Vec<f32> = view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect();
            Ok(Tensor::from_vec(values, like.dims(), like.device())?)
        };
        let numbers = |name: &str, count: usize| -> Result<Vec<f64>> {
            let view = file.tensor(name).map_err(|error| corrupt(error.to_string()))?;
            if (view.dtype(), view.shape()) != (Dtype::F64, &[count]) {
                return Err(corrupt(format!("{name} is {:?} {:?}", view.dtype(), view.shape())));
            }
            Ok(view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect())
        };
        let variables = moved(self.trainee);
        let variables: Vec<(&Var, Tensor)> = variables
            .map(|(name, variable)| Ok((variable, floats(&parameter(name), variable)?)))
            .collect::<Result<_>>()?;
        let observers = self.trainee.parameters.observers().iter();
        let ranges: Vec<(&Observer, Vec<f64>)> = observers
            .filter(|(path, _)| file.tensor(&range(path)).is_ok())
            .map(|(path, observer)| Ok((&**observer, numbers(&range(path), 3)?)))
            .collect::<Result<_>>()?;
        let history = History {
            losses: numbers("losses", steps)?,
            accuracies: numbers("accuracies", steps)?,
        };
        self.optimizer.go_on_after(steps as u64, floats)?;
        self.history = history;
        for (observer, seen) in ranges {
            observer.resume([seen[0], seen[1], seen[2]]);
        }
        for (variable, values) in variables {
            variable.set(&values)?;
        }
        Ok(())
    }
}

/// The tensors that training moves: parameters, and states such as running statistics.
fn moved(trainee: &LoadedModel) -> impl Iterator<Item = (&String, &Var)> {
    trainee.parameters.variables().chain(trainee.parameters.states())
}

fn parameter(name: &str) -> String {
    format!("parameter:{name}")
}

fn range(path: &str) -> String {
    format!("range:{path}")
}

/// One tensor of a checkpoint, which becomes bytes only while it is written.
enum Kept {
    Floats(Tensor),
    Numbers([usize; 1], Vec<f64>),
}

impl Kept {
    fn numbers(values: &[f64]) -> Self {
        Self::Numbers([values.len()], values.to_vec())
    }
}

impl View for Kept {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Floats(_) => Dtype::F32,
            Self::Numbers(..) => Dtype::F64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(tensor) => tensor.dims(),
            Self::Numbers(shape, _) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Floats(tensor) => {
                let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
                let values = values.expect("the tensors of a training are f32 and can be read");
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            Self::Numbers(_, values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Floats(tensor) => tensor.elem_count() * DType::F32.size_in_bytes(),
            Self::Numbers(_, values) => size_of_val(values.as_slice()),
        }
    }
}
