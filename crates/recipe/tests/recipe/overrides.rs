//! The file, its profiles and the command line: which one counts, and what a path is relative to.

use crate::workspace::{FULL, Workspace, full_with};
use orchestrate_engine::Variant;
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::data::text_file::TextFormat;
use orchestrate_ml::device::DeviceChoice;
use orchestrate_recipe::{Recipe, StepKind};
use std::path::PathBuf;

const FILES: &str = r#"
[variables]
folder = "../data"

[data.files]
source = "text"
train = "${folder}/train.tsv"
test = "../data/dev.tsv"

[model.m]
architecture = "bert"
layers = 1
hidden = 8
heads = 2

[step.t]
kind = "train"
data = "files"
model = "m"
"#;

fn rounds(recipe: &Recipe) -> usize {
    let rounds = recipe.steps.iter().find_map(|step| match &step.kind {
        StepKind::Prune(prune) => Some(prune.rounds.len()),
        StepKind::Train(_)
        | StepKind::Distill(_)
        | StepKind::Quantize(_)
        | StepKind::Export(_)
        | StepKind::Evaluate(_) => None,
    });
    rounds.unwrap()
}

fn with_files() -> Workspace {
    let workspace = Workspace::new(FILES);
    for path in ["data/train.tsv", "data/dev.tsv", "mine/train.tsv", "mine/dev.tsv"] {
        workspace.file(path, b"sentence\tlabel\n");
    }
    workspace
}

#[test]
fn the_command_line_comes_before_the_profile_before_the_file() {
    let text = full_with("target = 0.5", "target = 0.5\nrounds = 2") + "\n[profile.more.step.prune]\nrounds = 4\n";
    let workspace = Workspace::new(&text);
    let set = ["--set", "step.prune.rounds=5"];
    let profile = ["--profile", "more"];
    assert_eq!(rounds(&workspace.recipe(&[])), 2);
    assert_eq!(rounds(&workspace.recipe(&profile)), 4);
    assert_eq!(rounds(&workspace.recipe(&set)), 5);
    assert_eq!(rounds(&workspace.recipe(&[profile, set].concat())), 5);
    assert_eq!(
        rounds(&workspace.recipe(&[set, ["--set", "step.prune.rounds=6"]].concat())),
        6
    );
}

#[test]
fn the_device_of_the_command_line_counts_most() {
    let workspace = Workspace::new(FULL);
    let arguments = ["--device", "auto", "--set", "recipe.device=cuda"];
    assert_eq!(workspace.recipe(&arguments).device, DeviceChoice::Auto);
}

#[test]
fn values_of_all_sorts_can_be_set() {
    let workspace = Workspace::new(FULL);
    let recipe = workspace.recipe(&[
        "--set",
        "recipe.name = other",
        "--set",
        "recipe.seed=18446744073709551615",
        "--set",
        "step.prune = { rounds = 7 }",
        "--set",
        "gate=[]",
        "--set",
        "recipe.latency_seconds=0",
    ]);
    assert_eq!(
        (recipe.name.as_str(), recipe.seed, rounds(&recipe)),
        ("other", u64::MAX, 7)
    );
    assert!(recipe.gates.is_empty() && recipe.latency_seconds == 0.0);
}

#[test]
fn a_profile_replaces_lists_as_a_whole() {
    let text = format!("{FULL}\n[profile.smoke]\ngate = [{{ step = \"export\", metric = \"loss\", max = 9 }}]\n");
    let recipe = Workspace::new(&text).recipe(&["--profile", "smoke"]);
    assert_eq!(recipe.gates.len(), 1);
    assert_eq!(
        (recipe.gates[0].metric.as_str(), recipe.gates[0].bounds.max),
        ("loss", Some(9.0))
    );
    assert_eq!((recipe.gates[0].baseline.as_deref(), recipe.gates[0].line), (None, 53));
}

#[test]
fn a_profile_is_checked_even_if_another_was_chosen_and_only_once() {
    let text = format!("{FULL}\n[profile.a]\nstep.prune.target = 2\n[profile.b]\nrecipe.seed = 2\n");
    let workspace = Workspace::new(&text);
    for arguments in [
        &[][..],
        &["--profile", "b"],
        &["--profile", "b", "--set", "recipe.seed=3"],
    ] {
        let errors = workspace.load(arguments).expect_err("profile `a` is wrong");
        let messages: Vec<String> = errors.findings().iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            ["in profile `a`: `target` must be a number above 0 and below 1, found the number 2"]
        );
    }
    assert!(
        workspace.load(&["--set", "step.prune.target=0.3"]).is_ok(),
        "the command line mends it"
    );
}

#[test]
fn an_error_of_the_command_line_is_shown_once_for_all_profiles() {
    let text = format!("{FULL}\n[profile.a]\nrecipe.seed = 2\n[profile.b]\nrecipe.seed = 3\n");
    let errors = Workspace::new(&text)
        .load(&["--set", "step.prun.rounds=1"])
        .expect_err("no such step");
    assert_eq!(errors.findings().len(), 1);
}

#[test]
fn profiles_do_not_nest() {
    let text = format!("{FULL}\n[profile.a]\nprofile.b.recipe.seed = 2\n");
    let shown = Workspace::new(&text).errors(&["--set", "profile.a.recipe.seed=3"]);
    assert_eq!(shown.matches("a profile cannot be changed").count(), 2, "{shown}");
}

