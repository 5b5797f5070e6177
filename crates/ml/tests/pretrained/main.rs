//! A BERT that Hugging Face's transformers trained and saved (`make.py` beside this file) is the same function here, in
//! whichever of the usual ways its files are written, and what does not fit is refused with what to do.
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

use candle_core::Device;
use orchestrate_ml::artifact::{Files, ModelArtifact, files_of_folder};
use orchestrate_ml::batch::Rows;
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::data::spec::TextFiles;
use orchestrate_ml::data::{DataSpec, Prepared};
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::evaluation::logits_of;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::parameters::Use;
use orchestrate_ml::pretrained::{Classifier, Pretrained, PretrainedSettings, files_of};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::*;
use orchestrate_ml::training::{ProductPrecision, Training};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TRAINING: Training = Training {
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
const CLASSES: [&str; 3] = ["positive", "negative", "neither"];

/// What transformers makes of a text.
#[derive(Deserialize)]
struct Expected {
    text: String,
    ids: Vec<u32>,
    logits: Vec<f64>,
}

fn saved_as(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/pretrained")
        .join(family)
}

fn saved() -> PathBuf {
    saved_as("bert")
}

fn expected_of(family: &str) -> Vec<Expected> {
    let text = std::fs::read_to_string(saved_as(family).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A tensor of a file, to be changed.
#[derive(Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
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
struct Bench {
    folder: TempDir,
    family: &'static str,
}

impl Bench {
    fn new() -> Self {
        Self::of("bert")
    }

    fn of(family: &'static str) -> Self {
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

    fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    /// A new folder.
    fn out(&self) -> PathBuf {
        tempfile::tempdir_in(self.folder.path()).unwrap().keep()
    }

    /// Gives the texts the labels `labels`, in turn.
    fn label(&self, labels: &[&str]) {
        let rows = expected_of(self.family).into_iter().zip(labels.iter().cycle());
        let rows: String = rows.map(|(row, label)| format!("{}\t{label}\n", row.text)).collect();
        std::fs::write(self.folder.path().join("rows.tsv"), format!("sentence\tlabel\n{rows}")).unwrap();
    }

    fn config(&self, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        let path = self.model().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(config.as_object_mut().unwrap());
        std::fs::write(&path, config.to_string()).unwrap();
    }

    fn weights(&self, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
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
    fn data(&self, (role, vocabulary): (&str, &Path)) -> Files {
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
    fn start(&self, settings: PretrainedSettings, training: Training) -> Result<Started, String> {
        self.start_on(("vocab", &saved().join("vocab.txt")), settings, training)
    }

    fn start_on(
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
    fn unmoved_student(&self, teacher: &Started, initialize: Initialization) -> Started {
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

    fn refusal(&self) -> String {
        self.start(PretrainedSettings::default(), Training::NONE)
            .map(|_| ())
            .expect_err("it does not fit")
    }
}

/// A model that was written, on the rows.
#[derive(Debug)]
struct Started {
    family: &'static str,
    folder: PathBuf,
    /// Of each row, by class.
    logits: Vec<BTreeMap<String, f64>>,
    tensors: BTreeMap<String, Vec<f32>>,
}

impl Started {
    fn read(family: &'static str, folder: &Path, data: &Files) -> Self {
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
    fn distance(&self, classes: &[&str]) -> f64 {
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

fn context() -> Context<'static> {
    Context {
        device: &Device::Cpu,
        seed: 1,
        watch: &|_| {},
        interruption: Interruption::NONE,
    }
}

fn kept() -> PretrainedSettings {
    PretrainedSettings::default()
}

#[test]
fn taken_as_it_is_it_gives_the_logits_of_transformers_whatever_the_order_of_the_classes() {
    let bench = Bench::new();
    for (role, file) in [("vocab", "vocab.txt"), ("tokenizer", "tokenizer.json")] {
        let started = bench
            .start_on((role, &saved().join(file)), kept(), Training::NONE)
            .unwrap();
        // The data's classes are in the order of the alphabet, the model's are not.
        assert!(started.distance(&CLASSES) < 2e-6, "{}", started.distance(&CLASSES));
        assert!(started.distance(&["negative", "positive", "neither"]) > 0.1);
    }
    let data = Prepared::read(&bench.data(("tokenizer", &saved().join("tokenizer.json")))).unwrap();
    for (row, expected) in expected_of("bert").iter().enumerate() {
        assert_eq!(
            data.test.tokens(row),
            Some(expected.ids.as_slice()),
            "{}",
            expected.text
        );
    }
}

#[test]
fn a_distilbert_is_a_bert_without_segments_whose_pooler_ends_in_a_rectifier() {
    let bench = Bench::of("distilbert");
    let started = bench.start(kept(), Training::NONE).unwrap();
    assert!(started.distance(&CLASSES) < 2e-6, "{}", started.distance(&CLASSES));
    assert_eq!(
        started.tensors["bert.embeddings.token_type_embeddings.weight"],
        [0.0; 16]
    );

    // What was written says all that, and so is the same model when it is started from again.
    let again = Bench::of("distilbert");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(started.folder.join(name), again.model().join(name)).unwrap();
    }
    let again = again.start(kept(), Training::NONE).unwrap();
    assert_eq!((&again.logits, &again.tensors), (&started.logits, &started.tensors));

    // A student that is made of all of its layers is the same model, too, where nothing is learnt.
    let student = bench.unmoved_student(&started, Initialization::Teacher);
    assert_eq!(student.logits, started.logits);

    // As saved from pretraining: with its heads, and no name in front of the encoder.
    bench.weights(|tensors| {
        let bare = std::mem::take(tensors).into_iter();
        let bare = bare.map(|(name, tensor)| (name.trim_start_matches("distilbert.").to_owned(), tensor));
        *tensors = bare.filter(|(name, _)| !name.contains("classifier")).collect();
        let head = tensors["embeddings.LayerNorm.bias"].clone();
        tensors.insert("vocab_layer_norm.bias".into(), head);
    });
    let files = files_of(&bench.model()).unwrap();
    assert_eq!(Pretrained::open(&files).unwrap().lacks(&kept()), Some("classifier"));
    bench.start(kept(), TRAINING).unwrap();
}

#[test]
fn words_beyond_the_vocabulary_are_left_out() {
    let bench = Bench::new();
    let started = bench.start(kept(), Training::NONE).unwrap();
    let words = &started.tensors["bert.embeddings.word_embeddings.weight"];
    let vocabulary = std::fs::read_to_string(saved().join("vocab.txt"))
        .unwrap()
        .lines()
        .count();
    assert_eq!(words.len(), vocabulary * 16);
    bench.weights(|tensors| assert!(tensors["bert.embeddings.word_embeddings.weight"].shape[0] > vocabulary));
}

#[test]
fn names_of_other_programs_and_narrower_floats_are_read() {
    let exact = Bench::new().start(kept(), Training::NONE).unwrap();
    let bench = Bench::new();
    bench.weights(|tensors| {
        let renamed = std::mem::take(tensors).into_iter().map(|(name, tensor)| {
            let name = name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta")
                .trim_start_matches("bert.")
                .to_owned();
            (name, tensor)
        });
        *tensors = renamed.collect();
        let positions = Stored {
            dtype: Dtype::I64,
            shape: vec![1, 20],
            bytes: vec![0; 160],
        };
        tensors.insert("bert.embeddings.position_ids".into(), positions);
        let head = tensors["classifier.bias"].clone();
        tensors.insert("cls.predictions.bias".into(), head);
    });
    let renamed = bench.start(kept(), Training::NONE).unwrap();
    assert_eq!(renamed.tensors, exact.tensors);

    // 0.5 and -2 in the other floats.
    bench.weights(|tensors| {
        for (name, dtype, bytes) in [
            (
                "classifier.bias",
                Dtype::F16,
                [0x3800_u16, 0xC000, 0x3800]
                    .map(u16::to_le_bytes)
                    .as_flattened()
                    .to_vec(),
            ),
            (
                "pooler.dense.bias",
                Dtype::F64,
                [0.5_f64, -2.0]
                    .repeat(8)
                    .into_iter()
                    .flat_map(f64::to_le_bytes)
                    .collect(),
            ),
        ] {
            let tensor = tensors.get_mut(name).unwrap();
            (tensor.dtype, tensor.bytes) = (dtype, bytes);
        }
    });
    let other = bench.start(kept(), Training::NONE).unwrap();
    let mut bias = other.tensors["classifier.bias"].clone();
    bias.sort_by(f32::total_cmp);
    assert_eq!(bias, [-2.0, 0.5, 0.5]);
    assert_eq!(other.tensors["bert.pooler.dense.bias"], [0.5, -2.0].repeat(8));

    // Of f32's bits bf16 has the upper half; what is cut off is at most the 128th part.
    bench.weights(|tensors| {
        for tensor in tensors.values_mut().filter(|tensor| tensor.dtype == Dtype::F32) {
            tensor.dtype = Dtype::BF16;
            tensor.bytes = tensor.bytes.chunks(4).flat_map(|b| [b[2], b[3]]).collect();
        }
    });
    let halved = bench.start(kept(), Training::NONE).unwrap();
    let untouched = |name: &String| name != "classifier.bias" && name != "bert.pooler.dense.bias";
    for (name, values) in exact.tensors.iter().filter(|(name, _)| untouched(name)) {
        for (half, whole) in halved.tensors[name].iter().zip(values) {
            assert_eq!(half.to_bits(), whole.to_bits() >> 16 << 16, "{name}");
        }
    }
}

#[test]
fn outputs_without_names_are_the_numbers_of_the_datas_classes_or_what_the_recipe_calls_them() {
    let bench = Bench::new();
    bench.config(|config| drop(config.remove("id2label")));
    assert!(bench.refusal().contains("classifier = \"new\""), "{}", bench.refusal());
    let settings = PretrainedSettings {
        classes: Some(CLASSES.map(str::to_owned).to_vec()),
        ..kept()
    };
    let started = bench.start(settings.clone(), Training::NONE).unwrap();
    assert!(started.distance(&CLASSES) < 2e-6);
    bench.label(&["2", "0", "1"]);
    let started = bench.start(kept(), Training::NONE).unwrap();
    assert!(started.distance(&["0", "1", "2"]) < 2e-6);
    let refusal = bench.start(settings, Training::NONE).map(|_| ()).unwrap_err();
    assert!(
        refusal.contains("\"positive\"") && refusal.contains("\"2\""),
        "{refusal}"
    );
    // Two classes of three, and a number that no output has.
    bench.label(&["0", "1"]);
    assert!(bench.refusal().contains("must have rows"), "{}", bench.refusal());
    bench.label(&["0", "1", "3"]);
    assert!(bench.refusal().contains("`classes = [...]`"), "{}", bench.refusal());
}

#[test]
fn what_the_outputs_stand_for_is_resolved_when_the_folder_is_opened() {
    let open = |bench: &Bench| Pretrained::open(&files_of(&bench.model()).unwrap()).unwrap();
    let named = |classes: &[&str]| PretrainedSettings {
        classes: Some(classes.iter().map(|class| (*class).to_owned()).collect()),
        ..kept()
    };
    let bench = Bench::new();
    // To say what the file says is to say nothing.
    assert_eq!(open(&bench).resolve(kept()).unwrap(), named(&CLASSES));
    assert_eq!(open(&bench).resolve(named(&CLASSES)).unwrap(), named(&CLASSES));
    for classes in [&["a", "b"][..], &["a", "b", "c", "d"], &["a", "b", "b"]] {
        let refusal = open(&bench).resolve(named(classes)).unwrap_err().to_string();
        assert!(refusal.contains("has 3 outputs"), "{refusal}");
    }
    bench.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"0": "a", "1": "b"}))));
    assert!(
        open(&bench)
            .resolve(kept())
            .unwrap_err()
            .to_string()
            .contains("id2label")
    );
    assert_eq!(open(&bench).resolve(named(&CLASSES)).unwrap(), named(&CLASSES));
    bench.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"0": 2, "1": 0, "2": 1}))));
    assert_eq!(open(&bench).resolve(kept()).unwrap(), named(&["2", "0", "1"]));
    bench.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"1": "a", "2": "b", "3": "c"}))));
    assert!(
        open(&bench)
            .resolve(kept())
            .unwrap_err()
            .to_string()
            .contains("from 0 on")
    );
    assert_eq!(open(&bench).resolve(named(&CLASSES)).unwrap(), named(&CLASSES));
    bench.config(|c| drop(c.insert("problem_type".into(), "multi_label_classification".into())));
    assert!(
        open(&bench)
            .resolve(kept())
            .unwrap_err()
            .to_string()
            .contains("several classes at once")
    );
    let new = PretrainedSettings {
        classifier: Classifier::New,
        classes: None,
    };
    assert_eq!(open(&bench).resolve(new.clone()).unwrap(), new);
    bench.weights(|tensors| tensors.retain(|name, _| !name.starts_with("classifier")));
    assert_eq!(open(&bench).resolve(kept()).unwrap(), new);
    assert!(
        open(&bench)
            .resolve(named(&CLASSES))
            .unwrap_err()
            .to_string()
            .contains("no classifier")
    );
}

