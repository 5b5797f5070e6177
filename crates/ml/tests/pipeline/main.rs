//! The steps one after the other on built-in data: that models learn what linear ones cannot, and keep it when they are
//! pruned, quantized and run on integers.
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

mod codebooks;

use candle_core::Device;
use orchestrate_ml::artifact::{Files, ModelArtifact, files_of_folder};
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::parameters::Use;
use orchestrate_ml::predict::Predictor;
use orchestrate_ml::prune::{Criterion, Granularity, PruneRound};
use orchestrate_ml::quantize::{ObserverKind, WeightScheme};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::*;
use orchestrate_ml::training::{ProductPrecision, Training};
use std::path::PathBuf;
use tempfile::TempDir;

const TRAINING: Training = Training {
    epochs: 1,
    max_steps: None,
    batch_size: 16,
    learning_rate: 1e-3,
    optimizer: OptimizerKind::Adamw,
    momentum: 0.0,
    weight_decay: 0.01,
    schedule: Schedule::Linear,
    warmup: 0.1,
    lr_decay: 0.0,
    gradient_clip: 1.0,
    label_smoothing: 0.0,
    dropout: 0.0,
    bucket_by_length: true,
    gradient_accumulation: 1,
    gradient_checkpointing: false,
    precision: ProductPrecision::F32,
};