#[test]
fn paths_start_from_where_they_were_written() {
    let workspace = with_files();
    let files = |arguments: &[&str]| workspace.recipe(arguments).data["files"].files.clone();
    let of = |arguments: &[&str], role: &str| files(arguments)[role].clone();
    let path = |path: &str| workspace.path().join(path);

    assert_eq!(of(&[], "train"), path("recipes/../data/train.tsv"));
    assert_eq!(of(&[], "test"), path("recipes/../data/dev.tsv"));
    let by_variable = ["--set", "variables.folder=mine"];
    assert_eq!(of(&by_variable, "train"), path("mine/train.tsv"));
    assert_eq!(of(&by_variable, "test"), path("recipes/../data/dev.tsv"));
    assert_eq!(
        of(&["--set", "data.files.test=mine/dev.tsv"], "test"),
        path("mine/dev.tsv")
    );
    let absolute = format!("data.files.test={}", path("mine/dev.tsv").display());
    assert_eq!(of(&["--set", &absolute], "test"), path("mine/dev.tsv"));
}

#[test]
fn only_the_beginning_of_a_path_says_where_it_starts() {
    let text = FILES.replace("\"${folder}/train.tsv\"", "\"../${folder}/train.tsv\"");
    let workspace = Workspace::new(&text.replace("folder = \"../data\"", "folder = \"data\""));
    workspace.file("mine/train.tsv", b"");
    workspace.file("data/dev.tsv", b"");
    let recipe = workspace.recipe(&["--set", "variables.folder=mine"]);
    assert_eq!(
        recipe.data["files"].files["train"],
        workspace.path().join("recipes/../mine/train.tsv")
    );
}

#[test]
fn a_variable_may_come_from_the_command_line_alone() {
    let workspace = Workspace::new(&FILES.replace("folder = \"../data\"", ""));
    workspace.file("data/train.tsv", b"");
    workspace.file("data/dev.tsv", b"");
    let shown = workspace.errors(&[]);
    assert!(shown.contains("there is no variable `folder`"), "{shown}");
    let recipe = workspace.recipe(&["--set", "variables.folder=data"]);
    assert_eq!(
        recipe.data["files"].files["train"],
        workspace.path().join("data/train.tsv")
    );
}

#[test]
fn files_of_profiles_that_were_not_chosen_need_not_be_there() {
    let workspace = with_files();
    workspace.file(
        "recipes/r.toml",
        format!("{FILES}\n[profile.big]\nvariables.folder = \"/nowhere\"\n").as_bytes(),
    );
    workspace.recipe(&[]);
    let shown = workspace.errors(&["--profile", "big"]);
    assert!(
        shown.contains("in profile `big`: `/nowhere/train.tsv` does not exist"),
        "{shown}"
    );
}

#[test]
fn a_recipe_of_a_relative_path_gives_paths_that_work_from_here() {
    // The process's own current folder, whatever it is, is the one that nothing is said about.
    let workspace = with_files();
    let loaded = Recipe::load(&workspace.path().join("recipes/r.toml"), &Default::default()).unwrap();
    let train: &PathBuf = &loaded.recipe.data["files"].files["train"];
    assert!(train.is_file(), "{}", train.display());
}

#[test]
fn the_format_is_that_of_the_extensions_unless_it_is_said() {
    let format = |train: &str, arguments: &[&str]| {
        let workspace = Workspace::new(
            &FILES
                .replace("${folder}/train.tsv", &format!("../data/{train}"))
                .replace("folder = \"../data\"", ""),
        );
        workspace.file(&format!("data/{train}"), b"");
        workspace.file("data/dev.tsv", b"");
        match workspace.load(arguments) {
            Ok(loaded) => match &loaded.recipe.data["files"].spec {
                DataSpec::TextFiles(files) => files.format.map(|format| format!("{format:?}")).unwrap(),
                other => panic!("{other:?}"),
            },
            Err(errors) => errors.findings()[0].to_string(),
        }
    };
    assert_eq!(format("train.TAB", &[]), format!("{:?}", TextFormat::Tsv));
    assert_eq!(
        format("train.csv", &[]),
        "the files of `train` and `test` are of different formats"
    );
    assert_eq!(
        format("train.txt", &[]),
        "the extension of `train` does not say its format"
    );
    assert_eq!(format("train.txt", &["--set", "data.files.format=csv"]), "Csv");
}

/// The variant that run records tell, of [`FULL`] with `edit` exchanged for something else.
fn variant(edit: [&str; 2], arguments: &[&str]) -> Variant {
    let text = format!(
        "{}\n[profile.smoke]\nstep.prune.rounds = 4\n",
        FULL.replacen(edit[0], edit[1], 1)
    );
    Workspace::new(&text).load(arguments).unwrap().variant
}

#[test]
fn a_variant_is_told_by_profile_overrides_and_what_the_recipe_says_with_them() {
    let as_is = ["", ""];
    let plain = variant(as_is, &[]);
    assert_eq!((&plain.profile, plain.overrides.len()), (&None, 0));
    let smoke = variant(as_is, &["--profile", "smoke"]);
    assert_eq!(smoke.profile.as_deref(), Some("smoke"));
    assert_ne!(smoke.digest, plain.digest);
    let set = variant(as_is, &["--set", "step.prune.rounds=4", "--device", "cpu"]);
    assert_eq!(set.overrides, ["step.prune.rounds=4", "recipe.device=cpu"]);
    let same = ["target = 0.5", "rounds = 4 # as many\ntarget = 0.5"];
    assert_eq!(variant(same, &[]).digest, smoke.digest, "however it is said");
    let other = ["target = 0.5", "target = 0.4"];
    assert_ne!(variant(other, &["--profile", "smoke"]).digest, smoke.digest);
    let comment = ["[recipe]", "# a comment\n[recipe]"];
    assert_eq!(variant(comment, &[]).digest, plain.digest);
}
