//! `precision` of a training: where it shows in keys, and where it is refused.

use crate::workspace::{FULL, Workspace, full_with};
use orchestrate_recipe::{Lowered, Recipe};

/// Numerics class and parameters of the action that makes the step's model.
fn action(recipe: &Recipe, step: &str) -> (String, String) {
    let lowered = Lowered::new(recipe).unwrap();
    let action = lowered.graph.get(lowered.step(step).unwrap().model);
    (action.numerics.clone(), action.parameters.to_string())
}

#[test]
fn f32_leaves_no_trace_in_a_key_and_bf16_has_a_class_of_its_own() {
    let plain = Workspace::new(FULL).recipe(&[]);
    let with = |precision: &str| {
        let changes = ["teacher", "student", "prune", "quantize"]
            .map(|step| format!("step.{step}.precision={precision}"))
            .map(|set| ["--set".to_owned(), set]);
        let arguments: Vec<&str> = changes.iter().flatten().map(String::as_str).collect();
        Workspace::new(FULL).recipe(&arguments)
    };
    let (f32, bf16) = (with("f32"), with("bf16"));
    for step in ["teacher", "student", "prune", "quantize"] {
        let (class, parameters) = action(&plain, step);
        assert!(class.starts_with("cpu-f32") && !parameters.contains("precision"));
        assert_eq!(action(&f32, step), (class, parameters));
        let (class, parameters) = action(&bf16, step);
        assert_eq!(class, format!("cpu-bf16-{}", std::env::consts::ARCH));
        assert!(parameters.contains(r#""precision":"bf16""#), "{parameters}");
    }
}

#[test]
fn without_training_there_is_no_precision() {
    let recipe = Workspace::new(FULL).recipe(&[
        "--set",
        "step.quantize.precision=bf16",
        "--set",
        "step.quantize.epochs=0",
    ]);
    assert!(action(&recipe, "quantize").0.starts_with("cpu-f32"));
}

#[test]
fn bf16_is_refused_where_it_does_not_run() {
    let workspace = Workspace::new(&full_with("[step.teacher]", "[step.teacher]\nprecision = \"bf16\""));
    workspace.recipe(&[]);
    let shown = workspace.errors(&["--device", "cuda"]);
    assert!(shown.contains("`precision = \"bf16\"` does not run on cuda"), "{shown}");
}

#[test]
fn an_unknown_precision_is_told() {
    let text = full_with("[step.teacher]", "[step.teacher]\nprecision = \"bf61\"");
    let errors = Workspace::new(&text).load(&[]).expect_err("there is no such precision");
    let help = format!("{:?}", miette::Report::new(errors));
    assert!(help.contains("did you mean `bf16`"), "{help}");
}