/// Artifacts by name in one temporary folder.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(data: &str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let spec: DataSpec = serde_json::from_str(data).unwrap();
        prepare_data(&spec, &Files::new(), None, &bench.out("data")).unwrap();
        bench
    }

    fn out(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn files(&self, name: &str) -> Files {
        files_of_folder(&self.folder.path().join(name)).unwrap()
    }

    fn evaluate(&self, model: &str, reference: Option<&str>) -> Figures {
        let out = self.out(&format!("{model}.evaluate"));
        let reference = reference.map(|name| self.files(&format!("{name}.evaluate")));
        let settings = EvaluateSettings {
            batch_size: 64,
            latency_seconds: 0.0,
        };
        let (model, data) = (self.files(model), self.files("data"));
        evaluate(&model, &data, reference.as_ref(), settings, &context(), &out).unwrap()
    }

    fn quantize(&self, model: &str, training: Training) {
        self.quantize_to(model, WeightScheme::Uniform, training, ["quantized", "exported"]);
    }

    /// Quantizes `model` as the first of the names, and exports that as the second.
    fn quantize_to(&self, model: &str, weights: WeightScheme, training: Training, [quantized, exported]: [&str; 2]) {
        let settings = QuantizeSettings {
            weights,
            observer: ObserverKind::MovingAverage,
            calibration_rows: 128,
            finetune: FinetuneSettings {
                training,
                distillation: None,
            },
        };
        let (model, data) = (self.files(model), self.files("data"));
        quantize(&model, &data, None, &settings, &context(), &self.out(quantized)).unwrap();
        let settings = ExportSettings {
            precision: Precision::Int8,
        };
        export(&self.files(quantized), settings, &self.out(exported)).unwrap();
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

fn structured(heads: f64, neurons: f64) -> PruneRound {
    PruneRound {
        granularity: Granularity::Structured,
        criterion: Criterion::Magnitude,
        heads,
        neurons,
        round_to: 8,
    }
}

/// A bag-of-words model stays under 80 % on these sentences (a test beside the grammar holds it there).
#[test]
fn a_tiny_bert_learns_what_word_counts_cannot_tell_and_keeps_it_in_integers() {
    let bench = Bench::new(r#"{"source": "builtin:reviews", "train_rows": 20000, "test_rows": 1000}"#);
    let model = ModelSpec::Bert {
        layers: 2,
        hidden: 64,
        heads: 4,
        intermediate: Some(128),
        max_positions: 32,
    };
    let settings = TrainSettings {
        pretrained: None,
        model,
        training: TRAINING,
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let teacher = bench.evaluate("teacher", None).metrics["accuracy"];
    assert!(teacher > 0.87, "{teacher}");

    prune(&bench.files("teacher"), &structured(0.5, 0.5), 0, &bench.out("pruned")).unwrap();
    teacher_logits(
        &bench.files("teacher"),
        &bench.files("data"),
        LogitsSettings::default(),
        &context(),
        &bench.out("logits"),
    )
    .unwrap();
    let settings = FinetuneSettings {
        training: Training {
            max_steps: Some(200),
            ..TRAINING
        },
        distillation: Some(Distillation {
            temperature: 2.0,
            alpha: 0.5,
        }),
    };
    let (model, data, logits) = (bench.files("pruned"), bench.files("data"), bench.files("logits"));
    finetune(
        &model,
        &data,
        Some(&logits),
        &settings,
        &context(),
        &bench.out("finetuned"),
    )
    .unwrap();

    bench.quantize(
        "finetuned",
        Training {
            max_steps: Some(100),
            learning_rate: 2e-4,
            ..TRAINING
        },
    );
    let simulated = bench.evaluate("quantized", None).metrics;
    let exported = bench.evaluate("exported", Some("quantized")).metrics;
    assert!(
        exported["accuracy"] > teacher - 0.03,
        "{exported:?}, the teacher {teacher}"
    );
    assert!(exported["agreement"] > 0.99, "{exported:?}");
    assert!((exported["accuracy"] - simulated["accuracy"]).abs() < 0.01);
    assert_eq!(exported["parameters"], simulated["parameters"]);
    assert!(exported["file_bytes"] < 0.35 * simulated["file_bytes"]);

    // Word vectors are simulated row by row, as they are read, and exported as a table.
    let training = Training {
        max_steps: Some(100),
        learning_rate: 2e-4,
        ..TRAINING
    };
    bench.quantize_to(
        "finetuned",
        WeightScheme::Codebook { bits: 4 },
        training,
        ["few", "indexed"],
    );
    bench.evaluate("few", None);
    let indexed = bench.evaluate("indexed", Some("few")).metrics;
    assert!(
        indexed["agreement"] > 0.99 && indexed["accuracy"] > teacher - 0.03,
        "{indexed:?}, the teacher {teacher}"
    );
    assert!(indexed["file_bytes"] < 0.65 * exported["file_bytes"], "{indexed:?}");
}

#[test]
fn lenet5_reads_drawn_digits_and_keeps_it_in_integers() {
    let bench = Bench::new(r#"{"source": "builtin:digits", "train_rows": 6000, "test_rows": 1000}"#);
    let model = ModelSpec::Lenet5 {
        channels: vec![20, 50],
        hidden: 100,
    };
    let settings = TrainSettings {
        pretrained: None,
        model,
        training: Training {
            epochs: 3,
            batch_size: 32,
            ..TRAINING
        },
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let teacher = bench.evaluate("teacher", None).metrics["accuracy"];
    assert!(teacher > 0.98, "{teacher}");
    // With no epochs it is quantized after training, on calibrated ranges alone.
    bench.quantize("teacher", Training { epochs: 0, ..TRAINING });
    bench.evaluate("quantized", None);
    let exported = bench.evaluate("exported", Some("quantized")).metrics;
    assert!(
        exported["accuracy"] > teacher - 0.01,
        "{exported:?}, the teacher {teacher}"
    );
    assert!(exported["agreement"] > 0.99, "{exported:?}");
}

/// Batch norms are folded on the way to integers, into what they were to within rounding.
#[test]
fn resnet8_reads_drawn_digits_and_keeps_it_pruned_folded_and_in_integers() {
    let bench = Bench::new(r#"{"source": "builtin:digits", "train_rows": 4000, "test_rows": 1000}"#);
    let training = Training {
        epochs: 2,
        batch_size: 32,
        learning_rate: 3e-3,
        ..TRAINING
    };
    let settings = TrainSettings {
        pretrained: None,
        model: ModelSpec::Resnet8 {
            channels: vec![16, 24, 32],
        },
        training,
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let teacher = bench.evaluate("teacher", None).metrics["accuracy"];
    assert!(teacher > 0.97, "{teacher}");

    prune(&bench.files("teacher"), &structured(0.0, 0.3), 0, &bench.out("pruned")).unwrap();
    let settings = FinetuneSettings {
        training: Training { epochs: 1, ..training },
        distillation: None,
    };
    let (model, data) = (bench.files("pruned"), bench.files("data"));
    finetune(&model, &data, None, &settings, &context(), &bench.out("finetuned")).unwrap();
    let finetuned = bench.evaluate("finetuned", None).metrics;
    assert!(finetuned["accuracy"] > teacher - 0.02, "{finetuned:?}");

    let floats = ExportSettings {
        precision: Precision::F32,
    };
    export(&bench.files("finetuned"), floats, &bench.out("folded")).unwrap();
    let folded = bench.evaluate("folded", Some("finetuned")).metrics;
    let path = &bench.files("finetuned.evaluate")["logits.safetensors"];
    let logits = candle_core::safetensors::load(path, &Device::Cpu)
        .unwrap()
        .remove("logits")
        .unwrap();
    let largest = f64::from(logits.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap());
    assert!(
        folded["largest_logit_difference"] < 1e-5 * largest,
        "{folded:?}, {largest}"
    );

    // An export is read back with its masks, which must hold over the folded weights.
    let round = PruneRound {
        granularity: Granularity::Unstructured,
        round_to: 1,
        ..structured(0.0, 0.5)
    };
    prune(&bench.files("finetuned"), &round, 0, &bench.out("masked")).unwrap();
    let figures = export(&bench.files("masked"), floats, &bench.out("masked-folded"));
    assert!(
        bench.files("masked-folded").contains_key("masks.safetensors"),
        "{figures:?}"
    );

    bench.quantize("finetuned", Training { epochs: 0, ..TRAINING });
    bench.evaluate("quantized", None);
    let exported = bench.evaluate("exported", Some("quantized")).metrics;
    assert!(
        exported["accuracy"] > teacher - 0.03,
        "{exported:?}, the teacher {teacher}"
    );
    assert!(exported["agreement"] > 0.99, "{exported:?}");
    // Codebooks are chosen for the folded weights.
    let untrained = Training { epochs: 0, ..TRAINING };
    let scheme = WeightScheme::Codebook { bits: 6 };
    bench.quantize_to("finetuned", scheme, untrained, ["few", "indexed"]);
    bench.evaluate("few", None);
    let indexed = bench.evaluate("indexed", Some("few")).metrics;
    assert!(
        indexed["agreement"] > 0.99 && indexed["accuracy"] > teacher - 0.05,
        "{indexed:?}, the teacher {teacher}"
    );
    for name in ["folded", "quantized", "exported"] {
        let loaded = ModelArtifact::open(&bench.files(name))
            .unwrap()
            .load(&Device::Cpu, Use::Infer)
            .unwrap();
        assert!(loaded.parameters.norms().is_empty());
        assert!(loaded.parameters.floats().keys().all(|tensor| !tensor.contains("bn")));
    }
}

/// Han et al. 2015: masks hold through finetuning, the file is no smaller, and quantization keeps them.
#[test]
fn unstructured_masks_hold_through_every_later_step() {
    let bench = Bench::new(r#"{"source": "builtin:digits", "train_rows": 500, "test_rows": 100}"#);
    let settings = TrainSettings {
        pretrained: None,
        model: ModelSpec::Mlp { hidden: vec![32, 16] },
        training: TRAINING,
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let round = PruneRound {
        granularity: Granularity::Unstructured,
        round_to: 1,
        ..structured(0.0, 0.9)
    };
    let figures = prune(&bench.files("teacher"), &round, 0, &bench.out("pruned")).unwrap();
    assert!((figures.metrics["weight_sparsity"] - 0.9).abs() < 1e-3, "{figures:?}");
    let settings = FinetuneSettings {
        training: TRAINING,
        distillation: None,
    };
    let (model, data) = (bench.files("pruned"), bench.files("data"));
    finetune(&model, &data, None, &settings, &context(), &bench.out("finetuned")).unwrap();
    bench.quantize("finetuned", TRAINING);
    for name in ["teacher", "pruned", "finetuned", "quantized", "exported"] {
        let metrics = bench.evaluate(name, None).metrics;
        assert_eq!(
            metrics["parameters"],
            784.0 * 32.0 + 32.0 + 32.0 * 16.0 + 16.0 + 16.0 * 10.0 + 10.0
        );
        if name == "teacher" {
            assert!(metrics["parameters_nonzero"] > 0.99 * metrics["parameters"]);
        } else {
            assert!(
                metrics["parameters_nonzero"] < 0.11 * metrics["parameters"],
                "{name}: {metrics:?}"
            );
        }
    }
    let bytes = |name: &str| bench.files(name)["model.safetensors"].metadata().unwrap().len();
    assert_eq!(bytes("teacher"), bytes("finetuned"), "a sparsity is not a size");
}

/// A student that starts from every second layer of its teacher has exactly those tensors.
#[test]
fn a_student_takes_every_second_layer_of_its_teacher() {
    let bench = Bench::new(r#"{"source": "builtin:reviews", "train_rows": 64, "test_rows": 16}"#);
    let bert = |layers| ModelSpec::Bert {
        layers,
        hidden: 16,
        heads: 2,
        intermediate: None,
        max_positions: 32,
    };
    let settings = TrainSettings {
        pretrained: None,
        model: bert(4),
        training: TRAINING,
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let teacher = bench.files("teacher");
    let out = bench.out("logits");
    teacher_logits(
        &teacher,
        &bench.files("data"),
        LogitsSettings::default(),
        &context(),
        &out,
    )
    .unwrap();
    // A rate of all but nothing leaves the student where it started.
    let settings = DistillSettings {
        pretrained: None,
        model: bert(2),
        initialize: Initialization::Teacher,
        distillation: Distillation {
            temperature: 2.0,
            alpha: 1.0,
        },
        training: Training {
            learning_rate: 1e-30,
            weight_decay: 0.0,
            max_steps: Some(1),
            ..TRAINING
        },
    };
    let (data, logits) = (bench.files("data"), bench.files("logits"));
    distill(
        &data,
        &logits,
        Start {
            teacher: Some(&teacher),
            pretrained: &Files::new(),
        },
        &settings,
        &context(),
        &bench.out("student"),
    )
    .unwrap();
    let floats = |name: &str| {
        let artifact = ModelArtifact::open(&bench.files(name)).unwrap();
        artifact.load(&Device::Cpu, Use::Infer).unwrap().parameters.floats()
    };
    let (teacher, student) = (floats("teacher"), floats("student"));
    let values = |tensors: &std::collections::BTreeMap<String, candle_core::Tensor>, name: &str| {
        tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    for (of_student, of_teacher) in [(0, 0), (1, 2)] {
        let name = |layer: usize| format!("bert.encoder.layer.{layer}.attention.self.query.weight");
        assert_eq!(values(&student, &name(of_student)), values(&teacher, &name(of_teacher)));
    }
    assert_eq!(
        values(&student, "classifier.weight"),
        values(&teacher, "classifier.weight")
    );
}

/// Trains a small BERT for a few steps, and gives its weights' file.
fn trained_weights(bench: &Bench, name: &str, training: Training) -> Vec<f32> {
    let settings = TrainSettings {
        pretrained: None,
        model: ModelSpec::Bert {
            layers: 4,
            hidden: 16,
            heads: 2,
            intermediate: None,
            max_positions: 32,
        },
        training: Training {
            max_steps: Some(5),
            ..training
        },
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out(name),
    )
    .unwrap();
    let loaded = ModelArtifact::open(&bench.files(name))
        .unwrap()
        .load(&Device::Cpu, Use::Infer)
        .unwrap();
    let floats = loaded.parameters.floats();
    floats
        .values()
        .flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .collect()
}

/// Chen et al. 2016: memory for time, not for precision; dropout is drawn alike when a layer is run again.
#[test]
fn gradient_checkpointing_gives_the_same_bits() {
    let bench = Bench::new(r#"{"source": "builtin:reviews", "train_rows": 96, "test_rows": 16}"#);
    let training = Training {
        dropout: 0.2,
        ..TRAINING
    };
    let plain = trained_weights(&bench, "plain", training);
    let checkpointed = trained_weights(
        &bench,
        "checkpointed",
        Training {
            gradient_checkpointing: true,
            ..training
        },
    );
    let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert!(bits(&plain) == bits(&checkpointed));
    // Quantization-aware training too: observers must not look twice.
    let quantized = |name: &str, gradient_checkpointing| {
        let settings = QuantizeSettings {
            weights: WeightScheme::Uniform,
            observer: ObserverKind::MovingAverage,
            calibration_rows: 32,
            finetune: FinetuneSettings {
                training: Training {
                    gradient_checkpointing,
                    ..training
                },
                distillation: None,
            },
        };
        let (model, data) = (bench.files("plain"), bench.files("data"));
        quantize(&model, &data, None, &settings, &context(), &bench.out(name)).unwrap();
        std::fs::read(&bench.files(name)["model.safetensors"]).unwrap()
    };
    assert!(quantized("quantized-plain", false) == quantized("quantized-checkpointed", true));
}

/// A layer that is run again has its products in the precision of the first time, and that precision is not f32's.
#[test]
fn gradient_checkpointing_keeps_the_precision() {
    let bench = Bench::new(r#"{"source": "builtin:reviews", "train_rows": 96, "test_rows": 16}"#);
    let of = |name: &str, precision, gradient_checkpointing| {
        let training = Training {
            precision,
            gradient_checkpointing,
            ..TRAINING
        };
        trained_weights(&bench, name, training)
    };
    let [f32, bf16, amx] = ProductPrecision::ALL.map(|precision| {
        let name = format!("{precision:?}");
        let plain = of(&name, precision, false);
        assert!(plain == of(&(name + "-checkpointed"), precision, true), "{precision:?}");
        plain
    });
    assert!(f32 != bf16 && f32 != amx && bf16 != amx);
}

/// A batch in three parts gives the gradients of the whole, to the rounding of its sums.
#[test]
fn gradient_accumulation_equals_the_whole_batch() {
    let bench = Bench::new(r#"{"source": "builtin:reviews", "train_rows": 96, "test_rows": 16}"#);
    let of = |name: &str, gradient_accumulation| {
        let training = Training {
            gradient_accumulation,
            // Adam's division would blow the rounding of a gradient near zero up.
            optimizer: OptimizerKind::Sgd,
            learning_rate: 0.1,
            ..TRAINING
        };
        trained_weights(&bench, name, training)
    };
    let (whole, parts) = (of("whole", 1), of("parts", 3));
    let moved = whole.iter().zip(of("other", 1).iter()).all(|(a, b)| a == b);
    assert!(moved, "the same settings give the same weights");
    let worst = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
    assert!(worst > 0.0, "the sums are of another order");
}

/// What is read from a folder is never trusted.
#[test]
fn hostile_model_folders_are_refused() {
    let bench = Bench::new(r#"{"source": "builtin:reviews", "train_rows": 64, "test_rows": 16}"#);
    let settings = TrainSettings {
        pretrained: None,
        model: ModelSpec::Bert {
            layers: 1,
            hidden: 8,
            heads: 2,
            intermediate: None,
            max_positions: 32,
        },
        training: TRAINING,
    };
    let folder = bench.out("teacher");
    train(&bench.files("data"), &Files::new(), &settings, &context(), &folder).unwrap();
    let texts = ["the film was not bad".to_owned()];
    Predictor::open(&folder, &Device::Cpu).unwrap().texts(&texts).unwrap();
    let good = std::fs::read(folder.join("model.safetensors")).unwrap();
    for cut in [0, 7, 8, 9, 100, good.len() / 2, good.len() - 1] {
        std::fs::write(folder.join("model.safetensors"), &good[..cut]).unwrap();
        assert!(Predictor::open(&folder, &Device::Cpu).is_err(), "cut to {cut} bytes");
    }
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(folder.join("model.safetensors"), huge_header).unwrap();
    assert!(Predictor::open(&folder, &Device::Cpu).is_err());
    std::fs::write(folder.join("model.safetensors"), &good).unwrap();

    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    for (from, to) in [
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 0"),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3"),
        ("\"hidden_size\": 8", "\"hidden_size\": 9999999999"),
        ("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 9"),
        ("\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": \"x\""),
        ("\"vocab_size\"", "\"vocab\""),
    ] {
        assert!(config.contains(from), "{from} in {config}");
        std::fs::write(folder.join("config.json"), config.replace(from, to)).unwrap();
        assert!(Predictor::open(&folder, &Device::Cpu).is_err(), "{to}");
    }
}
