//! What each action takes of the machine, on the processor and on a GPU.

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
