//! Writes what both sides of a comparison load: models with random weights, random batches, and the settings.
//!
//! In the case's folder: `model/` (the learner, or the model that answers), `teacher/` for distillation, `int8/` for
//! inference, `batches.safetensors` (`ids` or `pixels`, `labels`, `calibration`) and `case.json`. The rows of the batches are
//! in the order in which they are learnt.

use super::Failure;
use super::cases::{Case, Work};
use candle_core::{Device, Tensor};
use orchestrate_kernels::{ProductPrecision, RandomKey, RandomStream};
use orchestrate_ml::artifact::{ModelArtifact, NewModel, files_of_folder};
use orchestrate_ml::batch::{EpochOrder, Rows};
use orchestrate_ml::data::{EncodedSplit, ImageSplit, Prepared, Task, TextSplit, Tokenizer};
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::masks::Masks;
use orchestrate_ml::models::{Input, ModelConfig, ModelSpec};
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::parameters::{Parameters, Use};
use orchestrate_ml::quantize::{ObserverKind, calibrate, quantizers, write_integers};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::training::Training;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Rows that the ranges of activations are taken from.
const CALIBRATION_ROWS: usize = 32;

/// Small enough that the same batches can be learnt for as long as a measurement takes.
pub const TRAINING: Training = Training {
    epochs: 1,
    learning_rate: 1e-5,
    optimizer: OptimizerKind::Adamw,
    weight_decay: 0.01,
    schedule: Schedule::Constant,
    ..Training::NONE
};

/// Of the order of rows.
pub const SEED: u64 = 1;

/// As recipes have it where they say nothing else.
pub const DISTILLATION: Distillation = Distillation {
    temperature: 2.0,
    alpha: 0.5,
};

/// Writes the folder of `case`.
///
/// # Errors
/// If a file cannot be written.
pub fn prepare(case: &Case, folder: &Path) -> Result<(), Failure> {
    let config = write_new_model(case, &case.model, 1, &folder.join("model"))?;
    if let Some(teacher) = case.teacher() {
        write_new_model(case, &teacher, 2, &folder.join("teacher"))?;
    }
    if case.work == Work::Infer {
        write_integer_model(case, folder)?;
    }
    write_batches(case, folder)?;
    let settings = serde_json::json!({
        "work": case.work.name(),
        "rows": case.rows,
        "batches": case.batches,
        "macs": config.architecture.macs(case.tokens(), case.classes),
        "learning_rate": TRAINING.learning_rate,
        "weight_decay": TRAINING.weight_decay,
        "temperature": DISTILLATION.temperature,
        "alpha": DISTILLATION.alpha,
    });
    std::fs::write(folder.join("case.json"), settings.to_string())?;
    Ok(())
}

fn write_new_model(case: &Case, spec: &ModelSpec, seed: u64, folder: &Path) -> Result<ModelConfig, Failure> {
    let config = ModelConfig {
        architecture: spec.resolve(&case.input)?,
        id2label: (0..case.classes).map(|i| (i, format!("class {i}"))).collect(),
        input: case.input.clone(),
        dense_widths: BTreeMap::new(),
    };
    let mut parameters = Parameters::create(seed, &Device::Cpu);
    config.architecture.build(&mut parameters, case.classes)?;
    std::fs::create_dir_all(folder)?;
    NewModel {
        config: &config,
        tokenizer: None,
        floats: &parameters.floats(),
        quantizers: &BTreeMap::new(),
        codebooks: &BTreeMap::new(),
        masks: &Masks::new(),
    }
    .write(folder)?;
    Ok(config)
}

