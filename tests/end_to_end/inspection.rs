//! What a user asks about past and running builds: `runs`, `log`, `diff`, `status`, `why --against`, `cache ls` and `rm`.

use crate::workspace::{Run, Workspace};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn json_lines(run: &Run) -> Vec<Value> {
    run.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The ids of the recorded runs, oldest first.
fn ids(workspace: &Workspace) -> Vec<String> {
    let runs = json_lines(&workspace.succeed(&["runs", "--format", "json"]));
    runs.iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
}

fn usage(workspace: &Workspace, arguments: &[&str], part: &str) {
    let run = workspace.run(arguments);
    assert_eq!(run.code, Some(2), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains(part), "{}", run.stderr);
}

/// A workspace whose recipe was built, then its teacher alone, then all after an edit of a pruning.
fn built_thrice() -> Workspace {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.build(&["teacher"]);
    workspace.edit("targets = [0.25, 0.5]", "targets = [0.25, 0.75]");
    workspace.build(&[]);
    workspace
}

#[test]
fn runs_are_listed_the_newest_last() {
    let workspace = built_thrice();
    let runs = json_lines(&workspace.succeed(&["runs", "recipe.toml", "--format", "json"]));
    let told: Vec<_> = runs
        .iter()
        .map(|run| (run["executed"].as_u64().unwrap(), run["cached"].as_u64().unwrap()))
        .collect();
    assert_eq!((told.len(), told[0], told[1]), (3, (14, 0), (0, 4)));
    for run in &runs {
        assert_eq!((&run["recipe"], &run["outcome"]), (&"small".into(), &"done".into()));
        let started = run["started"].as_str().unwrap();
        assert!(
            started.starts_with("20") && started.ends_with('Z') && started.len() == 20,
            "{started}"
        );
    }
    let table = workspace.succeed(&["runs", "small", "-n", "2"]).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("run         recipe  started  "), "{table}");
    assert!(lines[2].starts_with(runs[2]["run"].as_str().unwrap()), "{table}");
    assert!(lines.len() == 3 && lines[1].ends_with("  done"), "{table}");
    usage(&workspace, &["runs", "large"], "recipes with runs: small");
}

#[test]
fn a_run_is_named_by_the_beginning_of_its_id_or_from_the_end() {
    let workspace = built_thrice();
    let ids = ids(&workspace);
    let of =
        |run: &str| json_lines(&workspace.succeed(&["diff", run, run, "--format", "json"]))[0]["old"]["run"].clone();
    assert_eq!(
        [of("last"), of("last~2"), of(&ids[1]), of(&ids[0][..8])],
        [&ids[2], &ids[0], &ids[1], &ids[0]].map(|id| Value::from(id.as_str()))
    );
    usage(
        &workspace,
        &["diff", "last~3", "last"],
        "there is no run `last~3`: 3 are recorded",
    );
    usage(
        &workspace,
        &["diff", "0123456789abcdef", "last"],
        "there is no run `0123456789abcdef`",
    );
    usage(
        &workspace,
        &["diff", "first", "last"],
        "as `orchestrate runs` shows them",
    );
}

#[test]
fn the_log_of_a_step_is_that_of_when_it_ran() {
    let workspace = built_thrice();
    let ids = ids(&workspace);
    let logged = json_lines(&workspace.succeed(&["log", "recipe.toml", "teacher", "--format", "json"]));
    let names: Vec<&str> = logged.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(names, ["teacher", "teacher.evaluate", "teacher.logits.texts"]);
    for line in &logged {
        assert_eq!(
            (&line["outcome"], &line["run"]),
            (&"cached".into(), &ids[2].as_str().into())
        );
        assert_eq!(line["ran_in"], ids[0], "{line}");
        assert!(
            line["log"].is_string() && line["peak_memory_bytes"].as_u64() > Some(0),
            "{line}"
        );
    }
    let human = workspace.succeed(&["log", "small", "teacher", "--run", &ids[0]]).stdout;
    let start = format!("teacher: ran in run {} from 20", ids[0]);
    assert!(human.starts_with(&start) && human.contains(", peak memory "), "{human}");
    usage(
        &workspace,
        &["log", "small", "prune", "--run", "last~1"],
        "steps of its runs: data:texts, ",
    );
    usage(
        &workspace,
        &["log", "small", "prunes"],
        "step `prunes` has no part in any recorded run",
    );
}

