//! What a recipe means when it leaves things out, and what leaves no trace in it.

use crate::workspace::{FULL, Workspace, full_with, recipe};
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::distillation::Distillation;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::optimizer::OptimizerKind;
use orchestrate_ml::prune::{Criterion, Granularity, SparsitySchedule};
use orchestrate_ml::quantize::{ObserverKind, WeightScheme};
use orchestrate_ml::schedule::Schedule;
use orchestrate_ml::steps::{Initialization, Precision};
use orchestrate_ml::training::{ProductPrecision, Training};
use orchestrate_recipe::{Prune, Quantize, Recipe, StepKind};

/// The training of a step that says nothing of it.
const DEFAULT: Training = Training {
    epochs: 3,
    max_steps: None,
    batch_size: 32,
    learning_rate: 5e-4,
    optimizer: OptimizerKind::Adamw,
    momentum: 0.0,
    weight_decay: 0.01,
    schedule: Schedule::Linear,
    warmup: 0.1,
    lr_decay: 0.0,
    gradient_clip: 1.0,
    label_smoothing: 0.0,
    dropout: 0.1,
    bucket_by_length: true,
    gradient_accumulation: 1,
    gradient_checkpointing: false,
    precision: ProductPrecision::F32,
};

/// The same for a step that trains a trained model on.
const FINETUNING: Training = Training {
    epochs: 1,
    learning_rate: 1e-4,
    ..DEFAULT
};

/// [`FULL`] in another order and with its defaults.
pub const SPELLED_OUT: &str = r#"
# The steps come first, and backwards.
[step]
check = { kind = "evaluate", input = "export", data = "reviews" }
export = { kind = "export", input = "quantize", precision = "int8" }
quantize = { kind = "quantize", input = "prune", data = "reviews", bits = 8, observer = "moving_average",
  calibration_rows = 256, epochs = 1, learning_rate = 1e-4 }
[step.prune]
input = "student"
kind = "prune" # a comment
rounds = 3
heads = 0.5
target = 0.5
sparsity_schedule = "cubic"
granularity = "structured"
criterion = "magnitude"
round_to = 8
epochs = 1
learning_rate = 0.0001
[step.student]
alpha = 0.5
temperature = 2
initialize = "random"
model = "small"
teacher = "teacher"
kind = "distill"
data = "reviews"
[step.teacher]
kind = "train"
data = "reviews"
model = "large"
epochs = 3
batch_size = 32
learning_rate = 0.5e-3
optimizer = "adamw"
weight_decay = 0.01
lr_schedule = "linear"
warmup = 0.1
gradient_clip = 1
label_smoothing = -0.0
dropout = 0.1
bucket_by_length = true
[model.small]
architecture = "bert"
heads = 4
layers = 2
hidden = 128
[model.large]
architecture = "bert"
layers = 4
hidden = 128
heads = 4
intermediate = 512
max_positions = 512
[data.reviews]
source = "builtin:reviews"
train_rows = 8000
test_rows = 2000
data_seed = 0
vocab_size = 1000
max_length = 32
lowercase = true
[recipe]
latency_seconds = 1
device = "cpu"
seed = 1
name = "full"
[[gate]]
max_drop = 0.02
baseline = "teacher"
metric = "accuracy"
step = "export"
"#;

/// The recipe, wherever its gates are written.
pub fn without_lines(mut recipe: Recipe) -> Recipe {
    for gate in &mut recipe.gates {
        gate.line = 0;
        gate.written_at.clear();
    }
    recipe
}

fn kind<'a>(recipe: &'a Recipe, name: &str) -> &'a StepKind {
    &recipe.steps.iter().find(|step| step.name == name).unwrap().kind
}

fn prune(text: &str) -> Prune {
    let recipe = recipe(text);
    let StepKind::Prune(prune) = kind(&recipe, "prune") else {
        panic!("it is a prune step")
    };
    prune.clone()
}

fn quantize(text: &str) -> Quantize {
    let recipe = recipe(text);
    let StepKind::Quantize(quantize) = kind(&recipe, "quantize") else {
        panic!("it is a quantize step")
    };
    quantize.clone()
}

