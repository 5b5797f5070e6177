//! The table in docs/architecture.md: which crate may depend on which.

use serde_json::Value;
use std::process::Command;

#[test]
fn every_crate_keeps_to_its_dependencies() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dependencies = |name: &str| -> Vec<String> {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages
            .iter()
            .find(|p| p["name"] == name)
            .unwrap_or_else(|| panic!("there is a crate {name}"));
        let all = package["dependencies"].as_array().unwrap();
        all.iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let forbidden = [
        (
            "orchestrate-engine",
            vec![
                "candle-core",
                "candle-nn",
                "toml",
                "orchestrate-kernels",
                "orchestrate-ml",
                "orchestrate-recipe",
            ],
        ),
        (
            "orchestrate-kernels",
            vec![
                "toml",
                "petgraph",
                "orchestrate-engine",
                "orchestrate-ml",
                "orchestrate-recipe",
            ],
        ),
        (
            "orchestrate-ml",
            vec!["toml", "petgraph", "orchestrate-engine", "orchestrate-recipe"],
        ),
        (
            "orchestrate-recipe",
            vec!["candle-core", "candle-nn", "orchestrate-kernels"],
        ),
        (
            "orchestrate",
            vec![
                "candle-core",
                "candle-nn",
                "toml",
                "petgraph",
                "orchestrate-kernels",
                "orchestrate-ml",
            ],
        ),
    ];
    for (name, never) in forbidden {
        let found = dependencies(name);
        assert!(!found.is_empty(), "{name}");
        let wrong: Vec<_> = never.iter().filter(|n| found.iter().any(|f| f == *n)).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}");
    }
}

/// `unsafe` is for the kernels alone.
#[test]
fn only_the_kernels_may_be_unsafe() {
    for name in ["engine", "ml", "recipe"] {
        let manifest = format!("{}/crates/{name}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(manifest).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{name} takes the workspace's lints"
        );
    }
    let root = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    assert!(root.contains("unsafe_code = \"forbid\""));
}