#[test]
fn the_log_of_a_cached_step_has_what_it_printed_when_it_ran() {
    let workspace = Workspace::new();
    workspace.edit("targets = [0.25, 0.5]", "targets = [0.25, 0.5]\nround_to = 32");
    let line = "bert.encoder.layer.0.intermediate: 25 % of 32 neurons were to go, 0 % are gone: lower round_to (now 32), or ask for less";
    let told = workspace.succeed(&["build", "recipe.toml", "prune"]).stderr;
    assert!(told.contains(line), "{told}");
    let again = workspace.succeed(&["build", "recipe.toml", "prune"]);
    assert!(!again.stderr.contains(line), "nothing runs: {}", again.stderr);
    let log = workspace.succeed(&["log", "recipe.toml", "prune"]).stdout;
    let of_round: Vec<&str> = log
        .lines()
        .skip_while(|line| !line.starts_with("prune.prune-1: cached; ran in run "))
        .collect();
    assert!(
        of_round.len() > 1 && of_round[1].starts_with("  ") && of_round[1].ends_with(line),
        "{log}"
    );
}

#[test]
fn a_failed_step_keeps_its_error() {
    let workspace = Workspace::new();
    workspace.edit("vocab_size = 200", "label_column = \"lable\"");
    workspace.run(&["build", "recipe.toml"]);
    let log = workspace.succeed(&["log", "recipe.toml", "data:texts"]).stdout;
    assert!(log.starts_with("data:texts: failed in run "), "{log}");
    assert!(log.contains("\n  error: ") && log.contains("lable"), "{log}");
    let skipped = workspace.succeed(&["log", "small", "teacher", "--run", "last"]).stdout;
    assert!(skipped.contains("teacher: skipped: data:texts failed\n"), "{skipped}");
    assert!(workspace.succeed(&["runs"]).stdout.ends_with("  failed\n"));
}

#[test]
fn runs_are_compared_step_by_step() {
    let workspace = built_thrice();
    let diff = workspace.succeed(&["diff", "last~2"]).stdout;
    assert!(diff.contains("\nteacher: ran, cached; artifacts equal\n"), "{diff}");
    assert!(diff.contains("\nprune: ran, ran; artifacts differ\n"), "{diff}");
    assert!(
        diff.contains("\n  prune.prune-2: heads 0.5 → 0.75; neurons 0.5 → 0.75\n"),
        "{diff}"
    );
    assert!(diff.contains("\n  measured: prune.evaluate: latency_ms_p50 "), "{diff}");
    assert!(diff.ends_with("\n3 of 5 steps have other artifacts\n"), "{diff}");
    assert!(diff.contains("\nrecipe: says something else, "), "{diff}");
    assert!(
        !diff.contains("\nprofile: ") && !diff.contains("\noverrides: "),
        "{diff}"
    );
    let code = |arguments: &[&str]| workspace.run(&[&["diff", "--exit-code"], arguments].concat()).code;
    assert_eq!((code(&["last~2"]), code(&["last", "last"])), (Some(1), Some(0)));
    let lines = json_lines(&workspace.succeed(&["diff", "last~2", "last", "--format", "json"]));
    let prune = lines.iter().find(|line| line["step"] == "prune").unwrap();
    let rounds = prune["actions"].as_array().unwrap();
    let round = rounds
        .iter()
        .find(|action| action["action"] == "prune.prune-2")
        .unwrap();
    let [old, new] = [0, 1].map(|run| round["tree"][run].as_str().unwrap()[..10].to_owned());
    let artifact = format!("\n  prune.prune-2: artifact {old} → {new}\n");
    assert!(old != new && diff.contains(&artifact), "{artifact}{diff}");
    let evaluate = prune["actions"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&prune["equal"], &evaluate["changes"][0]),
        (&false.into(), &"input model changed".into())
    );
    assert!(evaluate["metrics"]["accuracy"][1].is_number(), "{evaluate}");
    // What a run did not build is not there.
    let part = workspace.succeed(&["diff", "last~1"]).stdout;
    assert!(part.contains("\nexport: not there, ran; artifacts differ\n"), "{part}");
}

