//! `precision` of a training: where it shows in keys, and where it is refused.

use crate::workspace::{FULL, Workspace, full_with};
use orchestrate_ml::training::ProductPrecision;
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
        Workspace::new(FULL).load(&arguments).unwrap().recipe
    };
    let (f32, bf16) = (with("f32"), with("bf16"));
    let forms = [("bf16", with("bf16-avx512")), ("bf16-amx", with("bf16-amx"))];
    for step in ["teacher", "student", "prune", "quantize"] {
        let (class, parameters) = action(&plain, step);
        assert!(class.starts_with("cpu-f32") && !parameters.contains("precision"));
        assert_eq!(action(&f32, step), (class, parameters));
        let fastest = match ProductPrecision::fastest_bf16() {
            Some(ProductPrecision::Bf16Amx) => &forms[1].1,
            Some(_) => &forms[0].1,
            None => &f32,
        };
        assert_eq!(action(&bf16, step), action(fastest, step));
        for (form, recipe) in &forms {
            let (class, parameters) = action(recipe, step);
            assert_eq!(class, format!("cpu-{form}-{}", std::env::consts::ARCH));
            assert!(parameters.contains(&format!(r#""precision":"{form}""#)), "{parameters}");
        }
    }
}

/// Where products in bf16 would take several times as long as in f32, nobody who asks for speed gets them unawares.
#[test]
fn a_processor_without_bf16_says_so_and_takes_f32() {
    let with = |precision: &str| {
        let text = full_with(
            "[step.teacher]",
            &format!("[step.teacher]\nprecision = \"{precision}\""),
        );
        Workspace::new(&text).load(&[]).unwrap().warnings
    };
    let told: Vec<String> = with("bf16").iter().map(ToString::to_string).collect();
    if ProductPrecision::fastest_bf16().is_some() {
        assert_eq!(told, [""; 0]);
    } else {
        assert_eq!(told, ["this processor has no instructions for bf16"]);
    }
    assert!(with("bf16-avx512").is_empty() && with("bf16-amx").is_empty());
}

#[test]
fn without_training_there_is_no_precision() {
    let recipe = Workspace::new(FULL).recipe(&[
        "--set",
        "step.quantize.precision=bf16-amx",
        "--set",
        "step.quantize.epochs=0",
    ]);
    assert!(action(&recipe, "quantize").0.starts_with("cpu-f32"));
}

#[test]
fn on_cuda_there_is_one_form_of_bf16_and_on_metal_none() {
    let with = |precision: &str| {
        let text = full_with(
            "[step.teacher]",
            &format!("[step.teacher]\nprecision = \"{precision}\""),
        );
        Workspace::new(&text)
    };
    for (form, warning) in [
        ("bf16", None),
        ("bf16-amx", Some("`bf16-amx` is a form of the CPU's")),
        ("bf16-avx512", Some("`bf16-avx512` is a form of the CPU's")),
    ] {
        let workspace = with(form);
        let on = |device: &str| {
            let loaded = workspace.load(&["--device", device]).unwrap();
            let told: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
            (action(&loaded.recipe, "teacher"), told)
        };
        let ((class, parameters), told) = on("cuda");
        assert_eq!(class, "cuda-bf16");
        assert!(parameters.contains(r#""precision":"bf16""#), "{parameters}");
        assert_eq!(
            told.iter().map(String::as_str).collect::<Vec<_>>(),
            Vec::from_iter(warning)
        );
        let ((class, parameters), told) = on("metal");
        assert_eq!(class, "metal-f32");
        assert!(!parameters.contains("precision"), "{parameters}");
        assert_eq!(told, ["models are not taught in bf16 on metal"]);
    }
}

#[test]
fn an_unknown_precision_is_told() {
    let text = full_with("[step.teacher]", "[step.teacher]\nprecision = \"bf61\"");
    let errors = Workspace::new(&text).load(&[]).expect_err("there is no such precision");
    let help = format!("{:?}", miette::Report::new(errors));
    assert!(help.contains("did you mean `bf16`"), "{help}");
}

/// A teacher speaks as it was taught, to students of any precision.
#[test]
fn logits_are_in_the_precision_of_the_teacher() {
    let logits = |arguments: &[&str]| {
        let lowered = Lowered::new(&Workspace::new(FULL).recipe(arguments)).unwrap();
        let found = lowered
            .graph
            .iter()
            .find(|(_, action)| action.name.contains(".logits."));
        let (_, action) = found.expect("a student has a teacher");
        (
            action.name.clone(),
            action.numerics.clone(),
            action.parameters.to_string(),
        )
    };
    let plain = logits(&[]);
    assert!(plain.1.starts_with("cpu-f32") && plain.2 == "{}", "{plain:?}");
    let student = ["--set", "step.student.precision=bf16-amx"];
    assert_eq!(logits(&student), plain);
    let taught = logits(&["--set", "step.teacher.precision=bf16-amx"]);
    let class = format!("cpu-bf16-amx-{}", std::env::consts::ARCH);
    assert_eq!(taught, (plain.0, class, r#"{"precision":"bf16-amx"}"#.to_owned()));
}
