//! A model that was trained elsewhere, from its folder to an export in integers.

use crate::workspace::{Events, Workspace};

/// The export in floats that one build makes, and from which the next starts.
const FLOATS: &str = "
[step.floats]
kind = \"export\"
input = \"teacher\"
precision = \"f32\"
";

const PRETRAINED: &str = r#"
[recipe]
name = "compressed"
seed = 4
latency_seconds = 0.02

[data.texts]
source = "text"
train = "train.tsv"
test = "test.tsv"
max_length = 12
tokenizer = "model/tokenizer.json"

[model.mine]
architecture = "bert"
pretrained = "model"

[step.teacher]
kind = "train"
data = "texts"
model = "mine"
epochs = 0

[step.floats]
kind = "export"
input = "teacher"
precision = "f32"

[step.prune]
kind = "prune"
input = "teacher"
teacher = "teacher"
target = 0.5
rounds = 1
batch_size = 8

[step.quantize]
kind = "quantize"
input = "prune"
batch_size = 8

[step.export]
kind = "export"
input = "quantize"
"#;

/// A folder with a pretrained model in `model`, and a recipe that compresses it.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let text = std::fs::read_to_string(workspace.path("recipe.toml")).unwrap();
    workspace.write("recipe.toml", text + FLOATS);
    workspace.succeed(&["build", "recipe.toml", "floats"]);
    std::fs::rename(workspace.path("out/small/floats"), workspace.path("model")).unwrap();
    workspace.write("recipe.toml", PRETRAINED);
    workspace
}

#[test]
fn an_export_in_floats_is_taken_as_it_is_and_compressed() {
    let workspace = workspace();
    let original = std::fs::read(workspace.path("model/model.safetensors")).unwrap();
    workspace.build(&[]);
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let read = |folder: &str| std::fs::read(workspace.path(&format!("{folder}/{name}"))).unwrap();
        assert_eq!(read("out/compressed/floats"), read("model"), "{name}");
    }
    let compressed = std::fs::read(workspace.path("out/compressed/export/model.safetensors")).unwrap();
    assert!(
        compressed.len() < original.len(),
        "{} of {}",
        compressed.len(),
        original.len()
    );
    workspace.succeed(&["predict", "out/compressed/export", "test.tsv"]);
}

#[test]
fn only_other_contents_make_the_step_run_again() {
    let workspace = workspace();
    let model = workspace.path("model");
    workspace.build(&[]);
    std::fs::rename(&model, workspace.path("moved")).unwrap();
    let text = PRETRAINED.replace("\"model", "\"moved");
    workspace.write(
        "recipe.toml",
        text.replace("epochs = 0", "epochs = 0\nlearning_rate = 0.1"),
    );
    assert_eq!(workspace.build(&[]).ran(), [""; 0]);

    let weights = workspace.path("moved/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let why = workspace.succeed(&["why", "recipe.toml", "export"]).stdout;
    assert!(why.contains("input model.safetensors changed"), "{why}");
    assert!(workspace.build(&[]).ran().contains(&"teacher"));
}

#[test]
fn what_does_not_fit_the_data_is_told_and_keeps_what_ran() {
    let workspace = workspace();
    let data = std::fs::read_to_string(workspace.path("train.tsv")).unwrap();
    workspace.write("train.tsv", data.replace("\t1\n", "\tyes\n").replace("\t0\n", "\tno\n"));
    workspace.write("test.tsv", "sentence\tlabel\nthe plot is dull\tno\n");
    let run = workspace.run(&["build", "recipe.toml", "--format", "json"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let told = format!("{}{}", run.stdout, run.stderr);
    assert!(told.contains("classes = [...]"), "{told}");
    assert_eq!(Events::of(&run).ran(), ["data:texts", "data:texts:train"]);
    workspace.edit(
        "pretrained = \"model\"",
        "pretrained = \"model\"\nclasses = [\"no\", \"yes\"]",
    );
    workspace.build(&[]);
}