#[test]
fn runs_are_compared_by_what_the_recipe_said() {
    let workspace = Workspace::new();
    let recipe = std::fs::read_to_string(workspace.path("recipe.toml")).unwrap();
    let build = |more: &[&str]| workspace.build(&[&["teacher"], more].concat());
    let with_profile = format!("{recipe}\n[profile.smoke]\nstep.teacher.epochs = 1\n");
    workspace.write("recipe.toml", &with_profile);
    build(&[]);
    // Comments, and profiles that are not chosen, say nothing.
    let edited = with_profile.replace("epochs = 1", "epochs = 3");
    workspace.write("recipe.toml", format!("# a comment\n{edited}"));
    build(&[]);
    build(&["--profile", "smoke", "--set", "recipe.seed=5", "--device", "cpu"]);
    let same = workspace.succeed(&["diff", "last~2", "last~1"]).stdout;
    assert!(same.contains("\nrecipe: says the same\n\n"), "{same}");
    let other = workspace.succeed(&["diff", "last~1"]).stdout;
    assert!(other.contains("\nrecipe: says something else, "), "{other}");
    let variant = "\nprofile: none → smoke\noverrides: none → recipe.seed=5 recipe.device=cpu\n\n";
    assert!(other.contains(variant), "{other}");
    let runs = json_lines(&workspace.succeed(&["runs", "--format", "json"]));
    assert_eq!(
        (&runs[2]["profile"], &runs[0]["profile"]),
        (&"smoke".into(), &Value::Null)
    );
    assert_eq!(runs[0]["recipe_digest"], runs[1]["recipe_digest"]);
    assert_eq!(runs[2]["overrides"][0], "recipe.seed=5");
}

#[test]
fn why_compares_with_any_run() {
    let workspace = built_thrice();
    let id = &ids(&workspace)[0];
    let told = workspace
        .succeed(&["why", "recipe.toml", "prune", "--against", "last~2"])
        .stdout;
    assert!(told.contains(&format!("prune.prune-1: as in run {id}, key ")), "{told}");
    let changed = format!("prune.prune-2: since run {id}\n  heads 0.5 → 0.75\n  neurons 0.5 → 0.75\n");
    assert!(told.contains(&changed), "{told}");
    assert!(
        told.contains(&format!(
            "prune.finetune-2: since run {id}\n  input model changed\n  prune.prune-2: see above\n"
        )),
        "{told}"
    );
    let same = workspace
        .succeed(&["why", "recipe.toml", "prune", "--against", "last"])
        .stdout;
    assert!(same.lines().all(|line| line.contains(": as in run ")), "{same}");
    let partly = workspace
        .succeed(&["why", "recipe.toml", "prune", "--against", "last~1"])
        .stdout;
    assert!(partly.contains("prune.prune-1: has no key in run "), "{partly}");
}

#[test]
fn results_are_listed_and_removed_step_by_step() {
    let workspace = built_thrice();
    let results = json_lines(&workspace.succeed(&["cache", "ls", "recipe.toml", "--format", "json"]));
    assert_eq!(results.len(), 14 + 7, "rounds, quantization and export twice");
    let trained = results.iter().find(|result| result["action"] == "teacher").unwrap();
    assert_eq!((&trained["kind"], &trained["needed"]), (&"train".into(), &true.into()));
    assert!(
        trained["own_bytes"].as_u64() < trained["bytes"].as_u64(),
        "the tokenizer is shared: {trained}"
    );
    let table = workspace.succeed(&["cache", "ls"]);
    assert_eq!(table.stdout.lines().count(), 1 + results.len());
    assert!(table.stderr.starts_with("21 results; bytes: "), "{}", table.stderr);

    usage(
        &workspace,
        &["cache", "rm", "recipe.toml", "prunes"],
        "are data:texts, teacher, prune, quantize, export",
    );
    let told = workspace
        .succeed(&["cache", "rm", "recipe.toml", "quantize", "--dry-run"])
        .stdout;
    let done = workspace.succeed(&["cache", "rm", "recipe.toml", "quantize"]).stdout;
    assert_eq!(told.replace("would remove", "removed"), done);
    assert_eq!(done.lines().count(), 2, "{done}");
    assert_eq!(workspace.build(&[]).ran(), ["quantize", "quantize.evaluate"]);
    workspace.succeed(&["cache", "rm", "recipe.toml", "data:texts", "quantize"]);
    let nothing = workspace.succeed(&["cache", "rm", "recipe.toml", "data:texts"]);
    assert_eq!(nothing.stdout, "", "{}", nothing.stderr);
    workspace.succeed(&["cache", "verify"]);
    assert_eq!(workspace.build(&[]).ran().len(), 4, "the data and what was quantized");
}

