//! Shortened runs on real data, where it is there. The full runs' figures are in README.md.

use crate::workspace::Workspace;
use serde_json::Value;

/// The folder `name` of the real data, or `None` with a message: `../shared/data`, or what ORCHESTRATE_TEST_DATA says.
pub fn find(name: &str) -> Option<String> {
    let root = std::env::var("ORCHESTRATE_TEST_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").to_owned());
    let folder = std::path::Path::new(&root).join(name);
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap().display().to_string());
    }
    eprintln!("skipped: there is no {}", folder.display());
    None
}

fn metrics(recipe: &str, more: &[&str]) -> Value {
    let workspace = Workspace::empty();
    let path = format!("{}/recipes/{recipe}.toml", env!("CARGO_MANIFEST_DIR"));
    workspace.succeed(
        &[
            &[
                "build",
                &path,
                "--set",
                "gate=[]",
                "--set",
                "recipe.latency_seconds=0.2",
            ],
            more,
        ]
        .concat(),
    );
    let text = std::fs::read_to_string(workspace.path("out").join(recipe).join("export/metrics.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A sixth of an epoch for the teacher, and as little for the rest.
#[test]
fn lenet_learns_mnist_and_keeps_it_in_integers() {
    let Some(mnist) = find("mnist") else { return };
    let metrics = metrics(
        "lenet-mnist",
        &[
            "--set",
            &format!("variables.mnist={mnist}"),
            "--set",
            "step.teacher.max_steps=300",
            "--set",
            "step.prune.max_steps=100",
            "--set",
            "step.quantize.max_steps=50",
        ],
    );
    let (exported, teacher) = (
        metrics["accuracy"].as_f64().unwrap(),
        metrics["baseline"]["accuracy"].as_f64().unwrap(),
    );
    assert!(teacher > 0.95, "{metrics:#}");
    assert!(exported > teacher - 0.015, "{metrics:#}");
    assert!(metrics["file_bytes"].as_f64().unwrap() * 8.0 < metrics["baseline"]["file_bytes"].as_f64().unwrap());
}

/// A small model for a short time: well above chance (50.9 %) is all that is asked.
#[test]
fn bert_learns_sst2_from_scratch() {
    let (Some(sst2), Some(vocabulary)) = (find("sst2"), find("bert_vocab")) else {
        return;
    };
    let metrics = metrics(
        "sst2",
        &[
            "--set",
            &format!("variables.sst2={sst2}"),
            "--set",
            &format!("variables.tokenizer={vocabulary}/tokenizer.json"),
            "--set",
            "model.teacher.hidden=64",
            "--set",
            "step.teacher.max_steps=500",
            "--set",
            "step.prune.max_steps=50",
            "--set",
            "step.quantize.max_steps=50",
        ],
    );
    let (exported, teacher) = (
        metrics["accuracy"].as_f64().unwrap(),
        metrics["baseline"]["accuracy"].as_f64().unwrap(),
    );
    assert!(teacher > 0.65, "{metrics:#}");
    assert!(exported > teacher - 0.04, "{metrics:#}");
}
