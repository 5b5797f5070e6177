//! The named tensors of one model: created from a seed, or read from a safetensors file.
//!
//! A model asks for each tensor by name while it is being built, with the shape its configuration implies; a missing
//! tensor, a wrong shape and a tensor that nobody asked for are all errors, before any training. Iteration is by name, so
//! that no hash order ever reaches a result.
//!
//! Beside the parameters there are states, which training moves without a gradient: running statistics.
//!
//! Three precisions share one file layout, told apart by what is there: `X.weight` as f32 alone is a float layer; with
//! `X.input_scale` and `X.input_zero_point` it is trained quantization-aware; as i8 with `X.weight_scale` it runs on integers.
//! In the latter two `X.weight_codebook` may hold the i8 levels of the weight, of which integers are packed indices then, in u8.

mod file;

use crate::error::{Error, Result};
use crate::quantize::observer::{Observer, ObserverKind};
use crate::quantize::{PackedIndices, WeightScheme};
use crate::random::{Purpose, step_of_name};
use candle_core::{DType, Device, Tensor, Var};
use orchestrate_kernels::{ActivationQuantizer, Codebook, RandomStream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a parameter starts when it is not read from a file.
#[derive(Debug, Clone, Copy)]
pub enum Initial {
    /// Normal with mean 0 and this standard deviation (Devlin et al. 2019 use 0.02).
    Normal(f32),
    /// Uniform in ±sqrt(6 / fan_in): He et al. 2015, section 2.2, for layers followed by a rectifier.
    HeUniform {
        /// Inputs that feed one unit.
        fan_in: usize,
    },
    /// All zero (biases).
    Zeros,
    /// All one (norm gains).
    Ones,
}

/// The int8 form of one weight: values, one scale an output channel.
#[derive(Debug, Clone)]
pub struct IntegerWeight {
    /// `[out × rest]`, row-major.
    pub values: Vec<i8>,
    /// `[out]`.
    pub scales: Vec<f32>,
}

/// A weight as a layer finds it.
pub enum Weight {
    /// f32, trainable where the store is.
    Float(Tensor),
    /// i8 with scales, for inference.
    Integer(IntegerWeight),
}

/// Whether the tensors are to be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Parameters become variables with gradients.
    Train,
    /// Plain tensors.
    Infer,
}

/// The batch norm behind a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct NormAfter {
    /// Where it is.
    pub path: String,
    /// Added to its variance.
    pub epsilon: f64,
}

/// Where a tensor comes from that the store does not hold.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// From nowhere: it is missing.
    None,
    /// It is drawn from this seed.
    Seed(u64),
    /// It is zero in all places, which take no memory; no training moves it.
    Outline,
}

/// Named tensors, see the module's text.
pub struct Parameters {
    floats: BTreeMap<String, Tensor>,
    variables: BTreeMap<String, Var>,
    states: BTreeMap<String, Var>,
    norms: BTreeMap<String, NormAfter>,
    integers: BTreeMap<String, (Vec<usize>, IntegerWeight)>,
    /// Weights whose indices wait for the width of their channels, with their scales.
    packed: BTreeMap<String, (PackedIndices, Vec<f32>)>,
    codebooks: BTreeMap<String, Arc<Codebook>>,
    quantizers: BTreeMap<String, ActivationQuantizer>,
    observers: BTreeMap<String, Arc<Observer>>,
    observe_with: Option<ObserverKind>,
    origin: Origin,
    asked: BTreeSet<String>,
    weights: BTreeSet<String>,
    device: Device,
    purpose: Use,
}

pub(crate) const INPUT_SCALE: &str = ".input_scale";
const INPUT_ZERO_POINT: &str = ".input_zero_point";
pub(crate) const WEIGHT_SCALE: &str = "_scale";
pub(crate) const WEIGHT_CODEBOOK: &str = "_codebook";

impl Parameters {
    /// An empty store whose tensors are drawn as they are asked for.
    pub fn create(seed: u64, device: &Device) -> Self {
        Self {
            origin: Origin::Seed(seed),
            ..Self::empty(device, Use::Train)
        }
    }

