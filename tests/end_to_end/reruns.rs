//! An edit reruns what it must, and nothing else.

use crate::workspace::{Events, Workspace, texts};
use std::time::Instant;

const EVERYTHING: usize = 14;

#[test]
fn a_second_build_runs_nothing_and_takes_no_time() {
    let workspace = Workspace::new();
    let first = workspace.build(&[]);
    assert_eq!(first.ran().len(), EVERYTHING);
    let started = Instant::now();
    let second = workspace.build(&[]);
    assert!(started.elapsed().as_secs_f64() < 1.0, "{:?}", started.elapsed());
    assert_eq!(second.ran(), [""; 0]);
    let end = second.last();
    assert_eq!(
        (&end["event"], &end["executed"], &end["cached"]),
        (&"run_finished".into(), &0.into(), &EVERYTHING.into())
    );
    assert_eq!(second.trees(), first.trees());
    let told = workspace.succeed(&["build", "recipe.toml"]);
    assert!(told.stdout.contains("up to date: nothing to run"), "{}", told.stdout);
}

/// Comments, order, spelled-out defaults, times of files, names of steps and where the folder is.
#[test]
fn what_changes_nothing_reruns_nothing() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.edit("[step.export]", "# to be deployed\n[step.export]");
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "a comment");

    let (head, export) = crate::workspace::RECIPE.split_once("[step.export]").unwrap();
    workspace.write("recipe.toml", format!("[step.export]{export}{head}"));
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "another order");

    workspace.edit(
        "epochs = 2",
        "epochs = 2\noptimizer = \"adamw\"\nwarmup = 0.1\ngradient_clip = 1.0",
    );
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "defaults spelled out");

    workspace.write("train.tsv", texts(40, 0));
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "a file written again");

    let text = std::fs::read_to_string(workspace.path("recipe.toml")).unwrap();
    workspace.write(
        "recipe.toml",
        text.replace("quantize]", "smaller]")
            .replace("= \"quantize\"\n", "= \"smaller\"\n")
            .replace("kind = \"smaller\"", "kind = \"quantize\""),
    );
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "a step renamed");

    let elsewhere = Workspace::new();
    std::fs::rename(workspace.path("cache"), elsewhere.path("cache")).unwrap();
    assert_eq!(elsewhere.build(&[]).ran(), [""; 0], "another folder");
}

#[test]
fn the_last_steps_learning_rate_reruns_it_and_what_follows() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.edit("learning_rate = 1e-4", "learning_rate = 2e-4");
    let plan = workspace.succeed(&["plan", "recipe.toml"]).stdout;
    assert!(plan.contains("finetune.training.learning_rate 1e-4 → 2e-4"), "{plan}");
    let events = workspace.build(&[]);
    // Which of those that do not wait for each other comes first depends on how long they took before.
    let mut ran = events.ran();
    assert_eq!(ran[0], "quantize");
    ran.sort_unstable();
    assert_eq!(ran, ["export", "export.evaluate", "quantize", "quantize.evaluate"]);
}

/// The reasons that a build for people shows, sorted.
fn reasons(workspace: &Workspace) -> Vec<String> {
    let told = workspace.succeed(&["build", "recipe.toml"]).stderr;
    let lines = told.lines().filter_map(|line| line.strip_prefix("run     "));
    let mut reasons: Vec<String> = lines.map(str::to_owned).collect();
    reasons.sort_unstable();
    reasons
}

#[test]
fn each_action_that_runs_is_shown_with_its_reason_on_one_line() {
    let workspace = Workspace::new();
    let first = reasons(&workspace);
    assert_eq!(first.len(), EVERYTHING);
    assert!(first.iter().all(|line| line.ends_with(": never ran")), "{first:?}");
    assert_eq!(reasons(&workspace), [""; 0]);
    workspace.edit("learning_rate = 1e-4", "learning_rate = 2e-4");
    let edited = [
        "export.evaluate: input model changed; input reference changed",
        "export: input model changed",
        "quantize.evaluate: input model changed",
        "quantize: finetune.training.learning_rate 1e-4 → 2e-4",
    ];
    assert_eq!(reasons(&workspace), edited);
}