#[test]
fn a_configuration_that_changes_under_a_build_is_refused() {
    let bench = Bench::new();
    let files = files_of(&bench.model()).unwrap();
    let pretrained = Pretrained::open(&files).unwrap();
    let settings = TrainSettings {
        model: pretrained.spec(),
        pretrained: Some(pretrained.resolve(kept()).unwrap()),
        training: Training::NONE,
    };
    let data = bench.data(("vocab", &saved().join("vocab.txt")));
    bench.config(|c| drop(c.insert("num_attention_heads".into(), 4.into())));
    let refusal = train(&data, &files, &settings, &context(), &bench.out()).unwrap_err();
    assert!(refusal.to_string().contains("was changed"), "{refusal}");
}

#[test]
fn a_student_may_start_from_weights_of_its_own() {
    let bench = Bench::of("distilbert");
    let other = Bench::new();
    let teacher = other.start(kept(), Training::NONE).unwrap();
    let student = bench.unmoved_student(&teacher, Initialization::Random);
    assert!(student.distance(&CLASSES) < 2e-6, "{}", student.distance(&CLASSES));
}

#[test]
fn texts_are_cut_as_the_model_was_trained_to() {
    let cased = |bench: &Bench| {
        let out = bench.start_on(("vocab", &saved().join("vocab.txt")), kept(), Training::NONE);
        out.map(|_| ()).unwrap_err()
    };
    let bench = Bench::new();
    let path = bench.model().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"lowercase\": true"));
    std::fs::write(&path, text.replace("\"lowercase\": true", "\"lowercase\": false")).unwrap();
    assert!(cased(&bench).contains("the normalizer is"), "{}", cased(&bench));
    std::fs::remove_file(&path).unwrap();
    bench.start(kept(), Training::NONE).unwrap();
    let settings = bench.model().join("tokenizer_config.json");
    std::fs::write(&settings, "{\"do_lower_case\": false}").unwrap();
    assert!(cased(&bench).contains("`lowercase`"), "{}", cased(&bench));
    for (odd, what) in [
        ("\"strip_accents\": false", "the normalizer is"),
        ("\"tokenize_chinese_chars\": false", "the normalizer is"),
        ("\"word_tokenizer_type\": \"mecab\"", "\"mecab\""),
    ] {
        std::fs::write(&settings, format!("{{\"do_lower_case\": true, {odd}}}")).unwrap();
        assert!(cased(&bench).contains(what), "{odd}: {}", cased(&bench));
    }
    // To say that accents go with capitals is to say nothing.
    std::fs::write(&settings, "{\"do_lower_case\": true, \"strip_accents\": true}").unwrap();
    bench.start(kept(), Training::NONE).unwrap();
    bench
        .start_on(("tokenizer", &saved().join("tokenizer.json")), kept(), Training::NONE)
        .unwrap();
}

