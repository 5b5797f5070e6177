//! The commands beside `build`.

use crate::workspace::{RECIPE, Workspace};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every figure of `metrics.json` is that of the exported files, read back and run.
#[test]
fn metrics_hold_what_the_exported_files_give() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(workspace.path("out/small/export").join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let metrics = read("metrics.json");
    let weights = workspace.path("out/small/export/model.safetensors");
    assert_eq!(metrics["file_bytes"], std::fs::metadata(weights).unwrap().len());
    for of in [&metrics, &metrics["baseline"]] {
        for name in ["accuracy", "file_bytes", "parameters", "macs", "latency_ms_p50"] {
            assert!(of[name].as_f64().unwrap() >= 0.0, "{name} in {of}");
        }
    }
    assert_eq!(metrics["baseline"]["step"], "teacher");
    assert!(metrics["parameters"].as_u64() < metrics["baseline"]["parameters"].as_u64());
    assert!(metrics["macs"].as_u64() < metrics["baseline"]["macs"].as_u64());

    // The same accuracy comes out of `predict` on the test rows.
    let test = std::fs::read_to_string(workspace.path("test.tsv")).unwrap();
    let rows: Vec<(&str, &str)> = test
        .lines()
        .skip(1)
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    workspace.write(
        "lines.txt",
        rows.iter().map(|(text, _)| format!("{text}\n")).collect::<String>(),
    );
    let answers = json_lines(&workspace.succeed(&["predict", "out/small/export", "lines.txt"]).stdout);
    assert_eq!(answers.len(), rows.len());
    let right = answers
        .iter()
        .zip(&rows)
        .filter(|(answer, (_, label))| answer["label"] == *label)
        .count();
    assert_eq!(metrics["accuracy"].as_f64().unwrap(), right as f64 / rows.len() as f64);
    for answer in &answers {
        let sum: f64 = answer["scores"]
            .as_object()
            .unwrap()
            .values()
            .map(|v| v.as_f64().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{answer}");
    }

    let provenance = read("provenance.json");
    let actions = provenance["actions"].as_array().unwrap();
    assert_eq!(
        actions.len(),
        12,
        "all but the evaluations of the teacher and of the pruned model: {provenance:#}"
    );
    assert!(actions.iter().all(|a| a["key"].as_str().unwrap().len() == 64));
    assert_eq!(
        std::fs::read_to_string(workspace.path("out/small/export/recipe.toml")).unwrap(),
        RECIPE
    );
}

#[test]
fn predict_answers_standard_input_line_by_line() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let mut predict = workspace
        .command(&["predict", "out/small/export"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    predict
        .stdin
        .take()
        .unwrap()
        .write_all("the film is great\n\nthe plot is dull".as_bytes())
        .unwrap();
    let output = predict.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        json_lines(&String::from_utf8(output.stdout).unwrap()).len(),
        3,
        "an empty line is an input too"
    );
}

#[test]
fn evaluate_and_bench_work_on_any_model_folder() {
    let workspace = Workspace::new();
    workspace.build(&[]);
    let evaluated = workspace
        .succeed(&["evaluate", "out/small/export", "recipe.toml"])
        .stdout;
    let figures: Value = serde_json::from_str(&evaluated).unwrap();
    let metrics = std::fs::read_to_string(workspace.path("out/small/export/metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(figures["accuracy"].as_f64(), metrics["accuracy"].as_f64());

    let bench = [
        "bench",
        "out/small/export",
        "out/small/export",
        "--seconds",
        "0.2",
        "--format",
        "json",
    ];
    let lines = json_lines(&workspace.succeed(&bench).stdout);
    assert_eq!(lines.len(), 2);
    for line in lines {
        let percentile = |name: &str| line[name].as_f64().unwrap();
        assert!(percentile("latency_ms_p50") > 0.0);
        assert!(percentile("latency_ms_p50") <= percentile("latency_ms_p90"));
        assert!(percentile("latency_ms_p90") <= percentile("latency_ms_p99"));
        assert_eq!(line["file_bytes"], metrics["file_bytes"]);
    }
    let too_long = workspace.run(&["bench", "out/small/export", "--tokens", "99"]);
    assert_eq!(too_long.code, Some(2));
    assert!(
        too_long.stderr.contains("the model reads 1 to 12"),
        "{}",
        too_long.stderr
    );
}

#[test]
fn graphs_are_drawn_of_steps_and_of_actions() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.succeed(&["graph", "recipe.toml"]).stdout);
    let mermaid = workspace
        .succeed(&["graph", "recipe.toml", "--actions", "--format", "mermaid"])
        .stdout;
    assert!(
        mermaid.starts_with("flowchart LR\n") && mermaid.contains("prune.finetune-2<br/>finetune"),
        "{mermaid}"
    );
}

#[test]
fn plan_and_why_agree_with_what_build_does() {
    let workspace = Workspace::new();
    let plan = json_lines(&workspace.succeed(&["plan", "recipe.toml", "--format", "json"]).stdout);
    assert_eq!(plan[0]["decision"], "run");
    assert!(plan[1..].iter().all(|action| action["decision"] == "maybe"));
    workspace.build(&[]);
    let plan = workspace.succeed(&["plan", "recipe.toml"]).stdout;
    assert!(plan.ends_with("0 to run, 0 perhaps, 14 cached\n"), "{plan}");
    workspace.edit("targets = [0.25, 0.5]", "targets = [0.3, 0.5]");
    insta::assert_snapshot!(workspace.masked(&workspace.succeed(&["why", "recipe.toml", "quantize"]).stdout));
}

#[test]
fn init_writes_a_recipe_that_builds() {
    let workspace = Workspace::empty();
    workspace.succeed(&["init"]);
    let run = workspace.succeed(&["build", "recipe.toml", "--profile", "smoke"]);
    assert!(!run.stderr.contains("Warning"), "{}", run.stderr);
    assert!(workspace.path("out/my-model/export/metrics.json").is_file());
    let again = workspace.run(&["init"]);
    assert_eq!(again.code, Some(6), "an existing file is left alone: {}", again.stderr);
}

#[test]
fn images_are_predicted_from_png_and_idx() {
    let workspace = Workspace::empty();
    workspace.write(
        "recipe.toml",
        r#"
[recipe]
name = "digits"
latency_seconds = 0.02

[data.digits]
source = "builtin:digits"
train_rows = 600
test_rows = 50

[model.mlp]
architecture = "mlp"
hidden = [40]

[step.teacher]
kind = "train"
data = "digits"
model = "mlp"
batch_size = 20

[step.quantize]
kind = "quantize"
input = "teacher"

[step.export]
kind = "export"
input = "quantize"
"#,
    );
    workspace.build(&[]);
    let mut idx = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
    idx.extend((0..2 * 28 * 28).map(|i| (i % 256) as u8));
    workspace.write("two.idx", &idx);
    assert_eq!(
        json_lines(&workspace.succeed(&["predict", "out/digits/export", "two.idx"]).stdout).len(),
        2
    );
    workspace.write("one.png", PNG);
    let answers = json_lines(&workspace.succeed(&["predict", "out/digits/export", "one.png"]).stdout);
    assert_eq!(answers[0]["scores"].as_object().unwrap().len(), 10);
    let text = workspace.run(&["predict", "out/digits/export"]);
    assert_eq!(text.code, Some(2));
    assert!(text.stderr.contains("name PNG or IDX files"), "{}", text.stderr);
}

/// A black pixel.
const PNG: &[u8] = &[
    0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8,
    0, 0, 0, 0, 0x3a, 0x7e, 0x9b, 0x55, 0, 0, 0, 10, b'I', b'D', b'A', b'T', 0x78, 0x9c, 0x63, 0x60, 0, 0, 0, 2, 0, 1,
    0x48, 0xaf, 0xa4, 0x71, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
];