#[test]
fn a_failing_branch_stops_the_others_unless_they_are_to_go_on() {
    let workspace = Workspace::new();
    let diverges = "epochs = 20\nbatch_size = 8\noptimizer = \"sgd\"\nlearning_rate = 100.0\nweight_decay = 1.0\n\
                    gradient_clip = 0.0\n";
    workspace.edit(
        "[step.teacher]",
        &format!("[step.bad]\nkind = \"train\"\ndata = \"texts\"\nmodel = \"tiny\"\n{diverges}\n[step.teacher]"),
    );
    let build = |more: &[&str]| {
        let run = workspace.run(&[&["build", "recipe.toml", "--jobs", "2", "--format", "json"], more].concat());
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let events = Events::of(&run);
        assert_eq!(events.actions("action_failed"), ["bad"]);
        events
    };
    // What is evaluated has the machine alone: none is before both trainings have ended.
    let stopped = build(&[]);
    assert!(
        !stopped.ran().iter().any(|name| name.ends_with(".evaluate")),
        "{:?}",
        stopped.ran()
    );
    assert!(stopped.actions("action_skipped").contains(&"export"));
    let gone_on = build(&["--keep-going"]);
    assert!(gone_on.ran().contains(&"export.evaluate"), "{:?}", gone_on.ran());
    assert_eq!(gone_on.actions("action_skipped"), ["bad.evaluate"]);
    assert!(workspace.path("out/small/export/model.safetensors").exists());
}

#[test]
fn a_prune_rounds_target_reuses_the_rounds_before() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.edit("targets = [0.25, 0.5]", "targets = [0.25, 0.75]");
    let events = workspace.build(&[]);
    let ran = events.ran();
    assert_eq!(ran[..2], ["prune.prune-2", "prune.finetune-2"], "{ran:?}");
    assert!(ran.contains(&"prune.evaluate"), "{ran:?}");
    assert_eq!(ran.len(), 7, "{ran:?}");
    workspace.edit("targets = [0.25, 0.75]", "targets = [0.25, 0.5]");
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "the old rounds are still there");
}

#[test]
fn a_changed_data_file_reruns_all_that_reads_it() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.write("train.tsv", texts(41, 0));
    let why = workspace.succeed(&["why", "recipe.toml", "export"]).stdout;
    assert!(why.contains("input train changed"), "{why}");
    assert_eq!(workspace.build(&[]).ran().len(), EVERYTHING);
}

/// A data file whose rows come out as they were cuts its descendants off.
#[test]
fn a_data_file_that_comes_to_the_same_stops_there() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.write("train.tsv", texts(40, 0).replace("\t1\n", "\t1\n\n"));
    assert_eq!(workspace.build(&[]).ran(), ["data:texts"]);
}

/// What only evaluations read retrains nothing.
#[test]
fn a_changed_test_file_reruns_evaluations_alone() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.write("test.tsv", texts(20, 1));
    let events = workspace.build(&[]);
    let mut ran = events.ran();
    ran.sort_unstable();
    let evaluations = [
        "export.evaluate",
        "prune.evaluate",
        "quantize.evaluate",
        "teacher.evaluate",
    ];
    assert_eq!(ran, [&["data:texts", "data:texts:train"][..], &evaluations].concat());
}

/// Quantization without training does not depend on how one would have trained.
#[test]
fn settings_that_are_not_used_rerun_nothing() {
    let workspace = Workspace::new();
    workspace.edit("learning_rate = 1e-4", "epochs = 0");
    workspace.build(&[]);
    workspace.edit("epochs = 0", "epochs = 0\nlearning_rate = 1e-3\nwarmup = 0.3");
    assert_eq!(workspace.build(&[]).ran(), [""; 0]);
}