#[test]
fn an_encoder_by_itself_gets_a_classifier_from_the_seed_and_is_trained() {
    let bench = Bench::new();
    let whole = bench.start(kept(), Training::NONE).unwrap();
    let new = PretrainedSettings {
        classifier: Classifier::New,
        classes: None,
    };
    let replaced = bench.start(new.clone(), Training::NONE).unwrap();
    assert_ne!(
        replaced.tensors["classifier.weight"],
        whole.tensors["classifier.weight"]
    );
    assert_eq!(
        replaced.tensors["bert.pooler.dense.weight"],
        whole.tensors["bert.pooler.dense.weight"]
    );
    bench.weights(|tensors| tensors.retain(|name, _| !name.starts_with("classifier")));
    let bare = bench.start(kept(), Training::NONE).unwrap();
    assert_eq!(bare.tensors, replaced.tensors);
    let files = files_of(&bench.model()).unwrap();
    assert_eq!(Pretrained::open(&files).unwrap().lacks(&kept()), Some("classifier"));

    bench.weights(|tensors| tensors.retain(|name, _| !name.contains("pooler")));
    bench.label(&["good", "bad"]);
    let trained = bench.start(kept(), TRAINING).unwrap();
    let first = "bert.encoder.layer.0.attention.self.query.weight";
    let moved = trained.tensors[first].iter().zip(&whole.tensors[first]);
    let moved = moved.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Four steps of AdamW at 1e-2 move a weight by about as much each: it starts from what was read.
    assert!(moved > 1e-3 && moved < 0.1, "{moved}");
    assert_eq!(trained.logits[0].keys().collect::<Vec<_>>(), ["bad", "good"]);
}

