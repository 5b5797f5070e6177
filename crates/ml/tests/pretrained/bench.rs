//! A copy of a saved model that a test may change, and what comes out of starting from it.

use candle_core::Device;
use orchestrate_ml::artifact::{Files, ModelArtifact, files_of_folder};
use orchestrate_ml::batch::Rows;
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::data::spec::TextFiles;
use orchestrate_ml::data::{DataSpec, Prepared};
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::evaluation::logits_of;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::parameters::Use;
use orchestrate_ml::pretrained::{Pretrained, PretrainedSettings, files_of};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::*;
use orchestrate_ml::training::{ProductPrecision, Training};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub const TRAINING: Training = Training {
    epochs: 2,
    max_steps: None,
    batch_size: 2,
    learning_rate: 1e-2,
    optimizer: OptimizerKind::Adamw,
    momentum: 0.0,
    weight_decay: 0.0,
    schedule: Schedule::Constant,
    warmup: 0.0,
    lr_decay: 0.0,
    gradient_clip: 1.0,
    label_smoothing: 0.0,
    dropout: 0.0,
    bucket_by_length: true,
    gradient_accumulation: 1,
    gradient_checkpointing: false,
    precision: ProductPrecision::F32,
};

/// The classes of the saved model, in the order of its outputs.
pub const CLASSES: [&str; 3] = ["positive", "negative", "neither"];

/// What transformers makes of a text.
#[derive(Deserialize)]
pub struct Expected {
    pub text: String,
    pub ids: Vec<u32>,
    pub logits: Vec<f64>,
}

pub fn saved_as(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/pretrained")
        .join(family)
}

pub fn saved() -> PathBuf {
    saved_as("bert")
}

pub fn expected_of(family: &str) -> Vec<Expected> {
    let text = std::fs::read_to_string(saved_as(family).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A tensor of a file, to be changed.
#[derive(Clone)]
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl safetensors::View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A copy of the saved model, to be changed, and texts with the labels of its classes.
pub struct Bench {
    pub folder: TempDir,
    pub family: &'static str,
}

impl Bench {
    pub fn new() -> Self {
        Self::of("bert")
    }

    pub fn of(family: &'static str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
            family,
        };
        let model = bench.model();
        std::fs::create_dir(&model).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"] {
            std::fs::copy(saved_as(family).join(name), model.join(name)).unwrap();
        }
        bench.label(&CLASSES);
        bench
    }

    pub fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    /// A new folder.
    pub fn out(&self) -> PathBuf {
        tempfile::tempdir_in(self.folder.path()).unwrap().keep()
    }

    /// Gives the texts the labels `labels`, in turn.
    pub fn label(&self, labels: &[&str]) {
        let rows = expected_of(self.family).into_iter().zip(labels.iter().cycle());
        let rows: String = rows.map(|(row, label)| format!("{}\t{label}\n", row.text)).collect();
        std::fs::write(self.folder.path().join("rows.tsv"), format!("sentence\tlabel\n{rows}")).unwrap();
    }

    pub fn config(&self, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        let path = self.model().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(config.as_object_mut().unwrap());
        std::fs::write(&path, config.to_string()).unwrap();
    }

    pub fn weights(&self, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
        let path = self.model().join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = |view: safetensors::tensor::TensorView| Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        let mut tensors = file
            .iter()
            .map(|(name, view)| (name.to_owned(), stored(view)))
            .collect();
        change(&mut tensors);
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    }

    /// The data, prepared with the vocabulary in the file `vocabulary`.
    pub fn data(&self, (role, vocabulary): (&str, &Path)) -> Files {
        let out = self.out();
        let rows = self.folder.path().join("rows.tsv");
        let files = [("train", rows.clone()), ("test", rows), (role, vocabulary.to_owned())];
        let files = files.map(|(role, path)| (role.to_owned(), path)).into();
        let spec = DataSpec::TextFiles(TextFiles {
            max_length: 20,
            ..TextFiles::default()
        });
        prepare_data(&spec, &files, None, &out).unwrap();
        files_of_folder(&out).unwrap()
    }

    /// Starts from the model on the data with its own vocabulary; what comes out of it.
    pub fn start(&self, settings: PretrainedSettings, training: Training) -> Result<Started, String> {
        self.start_on(("vocab", &saved().join("vocab.txt")), settings, training)
    }

    pub fn start_on(
        &self,
        vocabulary: (&str, &Path),
        settings: PretrainedSettings,
        training: Training,
    ) -> Result<Started, String> {
        let files = files_of(&self.model()).map_err(|e| e.to_string())?;
        let pretrained = Pretrained::open(&files).map_err(|e| e.to_string())?;
        let settings = TrainSettings {
            model: pretrained.spec(),
            pretrained: Some(pretrained.resolve(settings).map_err(|e| e.to_string())?),
            training,
        };
        let data = self.data(vocabulary);
        let out = self.out();
        train(&data, &files, &settings, &context(), &out).map_err(|e| e.to_string())?;
        Ok(Started::read(self.family, &out, &data))
    }

    /// A student of `teacher` of this model's widths, which starts from the teacher's layers or from this model, and learns
    /// next to nothing.
    pub fn unmoved_student(&self, teacher: &Started, initialize: Initialization) -> Started {
        let data = self.data(("vocab", &saved().join("vocab.txt")));
        let (logits, out) = (self.out(), self.out());
        let (teacher, own) = (
            files_of_folder(&teacher.folder).unwrap(),
            files_of(&self.model()).unwrap(),
        );
        teacher_logits(&teacher, &data, LogitsSettings::default(), &context(), &logits).unwrap();
        let pretrained = Pretrained::open(&own).unwrap();
        let is_own = initialize == Initialization::Random;
        let settings = DistillSettings {
            model: pretrained.spec(),
            pretrained: is_own.then(|| pretrained.resolve(kept()).unwrap()),
            initialize,
            distillation: Distillation {
                temperature: 1.0,
                alpha: 1.0,
            },
            training: Training {
                learning_rate: 1e-30,
                ..TRAINING
            },
        };
        let start = Start {
            teacher: Some(&teacher).filter(|_| !is_own),
            pretrained: &own,
        };
        let logits = files_of_folder(&logits).unwrap();
        distill(&data, &logits, start, &settings, &context(), &out).unwrap();
        Started::read(self.family, &out, &data)
    }

    pub fn refusal(&self) -> String {
        self.start(PretrainedSettings::default(), Training::NONE)
            .map(|_| ())
            .expect_err("it does not fit")
    }
}

