//! docs/recipe.md says everything that can be written in a recipe, and what it shows works.

use crate::workspace::{FULL, Workspace, full_with};
use miette::Diagnostic;
use std::collections::BTreeSet;

pub const REFERENCE: &str = include_str!("../../../../docs/recipe.md");

/// The backticked names behind "has": the readers' own list of their keys, for a section with a key they do not know.
pub fn keys_of(text: &str) -> BTreeSet<String> {
    let errors = Workspace::new(text).load(&[]).expect_err("there is an unknown key");
    let unknown = errors
        .findings()
        .iter()
        .find(|finding| finding.to_string().starts_with("`zzzz` is not a key"));
    let help = unknown
        .unwrap_or_else(|| panic!("{errors}"))
        .help()
        .unwrap()
        .to_string();
    let (_, list) = help.split_once(" has ").unwrap();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A recipe for each section that there is, with an unknown key in it.
pub fn sections() -> Vec<(&'static str, String)> {
    let step = |name: &str| full_with(&format!("[step.{name}]"), &format!("[step.{name}]\nzzzz = 1"));
    let data = |source: &str| format!("[data.x]\nsource = \"{source}\"\nzzzz = 1\n");
    let model = |architecture: &str| format!("[model.x]\narchitecture = \"{architecture}\"\nzzzz = 1\n");
    vec![
        ("# ", format!("zzzz = 1\n{FULL}")),
        ("## `[recipe]`", full_with("[recipe]", "[recipe]\nzzzz = 1")),
        ("### `builtin:reviews`", data("builtin:reviews")),
        ("### `builtin:digits`", data("builtin:digits")),
        ("### `text`", data("text")),
        ("### `idx`", data("idx")),
        ("### `bert`", model("bert")),
        ("### `mlp`", model("mlp")),
        ("### `lenet5`", model("lenet5")),
        ("### `resnet8`", model("resnet8")),
        ("### `train`", step("teacher")),
        ("### `distill`", step("student")),
        ("### `prune`", step("prune")),
        ("### `quantize`", step("quantize")),
        ("### `export`", step("export")),
        ("### `evaluate`", step("check")),
        ("## `[[gate]]`", full_with("[[gate]]", "[[gate]]\nzzzz = 1")),
    ]
}

/// The text under the heading that begins with `heading`, up to the next of its level.
pub fn under(heading: &str) -> &'static str {
    let begin = REFERENCE.find(&format!("\n{heading}")).map_or(0, |at| at + 1);
    let rest = &REFERENCE[begin..];
    let level = heading.split(' ').next().unwrap();
    let end = rest[1..]
        .match_indices("\n#")
        .map(|(at, _)| at + 1)
        .find(|at| rest[at + 1..].split(' ').next().unwrap().len() <= level.len());
    &rest[..end.unwrap_or(rest.len())]
}

#[test]
fn every_key_is_in_the_reference() {
    let training = under("### Training");
    for (heading, text) in sections() {
        let keys = keys_of(&text);
        assert!(!keys.is_empty());
        let section = under(heading);
        let about_training = ["train", "distill", "prune", "quantize"]
            .iter()
            .any(|kind| heading.contains(kind));
        for key in keys {
            let cell = format!("| `{key}` |");
            let documented = match heading {
                "# " => REFERENCE.contains(&format!("[{key}")),
                _ => section.contains(&cell) || about_training && training.contains(&cell),
            };
            // The key that says what a section is stands before the headings of what it can be.
            let says_what = matches!(key.as_str(), "kind" | "source" | "architecture");
            assert!(
                documented || says_what && REFERENCE.contains(&cell),
                "`{key}` of {heading}"
            );
        }
    }
}

#[test]
fn the_examples_are_recipes() {
    let examples: Vec<&str> = REFERENCE
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(examples.len() > 1);
    Workspace::new(examples[0]).recipe(&[]);
    Workspace::new(examples[0]).recipe(&["--profile", "smoke"]);
}

#[test]
fn every_metric_is_in_the_reference() {
    for metric in orchestrate_recipe::gate::METRICS {
        assert!(under("## `[[gate]]`").contains(&format!("| `{metric}` |")), "{metric}");
    }
}