#[test]
fn a_classifier_without_a_pooler_is_told_apart() {
    let bench = Bench::new();
    bench.weights(|tensors| tensors.retain(|name, _| !name.contains("pooler")));
    let pretrained = Pretrained::open(&files_of(&bench.model()).unwrap()).unwrap();
    assert_eq!(pretrained.lacks(&kept()), Some("pooler"));
    let whole = Pretrained::open(&files_of(&saved()).unwrap()).unwrap();
    assert_eq!(whole.lacks(&kept()), None);
    let ModelSpec::Bert { layers, heads, .. } = whole.spec() else {
        panic!("it is a bert");
    };
    assert_eq!((layers, heads), (2, 2));
}

#[test]
fn another_vocabulary_is_refused() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(saved().join("vocab.txt")).unwrap();
    let other = bench.folder.path().join("vocab.txt");
    std::fs::write(&other, text.replace("film\nplot", "plot\nfilm")).unwrap();
    let refusal = |bench: &Bench| {
        let started = bench.start_on(("vocab", &other), kept(), Training::NONE);
        started.map(|_| ()).unwrap_err()
    };
    assert!(
        refusal(&bench).contains("token 7 is `film` in the model and `plot` in the data"),
        "{}",
        refusal(&bench)
    );
    std::fs::remove_file(bench.model().join("tokenizer.json")).unwrap();
    assert!(refusal(&bench).contains("token 7 is `film`"), "{}", refusal(&bench));
    // Where the folder does not say it, only the number of tokens can be compared.
    std::fs::remove_file(bench.model().join("vocab.txt")).unwrap();
    bench.start_on(("vocab", &other), kept(), Training::NONE).unwrap();
    std::fs::write(&other, format!("{text}one\ntwo\nthree\nfour\n")).unwrap();
    assert!(
        refusal(&bench).contains("32 tokens and the pretrained model 31"),
        "{}",
        refusal(&bench)
    );
}

