//! What actions are expected to hold, and what there is.

use crate::fixture::{Workshop, action, all, concatenate, options};
use orchestrate_engine::{Action, ActionGraph, BuildOptions, FailureClass, Input, RunEvent, Work};
use serde_json::json;
use std::sync::Mutex;
use std::time::Duration;

/// `a`, which `b` reads, and `c`; each with its memory in bytes.
fn with_memory(memory: [u64; 3]) -> ActionGraph {
    let mut graph = ActionGraph::new();
    for (name, memory) in ["a", "b", "c"].into_iter().zip(memory) {
        let reads = (name == "b").then(|| ("in", Input::Action(graph.find("a").unwrap())));
        let action = action(name, json!({"text": name}), reads.as_slice());
        let memory = Some(memory);
        graph.add(Action { memory, ..action }).unwrap();
    }
    graph
}

#[test]
fn what_needs_more_memory_than_there_is_fails_before_anything_starts() {
    let workshop = Workshop::new();
    let graph = with_memory([10, 101 << 20, 20]);
    let build = |memory, keep_going| {
        let options = BuildOptions {
            memory,
            ..options(1, keep_going)
        };
        workshop.build_under(&options, &graph, &all(&graph), concatenate)
    };
    let limit = Some(100 << 20);
    let built = build(limit, false);
    let (error, class) = built.error("b");
    assert!(
        error.contains("up to 101 MiB of memory, and there are 100 MiB"),
        "{error}"
    );
    assert_eq!((class, built.started()), (FailureClass::Environment, vec![]));
    assert_eq!(
        build(limit, true).started(),
        ["a", "c"],
        "what fits is built with keep_going"
    );
    assert_eq!(build(None, false).started(), ["b"]);
    assert!(build(limit, false).report.is_success(), "what is known needs no memory");
}

#[test]
fn actions_share_the_memory_there_is() {
    let workshop = Workshop::new();
    let graph = with_memory([60, 10, 50]);
    let options = BuildOptions {
        memory: Some(100),
        ..options(3, false)
    };
    let running = Mutex::new(Vec::new());
    let act = move |work: &Work<'_>| {
        let name = work.parameters["text"].to_string();
        running.lock().unwrap().push(name.clone());
        std::thread::sleep(Duration::from_millis(50));
        let mut running = running.lock().unwrap();
        let are_two_large = ["\"a\"", "\"c\""]
            .iter()
            .all(|name| running.iter().any(|other| other == name));
        running.retain(|other| *other != name);
        assert!(!are_two_large, "a and c ran together");
        concatenate(work)
    };
    let built = workshop.build_under(&options, &graph, &all(&graph), act);
    assert_eq!(built.report.executed, 3);
    let waits = built.events.iter().filter_map(|event| match event {
        RunEvent::ActionWaiting { action, reason } => Some((action.as_str(), reason.as_str())),
        _ => None,
    });
    assert_eq!(
        waits.collect::<Vec<_>>(),
        [("c", "it needs about 50 B, and what runs has the memory")]
    );
}