/// The model in integers, its ranges taken from the calibration rows.
fn write_integer_model(case: &Case, folder: &Path) -> Result<(), Failure> {
    let artifact = ModelArtifact::open(&files_of_folder(&folder.join("model"))?)?;
    let mut parameters = Parameters::read(artifact.weights_path()?, &Device::Cpu, Use::Infer)?;
    parameters.observe_inputs(ObserverKind::MinMax);
    let model = artifact.build(parameters, &Device::Cpu)?;
    let data = calibration_data(case)?;
    calibrate(
        &model,
        &Rows::train(&data, &Device::Cpu),
        CALIBRATION_ROWS,
        ProductPrecision::F32,
        &|_| (),
    )?;
    let (observed, integers) = (folder.join("observed"), folder.join("int8"));
    std::fs::create_dir_all(&observed)?;
    std::fs::create_dir_all(&integers)?;
    NewModel {
        config: &artifact.config,
        tokenizer: None,
        floats: &model.parameters.floats(),
        quantizers: &quantizers(&model)?,
        codebooks: &BTreeMap::new(),
        masks: &model.masks,
    }
    .write(&observed)?;
    write_integers(&files_of_folder(&observed)?, &integers)?;
    Ok(())
}

fn write_batches(case: &Case, folder: &Path) -> Result<(), Failure> {
    use orchestrate_ml::batch::BatchInput;
    let content = |data: &Prepared| -> Result<(&'static str, Tensor, Tensor), Failure> {
        let rows = Rows::train(data, &Device::Cpu);
        let all: Vec<usize> = match case.work {
            Work::Train | Work::Distil => rows.epoch(&order(case), 0).concat(),
            Work::Infer => (0..rows.len()).collect(),
        };
        let labels = rows.labels(&all)?;
        match rows.batch(&all)?.input {
            BatchInput::Text { ids, .. } => Ok(("ids", ids, labels)),
            BatchInput::Images(pixels) => Ok(("pixels", pixels, labels)),
        }
    };
    let (name, input, labels) = content(&data(case)?)?;
    let mut tensors = HashMap::from([(name.to_owned(), input), ("labels".to_owned(), labels)]);
    if case.work == Work::Infer {
        tensors.insert("calibration".to_owned(), content(&calibration_data(case)?)?.1);
    }
    candle_core::safetensors::save(&tensors, folder.join("batches.safetensors"))?;
    Ok(())
}

/// As [`Training`] has it.
fn order(case: &Case) -> EpochOrder {
    EpochOrder {
        batch_size: case.rows,
        by_length: TRAINING.bucket_by_length,
        seed: SEED,
    }
}

/// The batches as a data set of which they are all.
///
/// # Errors
/// If there is no tokenizer to be had.
pub fn data(case: &Case) -> Result<Prepared, Failure> {
    random_data(case, case.rows * case.batches, 3)
}

fn calibration_data(case: &Case) -> Result<Prepared, Failure> {
    random_data(case, CALIBRATION_ROWS, 4)
}

fn random_data(case: &Case, rows: usize, seed: u64) -> Result<Prepared, Failure> {
    let mut stream = RandomStream::new(RandomKey {
        seed,
        purpose: 0,
        step: 0,
    });
    let mut below = |limit: usize| ((stream.uniform() * limit as f32) as u32).min(limit as u32 - 1);
    let labels: Vec<u32> = (0..rows).map(|_| below(case.classes)).collect();
    let class_names = (0..case.classes).map(|i| format!("class {i}")).collect();
    let (task, train) = match case.input {
        Input::Text { max_length, vocab_size } => {
            let split = TextSplit {
                ids: (0..rows * max_length).map(|_| below(vocab_size)).collect(),
                offsets: (0..=rows).map(|row| (row * max_length) as u32).collect(),
                labels,
            };
            // Rows are full, so that the tokenizer is there for its type alone.
            let tokenizer = Tokenizer::learn_wordpiece(&["a b c".to_owned()], 64, true)?;
            let task = Task::Text {
                tokenizer,
                max_length,
                labels: class_names,
            };
            (task, EncodedSplit::Text(split))
        }
        Input::Image {
            width,
            height,
            channels,
            mean,
            std,
        } => {
            let split = ImageSplit {
                shape: [channels, height, width],
                pixels: (0..rows * channels * height * width)
                    .map(|_| below(256) as u8)
                    .collect(),
                labels,
            };
            let task = Task::Image {
                width,
                height,
                channels,
                mean,
                std,
                labels: class_names,
            };
            (task, EncodedSplit::Image(split))
        }
    };
    Ok(Prepared {
        task,
        test: train.clone(),
        train,
    })
}