#[test]
fn what_is_no_whole_bert_is_refused_by_what_is_wrong() {
    type Change = fn(&Bench);
    let cases: [(&str, Change); 22] = [
        ("\"roberta\"", |b| {
            b.config(|c| drop(c.insert("model_type".into(), "roberta".into())))
        }),
        ("hidden_act", |b| {
            b.config(|c| drop(c.insert("hidden_act".into(), "gelu_new".into())))
        }),
        ("position_embedding_type", |b| {
            b.config(|c| drop(c.insert("position_embedding_type".into(), "relative_key".into())));
        }),
        ("decoder", |b| {
            b.config(|c| drop(c.insert("is_decoder".into(), true.into())))
        }),
        ("pruned", |b| {
            b.config(|c| drop(c.insert("pruned_heads".into(), serde_json::json!({"0": [1]}))))
        }),
        ("4000000000000 layers", |b| {
            b.config(|c| drop(c.insert("num_hidden_layers".into(), 4_000_000_000_000_u64.into())));
        }),
        ("3 heads do not divide", |b| {
            b.config(|c| drop(c.insert("num_attention_heads".into(), 3.into())))
        }),
        ("layer_norm_eps", |b| {
            b.config(|c| drop(c.insert("layer_norm_eps".into(), 0.into())))
        }),
        ("intermediate_size", |b| {
            b.config(|c| drop(c.remove("intermediate_size")))
        }),
        ("must name as many", |b| {
            b.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"0": "a", "1": "b"}))));
        }),
        ("word_embeddings", |b| {
            b.config(|c| drop(c.insert("vocab_size".into(), (1 << 24).into())))
        }),
        ("[16777216]", |b| {
            b.config(|c| {
                for key in ["vocab_size", "hidden_size", "intermediate_size"] {
                    c.insert(key.into(), (1 << 24).into());
                }
            });
        }),
        ("type_vocab_size", |b| {
            b.config(|c| drop(c.insert("type_vocab_size".into(), (1_u64 << 60).into())))
        }),
        ("\"classifier.bias\" is [3]", |b| {
            b.weights(|t| {
                let tensor = t.get_mut("classifier.weight").unwrap();
                (tensor.shape, tensor.bytes) = (vec![1 << 40, 0], vec![]);
            });
        }),
        ("bert.pooler.dense.weight", |b| {
            b.weights(|t| drop(t.remove("bert.pooler.dense.weight")))
        }),
        ("[31, 16]", |b| {
            b.config(|c| drop(c.insert("vocab_size".into(), 30.into())))
        }),
        ("bert.encoder.layer.2.", |b| {
            b.config(|c| drop(c.insert("num_hidden_layers".into(), 3.into())))
        }),
        ("no layer reads", |b| {
            b.config(|c| drop(c.insert("num_hidden_layers".into(), 1.into())))
        }),
        ("bert.encoder.layer.1.output.dense.bias", |b| {
            b.weights(|t| drop(t.remove("bert.encoder.layer.1.output.dense.bias")));
        }),
        ("only floats", |b| {
            b.weights(|t| {
                let tensor = t.get_mut("bert.pooler.dense.bias").unwrap();
                tensor.dtype = Dtype::I32;
            });
        }),
        ("no finite f32", |b| {
            b.weights(|t| {
                let tensor = t.get_mut("bert.pooler.dense.bias").unwrap();
                tensor.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            });
        }),
        ("there twice", |b| {
            b.weights(|t| {
                let tensor = t["bert.pooler.dense.bias"].clone();
                t.insert("pooler.dense.bias".into(), tensor);
            });
        }),
    ];
    for (what, change) in cases {
        let bench = Bench::new();
        change(&bench);
        let refusal = bench.refusal();
        assert!(refusal.contains(what), "{what}: {refusal}");
    }
}