#[test]
fn the_status_tells_running_builds_from_those_that_were_killed() {
    let workspace = Workspace::new();
    usage(&workspace, &["status"], "there is no cache cache");
    workspace.build(&["teacher"]);
    assert!(
        workspace
            .succeed(&["status"])
            .stdout
            .starts_with("nothing is running\n")
    );
    workspace.edit("epochs = 2", "epochs = 5000");
    let mut build = workspace
        .command(&["build", "recipe.toml", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(build.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"action_started\"")));
    // What was told is written down before the build waits for it, which may be a moment later.
    let status = || workspace.run(&["status"]).stdout;
    let late = (0..400).map(|_| status()).find(|human| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        human.contains("\n  teacher: since 20")
    });
    let human = late.unwrap_or_else(status);
    let lines = json_lines(&workspace.run(&["status", "--format", "json"]));
    build.kill().unwrap();
    build.wait().unwrap();
    let start = format!(
        "running: small, run {}, process {}, since 20",
        ids(&workspace)[1],
        build.id()
    );
    assert!(
        human.starts_with(&start) && human.contains("\n  teacher: since 20"),
        "{human}"
    );
    assert_eq!(lines[0]["action"], "teacher");
    assert_eq!(
        (&lines[0]["state"], &lines[0]["process"]),
        (&"running".into(), &build.id().into())
    );
    assert_eq!(
        (&lines[1]["status"], &lines[1]["outcome"]),
        (&"run".into(), &"running".into())
    );
    let after = workspace.succeed(&["status"]).stdout;
    assert!(
        after.starts_with("nothing is running\n") && after.ends_with("  ended without a word\n"),
        "{after}"
    );
}

/// Runs the binary where the folder `ro` is a read-only disk that holds what `cache` holds; nothing where that cannot
/// be arranged.
fn run_on_read_only(workspace: &Workspace, arguments: &[&str]) -> Option<Output> {
    let script = "mount -t tmpfs tmpfs ro && cp -a cache/. ro && mount -o remount,ro ro || exit 99; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_orchestrate"))
        .args(arguments)
        .args(["--cache", "ro"])
        .current_dir(workspace.path(""))
        .env("NO_COLOR", "1");
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_arranged = output.status.code() != Some(99) && !said.contains("unshare: ");
    is_arranged.then_some(output)
}

#[test]
fn whoever_only_asks_is_answered_by_a_cache_that_cannot_be_written() {
    let workspace = built_thrice();
    std::fs::create_dir(workspace.path("ro")).unwrap();
    let asked: [&[&str]; 9] = [
        &["status"],
        &["runs"],
        &["log", "recipe.toml", "teacher"],
        &["diff", "last~2"],
        &["cache", "stat"],
        &["cache", "ls", "--format", "json"],
        &["cache", "verify"],
        &["why", "recipe.toml", "prune"],
        &["plan", "recipe.toml"],
    ];
    for arguments in asked {
        let Some(output) = run_on_read_only(&workspace, arguments) else {
            eprintln!("skipped: file systems cannot be mounted here");
            return;
        };
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{arguments:?}: {told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(told, workspace.succeed(arguments).stdout, "{arguments:?}");
    }
    let build = run_on_read_only(&workspace, &["build", "recipe.toml"]).unwrap();
    let told = String::from_utf8_lossy(&build.stderr);
    assert_eq!(build.status.code(), Some(6), "{told}");
    assert!(
        told.contains("Read-only file system") && told.contains("--cache DIR"),
        "{told}"
    );
    std::fs::create_dir(workspace.path("empty")).unwrap();
    workspace.succeed(&["runs", "--cache", "empty"]);
    assert_eq!(std::fs::read_dir(workspace.path("empty")).unwrap().count(), 0);
}
