//! What is locked is held, and what is checked is told: `lock`, `build --locked` and `build --check`.

use crate::workspace::{Events, Workspace};
use orchestrate_engine::{Digest, Lookup, Store};

fn locked_workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let told = workspace.succeed(&["lock", "recipe.toml"]).stdout;
    assert_eq!(told, "wrote recipe.lock: 14 actions, 2 external files\n");
    workspace
}

#[test]
fn a_lock_made_with_two_threads_holds_with_one_elsewhere() {
    let workspace = Workspace::new();
    let mut build = workspace.command(&["build", "recipe.toml"]);
    let output = build.env("RAYON_NUM_THREADS", "2").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    workspace.succeed(&["lock", "recipe.toml"]);
    let text = std::fs::read_to_string(workspace.path("recipe.lock")).unwrap();
    let elsewhere = Workspace::new();
    elsewhere.write("recipe.lock", &text);
    let mut build = elsewhere.command(&["build", "recipe.toml", "--locked"]);
    let output = build.env("RAYON_NUM_THREADS", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = elsewhere.succeed(&["lock", "recipe.toml"]).stdout;
    assert_eq!(again, "recipe.lock is up to date\n");
    let machine = [workspace.path("").display().to_string(), "tmp".to_owned()];
    assert!(!machine.iter().any(|path| text.contains(path)), "{text}");
}

#[test]
fn what_differs_is_told_before_anything_runs() {
    let workspace = locked_workspace();
    let text = std::fs::read_to_string(workspace.path("train.tsv")).unwrap();
    workspace.write("train.tsv", text.replace("dull", "bleak"));
    workspace.edit("epochs = 2", "epochs = 3");
    workspace.edit(
        "[step.export]",
        "[step.again]\nkind = \"evaluate\"\ninput = \"prune\"\n\n[step.export]",
    );
    let run = workspace.run(&["build", "recipe.toml", "--locked", "--cache", "empty"]);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    let locked = digest_and_size(&text);
    let found = digest_and_size(&text.replace("dull", "bleak"));
    let told = workspace.masked(&run.stderr);
    let told = told.replace(&locked, "[before]").replace(&found, "[now]");
    let expected = "error: this differs from recipe.lock:\n  \
                    input file train.tsv: [before] → [now]\n  \
                    again.evaluate: is not in the lock\n  \
                    teacher: training.epochs 2 → 3\n\
                    nothing was run. If this is as it should be, build without `--locked`, then run `orchestrate lock` and \
                    commit the lock file";
    assert_eq!(told, expected);
    // A build that is not held to it runs, and says that the lock is old.
    let told = workspace.succeed(&["build", "recipe.toml"]).stderr;
    assert!(told.contains("recipe.lock is not up to date: 3 differences"), "{told}");
    let told = workspace.succeed(&["lock", "recipe.toml"]).stdout;
    assert!(told.contains("  teacher: training.epochs 2 → 3\n"), "{told}");
    workspace.succeed(&["build", "recipe.toml", "--locked"]);
}

/// How a difference to a lock tells the content of a file.
fn digest_and_size(content: &str) -> String {
    let digest = Digest::of_bytes(content.as_bytes()).short();
    format!("{} bytes of digest {digest}", content.len())
}

/// What a lock from another kind of processor looks like, and what to write to have its bits here.
#[test]
fn a_lock_in_the_other_form_of_bf16_names_it_once() {
    let workspace = Workspace::new();
    workspace.edit("[step.teacher]", "[step.teacher]\nprecision = \"bf16-avx512\"");
    workspace.build(&[]);
    workspace.succeed(&["lock", "recipe.toml"]);
    workspace.edit("bf16-avx512", "bf16-amx");
    let run = workspace.run(&["build", "recipe.toml", "teacher", "--locked"]);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    let [locked, found] = ["bf16", "bf16-amx"].map(|form| format!("cpu-{form}-{}", std::env::consts::ARCH));
    let told = format!("teacher: numerics class {locked} → {found}; ");
    assert_eq!(run.stderr.matches(&told).count(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("`precision = \"bf16-avx512\"` is what is locked"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("training.precision"), "{}", run.stderr);
    // And one from a processor that has neither form.
    workspace.edit("\nprecision = \"bf16-amx\"", "");
    workspace.build(&[]);
    workspace.succeed(&["lock", "recipe.toml"]);
    workspace.edit("[step.teacher]", "[step.teacher]\nprecision = \"bf16-amx\"");
    let run = workspace.run(&["build", "recipe.toml", "teacher", "--locked"]);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    assert!(
        run.stderr.contains("`precision = \"f32\"` is what is locked"),
        "{}",
        run.stderr
    );
}

/// What is written of inputs and of numerics classes is held, also where no key tells.
#[test]
fn a_lock_is_held_to_its_inputs_and_numerics_classes() {
    let workspace = locked_workspace();
    let text = std::fs::read_to_string(workspace.path("recipe.lock")).unwrap();
    let test = std::fs::read_to_string(workspace.path("test.tsv")).unwrap();
    let digest = Digest::of_bytes(test.as_bytes()).to_string();
    let other = "0".repeat(64);
    let input = text.find("[input.\"test.tsv\"]").unwrap();
    let of_input = |from: &str, to: &str| format!("{}{}", &text[..input], text[input..].replacen(from, to, 1));
    let teacher = text.find("[action.teacher]").unwrap();
    let of_teacher = |from: &str, to: &str| format!("{}{}", &text[..teacher], text[teacher..].replacen(from, to, 1));
    let is = digest_and_size(&test);
    let class = text[teacher..]
        .split("numerics = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let cases = [
        (
            of_input(&digest, &other),
            format!("input file test.tsv: {} bytes of digest 0000000000 → {is}", test.len()),
        ),
        (
            of_input(&format!("size = {}", test.len()), "size = 7"),
            format!(
                "input file test.tsv: {} → {is}",
                is.replacen(&test.len().to_string(), "7", 1)
            ),
        ),
        (
            of_teacher(&format!("numerics = \"{class}\""), "numerics = \"another\""),
            format!("teacher: numerics class another → {class}"),
        ),
    ];
    for (edited, told) in cases {
        assert_ne!(edited, text);
        workspace.write("recipe.lock", edited);
        let run = workspace.run(&["build", "recipe.toml", "--locked"]);
        assert_eq!(run.code, Some(5), "{told}: {}", run.stderr);
        let expected = format!("error: this differs from recipe.lock:\n  {told}\nnothing was run.");
        assert!(run.stderr.starts_with(&expected), "{expected}\n{}", run.stderr);
        workspace.succeed(&["lock", "recipe.toml"]);
        assert_eq!(std::fs::read_to_string(workspace.path("recipe.lock")).unwrap(), text);
    }
}

/// The size of any file is limited, so that no lock can be written whole: with the signal ignored, writing fails as on a
/// full disk; without, the process is killed within the write.
#[test]
fn a_lock_that_cannot_be_written_whole_leaves_the_one_before() {
    let workspace = locked_workspace();
    let before = std::fs::read_to_string(workspace.path("recipe.lock")).unwrap();
    assert!(before.len() > 4096, "more than may be written");
    workspace.edit("learning_rate = 1e-4", "learning_rate = 2e-4");
    workspace.build(&[]);
    for (trap, is_told) in [("trap '' XFSZ; ", true), ("", false)] {
        let script = format!("{trap}ulimit -c 0; ulimit -f 4; exec \"$0\" lock recipe.toml");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_orchestrate")]);
        let output = shell
            .current_dir(workspace.path(""))
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        if is_told {
            assert_eq!(output.status.code(), Some(6), "{told}");
            assert!(told.contains("cannot write the lock file recipe.lock: "), "{told}");
        } else {
            assert!(!output.status.success(), "{told}");
        }
        assert_eq!(std::fs::read_to_string(workspace.path("recipe.lock")).unwrap(), before);
    }
    let told = workspace.succeed(&["lock", "recipe.toml"]).stdout;
    assert!(told.contains("wrote recipe.lock"), "{told}");
    workspace.succeed(&["build", "recipe.toml", "--locked"]);
}

#[test]
fn only_the_steps_that_are_built_are_held_to_the_lock() {
    let workspace = locked_workspace();
    workspace.edit("learning_rate = 1e-4", "learning_rate = 2e-4");
    workspace.succeed(&["build", "recipe.toml", "prune", "--locked"]);
    assert_eq!(workspace.run(&["build", "recipe.toml", "--locked"]).code, Some(5));
}

#[test]
fn a_lock_that_is_absent_damaged_or_edited_is_refused_and_can_be_made_anew() {
    let workspace = Workspace::new();
    let absent = workspace.run(&["build", "recipe.toml", "--locked"]);
    assert_eq!(absent.code, Some(2));
    assert!(
        absent.stderr.contains("there is no lock file recipe.lock"),
        "{}",
        absent.stderr
    );
    let early = workspace.run(&["lock", "recipe.toml"]);
    assert_eq!(early.code, Some(2));
    assert!(
        early.stderr.contains("run `orchestrate build` first"),
        "{}",
        early.stderr
    );

    let workspace = locked_workspace();
    let text = std::fs::read_to_string(workspace.path("recipe.lock")).unwrap();
    let edits = [
        text.replacen("[action", "<<<<<<< ours\n[action", 1),
        text.replacen("\"seed\":3", "\"seed\":4", 1),
        text.replacen("version = 1", "version = 2", 1),
        text[..text.len() / 2].to_owned(),
        String::new(),
    ];
    for edited in edits {
        workspace.write("recipe.lock", &edited);
        for arguments in [&["build", "recipe.toml", "--locked"][..], &["lock", "recipe.toml"]] {
            let run = workspace.run(arguments);
            assert_eq!(run.code, Some(2), "{edited}");
            assert!(
                run.stderr.contains("`orchestrate lock --rebuild` writes it anew"),
                "{}",
                run.stderr
            );
        }
        workspace.succeed(&["build", "recipe.toml"]);
        workspace.succeed(&["lock", "recipe.toml", "--rebuild"]);
        assert_eq!(std::fs::read_to_string(workspace.path("recipe.lock")).unwrap(), text);
    }
}

#[test]
fn another_artifact_from_the_same_key_is_told() {
    let workspace = locked_workspace();
    tamper(&workspace);
    let junit = ["--junit", "report.xml"];
    let run = workspace.run(&[&["build", "recipe.toml", "teacher", "--locked"][..], &junit].concat());
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    assert!(run.stderr.contains("  teacher: made "), "{}", run.stderr);
    let report = std::fs::read_to_string(workspace.path("report.xml")).unwrap();
    assert!(
        report.contains(r#"<testcase name="lock""#) && report.contains("teacher: made "),
        "{report}"
    );
}

#[test]
fn a_second_run_gives_the_same_bytes() {
    let workspace = Workspace::new();
    let run = workspace.succeed(&["build", "recipe.toml", "--check"]);
    let summary = "check: 14 of 14 actions gave the same bytes and metrics a second time\n";
    assert!(run.stdout.ends_with(summary), "{}", run.stdout);
    let again = Events::of(&workspace.succeed(&["build", "recipe.toml", "prune", "--check", "--format", "json"]));
    assert_eq!(again.ran(), [""; 0]);
    let mut checked = again.actions("action_checked");
    checked.sort_unstable();
    let of_step = [
        "prune.evaluate",
        "prune.finetune-1",
        "prune.finetune-2",
        "prune.prune-1",
        "prune.prune-2",
    ];
    assert_eq!(checked, of_step);
}

#[test]
fn a_second_run_that_gives_other_bytes_names_the_tensor() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    tamper(&workspace);
    let run = workspace.run(&["build", "recipe.toml", "teacher", "--check"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let told = run
        .stderr
        .lines()
        .find(|line| line.contains("not reproducible"))
        .unwrap();
    let tensor =
        "teacher is not reproducible: model.safetensors: tensor bert.embeddings.LayerNorm.bias [16] differs in ";
    assert!(told.contains(tensor) && told.contains(", by at most "), "{told}");
}

/// A gate that is not met, which no other fault may hide behind.
fn add_unmet_gate(workspace: &Workspace) {
    workspace.edit(
        "[step.export]",
        "[[gate]]\nstep = \"export\"\nmetric = \"file_bytes\"\nmax = 100\n\n[step.export]",
    );
}

#[test]
fn what_differs_from_the_lock_or_from_its_second_run_replaces_no_export() {
    let workspace = locked_workspace();
    add_unmet_gate(&workspace);
    assert_eq!(workspace.run(&["build", "recipe.toml"]).code, Some(7));
    let before = workspace.export("out/small/export");
    tamper(&workspace);
    // What follows the teacher is made of another one now.
    let locked = workspace.run(&["build", "recipe.toml", "--locked"]);
    assert_eq!(locked.code, Some(5), "{}", locked.stderr);
    let left = "export: out/small/export is left as it was: what was made differs from the lock\n";
    assert!(locked.stdout.contains(left), "{}", locked.stdout);
    assert!(locked.stdout.contains("gate NOT MET: "), "{}", locked.stdout);
    assert!(
        workspace.export("out/small/export") == before,
        "the export was replaced"
    );

    let checked = workspace.run(&["build", "recipe.toml", "--check"]);
    assert_eq!(checked.code, Some(4), "{}", checked.stderr);
    let left = "export: out/small/export is left as it was: not all of it is reproducible\n";
    assert!(checked.stdout.contains(left), "{}", checked.stdout);
    assert!(
        workspace.export("out/small/export") == before,
        "the export was replaced"
    );

    let both = workspace.run(&["build", "recipe.toml", "--check", "--locked", "--format", "json"]);
    assert_eq!(both.code, Some(4), "{}", both.stderr);
    let events = Events::of(&both);
    let of = |name: &str| events.0.iter().filter(|event| event["event"] == name).count();
    assert_eq!(
        (of("exported"), of("export_left"), of("gate")),
        (0, 1, 1),
        "{}",
        both.stdout
    );
    assert!(
        workspace.export("out/small/export") == before,
        "the export was replaced"
    );

    // Held to nothing, the same build replaces it.
    assert_eq!(workspace.run(&["build", "recipe.toml"]).code, Some(7));
    assert!(
        workspace.export("out/small/export") != before,
        "the export was not replaced"
    );
}

/// Puts the teacher of another seed in the place of this one's.
pub fn tamper(workspace: &Workspace) {
    let other = workspace.build(&["teacher", "--set", "recipe.seed=4"]);
    let tree = other
        .trees()
        .into_iter()
        .find(|(action, _)| *action == "teacher")
        .unwrap()
        .1
        .to_owned();
    let this = workspace.build(&["teacher"]);
    let event = this
        .0
        .iter()
        .find(|event| event["event"] == "action_cached" && event["action"] == "teacher");
    let key = event.unwrap()["key"].as_str().unwrap().parse().unwrap();
    let store = Store::open(&workspace.path("cache")).unwrap();
    let Lookup::Found(mut result) = store.result(&key).unwrap() else {
        panic!("the teacher was built")
    };
    result.tree = tree.parse().unwrap();
    let document = store.key_document(&key).unwrap().unwrap();
    let tree = store.tree(&result.tree).unwrap().unwrap();
    store.put_result(&document, &result, &tree).unwrap();
}