#[test]
fn files_that_are_missing_cut_or_of_another_sort_are_told() {
    let bench = Bench::new();
    let weights = bench.model().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    for length in [0, 7, 8, 100, whole.len() - 1] {
        std::fs::write(&weights, &whole[..length]).unwrap();
        assert!(bench.refusal().contains("safetensors"), "{length}: {}", bench.refusal());
    }
    std::fs::write(&weights, u64::MAX.to_le_bytes()).unwrap();
    assert!(bench.refusal().contains("its header claims"), "{}", bench.refusal());
    std::fs::remove_file(&weights).unwrap();
    assert!(
        bench.refusal().contains("has no model.safetensors"),
        "{}",
        bench.refusal()
    );
    std::fs::write(bench.model().join("model.safetensors.index.json"), "{}").unwrap();
    assert!(
        bench.refusal().contains("weights in several files"),
        "{}",
        bench.refusal()
    );
    std::fs::write(bench.model().join("pytorch_model.bin"), "").unwrap();
    assert!(
        bench.refusal().contains("safe_serialization=True"),
        "{}",
        bench.refusal()
    );
    std::fs::write(&weights, whole).unwrap();
    let masks = bench.model().join("masks.safetensors");
    std::fs::write(&masks, "").unwrap();
    assert!(bench.refusal().contains("pruned"), "{}", bench.refusal());
    std::fs::remove_file(masks).unwrap();
    std::fs::remove_file(bench.model().join("config.json")).unwrap();
    assert!(bench.refusal().contains("no config.json"), "{}", bench.refusal());
}
