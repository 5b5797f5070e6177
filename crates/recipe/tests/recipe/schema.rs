//! The JSON schema says what the readers do: the same keys, defaults and words, and nothing that they would not.

use crate::defaults::{SPELLED_OUT, without_lines};
use crate::docs::{REFERENCE, keys_of, sections, under};
use crate::workspace::{FULL, Workspace, full_with};
use jsonschema::Validator;
use orchestrate_recipe::{Recipe, schema};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const COMMITTED: &str = include_str!("../../../../docs/recipe.schema.json");

/// A recipe on images, which is well.
const IMAGES: &str = r#"
[data.d]
source = "builtin:digits"

[model.m]
architecture = "lenet5"

[step.s]
kind = "train"
data = "d"
model = "m"
"#;

/// What gives a meaning to keys that have none by themselves.
const COMPANIONS: [&str; 5] = [
    "",
    "lr_schedule = \"warmup_stable_decay\"",
    "optimizer = \"sgd\"",
    "observer = \"percentile\"",
    "teacher = \"teacher\"",
];

/// Keys that are neither required nor have one value that they stand for if they are left out.
const WITHOUT_DEFAULT: [&str; 26] = [
    "baseline",
    "classes",
    "classifier",
    "codebook_bits",
    "data",
    "format",
    "heads",
    "hidden",
    "intermediate",
    "layers",
    "learning_rate",
    "max",
    "max_drop",
    "max_ratio",
    "max_steps",
    "max_test_rows",
    "max_train_rows",
    "min",
    "name",
    "pretrained",
    "target",
    "targets",
    "teacher",
    "tokenizer",
    "vocab",
    "weight_decay",
];

fn schema_json() -> Value {
    serde_json::from_str(COMMITTED).expect("the committed schema is JSON")
}

fn validator() -> Validator {
    jsonschema::draft7::new(&schema_json()).expect("it is a schema")
}

fn as_json(toml: &str) -> Option<Value> {
    toml::from_str(toml).ok()
}

