//! One function for each kind of work, from files to a folder of files, with the settings that it takes.
//!
//! Every function reads its inputs, does its work and writes an artifact into `out`, an empty folder. The same inputs,
//! settings and seed give the same bytes on the CPU. Figures that belong to the result are metrics; what a clock or a
//! memory meter said are measurements, and never enter a file.

use crate::artifact::{Files, LoadedModel, ModelArtifact, NewModel};
use crate::batch::{Rows, input_of};
use crate::data::prepared::files_for_training;
use crate::data::{DataSpec, Prepared, Task, prepare};
use crate::distillation::{Distillation, Targets, layers_of_teacher, write_logits, write_teacher_logits};
use crate::error::{Error, Result};
use crate::evaluation::{Agreement, Latency, Size, quality};
use crate::groups::Unit;
use crate::masks::Masks;
use crate::models::{Architecture, ModelConfig, ModelSpec};
use crate::parameters::{Parameters, Use};
use crate::progress::Watch;
use crate::prune::{Granularity, PruneRound, prune_units, prune_weights};
use crate::quantize::{ObserverKind, calibrate, quantizers, write_integers};
use crate::training::{Fitted, Training, fit};
use candle_core::{Device, Tensor};
use orchestrate_kernels::ActivationQuantizer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Latency is the median over predictions of so many different rows, each at batch 1.
const LATENCY_ROWS: usize = 64;

/// Where and how work runs.
pub struct Context<'a> {
    /// The backend.
    pub device: &'a Device,
    /// Of every random stream.
    pub seed: u64,
    /// Who follows the progress.
    pub watch: Watch<'a>,
}

/// What a step says of its result.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Equal on every run.
    pub metrics: BTreeMap<String, f64>,
    /// Of this run alone.
    pub measurements: BTreeMap<String, f64>,
}

impl Figures {
    fn of_metrics<const N: usize>(metrics: [(&str, f64); N]) -> Self {
        let metrics = metrics
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Self {
            metrics,
            measurements: BTreeMap::new(),
        }
    }

    fn of_training(fitted: &Fitted) -> Self {
        Self::of_metrics([("steps", fitted.steps as f64), ("final_loss", fitted.final_loss)])
    }
}

/// Settings of [`train`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// The architecture.
    pub model: ModelSpec,
    /// How it is trained.
    pub training: Training,
}

/// How a student starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// From the seed.
    Random,
    /// From every k-th layer of its teacher (Sanh et al. 2019, section 3).
    Teacher,
}

/// Settings of [`distill`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillSettings {
    /// The student's architecture.
    pub model: ModelSpec,
    /// How it starts.
    pub initialize: Initialization,
    /// How it listens.
    pub distillation: Distillation,
    /// How it is trained.
    pub training: Training,
}

/// Settings of [`finetune`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FinetuneSettings {
    /// How the model is trained.
    pub training: Training,
    /// How it listens to its teacher, if it has one.
    pub distillation: Option<Distillation>,
}

/// Settings of [`quantize`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantizeSettings {
    /// How the range of a layer's input is estimated.
    pub observer: ObserverKind,
    /// Training rows that the ranges start from.
    pub calibration_rows: usize,
    /// Quantization-aware training; with no epochs, the model is quantized after training.
    pub finetune: FinetuneSettings,
}

/// What the weights of an exported model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 8-bit integers with a scale for each output channel.
    Int8,
    /// 32-bit floats.
    F32,
}

/// Settings of [`export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSettings {
    /// What the weights become.
    pub precision: Precision,
}

/// Settings of [`evaluate`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSettings {
    /// Rows of a batch.
    pub batch_size: usize,
    /// How long latency is measured, in seconds; 0 for not at all.
    pub latency_seconds: f64,
}

/// A teacher's outputs on the training rows: an artifact of [`teacher_logits`].
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    /// The artifact.
    pub logits: &'a Files,
    /// How to use it.
    pub distillation: Distillation,
}

