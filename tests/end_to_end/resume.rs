//! A build that is interrupted or killed in the middle of a training goes on there, and ends in the same digests.

use crate::workspace::{Events, Workspace};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// A thousand steps for the teacher: enough to be interrupted in.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.edit("epochs = 2", "epochs = 200");
    workspace
}

/// A build that got a signal.
struct Signalled {
    code: Option<i32>,
    events: Vec<Value>,
    stderr: String,
}

/// Builds with the arguments `more`, and sends `signal` when the training of `action` has done a few steps.
fn signalled(workspace: &Workspace, signal: &str, action: &str, more: &[&str]) -> Signalled {
    let mut build = workspace
        .command(&[&["build", "recipe.toml", "--format", "json"], more].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let is_at_work = |event: &Value| {
        event["event"] == "action_progress" && event["action"] == action && event["done"].as_u64().unwrap() >= 3
    };
    let mut events = Vec::new();
    let mut is_sent = false;
    for line in BufReader::new(build.stdout.take().unwrap()).lines() {
        let event = serde_json::from_str(&line.unwrap()).unwrap();
        if !is_sent && is_at_work(&event) {
            let id = build.id().to_string();
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
            is_sent = true;
        }
        events.push(event);
    }
    let mut stderr = String::new();
    build.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = build.wait().unwrap().code();
    assert!(is_sent, "{action} did not run: {stderr}");
    Signalled { code, events, stderr }
}

/// After how many steps `action` went on.
fn resumed_after(events: &Events, action: &str) -> f64 {
    let finished = |event: &&Value| event["event"] == "action_finished" && event["action"] == action;
    let finished = events.0.iter().find(finished).unwrap();
    finished["measurements"]["resumed_after_step"].as_f64().unwrap_or(0.0)
}

fn checkpoints(workspace: &Workspace) -> usize {
    let folders = |path: &std::path::Path| -> Vec<_> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let shards = folders(&workspace.path("cache/checkpoints"));
    let trajectories = shards.iter().flat_map(|shard| folders(shard));
    trajectories.map(|trajectory| folders(&trajectory).len()).sum()
}

#[test]
fn an_interrupted_training_goes_on_where_it_was() {
    let undisturbed = workspace();
    let expected = undisturbed.build(&[]);
    let disturbed = workspace();
    for signal in ["-INT", "-TERM"] {
        let stopped = signalled(&disturbed, signal, "teacher", &[]);
        assert_eq!(stopped.code, Some(130), "{}", stopped.stderr);
        let skipped = |event: &&Value| event["event"] == "action_skipped" && event["action"] == "teacher";
        let skipped = stopped.events.iter().find(skipped).unwrap();
        let because = skipped["because"].as_str().unwrap();
        assert!(because.starts_with("stopped after step "), "{because}");
        assert!(
            because.ends_with(" of 1000, from which the next build goes on"),
            "{because}"
        );
        assert_eq!(checkpoints(&disturbed), 1);
    }
    let rest = disturbed.build(&[]);
    assert!(resumed_after(&rest, "teacher") >= 6.0);
    assert_eq!(rest.trees(), expected.trees());
    assert!(disturbed.export("out/small/export") == undisturbed.export("out/small/export"));
    assert_eq!(checkpoints(&disturbed), 0, "they go with the result");
    let again = disturbed.build(&[]);
    assert_eq!(again.ran(), [""; 0], "how often it was interrupted is no part of a key");
}

/// What a terminal shows.
#[test]
fn an_interrupted_build_says_how_to_go_on() {
    let workspace = workspace();
    workspace.edit("epochs = 200", "epochs = 5000");
    let build = workspace
        .command(&["build", "recipe.toml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut build = build.unwrap();
    let mut told = String::new();
    for line in BufReader::new(build.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with("run     teacher:") {
            let id = build.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        }
        told += &(line + "\n");
    }
    assert_eq!(build.wait().unwrap().code(), Some(130));
    assert!(told.contains("stopping: trainings keep a checkpoint"), "{told}");
    assert!(told.contains("teacher: stopped after step "), "{told}");
    assert!(
        told.ends_with("interrupted; the same command goes on from here\n"),
        "{told}"
    );
}

#[test]
fn a_killed_training_goes_on_from_its_last_checkpoint() {
    let undisturbed = workspace();
    let expected = undisturbed.build(&["--checkpoint-every", "never"]);
    let disturbed = workspace();
    let every_step = ["--checkpoint-every", "0"];
    for action in ["teacher", "prune.finetune-2", "quantize"] {
        let killed = signalled(&disturbed, "-KILL", action, &every_step);
        assert_eq!(killed.code, None);
    }
    let rest = disturbed.build(&every_step);
    assert!(resumed_after(&rest, "quantize") > 0.0);
    assert_eq!(rest.trees(), expected.trees());
}

#[test]
fn more_epochs_go_on_if_the_schedule_allows_it() {
    for (schedule, from, forecast) in [
        ("lr_schedule = \"constant\"\nwarmup = 0", 10.0, "it goes on where"),
        (
            "lr_schedule = \"warmup_stable_decay\"\nlr_decay = 0.3",
            7.0,
            "it goes on where",
        ),
        ("lr_schedule = \"constant\"", 0.0, "it starts anew, since the warm-up"),
        (
            "lr_schedule = \"cosine\"",
            0.0,
            "it starts anew, since the rate of every step",
        ),
    ] {
        let workspace = Workspace::new();
        workspace.edit("epochs = 2", &format!("epochs = 2\n{schedule}"));
        workspace.build(&["teacher"]);
        workspace.edit("epochs = 2", "epochs = 4");
        let why = workspace.succeed(&["why", "recipe.toml", "teacher"]).stdout;
        assert!(
            why.contains("training.epochs 2 → 4\n") && why.contains(forecast),
            "{why}"
        );
        let longer = workspace.build(&["teacher"]);
        assert_eq!(resumed_after(&longer, "teacher"), from, "{schedule}");
        let elsewhere = ["teacher", "--cache", "elsewhere"];
        assert_eq!(workspace.build(&elsewhere).trees(), longer.trees(), "{schedule}");
    }
}