/// The definitions of single sorts of sections, and the keys of each.
fn definitions() -> BTreeMap<String, BTreeMap<String, Value>> {
    let schema = schema_json();
    let of = |schema: &Value| -> BTreeMap<String, Value> {
        let properties = schema["properties"].as_object().expect("a table has keys");
        properties
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let all = schema["definitions"].as_object().expect("there are definitions");
    let single = |name: &str| match name.split_once('.') {
        Some((part, _)) => part != "profile",
        None => name == "recipe" || name == "gate",
    };
    let mut found: BTreeMap<String, _> = all
        .iter()
        .filter(|(name, _)| single(name))
        .map(|(name, schema)| (name.clone(), of(schema)))
        .collect();
    found.insert("root".to_owned(), of(&schema));
    found
}

/// The definition of the section under `heading` of the reference.
fn definition_of(heading: &str) -> String {
    let word = heading
        .trim_start_matches(['#', ' ', '`', '['])
        .trim_end_matches(['`', ']']);
    match word {
        "" => "root".to_owned(),
        "recipe" | "gate" => word.to_owned(),
        sort => {
            let end = format!(".{}", sort.replace(':', "."));
            let all = definitions();
            let name = all.keys().find(|name| name.ends_with(&end));
            name.unwrap_or_else(|| panic!("no definition for {heading}")).clone()
        }
    }
}

#[test]
fn the_committed_schema_is_that_of_the_readers() {
    assert!(
        COMMITTED == schema::text(),
        "the readers or docs/recipe.md have changed: run `cargo run -- schema > docs/recipe.schema.json`"
    );
}

#[test]
fn the_keys_are_those_that_readers_suggest() {
    let mut seen = BTreeSet::new();
    for (heading, text) in sections() {
        let name = definition_of(heading);
        let keys: BTreeSet<String> = definitions()[&name].keys().cloned().collect();
        assert_eq!(keys, keys_of(&text), "{heading}");
        seen.insert(name);
    }
    let all: BTreeSet<String> = definitions().into_keys().collect();
    assert_eq!(
        seen, all,
        "each sort of section has a sample in `sections()` of docs.rs"
    );
}

#[test]
fn every_key_has_a_description() {
    for (section, keys) in definitions() {
        for (key, schema) in keys {
            let is_described = schema["description"].as_str().is_some_and(|text| !text.is_empty());
            let refers = schema["$ref"].is_string();
            assert!(
                is_described || refers,
                "`{key}` of {section}: give it a row in docs/recipe.md that says what it is"
            );
        }
    }
}

/// A recipe with the section `definition` in it, and that section's first line.
fn sample_of(definition: &str) -> (Workspace, String, String) {
    let digits = |from: &str, to: &str| (IMAGES.replace(from, to), to.to_owned());
    let text_files = "source = \"text\"\ntrain = \"a.tsv\"\ntest = \"a.tsv\"";
    let idx = "source = \"idx\"\ntrain_images = \"a.tsv\"\ntrain_labels = \"a.tsv\"\ntest_images = \"a.tsv\"\ntest_labels = \"a.tsv\"";
    let (text, line) = match definition {
        "data.builtin.digits" => digits("source = \"builtin:digits\"", "source = \"builtin:digits\""),
        "data.idx" => digits("source = \"builtin:digits\"", idx),
        "model.lenet5" => digits("architecture = \"lenet5\"", "architecture = \"lenet5\""),
        "model.resnet8" => digits("architecture = \"lenet5\"", "architecture = \"resnet8\""),
        "model.mlp" => digits("architecture = \"lenet5\"", "architecture = \"mlp\""),
        "data.text" => (
            full_with("source = \"builtin:reviews\"", text_files),
            text_files.to_owned(),
        ),
        "data.builtin.reviews" => (FULL.to_owned(), "source = \"builtin:reviews\"".to_owned()),
        "model.bert" => (FULL.to_owned(), "[model.large]\narchitecture = \"bert\"".to_owned()),
        "recipe" => (FULL.to_owned(), "[recipe]".to_owned()),
        "gate" => (FULL.to_owned(), "[[gate]]".to_owned()),
        step => {
            let kind = step
                .strip_prefix("step.")
                .unwrap_or_else(|| panic!("a sample for {definition}"));
            (FULL.to_owned(), format!("kind = \"{kind}\""))
        }
    };
    assert!(text.contains(&line), "{definition}");
    let workspace = Workspace::new(&text);
    workspace.file("recipes/a.tsv", b"");
    (workspace, text, line)
}

#[test]
fn the_defaults_are_those_of_the_readers() {
    let mut without = BTreeSet::new();
    for (definition, keys) in definitions() {
        if definition == "root" {
            continue;
        }
        let (workspace, text, line) = sample_of(&definition);
        let read = |added: &str| -> Option<Recipe> {
            let text = text.replacen(&line, &format!("{line}\n{added}\n"), 1);
            workspace.file("recipes/r.toml", text.as_bytes());
            Some(without_lines(workspace.load(&[]).ok()?.recipe))
        };
        for (key, schema) in &keys {
            let Some(default) = schema.get("default") else {
                let required = schema_json()["definitions"][&definition]["required"].take();
                if required
                    .as_array()
                    .is_none_or(|required| !required.contains(&Value::from(key.as_str())))
                {
                    without.insert(key.clone());
                }
                continue;
            };
            let same = COMPANIONS.iter().find_map(|companion| {
                let spelled = read(&format!("{companion}\n{key} = {default}"))?;
                Some(read(companion)? == spelled)
            });
            assert_eq!(
                same,
                Some(true),
                "`{key} = {default}` is not the default of {definition}"
            );
        }
    }
    let without: Vec<&str> = without.iter().map(String::as_str).collect();
    assert_eq!(
        without, WITHOUT_DEFAULT,
        "docs/recipe.md gives no default for one of these, or has a new one"
    );
}

/// How the reference writes what a key takes, if it follows from the schema alone.
fn type_in_words(schema: &Value) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return Some(words.join(", "));
    }
    let number = |key: &str| schema[key].as_f64();
    let least = match (number("minimum"), number("exclusiveMinimum")) {
        (Some(least), _) => Some((least, true)),
        (None, least) => least.map(|least| (least, false)),
    };
    let most = match (number("maximum"), number("exclusiveMaximum")) {
        (Some(most), _) => Some((most, true)),
        (None, most) => most.map(|most| (most, false)),
    };
    let range = match (least, most) {
        (None, None) => String::new(),
        (Some((a, true)), Some((b, true))) => format!(", {a} to {b}"),
        (Some((a, true)), Some((b, false))) => format!(", {a} to below {b}"),
        (Some((a, false)), Some((b, true))) => format!(", above {a}, to {b}"),
        (Some((a, false)), Some((b, false))) => format!(", above {a} and below {b}"),
        (Some((a, true)), None) => format!(", not below {a}"),
        (Some((a, false)), None) => format!(", above {a}"),
        (None, Some((b, _))) => format!(", to {b}"),
    };
    match schema["type"].as_str()? {
        "boolean" => Some("true, false".to_owned()),
        "number" => Some(format!("number{range}")),
        "integer" => Some(format!("whole{range}")),
        _ => None,
    }
}