/// Makes or reads a data set and turns it into numbers: as the model in `like` reads them, if it is given. `files` are
/// external, by role.
///
/// # Errors
/// [`Error::Data`], or if the model cannot be read.
pub fn prepare_data(spec: &DataSpec, files: &Files, like: Option<&Files>, out: &Path) -> Result<Figures> {
    let like = like.map(|files| ModelArtifact::open(files)?.task()).transpose()?;
    let data = prepare(spec, files, like.as_ref())?;
    data.write(out)?;
    let count = |n: usize| n as f64;
    Ok(Figures::of_metrics([
        ("train_rows", count(data.train.rows())),
        ("test_rows", count(data.test.rows())),
        ("classes", count(data.labels().len())),
    ]))
}

/// Copies what training reads of a prepared data set, so that a change of the test rows alone does not reach it.
///
/// # Errors
/// [`Error::Io`].
pub fn training_rows(data: &Files, out: &Path) -> Result<Figures> {
    for (name, path) in files_for_training(data) {
        std::fs::copy(path, out.join(name)).map_err(Error::io("copy", path))?;
    }
    Ok(Figures::default())
}

/// Trains a model from a seed.
///
/// # Errors
/// If the model does not fit the data, or as [`fit`].
pub fn train(data: &Files, settings: &TrainSettings, context: &Context, out: &Path) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let config = new_config(&settings.model, &data)?;
    let mut parameters = Parameters::create(context.seed, context.device);
    let model = config.architecture.build(&mut parameters, config.classes())?;
    let trainee = LoadedModel {
        parameters,
        model,
        masks: Masks::new(),
    };
    let fitted = fit_on(&trainee, &data, None, &settings.training, context)?;
    write_model(&config, tokenizer_of(&data), &trainee, &BTreeMap::new(), out)?;
    Ok(Figures::of_training(&fitted))
}

/// Runs a teacher over the training rows and keeps its logits.
///
/// # Errors
/// If the teacher does not fit the data.
pub fn teacher_logits(teacher: &Files, data: &Files, context: &Context, out: &Path) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(teacher)?;
    require_same_data(&artifact, &data)?;
    let teacher = artifact.load(context.device, Use::Infer)?;
    let rows = Rows::train(&data, context.device);
    write_teacher_logits(&teacher, &rows, artifact.config.classes(), out, context.watch)?;
    Ok(Figures::of_metrics([("rows", rows.len() as f64)]))
}

/// Trains a student towards a teacher; `teacher` is read only if the student starts from its layers.
///
/// # Errors
/// If the models do not fit each other or the data, or as [`fit`].
pub fn distill(
    data: &Files,
    logits: &Files,
    teacher: Option<&Files>,
    settings: &DistillSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let config = new_config(&settings.model, &data)?;
    let mut parameters = match (settings.initialize, teacher) {
        (Initialization::Random, _) => Parameters::create(context.seed, context.device),
        (Initialization::Teacher, Some(files)) => {
            let artifact = ModelArtifact::open(files)?;
            let teacher = artifact.load(context.device, Use::Infer)?;
            let tensors = layers_of_teacher(&artifact.config, &config, &teacher.parameters.floats())?;
            Parameters::from_tensors(tensors, context.device, Use::Train)
        }
        (Initialization::Teacher, None) => {
            return Err(Error::Unsuited(
                "initialize = \"teacher\" needs the teacher's weights".into(),
            ));
        }
    };
    let model = config.architecture.build(&mut parameters, config.classes())?;
    let student = LoadedModel {
        parameters,
        model,
        masks: Masks::new(),
    };
    let lesson = Lesson {
        logits,
        distillation: settings.distillation,
    };
    let fitted = fit_on(&student, &data, Some(lesson), &settings.training, context)?;
    write_model(&config, tokenizer_of(&data), &student, &BTreeMap::new(), out)?;
    Ok(Figures::of_training(&fitted))
}