#[test]
fn the_defaults_are_as_documented() {
    let recipe = recipe(FULL);
    assert_eq!((recipe.name.as_str(), recipe.seed), ("full", 1));
    assert_eq!((recipe.device, recipe.latency_seconds), (DeviceChoice::Cpu, 1.0));
    assert_eq!(recipe.data["reviews"].spec, DataSpec::Reviews(Default::default()));
    assert!(recipe.data["reviews"].files.is_empty());
    let names: Vec<&str> = recipe.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["teacher", "student", "prune", "quantize", "export", "check"]);

    let StepKind::Train(train) = kind(&recipe, "teacher") else {
        panic!("it is a train step")
    };
    assert_eq!(train.data, "reviews");
    assert_eq!(train.settings.training, DEFAULT);
    let model = ModelSpec::Bert {
        layers: 4,
        hidden: 128,
        heads: 4,
        intermediate: Some(512),
        max_positions: 512,
    };
    assert_eq!(train.settings.model, model);

    let StepKind::Distill(distill) = kind(&recipe, "student") else {
        panic!("it is a distill step")
    };
    assert_eq!(
        (distill.data.as_str(), distill.teacher.as_str()),
        ("reviews", "teacher")
    );
    assert_eq!(distill.settings.training, DEFAULT);
    assert_eq!(distill.settings.initialize, Initialization::Random);
    let listening = Distillation {
        temperature: 2.0,
        alpha: 0.5,
    };
    assert_eq!(distill.settings.distillation, listening);
}

#[test]
fn the_defaults_of_compression_are_as_documented() {
    let pruned = prune(FULL);
    assert_eq!((pruned.input.as_str(), pruned.data.as_str()), ("student", "reviews"));
    assert_eq!((pruned.teacher, pruned.finetune.distillation), (None, None));
    assert_eq!(pruned.finetune.training, FINETUNING);
    assert_eq!(pruned.rounds.len(), 3);
    for (index, round) in pruned.rounds.iter().enumerate() {
        let fraction = SparsitySchedule::Cubic.fraction(0.5, index + 1, 3);
        assert_eq!((round.neurons, round.heads), (fraction, fraction));
        assert_eq!(
            (round.granularity, round.criterion),
            (Granularity::Structured, Criterion::Magnitude)
        );
        assert_eq!(round.round_to, 8);
    }

    let quantized = quantize(FULL);
    assert_eq!(
        (quantized.input.as_str(), quantized.data.as_str()),
        ("prune", "reviews")
    );
    assert_eq!(quantized.settings.observer, ObserverKind::MovingAverage);
    assert_eq!(quantized.settings.calibration_rows, 256);
    assert_eq!(quantized.settings.finetune.training, FINETUNING);

    let recipe = recipe(FULL);
    let StepKind::Export(export) = kind(&recipe, "export") else {
        panic!("it is an export step")
    };
    assert_eq!(
        (export.data.as_str(), export.settings.precision),
        ("reviews", Precision::Int8)
    );
    let StepKind::Evaluate(evaluate) = kind(&recipe, "check") else {
        panic!("it is an evaluate step")
    };
    assert_eq!((evaluate.input.as_str(), evaluate.data.as_str()), ("export", "reviews"));
    let gate = &recipe.gates[0];
    assert_eq!((gate.step.as_str(), gate.metric.as_str()), ("export", "accuracy"));
    assert_eq!(
        (gate.bounds.max_drop, gate.baseline.as_deref()),
        (Some(0.02), Some("teacher"))
    );
    assert_eq!((gate.line, gate.written_at.as_str()), (47, "recipes/r.toml:47"));
}

#[test]
fn sgd_has_defaults_of_its_own() {
    let text = full_with("model = \"large\"", "model = \"large\"\noptimizer = \"sgd\"");
    let text = text.replace("target = 0.5", "target = 0.5\noptimizer = \"sgd\"");
    let sgd = Training {
        optimizer: OptimizerKind::Sgd,
        learning_rate: 0.05,
        momentum: 0.9,
        weight_decay: 0.0,
        ..DEFAULT
    };
    let recipe = recipe(&text);
    let StepKind::Train(train) = kind(&recipe, "teacher") else {
        panic!("it is a train step")
    };
    assert_eq!(train.settings.training, sgd);
    let finetuning = Training {
        learning_rate: 0.01,
        epochs: 1,
        ..sgd
    };
    assert_eq!(prune(&text).finetune.training, finetuning);
}

#[test]
fn comments_order_and_spelled_out_defaults_change_nothing() {
    let spelled = without_lines(recipe(SPELLED_OUT));
    let plain = without_lines(recipe(FULL));
    assert_eq!(spelled, plain);
    assert_eq!(format!("{spelled:?}"), format!("{plain:?}"));
}

#[test]
fn steps_that_do_not_need_each_other_keep_the_order_of_the_file() {
    let text = FULL.replace(
        "[step.check]",
        "[step.other]\nkind = \"train\"\ndata = \"reviews\"\nmodel = \"small\"\n[step.check]",
    );
    let recipe = recipe(&text);
    let names: Vec<&str> = recipe.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        names,
        ["teacher", "student", "prune", "quantize", "export", "other", "check"]
    );
}

