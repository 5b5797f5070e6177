//! What each kind of action computes, frozen: if a digest here changes, the kind's version in `kinds.rs` must rise, or caches
//! would hold results that this program no longer gives.
//!
//! Kinds that round nothing give these bytes everywhere; the others where matrix products use the numerics class below.

use orchestrate_engine::{
    Action, ActionId, ActionReport, BuildOptions, Cancel, InProcessExecutor, RunEvent, Store, build,
};
use orchestrate_ml::device::DeviceChoice;
use orchestrate_ml::training::ProductPrecision;
use orchestrate_recipe::{ActionKind, Kinds, Lowered, Overrides, Recipe};
use std::num::NonZeroUsize;

const NUMERICS: &str = "cpu-f32-x86_64";

const RECIPE: &str = r#"
[recipe]
seed = 5
latency_seconds = 0.0

[data.reviews]
source = "builtin:reviews"
train_rows = 48
test_rows = 16

[data.digits]
source = "builtin:digits"
train_rows = 40
test_rows = 10

[model.bert]
architecture = "bert"
layers = 1
hidden = 16
heads = 2

[model.lenet]
architecture = "lenet5"
channels = [4, 8]
hidden = 16

[step.teacher]
kind = "train"
data = "reviews"
model = "bert"
epochs = 1

[step.student]
kind = "distill"
teacher = "teacher"
model = "bert"
epochs = 1

[step.halved]
kind = "prune"
input = "student"
teacher = "teacher"
target = 0.5
rounds = 1

[step.small]
kind = "quantize"
input = "halved"

[step.export]
kind = "export"
input = "small"

[step.reader]
kind = "train"
data = "digits"
model = "lenet"
epochs = 1

[step.masked]
kind = "prune"
input = "reader"
granularity = "unstructured"
target = 0.5
rounds = 1
epochs = 0

[step.calibrated]
kind = "quantize"
input = "masked"
epochs = 0

[step.read]
kind = "export"
input = "calibrated"

[step.few]
kind = "quantize"
input = "halved"
codebook_bits = 3

[step.indexed]
kind = "export"
input = "few"
"#;

/// A residual network's way: running statistics, coupled channels, folding.
const RESNET: &str = r#"
[recipe]
seed = 5
latency_seconds = 0.0

[data.digits]
source = "builtin:digits"
train_rows = 40
test_rows = 10

[model.resnet]
architecture = "resnet8"
channels = [8, 8, 16]

[step.reader]
kind = "train"
data = "digits"
model = "resnet"
epochs = 1
batch_size = 16

[step.narrow]
kind = "prune"
input = "reader"
target = 0.25
round_to = 2
rounds = 1
batch_size = 16

[step.small]
kind = "quantize"
input = "narrow"
batch_size = 16

[step.export]
kind = "export"
input = "small"

[step.folded]
kind = "export"
input = "narrow"
precision = "f32"
"#;

/// All that the steps of a recipe come to: numerics class and a line with the digest, for each action.
fn digests(text: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.toml");
    std::fs::write(&path, text).unwrap();
    let recipe = Recipe::load(&path, &Overrides::default()).unwrap().recipe;
    let lowered = Lowered::new(&recipe).unwrap();
    let store = Store::open(&folder.path().join("cache")).unwrap();
    let options = BuildOptions {
        recipe: recipe.name.clone(),
        variant: None,
        slots: NonZeroUsize::MIN,
        keep_going: false,
        memory: None,
        checkpoint_every: None,
    };
    let executor = InProcessExecutor::new(&Kinds);
    let silent = |_: RunEvent| {};
    let targets = lowered.targets(&[]);
    let report = build(
        &lowered.graph,
        &targets,
        &options,
        &store,
        &executor,
        &Cancel::new(),
        &silent,
    )
    .unwrap();
    assert!(report.is_success(), "{report:#?}");
    let line = |(id, action): (&ActionId, &ActionReport)| {
        let Action { kind, numerics, .. } = lowered.graph.get(*id);
        let tree = action.result.as_ref().unwrap().tree;
        (numerics.clone(), format!("{kind}: {} {tree}\n", action.name))
    };
    report.actions.iter().map(line).collect()
}

/// In bf16 a processor's vectors leave no trace, as long as nothing in f32 came before.
fn digests_in_bf16(form: &str) -> String {
    let steps = ["teacher", "reader"];
    let text = steps.iter().fold(RECIPE.to_owned(), |text, step| {
        let head = format!("[step.{step}]\n");
        text.replace(&head, &format!("{head}precision = \"{form}\"\n"))
    });
    let rounded = format!("[step.rounded]\nkind = \"quantize\"\ninput = \"teacher\"\nprecision = \"{form}\"\n");
    let digests = digests(&(text + &rounded));
    let in_bf16 = digests.iter().filter(|(numerics, _)| numerics.starts_with("cpu-bf16"));
    in_bf16.map(|(_, line)| line.as_str()).collect()
}

#[test]
fn training_in_both_forms_of_bf16_gives_the_bytes_that_it_always_gave() {
    insta::assert_snapshot!("golden_bf16", digests_in_bf16("bf16-avx512"));
    insta::assert_snapshot!("golden_bf16_amx", digests_in_bf16("bf16-amx"));
}

/// The lines of those that round nothing, and of the others.
fn exact_and_rounded(text: &str) -> [String; 2] {
    let digests = digests(text);
    [true, false].map(|exact| {
        let chosen = digests.iter().filter(|(numerics, _)| (numerics == "exact") == exact);
        chosen.map(|(_, line)| line.as_str()).collect()
    })
}

#[test]
fn a_residual_network_gives_the_bytes_that_it_always_gave() {
    let all = exact_and_rounded(RESNET).concat();
    if DeviceChoice::Cpu.numerics(ProductPrecision::F32) == NUMERICS {
        insta::assert_snapshot!("golden_resnet8", all);
    }
}

#[test]
fn every_kind_gives_the_bytes_that_it_always_gave() {
    let [exact, rounded] = exact_and_rounded(RECIPE);
    let all = exact.clone() + &rounded;
    let missing = ActionKind::ALL
        .iter()
        .find(|kind| !all.contains(&kind.versioned().to_string()));
    assert!(missing.is_none(), "no action is of the kind {missing:?}");

    // The data alone are the same everywhere: what else is exact reads what was trained.
    let data: String = exact
        .lines()
        .filter(|line| line.contains(" data:"))
        .map(|l| format!("{l}\n"))
        .collect();
    insta::assert_snapshot!("golden_data", data);
    if DeviceChoice::Cpu.numerics(ProductPrecision::F32) == NUMERICS {
        insta::assert_snapshot!("golden_models", all);
    } else {
        eprintln!("skipped: the digests of trained models are frozen for {NUMERICS} only");
    }
}