/// Removes what is least important, without any training.
///
/// # Errors
/// If the model cannot be read, or has been quantized.
pub fn prune(model: &Files, round: &PruneRound, seed: u64, out: &Path) -> Result<Figures> {
    let artifact = ModelArtifact::open(model)?;
    let loaded = artifact.load(&Device::Cpu, Use::Infer)?;
    if !loaded.parameters.quantizers().is_empty() {
        return Err(Error::Unsuited(
            "a quantized model is not pruned: put the prune step before the quantize step".into(),
        ));
    }
    let tensors = loaded.parameters.floats();
    let (config, tensors, masks) = match round.granularity {
        Granularity::Structured => {
            if !loaded.masks.is_empty() {
                return Err(Error::Unsuited(
                    "the model has masks of an unstructured pruning, which whole units cannot be removed under: \
                     prune structured first"
                        .into(),
                ));
            }
            let (config, tensors) = prune_units(&artifact.config, &tensors, round, seed)?;
            (config, tensors, Masks::new())
        }
        Granularity::Unstructured => {
            let mut tensors = tensors;
            let weights = loaded.parameters.weight_names();
            let prunable = |name: &str| weights.contains(name) && !name.contains("embeddings");
            let masks = prune_weights(&mut tensors, prunable, &loaded.masks, round, seed)?;
            (artifact.config.clone(), tensors, masks)
        }
    };
    let new = NewModel {
        config: &config,
        tokenizer: artifact.tokenizer.as_deref(),
        floats: &tensors,
        quantizers: &BTreeMap::new(),
        masks: &masks,
    };
    new.write(out)?;
    let kept: usize = tensors.values().map(Tensor::elem_count).sum();
    warn_if_little_was_removed(&config, round);
    Ok(Figures::of_metrics([
        ("parameters_before", loaded.parameters.count() as f64),
        ("parameters", kept as f64),
        ("weight_sparsity", masked_share(&masks)?),
    ]))
}

/// Trains a model further; its masks, if it has any, hold throughout.
///
/// # Errors
/// If the model does not fit the data, or as [`fit`].
pub fn finetune(
    model: &Files,
    data: &Files,
    logits: Option<&Files>,
    settings: &FinetuneSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(model)?;
    require_same_data(&artifact, &data)?;
    let trainee = artifact.load(context.device, Use::Train)?;
    if !trainee.parameters.quantizers().is_empty() {
        return Err(Error::Unsuited(
            "a quantized model is trained by a step of kind \"quantize\" only".into(),
        ));
    }
    let fitted = fit_on(&trainee, &data, settings.lesson(logits)?, &settings.training, context)?;
    write_model(
        &artifact.config,
        artifact.tokenizer.as_deref(),
        &trainee,
        &BTreeMap::new(),
        out,
    )?;
    Ok(Figures::of_training(&fitted))
}

/// Calibrates a model and trains it quantization-aware. Its widths and masks are kept.
///
/// # Errors
/// If the model does not fit the data, is quantized already, or as [`fit`].
pub fn quantize(
    model: &Files,
    data: &Files,
    logits: Option<&Files>,
    settings: &QuantizeSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(model)?;
    require_same_data(&artifact, &data)?;
    let mut parameters = Parameters::read(artifact.weights_path()?, context.device, Use::Train)?;
    if !parameters.quantizers().is_empty() {
        return Err(Error::Unsuited(
            "the model is quantized already: give this step one that is not".into(),
        ));
    }
    parameters.observe_inputs(settings.observer);
    let trainee = artifact.build(parameters, context.device)?;
    let rows = Rows::train(&data, context.device);
    calibrate(&trainee, &rows, settings.calibration_rows, context.watch)?;
    let figures = if settings.finetune.training.epochs == 0 {
        Figures::of_metrics([("steps", 0.0)])
    } else {
        let lesson = settings.finetune.lesson(logits)?;
        Figures::of_training(&fit_on(&trainee, &data, lesson, &settings.finetune.training, context)?)
    };
    write_model(
        &artifact.config,
        artifact.tokenizer.as_deref(),
        &trainee,
        &quantizers(&trainee)?,
        out,
    )?;
    Ok(figures)
}