#[test]
fn a_recipe_is_called_as_its_file() {
    let workspace = Workspace::new(&full_with("name = \"full\"", ""));
    assert_eq!(workspace.recipe(&[]).name, "r");
    std::fs::rename(
        workspace.path().join("recipes/r.toml"),
        workspace.path().join("lenet v2.1.toml"),
    )
    .unwrap();
    let path = workspace.path().join("lenet v2.1.toml");
    let loaded = Recipe::load(&path, &Default::default()).unwrap();
    assert_eq!(loaded.recipe.name, "lenet-v2-1");
    assert_eq!(loaded.text, full_with("name = \"full\"", ""));
}

#[test]
fn explicit_targets_are_the_rounds() {
    let pruned = prune(&full_with("target = 0.5", "targets = [0.2, 0.45]"));
    let fractions: Vec<(f64, f64)> = pruned.rounds.iter().map(|round| (round.neurons, round.heads)).collect();
    assert_eq!(fractions, [(0.2, 0.2), (0.45, 0.45)]);
}

#[test]
fn heads_have_a_target_of_their_own() {
    let pruned = prune(&full_with(
        "target = 0.5",
        "target = 0.5\nheads = 0\nrounds = 2\nsparsity_schedule = \"linear\"",
    ));
    let fractions: Vec<(f64, f64)> = pruned.rounds.iter().map(|round| (round.neurons, round.heads)).collect();
    assert_eq!(fractions, [(0.25, 0.0), (0.5, 0.0)]);
}

#[test]
fn unstructured_pruning_changes_no_widths() {
    let pruned = prune(&full_with(
        "target = 0.5",
        "target = 0.5\ngranularity = \"unstructured\"\ncriterion = \"random\"",
    ));
    let last = pruned.rounds[2];
    assert_eq!(
        (last.granularity, last.criterion),
        (Granularity::Unstructured, Criterion::Random)
    );
    assert_eq!((last.neurons, last.heads, last.round_to), (0.5, 0.0, 1));
}

#[test]
fn a_teacher_is_listened_to_only_while_training() {
    let with_teacher = full_with("target = 0.5", "target = 0.5\nteacher = \"teacher\"\nalpha = 0.9");
    let pruned = prune(&with_teacher);
    assert_eq!(pruned.teacher.as_deref(), Some("teacher"));
    let listening = pruned.finetune.distillation.unwrap();
    assert_eq!((listening.temperature, listening.alpha), (2.0, 0.9));
    let pruned = prune(&with_teacher.replace("target = 0.5", "target = 0.5\nepochs = 0"));
    assert_eq!((pruned.teacher, pruned.finetune.distillation), (None, None));
    assert_eq!(pruned.finetune.training.epochs, 0);

    let quantized = quantize(&full_with(
        "input = \"prune\"",
        "input = \"prune\"\nteacher = \"teacher\"\nepochs = 0",
    ));
    assert_eq!(
        (quantized.teacher, quantized.settings.finetune.distillation),
        (None, None)
    );
}

#[test]
fn codebooks() {
    let weights = |line: &str| {
        quantize(&full_with("input = \"prune\"", &format!("input = \"prune\"\n{line}")))
            .settings
            .weights
    };
    assert_eq!(weights(""), WeightScheme::Uniform);
    assert_eq!(weights("codebook_bits = 2"), WeightScheme::Codebook { bits: 2 });
    assert_eq!(
        weights("bits = 8\ncodebook_bits = 6"),
        WeightScheme::Codebook { bits: 6 }
    );
}

#[test]
fn observers() {
    let observer = |line: &str| {
        quantize(&full_with("input = \"prune\"", &format!("input = \"prune\"\n{line}")))
            .settings
            .observer
    };
    assert_eq!(observer("observer = \"min_max\""), ObserverKind::MinMax);
    let percentile = |percentile| ObserverKind::Percentile { percentile };
    assert_eq!(observer("observer = \"percentile\""), percentile(99.9));
    assert_eq!(observer("observer = \"percentile\"\npercentile = 99"), percentile(99.0));
}

#[test]
fn images_and_their_models() {
    let text = r#"
[data.digits]
source = "builtin:digits"
train_rows = 100
[model.lenet]
architecture = "lenet5"
[model.mlp]
architecture = "mlp"
[model.resnet]
architecture = "resnet8"
[step.a]
kind = "train"
data = "digits"
model = "lenet"
[step.b]
kind = "train"
data = "digits"
model = "mlp"
[step.c]
kind = "train"
data = "digits"
model = "resnet"
"#;
    let recipe = recipe(text);
    let model = |name: &str| match kind(&recipe, name) {
        StepKind::Train(train) => train.settings.model.clone(),
        other => panic!("a {} step", other.name()),
    };
    let lenet = ModelSpec::Lenet5 {
        channels: vec![20, 50],
        hidden: 500,
    };
    assert_eq!(model("a"), lenet);
    assert_eq!(model("b"), ModelSpec::Mlp { hidden: vec![300, 100] });
    let resnet = ModelSpec::Resnet8 {
        channels: vec![16, 32, 64],
    };
    assert_eq!(model("c"), resnet);
}
