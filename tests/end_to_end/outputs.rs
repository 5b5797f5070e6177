//! What a command does where its output cannot go as it should: closed pipes, shared, odd and occupied folders.

use crate::workspace::{Events, Run, Workspace};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Starts it with both outputs kept.
fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run_of(output: Output) -> Run {
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs with an output whose reader is gone before anything is written.
fn run_unread(workspace: &Workspace, arguments: &[&str]) -> Run {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = workspace.command(arguments);
    run_of(command.stdout(writer).stderr(Stdio::piped()).output().unwrap())
}

fn add_unmet_gate(workspace: &Workspace) {
    workspace.edit(
        "[step.export]",
        "[[gate]]\nstep = \"export\"\nmetric = \"file_bytes\"\nmax = 100\n\n[step.export]",
    );
}

#[test]
fn a_closed_output_does_not_hide_how_a_build_ended() {
    let workspace = Workspace::new();
    for format in ["human", "json"] {
        let run = run_unread(&workspace, &["build", "recipe.toml", "--format", format]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    add_unmet_gate(&workspace);
    for format in ["human", "json"] {
        let run = run_unread(&workspace, &["build", "recipe.toml", "--format", format]);
        assert_eq!(run.code, Some(7), "{}", run.stderr);
    }
    workspace.edit("vocab_size = 200", "label_column = \"lable\"");
    for format in ["human", "json"] {
        let run = run_unread(&workspace, &["build", "recipe.toml", "--format", format]);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        let is_told = run.stderr.contains("\nerror: data:texts failed: ");
        assert_eq!(is_told, format == "human", "{}", run.stderr);
    }
    let run = run_unread(&workspace, &["plan", "recipe.toml"]);
    assert_eq!(run.code, Some(0), "other commands have nothing to hide: {}", run.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_on_a_full_disk_is_an_error() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = workspace.command(&["build", "recipe.toml"]);
    let run = run_of(command.stdout(full()).output().unwrap());
    assert_eq!(run.code, Some(6), "{}", run.stderr);
    assert!(run.stderr.contains("cannot write standard output: "), "{}", run.stderr);
    add_unmet_gate(&workspace);
    let mut command = workspace.command(&["build", "recipe.toml"]);
    let run = run_of(command.stdout(full()).output().unwrap());
    assert_eq!(run.code, Some(7), "{}", run.stderr);
}

#[test]
fn builds_at_once_share_one_out_folder() {
    let workspace = Workspace::new();
    workspace.edit(
        "[step.teacher]",
        "[profile.other]\nstep.export.input = \"teacher\"\nstep.export.precision = \"f32\"\n\n[step.teacher]",
    );
    // Two caches, which know nothing of each other, and two models that belong in the same folder.
    for cache in ["one", "two"] {
        workspace.build(&["--cache", cache]);
        workspace.build(&["--cache", cache, "--profile", "other"]);
    }
    for round in 0..8 {
        if round % 2 == 0 {
            fs::remove_dir_all(workspace.path("out")).unwrap();
        }
        let builds = ["one", "two"].map(|cache| {
            let common = ["build", "recipe.toml", "--format", "json", "--cache", cache];
            let plain = start(workspace.command(&common));
            let other = start(workspace.command(&[&common[..], &["--profile", "other"]].concat()));
            [plain, other]
        });
        for build in builds.into_iter().flatten() {
            let run = run_of(build.wait_with_output().unwrap());
            assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
        }
        agrees(&workspace.path("out/small/export"));
    }
}

/// Whether all files of an export are of one build.
fn agrees(folder: &Path) {
    let document = |name: &str| -> Value { serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap() };
    let model = fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert_eq!(document("metrics.json")["file_bytes"], model);
    let provenance = document("provenance.json");
    let is_behind = |name: &str| {
        let actions = provenance["actions"].as_array().unwrap();
        actions.iter().any(|action| action["action"] == name)
    };
    assert_eq!(is_behind("quantize"), provenance["profile"].is_null(), "{provenance:#}");
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name.starts_with('.'));
    assert_eq!(names, [".orchestrate-manifest.json"], "nothing is left of the writing");
}

#[test]
fn files_of_an_export_have_usual_permissions_and_follow_no_planted_link() {
    let workspace = Workspace::new();
    workspace.write("mine", "precious");
    let folder = workspace.path("out/small/export");
    fs::create_dir_all(&folder).unwrap();
    for name in ["metrics.json", "metrics.json.partial", "provenance.json", "recipe.toml"] {
        symlink(workspace.path("mine"), folder.join(name)).unwrap();
    }
    workspace.build(&[]);
    assert_eq!(fs::read_to_string(workspace.path("mine")).unwrap(), "precious");
    // What a new file of this process may be at most: the user's umask counts.
    workspace.write("usual", "");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode();
    let usual = mode(&workspace.path("usual")) & !0o022;
    for name in ["metrics.json", "provenance.json", "recipe.toml"] {
        assert_eq!(mode(&folder.join(name)), usual, "{name}");
    }
}

/// The gates and the end of a build whose one export cannot be put in place, and what it says of that.
fn failed_to_place(workspace: &Workspace, more: &[&str]) -> String {
    let run = workspace.run(&[&["build", "recipe.toml", "--format", "json"], more].concat());
    assert_eq!(run.code, Some(6), "{}{}", run.stdout, run.stderr);
    let events = Events::of(&run);
    let count = |event: &str| events.0.iter().filter(|e| e["event"] == event).count();
    assert_eq!((count("exported"), count("gate")), (0, 1), "{}", run.stdout);
    assert_eq!(events.last()["event"], "run_finished");
    let human = workspace.run(&[&["build", "recipe.toml"], more].concat());
    assert_eq!(human.code, Some(6), "{}", human.stderr);
    for part in ["\nteacher ", "\nexport ", "gate NOT MET: ", "up to date: "] {
        assert!(human.stdout.contains(part), "{part}: {}", human.stdout);
    }
    assert!(human.stderr.ends_with(&run.stderr), "{}{}", run.stderr, human.stderr);
    workspace.masked(&run.stderr)
}

#[test]
fn an_export_that_cannot_be_put_in_place_costs_neither_table_nor_gates() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    add_unmet_gate(&workspace);
    workspace.write("file", "no folder");
    assert_eq!(
        failed_to_place(&workspace, &["--out", "file"]),
        "error: the export of step `export` cannot be put into file/small/export: cannot make the folder \
         file/small/export: Not a directory (os error 20); move what is there away, or choose another folder with \
         `--out DIR`"
    );
    let model = workspace.path("out/small/export/model.safetensors");
    fs::remove_file(&model).unwrap();
    fs::write(&model, "edited").unwrap();
    assert_eq!(
        failed_to_place(&workspace, &[]),
        "error: the export of step `export` cannot be put into out/small/export: out/small/export/model.safetensors is \
         not what an earlier build wrote there; move it away or choose another folder with `--out DIR`"
    );
    assert_eq!(fs::read_to_string(&model).unwrap(), "edited");
    fs::remove_file(&model).unwrap();
    let metrics = workspace.path("out/small/export/metrics.json");
    fs::remove_file(&metrics).unwrap();
    fs::create_dir(&metrics).unwrap();
    let told = failed_to_place(&workspace, &[]);
    assert!(
        told.contains("cannot write out/small/export/metrics.json: ") && told.contains("`--out DIR`"),
        "{told}"
    );
}

#[test]
fn an_export_of_another_profile_is_replaced_and_that_is_said() {
    let workspace = Workspace::new();
    workspace.edit(
        "[step.teacher]",
        "[profile.smoke]\nstep.teacher.epochs = 1\n\n[step.teacher]",
    );
    let line = |more: &[&str]| {
        let run = workspace.succeed(&[&["build", "recipe.toml"], more].concat());
        let line = run.stdout.lines().find(|line| line.starts_with("export: in "));
        line.unwrap().to_owned()
    };
    assert_eq!(line(&[]), "export: in out/small/export");
    assert_eq!(line(&[]), "export: in out/small/export");
    assert_eq!(
        line(&["--profile", "smoke", "--set", "step.prune.epochs=1"]),
        "export: in out/small/export (replaces the export of small without --profile and --set)"
    );
    let run = workspace.succeed(&["build", "recipe.toml", "--format", "json"]);
    let events = Events::of(&run);
    let exported = events.0.iter().find(|event| event["event"] == "exported").unwrap();
    assert_eq!(
        exported["replaces"],
        "small with --profile smoke --set step.prune.epochs=1"
    );
    assert_eq!(line(&[]), "export: in out/small/export");
}

/// `text` with a byte that UTF-8 has not.
fn odd(text: &str) -> OsString {
    OsStr::from_bytes(&[text.as_bytes(), b"\xff"].concat()).to_owned()
}

#[test]
fn paths_that_are_not_utf8_are_refused_before_anything_runs() {
    let workspace = Workspace::new();
    let refused = |command: &mut Command, option: &str| {
        let run = run_of(command.output().unwrap());
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        let start = format!("error: {option}: the path ");
        let is_told = run.stderr.starts_with(&start) && run.stderr.contains(" is not UTF-8");
        assert!(is_told, "{}", run.stderr);
        assert_eq!(run.stdout, "");
    };
    for format in ["human", "json"] {
        let build = ["build", "recipe.toml", "--format", format];
        refused(workspace.command(&build).arg("--out").arg(odd("o")), "--out");
        refused(workspace.command(&build).arg("--cache").arg(odd("c")), "--cache");
    }
    let mut by_variable = workspace.command(&["plan", "recipe.toml"]);
    refused(by_variable.env("ORCHESTRATE_CACHE", odd("c")), "--cache");
    refused(
        workspace
            .command(&["why", "recipe.toml", "export", "--cache"])
            .arg(odd("c")),
        "--cache",
    );
    let folder = workspace.path("").join(odd("r"));
    fs::create_dir(&folder).unwrap();
    for name in ["recipe.toml", "train.tsv", "test.tsv"] {
        fs::copy(workspace.path(name), folder.join(name)).unwrap();
    }
    for command in ["build", "plan", "graph"] {
        refused(
            workspace.command(&[command]).arg(folder.join("recipe.toml")),
            "the recipe",
        );
    }
    // The folder that relative paths start from counts too.
    refused(
        workspace.command(&["plan", "recipe.toml"]).current_dir(&folder),
        "the recipe",
    );
    assert!(!workspace.path("cache").exists() && !workspace.path("").join(odd("c")).exists());
}

#[test]
fn models_and_texts_may_have_any_path() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let (model, text) = (workspace.path("").join(odd("m")), workspace.path("").join(odd("t")));
    fs::rename(workspace.path("out/small/export"), &model).unwrap();
    fs::write(&text, "fine\n").unwrap();
    let succeed = |command: &mut Command| {
        let run = run_of(command.output().unwrap());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run
    };
    let run = succeed(workspace.command(&["predict"]).args([&model, &text]));
    assert_eq!(run.stdout.lines().count(), 1);
    let bench = ["bench", "--seconds", "0.05", "--format", "json"];
    let run = succeed(workspace.command(&bench).args([&model, &model]));
    assert_eq!(run.stdout.lines().count(), 2);
    succeed(workspace.command(&["evaluate"]).arg(&model).arg("recipe.toml"));
}

#[test]
fn texts_before_a_line_that_is_not_utf8_are_answered() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.write("good.txt", "a great film\r\nnot grim\n");
    let good = workspace.succeed(&["predict", "out/small/export", "good.txt"]);
    assert_eq!(good.stdout.lines().count(), 2);
    workspace.write("odd.txt", b"a great film\nnot grim\nd\xe9j\xe0 vu\nnever answered\n");
    let run = workspace.run(&["predict", "out/small/export", "odd.txt"]);
    assert_eq!((run.code, run.stdout), (Some(2), good.stdout), "{}", run.stderr);
    assert!(
        run.stderr.starts_with("error: odd.txt, line 3: not UTF-8"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_text_file_that_is_not_there_is_a_fault_of_the_command_line() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    workspace.write("good.txt", "a great film\n");
    let run = workspace.run(&["predict", "out/small/export", "good.txt", "missing.txt"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 1, "what comes before it is answered");
    assert_eq!(
        run.stderr,
        "error: cannot read missing.txt: No such file or directory (os error 2)\n"
    );
}
