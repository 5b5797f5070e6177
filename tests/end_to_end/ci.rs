//! What a build tells a continuous-integration service.

use crate::lock::tamper;
use crate::workspace::{Run, Workspace};
use std::fs;

const GATES: &str = "[[gate]]\nstep = \"export\"\nmetric = \"file_bytes\"\nmax = 100\n\n[[gate]]\nstep = \"export\"\n\
                     metric = \"file_bytes\"\nmin = 1\n\n[step.export]";

/// Builds with both reports.
fn build(workspace: &Workspace, more: &[&str]) -> Run {
    let all = [
        &["build", "recipe.toml", "--ci", "github", "--junit", "reports/junit.xml"],
        more,
    ]
    .concat();
    let output = workspace
        .command(&all)
        .env("GITHUB_STEP_SUMMARY", workspace.path("summary.md"))
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// `text` with every number that was measured, and every digest, masked.
fn without_measurements(workspace: &Workspace, text: &str) -> String {
    let masked = workspace.masked(text);
    let word = |word: &str| {
        let is_digest = word.len() == 66 && word.starts_with('`');
        let is_time = word.starts_with("time=\"");
        match (is_digest, is_time) {
            (true, _) => "`[digest]`".to_owned(),
            (_, true) => format!("time=\"[time]\"{}", word.rsplit('"').next().unwrap()),
            (false, false) => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    masked.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn read(workspace: &Workspace, name: &str) -> String {
    without_measurements(workspace, &fs::read_to_string(workspace.path(name)).unwrap())
}

/// The workflow commands.
fn marks(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.starts_with("::")).collect()
}

/// What the workflow of docs/ci.md runs, in the smoke profile, with a repository's recipe and lock.
#[test]
fn the_workflow_of_the_documentation_runs() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = fs::read_to_string(format!("{root}/docs/ci.md")).unwrap();
    let lines = page.lines().map(|line| line.trim().trim_start_matches("run: "));
    let commands: Vec<&str> = lines.filter_map(|line| line.strip_prefix("orchestrate ")).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let workspace = Workspace::empty();
    fs::create_dir(workspace.path("recipes")).unwrap();
    for file in ["bert-small.toml", "bert-small.smoke.lock"] {
        fs::copy(format!("{root}/recipes/{file}"), workspace.path("recipes").join(file)).unwrap();
    }
    for command in commands {
        let smoke: &[&str] = if command.starts_with("build ") {
            &["--profile", "smoke"]
        } else {
            &[]
        };
        let words: Vec<&str> = command.split_whitespace().chain(smoke.iter().copied()).collect();
        let run = workspace.run(&words);
        if run.code == Some(5) && run.stderr.contains("numerics ") {
            eprintln!("skipped: the lock was made in another numerics class");
            return;
        }
        assert_eq!(run.code, Some(0), "{command}: {}", run.stderr);
    }
    assert!(workspace.path("report.xml").is_file() && workspace.path("out/bert-small/export").is_dir());
    // The lock that the build of the page is held to is there, too.
    assert!(fs::exists(format!("{root}/recipes/bert-small.lock")).unwrap());
}

#[test]
fn steps_and_gates_are_test_cases() {
    let workspace = Workspace::new();
    workspace.edit("[step.export]", GATES);
    let run = build(&workspace, &[]);
    assert_eq!(run.code, Some(7), "{}", run.stderr);
    let bytes = fs::metadata(workspace.path("out/small/export/model.safetensors"))
        .unwrap()
        .len();
    let found = |text: String| text.replace(&bytes.to_string(), "[bytes]");
    insta::assert_snapshot!(found(read(&workspace, "reports/junit.xml")));
    let expected =
        format!("::error file=recipe.toml,line=42,title=gate not met::export file_bytes ≤ 100, found {bytes}");
    assert_eq!(marks(&run), [expected]);
}

#[test]
fn the_step_summary_has_the_table_the_gates_and_the_digests() {
    let workspace = Workspace::new();
    workspace.edit("[step.export]", GATES);
    workspace.write("summary.md", "what was there\n");
    build(&workspace, &[]);
    let summary = fs::read_to_string(workspace.path("summary.md")).unwrap();
    assert!(
        summary.starts_with("what was there\n## orchestrate: small\n\n14 actions: 14 executed"),
        "{summary}"
    );
    let header =
        "| step | accuracy | params | bytes | MACs | p50 ms | points | smaller | faster | time | state |\n|---|---:|";
    assert!(summary.contains(header), "{summary}");
    let rows: Vec<&str> = summary.lines().filter(|line| line.ends_with(" | ran |")).collect();
    assert_eq!(rows.len(), 4, "{summary}");
    assert!(
        summary.contains("- gate **not met**: export file_bytes ≤ 100, found "),
        "{summary}"
    );
    assert!(
        summary.contains("- gate met: export file_bytes ≥ 1, found "),
        "{summary}"
    );
    let digests = summary
        .lines()
        .filter(|line| line.len() > 130 && line.ends_with("` |"))
        .count();
    assert_eq!(digests, 14, "{summary}");
}

#[test]
fn a_failed_step_is_told_with_its_place_and_what_waits_for_it() {
    let workspace = Workspace::new();
    workspace.edit(
        "epochs = 2",
        "epochs = 20\noptimizer = \"sgd\"\nlearning_rate = 100.0\nweight_decay = 1.0\ngradient_clip = 0.0",
    );
    let run = build(&workspace, &["--format", "json"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let [mark] = marks(&run)[..] else {
        panic!("{}", run.stderr)
    };
    assert!(
        mark.starts_with("::error file=recipe.toml,line=22,title=teacher failed::"),
        "{mark}"
    );
    assert!(mark.contains("lower learning_rate"), "{mark}");
    let junit = read(&workspace, "reports/junit.xml");
    assert!(
        junit.contains("tests=\"5\" skipped=\"3\" errors=\"0\" failures=\"1\""),
        "{junit}"
    );
    assert!(
        junit.contains("type=\"step\">") || junit.contains("type=\"step\"/>"),
        "{junit}"
    );
    assert!(junit.contains("<skipped message=\"teacher failed\"/>"), "{junit}");
    let summary = fs::read_to_string(workspace.path("summary.md")).unwrap();
    assert!(summary.contains("\n### teacher failed\n\n```text\n"), "{summary}");
    assert!(run.stdout.lines().all(|line| line.starts_with('{')), "{}", run.stdout);
}

#[test]
fn a_check_is_told_with_what_differs() {
    let workspace = Workspace::new();
    workspace.build(&["teacher"]);
    let run = build(&workspace, &["teacher", "--check"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let junit = read(&workspace, "reports/junit.xml");
    assert!(
        junit.contains("<testsuite name=\"small check\" tests=\"2\" skipped=\"0\" errors=\"0\" failures=\"0\""),
        "{junit}"
    );
    tamper(&workspace);
    fs::remove_file(workspace.path("summary.md")).unwrap();
    let run = build(&workspace, &["teacher", "--check"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let difference = "model.safetensors: tensor bert.embeddings.LayerNorm.bias [16] differs in ";
    let [mark, ..] = marks(&run)[..] else {
        panic!("{}", run.stderr)
    };
    let start = format!("::error file=recipe.toml,line=22,title=teacher is not reproducible::{difference}");
    assert!(mark.starts_with(&start), "{mark}");
    let junit = read(&workspace, "reports/junit.xml");
    assert!(junit.contains("classname=\"small.check\""), "{junit}");
    let message = format!("<failure message=\"teacher is not reproducible: {difference}");
    assert!(
        junit.contains(&message) && junit.contains("type=\"not reproducible\""),
        "{junit}"
    );
    let summary = fs::read_to_string(workspace.path("summary.md")).unwrap();
    assert!(
        summary.contains(" of 2 actions gave the same bytes and metrics a second time\n"),
        "{summary}"
    );
    let section = format!("\n### teacher is not reproducible\n\n```text\n{difference}");
    assert!(summary.contains(&section), "{summary}");
}

#[test]
fn mistakes_in_a_recipe_are_marked_where_they_are() {
    let workspace = Workspace::new();
    workspace.edit("epochs = 2", "epoch = 2");
    workspace.edit("input = \"prune\"", "input = \"prunes\"");
    let run = build(&workspace, &[]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    insta::assert_snapshot!(marks(&run).join("\n"));
    insta::assert_snapshot!(read(&workspace, "reports/junit.xml"));
    insta::assert_snapshot!(read(&workspace, "summary.md"));
}

#[test]
fn without_a_summary_file_that_is_said_and_nothing_else_changes() {
    let workspace = Workspace::new();
    let mut command = workspace.command(&["build", "recipe.toml", "teacher", "--ci", "github"]);
    let output = command.env_remove("GITHUB_STEP_SUMMARY").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("GITHUB_STEP_SUMMARY is not set: no step summary is written"),
        "{told}"
    );
}

#[test]
fn a_report_that_cannot_be_written_is_a_fault_of_the_environment() {
    let workspace = Workspace::new();
    workspace.write("reports", "no folder");
    let run = build(&workspace, &["teacher"]);
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    assert!(
        run.stderr.contains("error: cannot write reports/junit.xml: "),
        "{}",
        run.stderr
    );
}
