//! A training gives the same bytes with every instruction set of the processor and any number of threads.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use candle_core::Device;
use orchestrate_kernels::{Isa, ProductPrecision, with_isa};
use orchestrate_ml::artifact::{Files, files_of_folder};
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::device::on_pool;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::quantize::{ObserverKind, WeightScheme};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::*;
use orchestrate_ml::training::Training;
use std::path::Path;

const TRAINING: Training = Training {
    epochs: 1,
    max_steps: Some(4),
    batch_size: 13,
    learning_rate: 1e-2,
    optimizer: OptimizerKind::Adamw,
    momentum: 0.0,
    weight_decay: 0.01,
    schedule: Schedule::Linear,
    warmup: 0.3,
    lr_decay: 0.0,
    gradient_clip: 1.0,
    label_smoothing: 0.1,
    dropout: 0.2,
    bucket_by_length: true,
    gradient_accumulation: 1,
    gradient_checkpointing: false,
    precision: ProductPrecision::F32,
};

/// Trains, trains on with simulated quantization, exports to integers, and runs the export on the test rows; gives the files
/// of all four, the logits among them.
fn run(data: &Files, model: &ModelSpec, precision: ProductPrecision) -> Vec<(String, Vec<u8>)> {
    let context = Context {
        device: &Device::Cpu,
        seed: 7,
        watch: &|_| {},
        interruption: Interruption::NONE,
    };
    let folder = tempfile::tempdir().unwrap();
    let new = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let training = Training { precision, ..TRAINING };
    let [trained, quantized, exported, evaluated] = ["trained", "quantized", "exported", "evaluated"].map(new);
    let settings = TrainSettings {
        pretrained: None,
        model: model.clone(),
        training,
    };
    train(data, &Files::new(), &settings, &context, &trained).unwrap();
    let settings = QuantizeSettings {
        weights: WeightScheme::Uniform,
        observer: ObserverKind::MinMax,
        calibration_rows: 16,
        finetune: FinetuneSettings {
            training,
            distillation: None,
        },
    };
    let model = files_of_folder(&trained).unwrap();
    quantize(&model, data, None, &settings, &context, &quantized).unwrap();
    let int8 = ExportSettings {
        precision: Precision::Int8,
    };
    export(&files_of_folder(&quantized).unwrap(), int8, &exported).unwrap();
    let settings = EvaluateSettings {
        batch_size: 3,
        latency_seconds: 0.0,
    };
    let export = files_of_folder(&exported).unwrap();
    evaluate(&export, data, None, settings, &context, &evaluated).unwrap();
    let logits = bytes_of(&evaluated);
    assert!(!logits.is_empty(), "an evaluation keeps its logits");
    [&trained, &quantized, &exported]
        .into_iter()
        .flat_map(|f| bytes_of(f))
        .chain(logits)
        .collect()
}

fn bytes_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = files_of_folder(folder).unwrap();
    files
        .into_iter()
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

fn check(data: &str, model: &ModelSpec) {
    let folder = tempfile::tempdir().unwrap();
    let spec: DataSpec = serde_json::from_str(data).unwrap();
    prepare_data(&spec, &Files::new(), None, folder.path()).unwrap();
    let data = files_of_folder(folder.path()).unwrap();
    for precision in ProductPrecision::ALL {
        let expected = run(&data, model, precision);
        for isa in Isa::available() {
            let got = with_isa(isa, || on_pool(|| run(&data, model, precision)));
            assert!(got == expected, "{model:?} in {precision:?} on {isa:?}");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert!(
            pool.install(|| run(&data, model, precision)) == expected,
            "three threads"
        );
    }
}

#[test]
fn a_bert() {
    let model = ModelSpec::Bert {
        layers: 2,
        hidden: 24,
        heads: 3,
        intermediate: Some(40),
        max_positions: 32,
    };
    check(
        r#"{"source": "builtin:reviews", "train_rows": 48, "test_rows": 8}"#,
        &model,
    );
}

const DIGITS: &str = r#"{"source": "builtin:digits", "train_rows": 48, "test_rows": 8}"#;

#[test]
fn convolutions() {
    let model = ModelSpec::Lenet5 {
        channels: vec![5, 9],
        hidden: 33,
    };
    check(DIGITS, &model);
}

#[test]
fn a_residual_network() {
    let channels = vec![5, 9, 17];
    check(DIGITS, &ModelSpec::Resnet8 { channels });
}