/// A gate's baseline is evaluated even where only the gated step is asked for.
#[test]
fn a_step_is_built_with_the_evaluations_that_it_is_compared_with() {
    let workspace = Workspace::new();
    let gate = "[[gate]]\nstep = \"export\"\nmetric = \"file_bytes\"\nmax_ratio = 0.9\n\n[step.export]";
    workspace.edit("[step.export]", gate);
    let events = workspace.build(&["export"]);
    assert!(events.ran().contains(&"teacher.evaluate"), "{:?}", events.ran());
    let metrics = std::fs::read_to_string(workspace.path("out/small/export/metrics.json")).unwrap();
    assert!(metrics.contains("\"baseline\""), "{metrics}");
}

/// A model meets another data set with its own tokenizer, whatever vocabulary that set would have had.
#[test]
fn a_model_reads_other_data_with_its_own_tokenizer() {
    let workspace = Workspace::new();
    let rows = texts(40, 0).replace("film", "movie").replace("plot", "story");
    workspace.write("others.tsv", rows);
    let others = r#"
[data.others]
source = "text"
train = "others.tsv"
test = "test.tsv"
max_length = 12

[step.elsewhere]
kind = "evaluate"
input = "export"
data = "others"

[step.export]"#;
    workspace.edit("[step.export]", others);
    let events = workspace.build(&[]);
    let accuracy = |action: &str| {
        let finished = |e: &&serde_json::Value| e["event"] == "action_finished" && e["action"] == action;
        events.0.iter().find(finished).unwrap()["metrics"]["accuracy"]
            .as_f64()
            .unwrap()
    };
    assert_eq!(
        accuracy("elsewhere.evaluate"),
        accuracy("export.evaluate"),
        "the test rows are the same"
    );
    assert!(events.ran().contains(&"data:others:as:teacher"), "{:?}", events.ran());
}

#[test]
fn a_damaged_cache_is_repaired_by_the_next_build() {
    let workspace = Workspace::new();
    let first = workspace.build(&[]);
    let blobs: Vec<_> = walk(&workspace.path("cache/blobs"));
    assert!(blobs.len() > EVERYTHING);
    for blob in &blobs {
        std::fs::remove_file(blob).unwrap();
        std::fs::write(blob, b"damaged").unwrap();
    }
    let second = workspace.build(&[]);
    assert_eq!(second.trees(), first.trees());
    assert_eq!(workspace.build(&[]).ran(), [""; 0]);
}

/// A bit of an export's weights flips, and the length stays: it is found when the export is put in its place.
#[test]
fn a_flipped_bit_in_a_target_is_repaired_within_the_build() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let exported = std::fs::read(workspace.path("out/small/export/model.safetensors")).unwrap();
    let blobs = walk(&workspace.path("cache/blobs"));
    let blob = blobs
        .iter()
        .find(|blob| std::fs::read(blob).unwrap() == exported)
        .unwrap();
    let mut flipped = exported.clone();
    flipped[exported.len() / 2] ^= 1;
    std::fs::remove_file(blob).unwrap();
    std::fs::write(blob, flipped).unwrap();
    std::fs::remove_dir_all(workspace.path("out")).unwrap();
    assert_eq!(workspace.build(&[]).ran(), ["export"]);
    assert!(std::fs::read(workspace.path("out/small/export/model.safetensors")).unwrap() == exported);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

#[test]
fn named_steps_are_built_with_what_they_need() {
    let workspace = Workspace::new();
    assert_eq!(
        workspace.build(&["teacher"]).ran(),
        ["data:texts", "data:texts:train", "teacher", "teacher.evaluate"]
    );
    let run = workspace.run(&["build", "recipe.toml", "teachr"]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.contains("its steps are teacher, prune, quantize, export"),
        "{}",
        run.stderr
    );
}

#[test]
fn overrides_and_profiles_are_part_of_what_is_built() {
    let workspace = Workspace::new();
    workspace.edit(
        "[data.texts]",
        "[profile.short.step.teacher]\nepochs = 1\n\n[data.texts]",
    );
    workspace.build(&["teacher"]);
    let by_profile = workspace.build(&["teacher", "--profile", "short"]);
    assert_eq!(by_profile.ran(), ["teacher", "teacher.evaluate"]);
    assert_eq!(
        workspace.build(&["teacher", "--set", "step.teacher.epochs=1"]).ran(),
        [""; 0]
    );
}
