//! Tests that what docs/ci.md tells people to type is what this program understands.

use crate::arguments::Arguments;
use clap::Parser;
use saphyr::{LoadableYamlNode, Yaml};

const PAGE: &str = include_str!("../../docs/ci.md");

/// The text of the page's fenced blocks in that language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    let opened = PAGE.split(start.as_str()).skip(1);
    opened
        .map(|rest| rest.split_once("```").expect("a block ends").0)
        .collect()
}

/// Reads a command line as a shell would that has no quotes to care for.
fn understand(line: &str) {
    if let Err(error) = Arguments::try_parse_from(line.split_whitespace()) {
        panic!("{line}: {error}");
    }
}

/// The scripts of a workflow's steps.
fn scripts(workflow: &Yaml<'_>) -> Vec<String> {
    let mut scripts = Vec::new();
    for job in workflow["jobs"].as_mapping().expect("jobs by name").values() {
        for step in job["steps"].as_sequence().expect("a list of steps") {
            let run = step.as_mapping_get("run").and_then(Yaml::as_str);
            scripts.extend(run.map(str::to_owned));
        }
    }
    scripts
}

#[test]
fn the_workflow_is_yaml_and_its_commands_are_understood() {
    let [text] = blocks("yaml")[..] else {
        panic!("one workflow")
    };
    let documents = Yaml::load_from_str(text).unwrap();
    let scripts = scripts(&documents[0]).join("\n");
    let commands: Vec<&str> = scripts
        .lines()
        .filter(|line| line.starts_with("orchestrate "))
        .collect();
    assert!(
        commands
            .iter()
            .any(|line| line.contains(" build ") && line.contains("--junit")),
        "{commands:?}"
    );
    assert!(commands.len() >= 3, "{commands:?}");
    commands.into_iter().for_each(understand);
}

#[test]
fn the_other_commands_are_understood() {
    let blocks = blocks("console").concat();
    let commands: Vec<&str> = blocks.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    commands.into_iter().for_each(understand);
}