/// Writes a model as it is to be deployed.
///
/// # Errors
/// If the model cannot be read, or is asked for in integers without having been quantized.
pub fn export(model: &Files, settings: ExportSettings, out: &Path) -> Result<Figures> {
    let artifact = ModelArtifact::open(model)?;
    match settings.precision {
        Precision::Int8 => write_integers(model, out)?,
        Precision::F32 => {
            let loaded = artifact.load(&Device::Cpu, Use::Infer)?;
            write_model(
                &artifact.config,
                artifact.tokenizer.as_deref(),
                &loaded,
                &BTreeMap::new(),
                out,
            )?;
        }
    }
    let exported = ModelArtifact::open(&crate::artifact::files_of_folder(out)?)?;
    exported.load(&Device::Cpu, Use::Infer)?;
    Ok(Figures::of_metrics([("file_bytes", exported.weights_bytes()? as f64)]))
}

/// Reads a model back from disk, runs it on the test rows, and keeps its logits. With `reference`, an evaluation of another
/// model on the same data, it also says how the two differ.
///
/// # Errors
/// If the model cannot be read or does not fit the data.
pub fn evaluate(
    model: &Files,
    data: &Files,
    reference: Option<&Files>,
    settings: EvaluateSettings,
    context: &Context,
    out: &Path,
) -> Result<Figures> {
    let data = Prepared::read(data)?;
    let artifact = ModelArtifact::open(model)?;
    require_same_data(&artifact, &data)?;
    let device = artifact.inference_device(context.device)?;
    let loaded = artifact.load(&device, Use::Infer)?;
    let rows = Rows::test(&data, &device);
    let quality = quality(&loaded, &rows, settings.batch_size, context.watch)?;
    let size = Size::of(&artifact, &loaded, &rows)?;
    let mut figures = Figures::of_metrics([
        ("accuracy", quality.accuracy),
        ("loss", quality.loss),
        ("rows", rows.len() as f64),
        ("file_bytes", size.file_bytes as f64),
        ("parameters", size.parameters as f64),
        ("parameters_nonzero", size.nonzero as f64),
        ("macs", size.macs as f64),
        ("tokens", size.tokens as f64),
    ]);
    let classes = artifact.config.classes();
    if let Some(files) = reference {
        let agreement = Agreement::with_files(&quality.logits, files, rows.len(), classes)?;
        figures.metrics.extend([
            ("predictions_changed".to_owned(), agreement.different as f64),
            ("agreement".to_owned(), agreement.same_predictions),
            ("largest_logit_difference".to_owned(), agreement.largest_difference),
        ]);
    }
    write_logits(&quality.logits, classes, out)?;
    if settings.latency_seconds > 0.0 {
        let budget = Duration::try_from_secs_f64(settings.latency_seconds)
            .map_err(|e| Error::Unsuited(format!("latency_seconds = {}: {e}", settings.latency_seconds)))?;
        let latency = Latency::measure(loaded.model.as_ref(), &rows.singles(LATENCY_ROWS)?, budget)?;
        figures.measurements = BTreeMap::from([
            ("latency_ms_p50".to_owned(), latency.p50),
            ("latency_ms_p90".to_owned(), latency.p90),
            ("latency_ms_p99".to_owned(), latency.p99),
            ("latency_runs".to_owned(), latency.runs as f64),
        ]);
    }
    Ok(figures)
}

impl FinetuneSettings {
    fn lesson<'a>(&self, logits: Option<&'a Files>) -> Result<Option<Lesson<'a>>> {
        match (self.distillation, logits) {
            (None, _) => Ok(None),
            (Some(distillation), Some(logits)) => Ok(Some(Lesson { logits, distillation })),
            (Some(_), None) => Err(Error::Unsuited("distillation needs the teacher's logits".into())),
        }
    }
}

