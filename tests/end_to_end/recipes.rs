//! The recipes of the repository, in their `smoke` profile: they run, within twenty seconds, and a second run of every action
//! gives the same bytes.

use crate::real_data;
use crate::workspace::Workspace;
use std::time::Instant;

fn smoke(name: &str, more: &[&str]) {
    let workspace = Workspace::empty();
    let recipe = format!("{}/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let started = Instant::now();
    let told = workspace.succeed(&[&["build", &recipe, "--profile", "smoke", "--check"], more].concat());
    let (_, check) = told.stdout.split_once("check: ").expect("the check is told");
    let counts: Vec<&str> = check.split(' ').filter(|word| word.parse::<usize>().is_ok()).collect();
    assert!(counts.len() == 2 && counts[0] == counts[1], "{name}: {check}");
    assert!(
        started.elapsed().as_secs_f64() < 20.0,
        "{name} took {:?}",
        started.elapsed()
    );
    for file in [
        "model.safetensors",
        "config.json",
        "metrics.json",
        "provenance.json",
        "recipe.toml",
    ] {
        assert!(
            workspace.path("out").join(name).join("export").join(file).is_file(),
            "{name}: {file}"
        );
    }
}

#[test]
fn bert_small() {
    smoke("bert-small", &[]);
}

#[test]
fn lenet_digits() {
    smoke("lenet-digits", &[]);
}

#[test]
fn lenet_mnist() {
    let Some(mnist) = real_data::find("mnist") else { return };
    smoke("lenet-mnist", &["--set", &format!("variables.mnist={mnist}")]);
}

#[test]
fn resnet_digits() {
    smoke("resnet-digits", &[]);
}

#[test]
fn sst2() {
    let (Some(sst2), Some(vocabulary)) = (real_data::find("sst2"), real_data::find("bert_vocab")) else {
        return;
    };
    let tokenizer = format!("variables.tokenizer={vocabulary}/tokenizer.json");
    smoke(
        "sst2",
        &["--set", &format!("variables.sst2={sst2}"), "--set", &tokenizer],
    );
}

/// With a small model in place of a real one.
#[test]
fn sst2_pretrained() {
    let Some(sst2) = real_data::find("sst2") else { return };
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/ml/tests/pretrained/bert");
    smoke(
        "sst2-pretrained",
        &[
            "--set",
            &format!("variables.sst2={sst2}"),
            "--set",
            &format!("variables.model={model}"),
        ],
    );
}

/// What is locked holds in a clean checkout, on every machine of the numerics class that made it.
#[test]
fn the_locks_of_the_repository_hold() {
    for name in ["bert-small", "lenet-digits", "resnet-digits"] {
        let workspace = Workspace::empty();
        let recipe = format!("{}/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let run = workspace.run(&["build", &recipe, "--profile", "smoke", "--locked"]);
        if run.code == Some(5) && run.stderr.contains("numerics ") {
            eprintln!("skipped: the lock was made in another numerics class");
            continue;
        }
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
}

/// No recipe is left without a test here.
#[test]
fn every_recipe_is_tested() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "bert-small.toml",
            "lenet-digits.toml",
            "lenet-mnist.toml",
            "resnet-digits.toml",
            "sst2-pretrained.toml",
            "sst2.toml"
        ]
    );
}
