//! What a user reads when something is wrong: what, where and what to do, and the exit code.

use crate::workspace::Workspace;

/// Runs, and gives the exit code with what standard error says, paths masked.
fn fail(workspace: &Workspace, arguments: &[&str]) -> String {
    let run = workspace.run(arguments);
    format!("exit code {}\n{}", run.code.unwrap(), workspace.masked(&run.stderr))
}

/// The same for a build of the workspace's recipe after an edit.
fn fail_after(from: &str, to: &str) -> String {
    let workspace = Workspace::new();
    workspace.edit(from, to);
    fail(&workspace, &["build", "recipe.toml"])
}

/// Without the lines that tell what went well before.
fn without_progress(text: &str) -> String {
    let told = |line: &&str| !line.starts_with("run ") && !line.starts_with("done ");
    text.lines().filter(told).collect::<Vec<_>>().join("\n")
}

#[test]
fn unknown_key() {
    insta::assert_snapshot!(fail_after("epochs = 2", "epoch = 2"));
}

#[test]
fn wrong_type() {
    insta::assert_snapshot!(fail_after("epochs = 2", "epochs = \"2\""));
}

#[test]
fn missing_reference() {
    insta::assert_snapshot!(fail_after("input = \"prune\"", "input = \"prunes\""));
}

#[test]
fn cycle() {
    insta::assert_snapshot!(fail_after("input = \"teacher\"", "input = \"quantize\""));
}

#[test]
fn missing_data_file() {
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.path("test.tsv")).unwrap();
    insta::assert_snapshot!(fail(&workspace, &["build", "recipe.toml"]));
}

#[test]
fn unreadable_data() {
    let workspace = Workspace::new();
    workspace.write("train.tsv", b"sentence\tlabel\nfine\t1\n\xff\xfe broken\t0\n");
    insta::assert_snapshot!(without_progress(&fail(&workspace, &["build", "recipe.toml"])));
}

#[test]
fn wrong_label_column() {
    insta::assert_snapshot!(without_progress(&fail_after(
        "vocab_size = 200",
        "label_column = \"lable\""
    )));
}

#[test]
fn truncated_idx() {
    let workspace = Workspace::new();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0, 0, 28];
    images.extend([7; 100]);
    workspace.write("images.idx", &images);
    workspace.write("labels.idx", [0, 0, 8, 1, 0, 0, 0, 2, 0, 1]);
    workspace.write(
        "recipe.toml",
        r#"
[data.digits]
source = "idx"
train_images = "images.idx"
train_labels = "labels.idx"
test_images = "images.idx"
test_labels = "labels.idx"

[model.lenet]
architecture = "lenet5"

[step.teacher]
kind = "train"
data = "digits"
model = "lenet"
"#,
    );
    insta::assert_snapshot!(without_progress(&fail(&workspace, &["build", "recipe.toml"])));
}

#[test]
fn corrupt_safetensors() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let path = workspace.path("out/small/export/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    insta::assert_snapshot!(fail(&workspace, &["predict", "out/small/export", "test.tsv"]));
}

#[test]
fn a_model_of_another_shape() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let path = workspace.path("out/small/export/config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, config.replace("\"hidden_size\": 16", "\"hidden_size\": 32")).unwrap();
    insta::assert_snapshot!(fail(&workspace, &["predict", "out/small/export", "test.tsv"]));
}

#[test]
fn unknown_device() {
    insta::assert_snapshot!(fail_after("seed = 3", "device = \"tpu\""));
}

#[test]
fn device_that_is_not_compiled_in() {
    if cfg!(feature = "cuda") {
        return;
    }
    let workspace = Workspace::new();
    insta::assert_snapshot!(without_progress(&fail(
        &workspace,
        &["build", "recipe.toml", "--device", "cuda"]
    )));
}

#[test]
fn gate_not_met_keeps_everything() {
    let workspace = Workspace::new();
    workspace.edit(
        "[step.export]",
        "[[gate]]\nstep = \"export\"\nmetric = \"file_bytes\"\nmax = 100\n\n[step.export]",
    );
    let run = workspace.run(&["build", "recipe.toml"]);
    assert_eq!(run.code, Some(7), "{}", run.stderr);
    let gates: Vec<&str> = run.stdout.lines().filter(|line| line.starts_with("gate")).collect();
    let bytes = std::fs::metadata(workspace.path("out/small/export/model.safetensors"))
        .unwrap()
        .len();
    assert_eq!(
        gates,
        [format!(
            "gate NOT MET: export file_bytes ≤ 100, found {bytes} (recipe.toml:42)"
        )]
    );
    let again = workspace.run(&["build", "recipe.toml", "--format", "json"]);
    assert_eq!(again.code, Some(7), "it fails again, without running anything again");
    assert!(
        again.stdout.lines().last().unwrap().contains("\"executed\":0"),
        "{}",
        again.stdout
    );
}

#[test]
fn unwritable_cache() {
    let workspace = Workspace::new();
    workspace.write("file", "no folder");
    insta::assert_snapshot!(fail(&workspace, &["build", "recipe.toml", "--cache", "file/cache"]));
}

#[test]
fn a_folder_that_is_no_cache_is_left_alone() {
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path("mine")).unwrap();
    workspace.write("mine/thesis.tex", "precious");
    insta::assert_snapshot!(fail(&workspace, &["build", "recipe.toml", "--cache", "mine"]));
    assert_eq!(
        std::fs::read_to_string(workspace.path("mine/thesis.tex")).unwrap(),
        "precious"
    );
}

#[test]
fn a_training_that_diverges_says_what_to_lower() {
    let text = fail_after(
        "epochs = 2",
        "epochs = 20\noptimizer = \"sgd\"\nlearning_rate = 100.0\nweight_decay = 1.0\ngradient_clip = 0.0",
    );
    assert!(text.starts_with("exit code 1"), "{text}");
    assert!(
        text.contains("is not finite at step") && text.contains("lower learning_rate"),
        "{text}"
    );
}