    /// An empty store that has whatever it is asked for, without values: to learn which tensors a model has.
    pub fn outline() -> Self {
        Self {
            origin: Origin::Outline,
            ..Self::empty(&Device::Cpu, Use::Train)
        }
    }

    fn empty(device: &Device, purpose: Use) -> Self {
        Self {
            floats: BTreeMap::new(),
            variables: BTreeMap::new(),
            states: BTreeMap::new(),
            norms: BTreeMap::new(),
            integers: BTreeMap::new(),
            packed: BTreeMap::new(),
            codebooks: BTreeMap::new(),
            quantizers: BTreeMap::new(),
            observers: BTreeMap::new(),
            observe_with: None,
            origin: Origin::None,
            asked: BTreeSet::new(),
            weights: BTreeSet::new(),
            device: device.clone(),
            purpose,
        }
    }

    /// A store over given f32 tensors (shrunk or copied from another model).
    pub fn from_tensors(floats: BTreeMap<String, Tensor>, device: &Device, purpose: Use) -> Self {
        Self {
            floats,
            ..Self::empty(device, purpose)
        }
    }

    /// The same store, in which what it lacks is drawn from `seed` when it is asked for.
    pub fn with_rest_from_seed(self, seed: u64) -> Self {
        Self {
            origin: Origin::Seed(seed),
            ..self
        }
    }

