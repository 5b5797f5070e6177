//! A training that is stopped after any step and goes on later gives the bytes of one that was not; so does one that goes
//! on where a shorter one of the same past ended, and one that finds its checkpoint damaged.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use candle_core::Device;
use orchestrate_kernels::ProductPrecision;
use orchestrate_ml::Error;
use orchestrate_ml::artifact::{Files, files_of_folder};
use orchestrate_ml::checkpoint::{Checkpoints, Interruption};
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::prune::{Criterion, Granularity, PruneRound};
use orchestrate_ml::quantize::{ObserverKind, WeightScheme};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::*;
use orchestrate_ml::training::Training;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Six steps: three for each of two epochs.
const TRAINING: Training = Training {
    epochs: 2,
    max_steps: None,
    batch_size: 16,
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

const MODEL: ModelSpec = ModelSpec::Bert {
    layers: 3,
    hidden: 16,
    heads: 2,
    intermediate: Some(32),
    max_positions: 32,
};

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::of(r#"{"source": "builtin:reviews", "train_rows": 48, "test_rows": 8}"#)
    }

    fn of(data: &str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let spec: DataSpec = serde_json::from_str(data).unwrap();
        prepare_data(&spec, &Files::new(), None, &bench.new_folder("data")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of that name, empty.
    fn new_folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn files(&self, name: &str) -> Files {
        files_of_folder(&self.path(name)).unwrap()
    }

    fn train(&self, training: Training, context: &Context, out: &Path) -> orchestrate_ml::Result<Figures> {
        let settings = TrainSettings {
            model: MODEL,
            pretrained: None,
            training,
        };
        train(&self.files("data"), &Files::new(), &settings, context, out)
    }

    /// The names in the folder of checkpoints, sorted.
    fn checkpoints(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What a piece of work left behind, in bytes.
fn bytes_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = files_of_folder(folder).unwrap();
    files
        .into_iter()
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect()
}

/// Does `work` undisturbed, and then stopped after every single step, and compares.
fn compare(bench: &Bench, work: impl Fn(&Context, &Path) -> orchestrate_ml::Result<Figures>) {
    let expected = bench.new_folder("undisturbed");
    let figures = work(&context(Interruption::NONE, &|_| {}), &expected).unwrap();
    let (folder, scratch) = (bench.new_folder("checkpoints"), bench.new_folder("scratch"));
    let checkpoints = Checkpoints {
        folder: &folder,
        scratch: &scratch,
        owner: "key.",
        every: Duration::MAX,
    };
    let interruption = Interruption {
        checkpoints: Some(checkpoints),
        is_stopped: &|| true,
    };
    let steps = figures.metrics["steps"] as usize;
    let trained = Cell::new(0);
    let watch = |_: &_| trained.set(trained.get() + 1);
    for step in 1..steps {
        let error = work(&context(interruption, &watch), &bench.new_folder("stopped")).unwrap_err();
        assert!(
            matches!(error, Error::Stopped { done, total } if (done, total) == (step, steps)),
            "{error}"
        );
        assert_eq!(bench.checkpoints().len(), 1, "{:?}", bench.checkpoints());
    }
    let out = bench.new_folder("resumed");
    let resumed = work(&context(interruption, &watch), &out).unwrap();
    assert_eq!(resumed.metrics, figures.metrics);
    assert_eq!(resumed.measurements["resumed_after_step"], (steps - 1) as f64);
    assert!(
        bytes_of(&out) == bytes_of(&expected),
        "other bytes after {steps} interruptions"
    );
    assert!(trained.get() >= steps);
}

fn context<'a>(interruption: Interruption<'a>, watch: &'a dyn Fn(&orchestrate_ml::progress::Progress)) -> Context<'a> {
    Context {
        device: &Device::Cpu,
        seed: 5,
        watch,
        interruption,
    }
}

#[test]
fn a_training_stopped_after_every_step_gives_the_same_bytes() {
    let bench = Bench::new();
    let sgd = Training {
        optimizer: OptimizerKind::Sgd,
        momentum: 0.9,
        ..TRAINING
    };
    let in_parts = Training {
        gradient_accumulation: 3,
        gradient_checkpointing: true,
        max_steps: Some(5),
        ..TRAINING
    };
    let in_bf16 = Training {
        precision: ProductPrecision::fastest_bf16().unwrap_or(ProductPrecision::Bf16),
        ..TRAINING
    };
    for training in [TRAINING, sgd, in_parts, in_bf16] {
        compare(&bench, |context, out| bench.train(training, context, out));
    }
}

#[test]
fn running_statistics_go_on_too() {
    let bench = Bench::of(r#"{"source": "builtin:digits", "train_rows": 48, "test_rows": 8}"#);
    let model = ModelSpec::Resnet8 {
        channels: vec![4, 4, 8],
    };
    let settings = TrainSettings {
        pretrained: None,
        model,
        training: TRAINING,
    };
    let data = bench.files("data");
    compare(&bench, |context, out| {
        train(&data, &Files::new(), &settings, context, out)
    });
}

#[test]
fn so_does_every_other_kind_of_training() {
    let bench = Bench::new();
    let undisturbed = context(Interruption::NONE, &|_| {});
    bench
        .train(TRAINING, &undisturbed, &bench.new_folder("teacher"))
        .unwrap();
    let (teacher, data) = (bench.files("teacher"), bench.files("data"));
    let out = bench.new_folder("logits");
    teacher_logits(&teacher, &data, LogitsSettings::default(), &undisturbed, &out).unwrap();
    let logits = bench.files("logits");
    let distillation = Distillation {
        temperature: 2.0,
        alpha: 0.5,
    };
    let settings = DistillSettings {
        pretrained: None,
        model: MODEL,
        initialize: Initialization::Teacher,
        distillation,
        training: TRAINING,
    };
    compare(&bench, |context, out| {
        let start = Start {
            teacher: Some(&teacher),
            pretrained: &Files::new(),
        };
        distill(&data, &logits, start, &settings, context, out)
    });

    let round = PruneRound {
        granularity: Granularity::Unstructured,
        criterion: Criterion::Magnitude,
        heads: 0.5,
        neurons: 0.5,
        round_to: 1,
    };
    prune(&teacher, &round, 0, &bench.new_folder("pruned")).unwrap();
    let finetuning = FinetuneSettings {
        training: TRAINING,
        distillation: Some(distillation),
    };
    let pruned = bench.files("pruned");
    compare(&bench, |context, out| {
        finetune(&pruned, &data, Some(&logits), &finetuning, context, out)
    });

    for (observer, weights) in [
        (ObserverKind::MovingAverage, WeightScheme::Uniform),
        (
            ObserverKind::Percentile { percentile: 99.0 },
            WeightScheme::Codebook { bits: 3 },
        ),
    ] {
        let settings = QuantizeSettings {
            weights,
            observer,
            calibration_rows: 16,
            finetune: FinetuneSettings {
                training: TRAINING,
                distillation: None,
            },
        };
        compare(&bench, |context, out| {
            quantize(&pruned, &data, None, &settings, context, out)
        });
    }
}

#[test]
fn a_longer_training_goes_on_where_the_shorter_one_of_the_same_past_ended() {
    let bench = Bench::new();
    let constant = Training {
        schedule: Schedule::Constant,
        warmup: 0.0,
        ..TRAINING
    };
    let stable = Training {
        schedule: Schedule::WarmupStableDecay,
        lr_decay: 0.3,
        ..TRAINING
    };
    // A line from the peak to the end is another one when the end is.
    for (training, resumed_after) in [(constant, 6.0), (stable, 4.0), (TRAINING, 0.0)] {
        let longer = Training { epochs: 4, ..training };
        let expected = bench.new_folder("undisturbed");
        let figures = bench
            .train(longer, &context(Interruption::NONE, &|_| {}), &expected)
            .unwrap();
        let (folder, scratch) = (bench.new_folder("checkpoints"), bench.new_folder("scratch"));
        let train = |training, owner: &str, out: &Path| {
            let checkpoints = Checkpoints {
                folder: &folder,
                scratch: &scratch,
                owner,
                every: Duration::MAX,
            };
            let interruption = Interruption {
                checkpoints: Some(checkpoints),
                is_stopped: &|| false,
            };
            bench.train(training, &context(interruption, &|_| {}), out).unwrap()
        };
        train(training, "short.", &bench.new_folder("short"));
        let extended = bench.new_folder("extended");
        let told = train(longer, "long.", &extended);
        let resumed = told.measurements.get("resumed_after_step").copied().unwrap_or(0.0);
        assert_eq!(resumed, resumed_after, "{:?}", training.schedule);
        assert_eq!(told.metrics, figures.metrics);
        assert!(bytes_of(&extended) == bytes_of(&expected), "{:?}", training.schedule);
    }
}

#[test]
fn a_damaged_or_foreign_checkpoint_costs_time_alone() {
    let bench = Bench::new();
    let expected = bench.new_folder("undisturbed");
    bench
        .train(TRAINING, &context(Interruption::NONE, &|_| {}), &expected)
        .unwrap();
    let (folder, scratch) = (bench.new_folder("checkpoints"), bench.new_folder("scratch"));
    let train = |is_stopped: &dyn Fn() -> bool| {
        let checkpoints = Checkpoints {
            folder: &folder,
            scratch: &scratch,
            owner: "key.",
            every: Duration::MAX,
        };
        let interruption = Interruption {
            checkpoints: Some(checkpoints),
            is_stopped,
        };
        let out = bench.new_folder("out");
        (bench.train(TRAINING, &context(interruption, &|_| {}), &out), out)
    };
    let damages: [&dyn Fn(&Path); 5] = [
        &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        &|path| {
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(100)
                .unwrap()
        },
        &|path| std::fs::write(path, "").unwrap(),
        // Whole, but not what it should be: its name tells so much.
        &|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let (rest, _) = name.rsplit_once('.').unwrap();
            let other = format!("{rest}.{}", blake3::hash(b"other").to_hex());
            std::fs::write(path.with_file_name(other), "other").unwrap();
            std::fs::remove_file(path).unwrap();
        },
        &|path| {
            let name = path.file_name().unwrap().to_str().unwrap().replacen(".1.", ".2.", 1);
            std::fs::rename(path, path.with_file_name(name)).unwrap();
        },
    ];
    for damage in damages {
        let (stopped, _) = train(&|| true);
        assert!(matches!(stopped, Err(Error::Stopped { done: 1, .. })));
        damage(&folder.join(&bench.checkpoints()[0]));
        let (done, out) = train(&|| false);
        assert!(!done.unwrap().measurements.contains_key("resumed_after_step"));
        assert!(bytes_of(&out) == bytes_of(&expected));
        bench.new_folder("checkpoints");
    }
}

#[test]
fn checkpoints_are_written_as_often_as_asked_and_replace_each_other() {
    let bench = Bench::new();
    let (folder, scratch) = (bench.new_folder("checkpoints"), bench.new_folder("scratch"));
    let checkpoints = Checkpoints {
        folder: &folder,
        scratch: &scratch,
        owner: "key.",
        every: Duration::ZERO,
    };
    let interruption = Interruption {
        checkpoints: Some(checkpoints),
        is_stopped: &|| false,
    };
    let seen = Cell::new(0);
    let watch = |moment: &orchestrate_ml::progress::Progress| {
        // The one of the step before: this one's is written after the watcher is told.
        let names = bench.checkpoints();
        assert_eq!(names.len(), usize::from(moment.done > 1), "{names:?}");
        seen.set(seen.get() + 1);
    };
    bench
        .train(TRAINING, &context(interruption, &watch), &bench.new_folder("out"))
        .unwrap();
    assert_eq!(seen.get(), 6);
    assert!(
        bench.checkpoints()[0].starts_with("key.5."),
        "{:?}",
        bench.checkpoints()
    );
}