fn fit_on(
    trainee: &LoadedModel,
    data: &Prepared,
    lesson: Option<Lesson>,
    training: &Training,
    context: &Context,
) -> Result<Fitted> {
    let rows = Rows::train(data, context.device);
    let targets = lesson
        .map(|l| {
            Targets::read(
                l.logits,
                rows.len(),
                data.labels().len(),
                l.distillation,
                context.device,
            )
        })
        .transpose()?;
    fit(trainee, &rows, targets.as_ref(), training, context.seed, context.watch)
}

fn write_model(
    config: &ModelConfig,
    tokenizer: Option<&str>,
    model: &LoadedModel,
    quantizers: &BTreeMap<String, ActivationQuantizer>,
    out: &Path,
) -> Result<()> {
    NewModel {
        config,
        tokenizer,
        floats: &model.parameters.floats(),
        quantizers,
        masks: &model.masks,
    }
    .write(out)
}

fn new_config(model: &ModelSpec, data: &Prepared) -> Result<ModelConfig> {
    let input = input_of(data);
    let mut architecture = model.resolve(&input)?;
    if let Architecture::Bert(config) = &mut architecture {
        config.pad_token_id = data.pad_id();
    }
    architecture.validate()?;
    let id2label = data.labels().iter().cloned().enumerate().collect();
    Ok(ModelConfig {
        architecture,
        id2label,
        input,
        dense_widths: BTreeMap::new(),
    })
}

fn tokenizer_of(data: &Prepared) -> Option<&str> {
    match &data.task {
        Task::Text { tokenizer, .. } => Some(tokenizer.to_json()),
        Task::Image { .. } => None,
    }
}

/// A model is only run on data whose numbers mean what its own did: of its tokenizer or normalization, and its classes.
fn require_same_data(artifact: &ModelArtifact, data: &Prepared) -> Result<()> {
    let (task, other) = (artifact.task()?, &data.task);
    let what = match (&task, other) {
        _ if task.labels() != other.labels() => "classes",
        (Task::Text { tokenizer, .. }, Task::Text { tokenizer: theirs, .. })
            if tokenizer.to_json() != theirs.to_json() =>
        {
            "tokenizer"
        }
        _ if input_of(data) != artifact.config.input => "shape or normalization",
        _ => return Ok(()),
    };
    Err(Error::Unsuited(format!(
        "the model was trained on data of another {what} than this step gives it (classes {:?} against {:?}): a teacher, its \
         students and their data must agree; name the same data in all of them, or give the texts one `tokenizer`",
        task.labels(),
        other.labels()
    )))
}

/// Tells where `round_to` kept much more than was asked for.
fn warn_if_little_was_removed(config: &ModelConfig, round: &PruneRound) {
    for group in config.architecture.groups() {
        let Some(dense) = config.dense_widths.get(&group.name) else {
            continue;
        };
        let what = match group.unit {
            // Heads are few, and not rounded.
            Unit::Heads => continue,
            Unit::Neurons => "neurons",
            Unit::Channels => "channels",
        };
        let missed = round.neurons - (1.0 - group.size as f64 / *dense as f64);
        if missed > 0.1 && missed > 1.0 / *dense as f64 {
            tracing::warn!(
                "{}: {:.0} % of {dense} {what} were to go, {:.0} % are gone: lower round_to (now {}), or ask for less",
                group.name,
                100.0 * round.neurons,
                100.0 * (round.neurons - missed),
                round.round_to
            );
        }
    }
}

/// Share of the maskable weights that are masked, 0..=1.
fn masked_share(masks: &Masks) -> Result<f64> {
    let (mut masked, mut all) = (0, 0);
    for mask in masks.values() {
        masked += mask
            .flatten_all()?
            .to_vec1::<f32>()?
            .iter()
            .filter(|kept| **kept == 0.0)
            .count();
        all += mask.elem_count();
    }
    Ok(if all > 0 { masked as f64 / all as f64 } else { 0.0 })
}