#[test]
fn the_types_in_the_reference_are_those_of_the_readers() {
    // Their bounds depend on other keys, or are those of the type.
    const IN_WORDS: [&str; 6] = ["epochs", "gradient_accumulation", "seed", "data_seed", "bits", "metric"];
    for (heading, _) in sections() {
        let tables = [under(heading), under("### Training")];
        for (key, schema) in &definitions()[&definition_of(heading)] {
            let row = tables
                .iter()
                .find_map(|table| table.split_once(&format!("| `{key}` | ")));
            let choice = schema["anyOf"].get(0).unwrap_or(schema);
            if let (Some((_, row)), Some(words)) = (row, type_in_words(choice))
                && !IN_WORDS.contains(&key.as_str())
            {
                assert!(
                    row.starts_with(&format!("{words} |")),
                    "`{key}` of {heading} is: {words}"
                );
            }
        }
    }
}

#[test]
fn what_is_committed_and_shown_is_valid() {
    let validator = validator();
    let mut texts = vec![
        ("FULL", FULL.to_owned()),
        ("SPELLED_OUT", SPELLED_OUT.to_owned()),
        ("IMAGES", IMAGES.to_owned()),
    ];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut committed = committed_recipes();
    committed.push(root.join("crates/cli/templates/recipe.toml"));
    assert!(committed.len() > 2);
    texts.extend(
        committed
            .iter()
            .map(|path| ("a recipe", std::fs::read_to_string(path).unwrap())),
    );
    let examples = REFERENCE.split("```toml\n").skip(1);
    texts.extend(examples.map(|rest| ("an example", rest.split("```").next().unwrap().to_owned())));
    for (name, text) in texts {
        let json = as_json(&text).unwrap_or_else(|| panic!("{name} is TOML: {text}"));
        let errors: Vec<String> = validator
            .iter_errors(&json)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}\n{text}");
    }
}

/// The recipes of the repository; locks lie beside them.
fn committed_recipes() -> Vec<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect()
}

#[test]
fn committed_recipes_lead_their_editors_to_it() {
    for path in committed_recipes() {
        let text = std::fs::read_to_string(&path).unwrap();
        let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
        let named = named.unwrap_or_else(|| panic!("{} has no `#:schema` on top", path.display()));
        let schema = std::fs::read_to_string(path.with_file_name(named)).unwrap();
        assert!(schema == COMMITTED, "{named}");
    }
}