/// A model that was written, on the rows.
#[derive(Debug)]
pub struct Started {
    pub family: &'static str,
    pub folder: PathBuf,
    /// Of each row, by class.
    pub logits: Vec<BTreeMap<String, f64>>,
    pub tensors: BTreeMap<String, Vec<f32>>,
}

impl Started {
    pub fn read(family: &'static str, folder: &Path, data: &Files) -> Self {
        let artifact = ModelArtifact::open(&files_of_folder(folder).unwrap()).unwrap();
        let model = artifact.load(&Device::Cpu, Use::Infer).unwrap();
        let data = Prepared::read(data).unwrap();
        let rows = Rows::test(&data, &Device::Cpu);
        let classes = artifact.config.classes();
        let logits = logits_of(&*model.model, &rows, 3, ProductPrecision::F32, &|_| {}).unwrap();
        let names = artifact.config.id2label.values();
        let by_class = |row: &[f32]| names.clone().cloned().zip(row.iter().map(|v| f64::from(*v))).collect();
        let tensors = model.parameters.floats().into_iter();
        Self {
            family,
            folder: folder.to_owned(),
            logits: logits.chunks(classes).map(by_class).collect(),
            tensors: tensors
                .map(|(name, tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap()))
                .collect(),
        }
    }

    /// The largest difference to what transformers gave, whose outputs stand for `classes`.
    pub fn distance(&self, classes: &[&str]) -> f64 {
        let rows = self.logits.iter().zip(expected_of(self.family));
        let differences = rows.flat_map(|(row, expected)| {
            let pairs = classes.iter().zip(expected.logits);
            pairs
                .map(|(class, logit)| (row[*class] - logit).abs())
                .collect::<Vec<_>>()
        });
        differences.fold(0.0, f64::max)
    }
}

pub fn context() -> Context<'static> {
    Context {
        device: &Device::Cpu,
        seed: 1,
        watch: &|_| {},
        interruption: Interruption::NONE,
    }
}

pub fn kept() -> PretrainedSettings {
    PretrainedSettings::default()
}
