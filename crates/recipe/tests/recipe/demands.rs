//! What each action takes of the machine, on the processor and on a GPU, and on which of both it runs.

use crate::workspace::{FULL, Workspace, full_with};
use orchestrate_engine::Demand;
use orchestrate_recipe::Lowered;
use std::collections::BTreeMap;

/// The demands of the actions of `text`, by name.
fn demands(text: &str, device: &str) -> BTreeMap<String, Demand> {
    let recipe = Workspace::new(text).recipe(&["--device", device]);
    let lowered = Lowered::new(&recipe).unwrap();
    let actions = lowered.graph.iter();
    actions
        .map(|(_, action)| (action.name.clone(), action.demand))
        .collect()
}

#[test]
fn what_works_on_a_gpu_asks_for_it_alone_and_all_else_goes_on_beside_it() {
    let untimed = full_with("name = \"full\"", "name = \"full\"\nlatency_seconds = 0");
    let untimed = untimed.replace("target = 0.5", "target = 0.5\nrounds = 1");
    let on_gpu = demands(&untimed, "cuda");
    assert_eq!(on_gpu, demands(&untimed, "metal"));
    let of = |demand: Demand| -> Vec<&str> {
        let chosen = on_gpu.iter().filter(|(_, found)| **found == demand);
        chosen.map(|(name, _)| name.as_str()).collect()
    };
    let expected = [
        "prune.evaluate",
        "prune.finetune-1",
        "quantize",
        "quantize.evaluate",
        "student",
        "student.evaluate",
        "teacher",
        "teacher.evaluate",
        "teacher.logits.reviews",
    ];
    assert_eq!(of(Demand::Device), expected);
    assert_eq!(
        of(Demand::Slot),
        ["check.evaluate", "export.evaluate"],
        "models in integers"
    );
    assert_eq!(
        of(Demand::Light),
        ["data:reviews", "data:reviews:train", "export", "prune.prune-1"]
    );
    let on_cpu = demands(&untimed, "cpu");
    assert!(on_cpu.values().all(|demand| *demand != Demand::Device), "{on_cpu:?}");
    assert_eq!(on_cpu["teacher"], Demand::Slot);
}

#[test]
fn what_is_timed_has_the_whole_machine_on_any_device() {
    for device in ["cpu", "cuda"] {
        for (name, demand) in demands(FULL, device) {
            assert_eq!(
                demand == Demand::Whole,
                name.ends_with(".evaluate"),
                "{name} on {device}"
            );
        }
    }
}

#[test]
fn models_in_integers_are_evaluated_under_the_processors_class_on_any_device() {
    let numerics = |device: &str| -> BTreeMap<String, String> {
        let recipe = Workspace::new(FULL).recipe(&["--device", device]);
        let lowered = Lowered::new(&recipe).unwrap();
        let actions = lowered.graph.iter();
        actions
            .map(|(_, action)| (action.name.clone(), action.numerics.clone()))
            .collect()
    };
    let (on_cpu, on_gpu) = (numerics("cpu"), numerics("cuda"));
    let same: Vec<&str> = on_cpu
        .iter()
        .filter(|(name, class)| on_gpu[*name] == **class)
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = [
        "check.evaluate",
        "data:reviews",
        "data:reviews:train",
        "export",
        "export.evaluate",
        "prune.prune-1",
        "prune.prune-2",
        "prune.prune-3",
    ];
    assert_eq!(same, expected);
}

#[test]
fn a_gate_over_times_on_two_devices_is_told() {
    let told = |gate: &str, device: &str| -> Vec<String> {
        let loaded = Workspace::new(&format!("{FULL}\n[[gate]]\n{gate}\n"))
            .load(&["--device", device])
            .unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect()
    };
    let over = "step = \"export\"\nmetric = \"latency_ms_p50\"\nmax_ratio = 0.5";
    assert_eq!(
        told(over, "cuda"),
        ["`export` is timed on the processor, `teacher` on cuda"]
    );
    assert_eq!(told(over, "cpu"), [""; 0]);
    let both = format!("{over}\nbaseline = \"check\"");
    assert_eq!(told(&both, "cuda"), [""; 0]);
    let bytes = "step = \"export\"\nmetric = \"file_bytes\"\nmax_ratio = 0.5";
    assert_eq!(told(bytes, "cuda"), [""; 0]);
}
