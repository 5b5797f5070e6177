//! What a user sees of each family of errors.

use crate::workspace::{FULL, Workspace, errors, full_with, messages};
use insta::assert_snapshot;

#[test]
fn unknown_key() {
    assert_snapshot!(errors(&full_with("model = \"large\"", "model = \"large\"\nepoch = 4")));
}

#[test]
fn unknown_table() {
    assert_snapshot!(errors(&full_with("[step.check]", "[steps.check]")));
}

#[test]
fn unknown_kind() {
    assert_snapshot!(errors(&full_with(
        "kind = \"quantize\"",
        "kind = \"quantise\"\nbits = 4"
    )));
}

#[test]
fn wrong_type() {
    assert_snapshot!(errors(&full_with(
        "model = \"large\"",
        "model = \"large\"\nepochs = \"3\""
    )));
}

#[test]
fn missing_key() {
    assert_snapshot!(errors(&full_with("input = \"prune\"\n", "")));
}

#[test]
fn a_misspelt_key_is_not_missing_too() {
    let all = messages(&full_with("input = \"prune\"", "inptu = \"prune\""));
    assert_eq!(all, ["`inptu` is not a key of a quantize step"]);
}

#[test]
fn missing_references() {
    let text = full_with("input = \"student\"", "input = \"studnet\"");
    let text = text.replace("model = \"small\"", "model = \"tiny\"");
    assert_snapshot!(errors(&text.replace("data = \"reviews\"", "data = \"review\"")));
}

#[test]
fn a_reference_to_the_wrong_sort() {
    assert_snapshot!(errors(&full_with("input = \"student\"", "input = \"small\"")));
}

#[test]
fn cycle() {
    assert_snapshot!(errors(&full_with("input = \"student\"", "input = \"quantize\"")));
}

#[test]
fn a_step_that_needs_itself() {
    let all = messages(&full_with("input = \"student\"", "input = \"prune\""));
    assert_eq!(all, ["steps need each other in a circle: prune → prune"]);
}

#[test]
fn out_of_range() {
    assert_snapshot!(errors(&full_with(
        "target = 0.5",
        "target = 1.5\nlearning_rate = nan\nround_to = -8"
    )));
}

#[test]
fn heads_that_do_not_divide() {
    assert_snapshot!(errors(&full_with("heads = 4", "heads = 5")));
}

#[test]
fn a_key_without_meaning() {
    assert_snapshot!(errors(&full_with(
        "target = 0.5",
        "target = 0.5\nmomentum = 0.9\nalpha = 0.1"
    )));
}

#[test]
fn gates() {
    let gates = r#"
[[gate]]
step = "export"
metric = "accuracy"

[[gate]]
step = "exprot"
metric = "accuraccy"
min = 0.9

[[gate]]
step = "export"
metric = "accuracy"
min = 95

[[gate]]
step = "teacher"
metric = "accuracy"
max_drop = 0.01
"#;
    assert_snapshot!(errors(&format!("{FULL}{gates}")));
}

#[test]
fn profile() {
    let profile = r#"
[profile.smoke]
step.taecher.max_steps = 3
step.prune.rounds = 0

[profile.fast]
recipe.divice = "cpu"
"#;
    assert_snapshot!(Workspace::new(&format!("{FULL}{profile}")).errors(&["--profile", "fsat"]));
}

#[test]
fn set() {
    let arguments = [
        "--set",
        "step.prune.target=2",
        "--set",
        "step.prun.target=0.5",
        "--set",
        "step.quantize.epoch = 2",
        "--set",
        "seed",
        "--device",
        "tpu",
    ];
    assert_snapshot!(Workspace::new(FULL).errors(&arguments));
}

#[test]
fn syntax() {
    assert_snapshot!(errors("[recipe]\nname = bert\nseed = 1\nseed = 2\n"));
}

#[test]
fn duplicate_table() {
    assert_snapshot!(errors("[step.a]\nkind = \"train\"\n\n[step.a]\nkind = \"prune\"\n"));
}

#[test]
fn missing_files() {
    let text = r#"
[variables]
folder = "../shared/sst2"

[data.sst2]
source = "text"
train = "${folder}/train.tsv"
test = "${foldr}/dev.tsv"
tokenizer = "../recipes"

[model.m]
architecture = "bert"
layers = 1
hidden = 8
heads = 1

[step.t]
kind = "train"
data = "sst2"
model = "m"
"#;
    assert_snapshot!(errors(text));
}

#[test]
fn several_at_once() {
    let text = full_with("target = 0.5", "target = \"half\"");
    let text = text.replace("kind = \"export\"", "kind = \"exprot\"");
    assert_snapshot!(errors(&text.replace(
        "hidden = 128\nheads = 4\n\n[model.small]",
        "hiden = 128\nheads = 4\n\n[model.small]"
    )));
}

#[test]
fn warnings() {
    let text = full_with(
        "[model.small]",
        "[model.unused]\narchitecture = \"mlp\"\n\n[model.small]",
    );
    let workspace = Workspace::new(&format!("{text}\n[variables]\nfolder = \"x\"\n"));
    let loaded = workspace.load(&[]).expect("warnings do not stop anything");
    let shown: Vec<String> = loaded
        .warnings
        .iter()
        .map(|warning| workspace.rendered(warning))
        .collect();
    assert_snapshot!(shown.concat());
}

#[test]
fn an_absent_recipe() {
    let workspace = Workspace::new("");
    std::fs::remove_file(workspace.path().join("recipes/r.toml")).unwrap();
    assert_snapshot!(workspace.errors(&[]));
}

#[test]
fn an_empty_recipe() {
    assert_snapshot!(errors(""));
}

#[test]
fn not_utf8() {
    let workspace = Workspace::new("");
    workspace.file("recipes/r.toml", b"[recipe]\nname = \"caf\xe9\"\n");
    assert_snapshot!(workspace.errors(&[]));
}

#[test]
fn a_finding_says_where_it_is() {
    let workspace = Workspace::new(&full_with("target = 0.5", "target = 1.5"));
    let errors = workspace
        .load(&["--set", "step.quantize.bits=4"])
        .expect_err("two errors");
    let places: Vec<&str> = errors.findings().iter().map(|finding| finding.written_at()).collect();
    assert_eq!(places, ["recipes/r.toml:33", "--set step.quantize.bits=4"]);
    assert_eq!(errors.findings()[0].line(), 33);
    assert_eq!(errors.to_string(), "2 errors in recipes/r.toml");
    assert_eq!(
        errors.findings()[0].advice(),
        "set `target` to a number above 0 and below 1"
    );
}
