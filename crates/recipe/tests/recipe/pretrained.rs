//! Models that start from weights which were trained elsewhere: what is read before anything runs, and what is in the key.

use crate::workspace::Workspace;
use insta::assert_snapshot;
use orchestrate_engine::Input;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::pretrained::Classifier;
use orchestrate_recipe::{Lowered, Recipe, StepKind, Train};
use std::path::Path;

/// A classifier that transformers saved is taken as it is, compressed, and taught further, and is a student.
const PRETRAINED: &str = r#"
[variables]
models = "../models"

[data.texts]
source = "text"
train = "../rows.tsv"
test = "../rows.tsv"
max_length = 16
vocab = "../models/bert/vocab.txt"

[model.mine]
architecture = "bert"
pretrained = "${models}/bert"

[step.teacher]
kind = "train"
data = "texts"
model = "mine"
epochs = 0

[step.further]
kind = "train"
data = "texts"
model = "mine"

[step.student]
kind = "distill"
teacher = "teacher"
model = "mine"

[step.prune]
kind = "prune"
input = "teacher"
target = 0.5
"#;

const FILES: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"];

fn workspace(text: &str) -> Workspace {
    let workspace = Workspace::new(text);
    let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ml/tests/pretrained/bert");
    for name in FILES {
        let bytes = std::fs::read(saved.join(name)).unwrap();
        workspace.file(&format!("models/bert/{name}"), &bytes);
    }
    workspace.file(
        "rows.tsv",
        b"sentence\tlabel\ngood\tpositive\nbad\tnegative\nso so\tneither\n",
    );
    workspace
}

fn with(from: &str, to: &str) -> String {
    assert!(PRETRAINED.contains(from), "{from}");
    PRETRAINED.replacen(from, to, 1)
}

fn train(recipe: &Recipe, name: &str) -> Train {
    let step = recipe.steps.iter().find(|step| step.name == name).unwrap();
    let StepKind::Train(train) = &step.kind else {
        panic!("{name} is a train step")
    };
    train.clone()
}

#[test]
fn widths_come_from_the_folder_and_the_rate_is_one_for_finetuning() {
    let recipe = workspace(PRETRAINED).recipe(&[]);
    let further = train(&recipe, "further");
    let widths = ModelSpec::Bert {
        layers: 2,
        hidden: 16,
        heads: 2,
        intermediate: Some(24),
        max_positions: 20,
    };
    assert_eq!(further.settings.model, widths);
    assert_eq!(further.settings.training.learning_rate, 5e-5);
    assert_eq!(further.settings.pretrained.unwrap().classifier, Classifier::Keep);
    // A tokenizer.json has all that a vocab.txt has, and is what is read.
    let files: Vec<&str> = further.files.keys().map(String::as_str).collect();
    assert_eq!(files, FILES[..3]);
    let StepKind::Distill(student) = &recipe.steps[2].kind else {
        panic!("the student is distilled")
    };
    assert_eq!(student.settings.training.learning_rate, 5e-5);
    assert_eq!(student.files.len(), 3);

    let rates = [("learning_rate = 1e-3", 1e-3), ("optimizer = \"sgd\"", 5e-3)];
    for (line, rate) in rates {
        let text = with("[step.further]", &format!("[step.further]\n{line}"));
        let recipe = workspace(&text).recipe(&[]);
        assert_eq!(train(&recipe, "further").settings.training.learning_rate, rate);
    }
}

#[test]
fn what_is_taken_as_it_is_depends_on_no_training_and_no_seed() {
    let action = |text: &str| {
        let recipe = workspace(text).recipe(&[]);
        let lowered = Lowered::new(&recipe).unwrap();
        lowered.graph.get(lowered.step("teacher").unwrap().model).clone()
    };
    let plain = action(PRETRAINED);
    assert_eq!(plain.seed, 0);
    let roles: Vec<&str> = plain.inputs.keys().map(String::as_str).collect();
    assert_eq!(roles, ["config.json", "data", "model.safetensors", "tokenizer.json"]);
    assert!(matches!(plain.inputs["model.safetensors"], Input::File(_)));
    let text = with("epochs = 0", "epochs = 0\nlearning_rate = 1.0\nbatch_size = 7");
    let text = format!("[recipe]\nseed = 5\n{text}");
    let other = action(&text);
    assert_eq!((&other.parameters, other.seed), (&plain.parameters, 0));
    let classes = |list: &str| {
        action(&with(
            "/bert\"\n\n[step",
            &format!("/bert\"\nclasses = {list}\n\n[step"),
        ))
    };
    assert_ne!(
        classes("[\"positive\", \"neither\", \"negative\"]").parameters,
        plain.parameters
    );
    // What the folder says, too, changes nothing if it is said again.
    assert_eq!(
        classes("[\"positive\", \"negative\", \"neither\"]").parameters,
        plain.parameters
    );
}