#[test]
fn what_readers_refuse_for_itself_the_schema_refuses() {
    let validator = validator();
    let wrong = [
        ("name = \"full\"", "name = 3"),
        ("name = \"full\"", "name = \"a/b\""),
        ("name = \"full\"", "seed = -1"),
        ("name = \"full\"", "seed = \"1\""),
        ("name = \"full\"", "device = \"gpu\""),
        ("name = \"full\"", "latency_seconds = 3601"),
        ("name = \"full\"", "sed = 1"),
        ("[step.check]", "[steps.check]"),
        ("[step.check]", "[step.\"a b\"]"),
        ("[data.reviews]", "[variables]\nx = 3\n[data.reviews]"),
        ("source = \"builtin:reviews\"", "source = \"builtin:review\""),
        (
            "source = \"builtin:reviews\"",
            "source = \"builtin:reviews\"\ntrain_rows = 0",
        ),
        (
            "source = \"builtin:reviews\"",
            "source = \"builtin:reviews\"\nlowercase = \"yes\"",
        ),
        (
            "source = \"builtin:reviews\"",
            "source = \"builtin:reviews\"\ntext_column = \"x\"",
        ),
        ("source = \"builtin:reviews\"", ""),
        ("layers = 4", "layers = 257"),
        ("layers = 4", "layers = \"4\""),
        ("layers = 4", "channels = [1, 2]"),
        ("architecture = \"bert\"", "architecture = \"brt\""),
        ("model = \"large\"", ""),
        ("model = \"large\"", "model = [\"large\"]"),
        ("model = \"large\"", "model = \"large\"\nepochs = 10001"),
        ("layers = 4", ""),
        ("model = \"large\"", "model = \"large\"\nlearning_rate = 0"),
        ("model = \"large\"", "model = \"large\"\noptimizer = \"adam\""),
        ("model = \"large\"", "model = \"large\"\ndropout = 1.0"),
        ("model = \"large\"", "model = \"large\"\nepoch = 1"),
        ("model = \"large\"", "model = \"large\"\ntarget = 0.5"),
        ("kind = \"train\"", "kind = \"trian\""),
        ("kind = \"train\"", ""),
        ("target = 0.5", ""),
        ("target = 0.5", "target = 1"),
        ("target = 0.5", "targets = []"),
        ("target = 0.5", "targets = [0.5, 1.5]"),
        ("target = 0.5", "targets = 0.5"),
        ("input = \"prune\"", "input = \"prune\"\nbits = 4"),
        ("input = \"quantize\"", "input = \"quantize\"\nprecision = \"int4\""),
        ("metric = \"accuracy\"", "metric = \"acuracy\""),
        ("max_drop = 0.02", "max_ratio = 0"),
        ("max_drop = 0.02", "max_drop = \"2 %\""),
        ("[[gate]]", "[gate]"),
        ("[[gate]]", "[profile.p]\nstep.prune.roundss = 1\n[[gate]]"),
        ("[[gate]]", "[profile.p]\ndata.reviews.train_rows = \"1\"\n[[gate]]"),
        ("[[gate]]", "[profile.p.profile.q]\n[[gate]]"),
    ];
    for (from, to) in wrong {
        let text = full_with(from, to);
        assert!(Workspace::new(&text).load(&[]).is_err(), "{to}");
        assert!(!validator.is_valid(&as_json(&text).expect("it is TOML")), "{to}");
    }
}

#[test]
fn what_readers_accept_the_schema_accepts() {
    let validator = validator();
    let values = [
        "1",
        "0",
        "-1",
        "0.5",
        "1e300",
        "8",
        "true",
        "\"x\"",
        "\"full\"",
        "\"random\"",
        "\"${x}\"",
        "[]",
        "[0.5]",
        "{}",
        "\"small\"",
        "\"teacher\"",
        "\"sgd\"",
        "\"percentile\"",
        "18446744073709551615",
    ];
    let mut refused = 0;
    for (definition, keys) in definitions().into_iter().filter(|(name, _)| name != "root") {
        let (workspace, text, line) = sample_of(&definition);
        for (key, value) in keys.keys().flat_map(|key| values.map(|value| (key, value))) {
            let text = text.replacen(&line, &format!("{line}\n{key} = {value}\n"), 1);
            let Some(json) = as_json(&text) else { continue };
            if !validator.is_valid(&json) {
                workspace.file("recipes/r.toml", text.as_bytes());
                assert!(
                    workspace.load(&[]).is_err(),
                    "{definition}: only the schema refuses {key} = {value}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