    /// Gives every weight of `names` the codebook that fits it best, if `scheme` has codebooks.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn choose_codebooks(&mut self, scheme: WeightScheme, names: &BTreeSet<String>) -> Result<()> {
        for name in names {
            if let Some(codebook) = self.floats.get(name).map(|w| scheme.codebook(w)).transpose()?.flatten() {
                self.codebooks.insert(name.clone(), Arc::new(codebook));
            }
        }
        Ok(())
    }

    /// The codebook of the weight `name`, if it has one.
    pub fn codebook(&self, name: &str) -> Option<Arc<Codebook>> {
        self.codebooks.get(name).cloned()
    }

    /// The codebooks of all weights that have one.
    pub fn codebooks(&self) -> &BTreeMap<String, Arc<Codebook>> {
        &self.codebooks
    }

    /// From now on, every quantizable layer that is built gets an observer of this kind for its input.
    pub fn observe_inputs(&mut self, kind: ObserverKind) {
        self.observe_with = Some(kind);
    }

    /// Whether the tensors are trained.
    pub fn purpose(&self) -> Use {
        self.purpose
    }

    /// The device the tensors live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter `name` of `shape`, as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::WrongTensor`].
    pub fn float(&mut self, name: &str, shape: &[usize], initial: Initial) -> Result<Tensor> {
        self.asked.insert(name.to_owned());
        if let Some(variable) = self.variables.get(name) {
            return Ok(variable.as_tensor().clone());
        }
        let tensor = self.found_or_drawn(name, shape, initial)?;
        match (self.purpose, self.origin) {
            (Use::Infer, _) | (Use::Train, Origin::Outline) => {
                self.floats.insert(name.to_owned(), tensor.clone());
                Ok(tensor)
            }
            (Use::Train, Origin::None | Origin::Seed(_)) => {
                let variable = Var::from_tensor(&tensor)?;
                let tensor = variable.as_tensor().clone();
                self.floats.remove(name);
                self.variables.insert(name.to_owned(), variable);
                Ok(tensor)
            }
        }
    }

    /// What the store holds as `name`, or a new tensor if it is drawn from a seed.
    fn found_or_drawn(&self, name: &str, shape: &[usize], initial: Initial) -> Result<Tensor> {
        let tensor = match (self.floats.get(name), self.origin) {
            (Some(tensor), _) => tensor.clone(),
            (None, Origin::Seed(seed)) => draw(name, shape, initial, seed, &self.device)?,
            (None, Origin::Outline) => Tensor::zeros((), DType::F32, &self.device)?.broadcast_as(shape)?,
            (None, Origin::None) => {
                return Err(Error::MissingTensor {
                    name: name.into(),
                    shape: shape.to_vec(),
                });
            }
        };
        check_shape(name, tensor.dims(), shape)?;
        Ok(tensor)
    }

    /// The state `name` of `shape`: a tensor that training moves and that belongs to the model's file, but that has no
    /// gradient and is no parameter, such as the running statistics of a batch norm.
    ///
    /// # Errors
    /// As [`Parameters::float`].
    pub fn state(&mut self, name: &str, shape: &[usize], initial: Initial) -> Result<Var> {
        self.asked.insert(name.to_owned());
        if let Some(state) = self.states.get(name) {
            return Ok(state.clone());
        }
        let state = Var::from_tensor(&self.found_or_drawn(name, shape, initial)?)?;
        self.floats.remove(name);
        self.states.insert(name.to_owned(), state.clone());
        Ok(state)
    }

    /// Whether there is, or will be drawn, a tensor `name`.
    pub fn holds(&self, name: &str) -> bool {
        !matches!(self.origin, Origin::None) || self.floats.contains_key(name) || self.variables.contains_key(name)
    }

    /// Notes that the batch norm `norm` is all that reads what the convolution at `path` gives.
    pub fn note_norm(&mut self, path: &str, norm: NormAfter) {
        self.norms.insert(path.to_owned(), norm);
    }

    /// The batch norms of the layers built so far, by the path of the convolution before each.
    pub fn norms(&self) -> &BTreeMap<String, NormAfter> {
        &self.norms
    }

    /// The weight `name` of `shape`, in whichever precision the store holds it.
    ///
    /// # Errors
    /// As [`Parameters::float`].
    pub fn weight(&mut self, name: &str, shape: &[usize], initial: Initial) -> Result<Weight> {
        self.weights.insert(name.to_owned());
        self.unpack(name, shape)?;
        if let Some((found, weight)) = self.integers.get(name) {
            check_shape(name, found, shape)?;
            self.asked.insert(name.to_owned());
            return Ok(Weight::Integer(weight.clone()));
        }
        Ok(Weight::Float(self.float(name, shape, initial)?))
    }

    /// Unpacks the indices of the weight `name`, if that is what there is, now that its shape is known.
    fn unpack(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let (Some((indices, scales)), Some(codebook)) = (self.packed.get(name), self.codebooks.get(name)) else {
            return Ok(());
        };
        let width = shape.iter().skip(1).product();
        let channels = shape.first().copied().unwrap_or(0);
        let weight = (scales.len() == channels)
            .then(|| indices.unpack(width, codebook, scales))
            .flatten();
        let Some(weight) = weight else {
            return Err(Error::WrongTensor {
                name: name.into(),
                found: format!(
                    "indices in {} bytes for each of {} channels",
                    indices.row_bytes,
                    scales.len()
                ),
                expected: format!("indices of {} bits for {shape:?}", codebook.bits()),
            });
        };
        self.packed.remove(name);
        self.integers.insert(name.to_owned(), (shape.to_vec(), weight));
        Ok(())
    }

    /// The input quantizer of the layer at `path`, if the store has one.
    pub fn input_quantizer(&self, path: &str) -> Option<ActivationQuantizer> {
        self.quantizers.get(path).copied()
    }

    /// The input quantizer that the layer at `path` must have, since its weight is in integers.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the file has none.
    pub fn quantizer_of_integers(&self, path: &str) -> Result<ActivationQuantizer> {
        self.input_quantizer(path).ok_or_else(|| Error::MissingTensor {
            name: format!("{path}{INPUT_SCALE}"),
            shape: vec![],
        })
    }

    /// The observer of the layer at `path`: new if inputs are being observed, fixed if the file holds its range.
    pub fn observer(&mut self, path: &str) -> Option<Arc<Observer>> {
        let observer = match (self.input_quantizer(path), self.observe_with) {
            (Some(quantizer), _) => Observer::fixed(quantizer),
            (None, Some(kind)) => Observer::new(kind),
            (None, None) => return None,
        };
        let observer = Arc::new(observer);
        self.observers.insert(path.to_owned(), observer.clone());
        Some(observer)
    }

    /// Whether layers built from this store quantize: inputs are being observed, or the file holds their ranges.
    pub fn simulates_quantization(&self) -> bool {
        self.observe_with.is_some() || !self.quantizers.is_empty()
    }

    /// The observers of all layers built so far, by path.
    pub fn observers(&self) -> &BTreeMap<String, Arc<Observer>> {
        &self.observers
    }

    /// The names of all quantizable weights of the layers built so far.
    pub fn weight_names(&self) -> &BTreeSet<String> {
        &self.weights
    }

    /// The input quantizers that the file held, by layer path.
    pub fn quantizers(&self) -> &BTreeMap<String, ActivationQuantizer> {
        &self.quantizers
    }

    /// Called once the model is built: refuses tensors that no layer asked for.
    ///
    /// # Errors
    /// [`Error::UnusedTensors`].
    pub fn finish(&self) -> Result<()> {
        let names = self.floats.keys().chain(self.integers.keys()).chain(self.packed.keys());
        let mut unused: Vec<String> = names.filter(|n| !self.asked.contains(*n)).cloned().collect();
        let serves = |name: &str| self.simulates_quantization() && self.weights.contains(name);
        let idle = self.codebooks.keys().filter(|name| !serves(name));
        unused.extend(idle.map(|name| format!("{name}{WEIGHT_CODEBOOK}")));
        if unused.is_empty() {
            Ok(())
        } else {
            Err(Error::UnusedTensors(unused))
        }
    }

    /// The trainable variables, sorted by name.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.variables.iter()
    }

    /// What training moves beside the variables, sorted by name; [`Var::set`] puts a saved value back. No optimizer is to
    /// see them.
    pub fn states(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.states.iter()
    }

    /// Whether `name` is one of [`Parameters::states`].
    pub fn is_state(&self, name: &str) -> bool {
        self.states.contains_key(name)
    }

    /// The f32 tensors by name, states among them, detached from any graph.
    pub fn floats(&self) -> BTreeMap<String, Tensor> {
        let moved = self.variables.iter().chain(&self.states);
        let variables = moved.map(|(n, v)| (n.clone(), v.as_detached_tensor()));
        variables
            .chain(self.floats.iter().map(|(n, t)| (n.clone(), t.clone())))
            .collect()
    }

    /// The tensors that training prunes, whatever their precision: f32 ones, and the values of integer ones as f32.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn weights_as_floats(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.floats();
        for (name, (shape, weight)) in &self.integers {
            let values: Vec<f32> = weight.values.iter().map(|&v| f32::from(v)).collect();
            tensors.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?);
        }
        Ok(tensors)
    }

    /// Number of parameters: scales, zero points and states do not count.
    pub fn count(&self) -> usize {
        let floats: usize = self.floats.values().map(Tensor::elem_count).sum();
        let variables: usize = self.variables.values().map(|v| v.as_tensor().elem_count()).sum();
        floats + variables + self.integers.values().map(|(_, w)| w.values.len()).sum::<usize>()
    }

    /// Number of parameters that are not zero.
    ///
    /// # Errors
    /// If a tensor cannot be read back from its device.
    pub fn count_nonzero(&self) -> Result<usize> {
        let mut count = 0;
        for (_, tensor) in self.floats().iter().filter(|(name, _)| !self.is_state(name)) {
            count += tensor
                .flatten_all()?
                .to_vec1::<f32>()?
                .iter()
                .filter(|v| **v != 0.0)
                .count();
        }
        let integers = self.integers.values().flat_map(|(_, w)| &w.values);
        Ok(count + integers.filter(|v| **v != 0).count())
    }
}

fn check_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::WrongTensor {
        name: name.into(),
        found: format!("{found:?}"),
        expected: format!("{expected:?}"),
    })
}

fn draw(name: &str, shape: &[usize], initial: Initial, seed: u64, device: &Device) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let mut stream = RandomStream::new(Purpose::Initialize.key(seed, step_of_name(name)));
    let values = match initial {
        Initial::Normal(deviation) => (0..count).map(|_| stream.normal() * deviation).collect(),
        Initial::HeUniform { fan_in } => {
            let bound = (6.0 / fan_in.max(1) as f32).sqrt();
            (0..count).map(|_| (2.0 * stream.uniform() - 1.0) * bound).collect()
        }
        Initial::Zeros => return Ok(Tensor::zeros(shape, DType::F32, device)?),
        Initial::Ones => return Ok(Tensor::ones(shape, DType::F32, device)?),
    };
    Ok(Tensor::from_vec(values, shape, device)?)
}