#[test]
fn a_folder_that_is_no_model_is_told_before_anything_runs() {
    assert_snapshot!(workspace(&with("${models}/bert", "${models}")).errors(&[]));
    let missing = workspace(&with("${models}/bert", "${models}/brt"));
    assert!(
        missing.errors(&[]).contains("does not exist"),
        "{}",
        missing.errors(&[])
    );
    let file = workspace(&with("${models}/bert", "../rows.tsv"));
    assert!(file.errors(&[]).contains("is not a folder"), "{}", file.errors(&[]));
    let cut = workspace(PRETRAINED);
    cut.file("models/bert/model.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    assert_snapshot!(cut.errors(&[]));
}

#[test]
fn what_the_folder_says_the_recipe_does_not() {
    assert_snapshot!(
        workspace(&with(
            "/bert\"\n\n[step",
            "/bert\"\nlayers = 2\nclassifier = \"new\"\nclasses = [\"a\", \"b\"]\n\n[step"
        ))
        .errors(&[])
    );
    let text = with(
        "pretrained = \"${models}/bert\"",
        "layers = 2\nhidden = 16\nheads = 2\nclasses = [\"a\", \"b\"]",
    );
    let text = text.replace("models = \"../models\"\n", "");
    assert_snapshot!(workspace(&text).errors(&[]));
}

#[test]
fn classes_are_as_many_as_the_classifier_has_outputs() {
    assert_snapshot!(workspace(&with("/bert\"\n\n[step", "/bert\"\nclasses = [\"a\", \"b\"]\n\n[step")).errors(&[]));
}

#[test]
fn another_vocabulary_is_known_before_anything_runs() {
    let other = |text: &str| {
        let workspace = workspace(text);
        workspace.file("other.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nthe\n");
        workspace.errors(&[])
    };
    assert_snapshot!(other(&with("../models/bert/vocab.txt", "../other.txt")));
    let cased = with("bert/vocab.txt\"", "bert/vocab.txt\"\nlowercase = false");
    assert!(other(&cased).contains("the normalizer is"), "{}", other(&cased));
}

/// A student reads texts as the first model in its line does, whichever data its teacher was trained on.
#[test]
fn a_student_is_held_against_the_vocabulary_by_which_its_rows_are_cut() {
    let line = "[data.more]\nsource = \"text\"\ntrain = \"../rows.tsv\"\ntest = \"../rows.tsv\"\nmax_length = 16\n\
                [model.small]\narchitecture = \"bert\"\nlayers = 1\nhidden = 16\nheads = 2\n\
                [step.between]\nkind = \"distill\"\nteacher = \"teacher\"\nmodel = \"small\"\ndata = \"more\"\n\
                [step.last]\nkind = \"distill\"\nteacher = \"between\"\nmodel = \"mine\"\n";
    workspace(&format!("{PRETRAINED}{line}")).recipe(&[]);
}

#[test]
fn data_must_be_cut_into_the_tokens_of_the_model() {
    assert_snapshot!(workspace(&with("vocab = \"../models/bert/vocab.txt\"\n", "")).errors(&[]));
    assert_snapshot!(workspace(&with("max_length = 16", "max_length = 21")).errors(&[]));
}

#[test]
fn only_a_whole_model_is_taken_as_it_is() {
    assert_snapshot!(workspace(&with("/bert\"\n\n[step", "/bert\"\nclassifier = \"new\"\n\n[step")).errors(&[]));
    let text = with("pretrained = \"${models}/bert\"", "layers = 2\nhidden = 16\nheads = 2");
    let errors = workspace(&text.replace("models = \"../models\"\n", "")).errors(&[]);
    assert!(
        errors.contains("`mine` starts from the seed, and would know nothing"),
        "{errors}"
    );
}

#[test]
fn a_student_starts_from_one_thing() {
    let text = with(
        "model = \"mine\"\n\n[step.prune]",
        "model = \"mine\"\ninitialize = \"teacher\"\n\n[step.prune]",
    );
    assert_snapshot!(workspace(&text).errors(&[]));
}

/// A profile that is not chosen may name files of another machine: its folder is not looked at, and nothing follows from that.
#[test]
fn folders_of_profiles_that_are_not_chosen_are_not_looked_at() {
    let student = "[model.copy]\narchitecture = \"bert\"\nlayers = 1\nhidden = 16\nheads = 2\nintermediate = 24\nmax_positions = 20\n\
                   [step.copy]\nkind = \"distill\"\nteacher = \"teacher\"\nmodel = \"copy\"\ninitialize = \"teacher\"\n\
                   [profile.elsewhere]\nvariables.models = \"/nowhere\"\n";
    let workspace = workspace(&format!("{PRETRAINED}{student}"));
    workspace.recipe(&[]);
    let errors = workspace.errors(&["--profile", "elsewhere"]);
    assert!(errors.contains("`/nowhere/bert` does not exist"), "{errors}");
    workspace.recipe(&["--set", "variables.models=models"]);
}
