//! `orchestrate cache`: what the cache holds, whether it is whole, and what may go.

use crate::workspace::{Run, Workspace};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The largest file below `folder`.
fn largest(folder: &Path) -> PathBuf {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((std::fs::metadata(&path).unwrap().len(), path));
            }
        }
    }
    found.into_iter().max().unwrap().1
}

/// Gives the quantization another learning rate: one step runs again, and what it made before is kept.
fn edit_rate(workspace: &Workspace, rate: &str) {
    let text = std::fs::read_to_string(workspace.path("recipe.toml")).unwrap();
    let (before, after) = text.split_once("learning_rate = ").unwrap();
    let after = &after[after.find('\n').unwrap()..];
    workspace.write("recipe.toml", format!("{before}learning_rate = {rate}{after}"));
}

/// The number of files that `cache stat` tells of a section.
fn count(workspace: &Workspace, section: &str) -> usize {
    let told = workspace.succeed(&["cache", "stat"]).stdout;
    let line = told.lines().find_map(|line| line.strip_prefix(section)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_an_edit_left_behind_goes_and_the_build_is_none_the_wiser() {
    let workspace = Workspace::new();
    let first = workspace.build(&[]);
    workspace.edit("targets = [0.25, 0.5]", "targets = [0.25, 0.4]");
    let second = workspace.build(&[]);
    let export = workspace.export("out/small/export");
    let results = count(&workspace, "results");
    assert!(results > first.trees().len());

    let all_needed = workspace.succeed(&["cache", "gc"]).stdout;
    assert!(all_needed.starts_with("removed 0B: 0 results"), "{all_needed}");
    let told = workspace
        .succeed(&["cache", "gc", "--keep-last", "1", "--dry-run"])
        .stdout;
    assert!(told.starts_with("would remove "), "{told}");
    assert_eq!(count(&workspace, "results"), results);
    let done = workspace.succeed(&["cache", "gc", "--keep-last", "1"]).stdout;
    assert_eq!(
        done,
        told.replace("would remove", "removed").replace("would leave", "left")
    );
    assert_eq!(count(&workspace, "results"), second.trees().len());

    assert!(workspace.build(&[]).ran().is_empty());
    assert_eq!(workspace.export("out/small/export"), export);
    workspace.edit("targets = [0.25, 0.4]", "targets = [0.25, 0.5]");
    let again = workspace.build(&[]);
    assert!(
        !again.ran().is_empty() && again.ran().iter().all(|name| *name != "teacher.train"),
        "{:?}",
        again.ran()
    );
    assert_eq!(again.trees(), first.trees());
    workspace.succeed(&["cache", "verify"]);
}

#[test]
fn neither_smoke_runs_nor_edits_cost_what_the_full_recipe_or_a_lock_needs() {
    let workspace = Workspace::new();
    let recipe = std::fs::read_to_string(workspace.path("recipe.toml")).unwrap();
    workspace.write(
        "recipe.toml",
        format!("{recipe}\n[profile.smoke]\nstep.teacher.epochs = 1\n"),
    );
    let first = workspace.build(&[]);
    for seed in ["4", "5", "6"] {
        workspace.build(&["--profile", "smoke", "--set", &format!("recipe.seed={seed}")]);
    }
    workspace.succeed(&["cache", "gc"]);
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "each profile has its last runs");
    workspace.succeed(&["lock", "recipe.toml"]);
    workspace.build(&["--set", "recipe.seed=7"]);
    workspace.succeed(&["cache", "gc", "--keep-last", "1"]);
    let locked = workspace.build(&["--locked"]);
    assert_eq!(
        (locked.ran(), locked.trees()),
        (vec![], first.trees()),
        "a lock keeps what it names"
    );
    std::fs::remove_file(workspace.path("recipe.lock")).unwrap();
    workspace.succeed(&["cache", "gc", "--keep-last", "0"]);
    assert_eq!(count(&workspace, "results"), 0, "until it is gone");
}

#[test]
fn damage_is_found_and_healed() {
    let workspace = Workspace::new();
    let first = workspace.build(&[]);
    let export = workspace.export("out/small/export");
    let whole = workspace.succeed(&["cache", "verify"]).stdout;
    assert!(whole.ends_with(": all whole\n"), "{whole}");
    let blob = largest(&workspace.path("cache/blobs"));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[99] ^= 4;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    let result = largest(&workspace.path("cache/results"));
    std::fs::write(&result, "{").unwrap();
    let found = workspace.run(&["cache", "verify"]);
    assert_eq!(found.code, Some(3), "{}{}", found.stdout, found.stderr);
    for file in [&blob, &result] {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(found.stdout.contains(name), "{}", found.stdout);
    }
    assert!(
        found.stdout.ends_with("2 damaged; `--repair` puts them aside\n"),
        "{}",
        found.stdout
    );
    workspace.succeed(&["cache", "verify", "--repair"]);
    workspace.succeed(&["cache", "verify"]);
    assert_eq!(count(&workspace, "quarantine"), 2);
    std::fs::remove_dir_all(workspace.path("out")).unwrap();
    assert_eq!(workspace.build(&[]).trees(), first.trees());
    assert_eq!(workspace.export("out/small/export"), export);
}

#[test]
fn roots_stay_also_when_they_are_too_large_and_bytes_made_on_the_way_do_not() {
    let (workspace, clean) = (Workspace::new(), Workspace::new());
    workspace.build(&[]);
    let [results, blobs] = ["results", "blobs"].map(|section| count(&workspace, section));
    let run = workspace.succeed(&["cache", "gc", "--max-size", "1kB"]);
    assert!(run.stderr.contains("more than --max-size"), "{}", run.stderr);
    assert_eq!(count(&workspace, "results"), results);
    assert!(count(&workspace, "blobs") < blobs, "{}", run.stdout);
    std::fs::remove_dir_all(workspace.path("out")).unwrap();
    assert_eq!(workspace.build(&[]).ran(), [""; 0], "nothing reads what is gone");
    workspace.succeed(&["cache", "verify"]);
    // An edit needs some of it: that is made anew, as it was.
    edit_rate(&workspace, "2e-4");
    edit_rate(&clean, "2e-4");
    let edited = workspace.build(&[]);
    assert!(edited.ran().contains(&"quantize") && !edited.ran().contains(&"teacher"));
    assert_eq!(edited.trees(), clean.build(&[]).trees());
    assert_eq!(workspace.export("out/small/export"), clean.export("out/small/export"));
    workspace.succeed(&["cache", "gc", "--max-size", "1kB"]);
    let checked = workspace.succeed(&["build", "recipe.toml", "--check"]).stdout;
    assert!(checked.contains("14 of 14 actions gave the same bytes"), "{checked}");
    let nothing_old = workspace.succeed(&["cache", "gc", "--max-age", "30d", "--keep-last", "0"]);
    assert!(nothing_old.stdout.starts_with("removed 0B"), "{}", nothing_old.stdout);
    workspace.succeed(&["cache", "gc", "--keep-last", "0"]);
    assert_eq!(count(&workspace, "results") + count(&workspace, "blobs"), 0);
}

#[test]
fn a_build_keeps_the_cache_below_its_cap() {
    let workspace = Workspace::new();
    let small = ["build", "recipe.toml", "--cache-size", "1kB"];
    let removed = |run: &Run| {
        run.stderr
            .lines()
            .filter(|line| line.starts_with("cache: removed "))
            .count()
    };
    let first = workspace.succeed(&small);
    assert!(
        first.stderr.contains("the rest is what the last runs were asked for"),
        "{}",
        first.stderr
    );
    for rate in ["2e-4", "3e-4", "4e-4"] {
        edit_rate(&workspace, rate);
        assert_eq!(
            removed(&workspace.succeed(&["build", "recipe.toml", "--cache-size", "none"])),
            0
        );
    }
    let results = count(&workspace, "results");
    assert_eq!(removed(&workspace.succeed(&small)), 0, "nothing ran");
    edit_rate(&workspace, "5e-4");
    let last = workspace.succeed(&small);
    assert_eq!(removed(&last), 1, "{}", last.stderr);
    assert!(count(&workspace, "results") < results);
    assert_eq!(removed(&workspace.succeed(&["build", "recipe.toml"])), 0);
    let bad = workspace.run(&["build", "recipe.toml", "--cache-size", "much"]);
    assert_eq!(bad.code, Some(2), "{}", bad.stderr);
}

#[test]
fn garbage_is_not_collected_beside_a_build() {
    let workspace = Workspace::new();
    workspace.edit("epochs = 2", "epochs = 5000");
    let mut build = workspace
        .command(&["build", "recipe.toml", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(build.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"action_started\"")));
    let refused = workspace.run(&["cache", "gc", "--keep-last", "0"]);
    let stat = workspace.run(&["cache", "stat"]);
    build.kill().unwrap();
    build.wait().unwrap();
    assert_eq!(refused.code, Some(6), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("is in use by a running build"),
        "{}",
        refused.stderr
    );
    assert_eq!(stat.code, Some(0), "looking is allowed: {}", stat.stderr);
    workspace.succeed(&["cache", "gc", "--keep-last", "0"]);
}

#[test]
fn mistakes_are_told() {
    let workspace = Workspace::new();
    let usage = |arguments: &[&str], part: &str| {
        let Run { code, stderr, .. } = workspace.run(arguments);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    };
    usage(
        &["cache", "stat"],
        "there is no cache cache; name it with `--cache DIR`",
    );
    assert!(!workspace.path("cache").exists());
    usage(&["cache", "gc", "--max-size", "10"], "such as 500MB or 10GiB");
    usage(&["cache", "gc", "--max-age", "soon"], "such as 12h or 30d");
    let other = workspace.run(&["cache", "verify", "--cache", "."]);
    assert_eq!(other.code, Some(6), "{}", other.stderr);
    assert!(other.stderr.contains("is no cache"), "{}", other.stderr);
}
