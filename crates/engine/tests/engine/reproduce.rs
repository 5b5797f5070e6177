//! A second run that gives other bytes is told, with what differs first.

use crate::fixture::{Fake, Workshop, action, all, concatenate, files_below, graph, options};
use orchestrate_engine::{
    Action, ActionGraph, BuildOptions, Cancel, Demand, FailureClass, InProcessExecutor, Input, Outcome, Reproduction,
    RunEvent, StepError, Work, build, reproduce,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Builds a chain of two with `act`, runs all again and tells what came of the second.
fn second(act: impl Fn(&Work<'_>) -> Result<Outcome, StepError> + Send + Sync + 'static) -> (Reproduction, Vec<bool>) {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[]), ("b", "b", &["a"])]);
    let fake = Fake::new(act);
    let executor = InProcessExecutor::new(&fake);
    let (store, cancel, options) = (workshop.store(), Cancel::new(), options(2, false));
    let built = build(&graph, &all(&graph), &options, &store, &executor, &cancel, &|_| {}).unwrap();
    let before: Vec<_> = files_below(&workshop.path("store")).into_iter().collect();
    let told = Mutex::new(Vec::new());
    let sink = |event| {
        if let RunEvent::ActionChecked { same, .. } = event {
            told.lock().unwrap().push(same);
        }
    };
    let describe = |path: &str, old: &Path, new: &Path| {
        let read = |path| fs::read_to_string(path).unwrap();
        format!("{path}: {} and {}", read(old), read(new))
    };
    let second = reproduce(
        &graph,
        &built,
        &all(&graph),
        &options,
        &store,
        &executor,
        &cancel,
        &sink,
        &describe,
    )
    .unwrap();
    let after: Vec<_> = files_below(&workshop.path("store")).into_iter().collect();
    assert_eq!(before, after, "nothing is kept");
    let ids: Vec<_> = second.keys().copied().collect();
    assert_eq!(second[&ids[0]], Reproduction::Same);
    (second[&ids[1]].clone(), told.into_inner().unwrap())
}

/// How often `work` was done before, if it is that of `b`.
fn turn(work: &Work<'_>, turns: &AtomicUsize) -> usize {
    if work.parameters["text"] == "b" {
        turns.fetch_add(1, Ordering::SeqCst)
    } else {
        0
    }
}

#[test]
fn what_is_the_same_is_said_to_be() {
    let (second, mut told) = second(concatenate);
    told.sort_unstable();
    assert_eq!((second, told), (Reproduction::Same, vec![true, true]));
}

#[test]
fn the_first_difference_is_told() {
    type Extra = fn(&Path, usize, &mut Outcome);
    let cases: [(&str, Extra); 4] = [
        ("out: b(a) and 1", |folder, turn, _| {
            if turn > 0 {
                fs::write(folder.join("out"), turn.to_string()).unwrap();
            }
        }),
        ("more is missing this time", |folder, turn, _| {
            if turn == 0 {
                fs::write(folder.join("more"), "").unwrap();
            }
        }),
        ("more is new this time", |folder, turn, _| {
            if turn > 0 {
                fs::write(folder.join("more"), "").unwrap();
            }
        }),
        ("the metric turn was nothing and is 1", |_, turn, outcome| {
            if turn > 0 {
                outcome.metrics.insert("turn".into(), turn as f64);
            }
        }),
    ];
    for (expected, extra) in cases {
        let turns = AtomicUsize::new(0);
        let (second, _) = second(move |work| {
            let mut outcome = concatenate(work)?;
            extra(work.output, turn(work, &turns), &mut outcome);
            Ok(outcome)
        });
        let difference = expected.to_owned();
        assert_eq!(second, Reproduction::Differs { difference });
    }
}

/// Builds `graph` one by one with `act`, does `between`, and runs all again under `options`; what came of it by name.
fn check(
    workshop: &Workshop,
    graph: &ActionGraph,
    options: &BuildOptions,
    act: impl Fn(&Work<'_>) -> Result<Outcome, StepError> + Send + Sync + 'static,
    between: impl FnOnce(),
) -> BTreeMap<String, Reproduction> {
    let (fake, store, cancel) = (Fake::new(act), workshop.store(), Cancel::new());
    let executor = InProcessExecutor::new(&fake);
    let one = crate::fixture::options(1, false);
    let built = build(graph, &all(graph), &one, &store, &executor, &cancel, &|_| {}).unwrap();
    assert!(built.is_success(), "{built:?}");
    between();
    let describe = |path: &str, _: &Path, _: &Path| path.to_owned();
    let second = reproduce(
        graph,
        &built,
        &all(graph),
        options,
        &store,
        &executor,
        &cancel,
        &|_| {},
        &describe,
    );
    let named = second.unwrap().into_iter();
    named.map(|(id, what)| (graph.get(id).name.clone(), what)).collect()
}

/// `a`, which reads `path`, and `b`, which reads `a`.
fn reading(path: &Path) -> ActionGraph {
    fs::write(path, "1").unwrap();
    let mut graph = ActionGraph::new();
    let a = graph
        .add(action("a", json!({}), &[("data", Input::File(path.to_owned()))]))
        .unwrap();
    graph
        .add(action("b", json!({"text": "b"}), &[("in", Input::Action(a))]))
        .unwrap();
    graph
}

/// That `a` was refused for an input that is another, and that `b`, which does not read it, gave the same.
fn assert_input_changed(second: &BTreeMap<String, Reproduction>, expected: &[&str]) {
    let Reproduction::Failed { error, class } = &second["a"] else {
        panic!("{second:?}")
    };
    assert_eq!(*class, FailureClass::Input);
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    assert!(error.ends_with("build again"), "{error}");
    assert_eq!(second["b"], Reproduction::Same);
}

#[test]
fn an_input_file_that_was_saved_after_the_build_is_told_as_that() {
    let workshop = Workshop::new();
    let path = workshop.path("data.csv");
    let graph = reading(&path);
    let check = |between: &dyn Fn()| check(&workshop, &graph, &options(1, false), concatenate, between);
    let second = check(&|| fs::write(&path, "2").unwrap());
    assert_input_changed(&second, &["changed since the build read it: ", "data.csv; "]);
    fs::write(&path, "1").unwrap();
    let second = check(&|| fs::remove_file(&path).unwrap());
    assert_input_changed(&second, &["input `data` of action `a`: cannot read ", "data.csv"]);
}

#[test]
fn an_input_file_that_is_saved_during_the_second_run_is_told_as_that() {
    for fails in [false, true] {
        let workshop = Workshop::new();
        let path = workshop.path("data.csv");
        let graph = reading(&path);
        let (runs, edited): (AtomicUsize, PathBuf) = (AtomicUsize::new(0), path.clone());
        let act = move |work: &Work<'_>| {
            if work.inputs.contains_key("data") && runs.fetch_add(1, Ordering::SeqCst) == 1 {
                fs::write(edited.with_extension("new"), "2").unwrap();
                fs::rename(edited.with_extension("new"), &edited).unwrap();
                if fails {
                    return Err(StepError::new(FailureClass::Step, "the number 2 is not expected"));
                }
            }
            concatenate(work)
        };
        let second = check(&workshop, &graph, &options(1, false), act, || {});
        assert_input_changed(
            &second,
            &["data.csv changed since this build read it, before the step had ended"],
        );
    }
}

#[test]
fn second_runs_share_places_and_memory_as_those_of_a_build_do() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    let demands = [
        ("slot-60", Demand::Slot, 60),
        ("whole", Demand::Whole, 0),
        ("slot-50", Demand::Slot, 50),
        ("light", Demand::Light, 10),
        ("too-large", Demand::Slot, 101),
        ("slot-0", Demand::Slot, 0),
    ];
    for (name, demand, memory) in demands {
        let action = action(name, json!({"text": name}), &[]);
        let memory = Some(memory);
        graph
            .add(Action {
                demand,
                memory,
                ..action
            })
            .unwrap();
    }
    let options = BuildOptions {
        memory: Some(100),
        ..options(3, false)
    };
    let running = Mutex::new(Vec::new());
    let act = move |work: &Work<'_>| {
        let name = work.parameters["text"].as_str().unwrap().to_owned();
        let others = {
            let mut running = running.lock().unwrap();
            running.push(name.clone());
            running.clone()
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        let are_two_large = ["slot-60", "slot-50"]
            .iter()
            .all(|large| others.iter().any(|name| name == large));
        assert!(!are_two_large, "they have no more than 100 bytes: {others:?}");
        let is_whole = others.iter().any(|name| name == "whole");
        assert!(
            !is_whole || others.len() == 1,
            "what demands the machine runs alone: {others:?}"
        );
        running.lock().unwrap().retain(|other| *other != name);
        concatenate(work)
    };
    let mut second = check(&workshop, &graph, &options, act, || {});
    let Some(Reproduction::Failed { error, class }) = second.remove("too-large") else {
        panic!("{second:?}")
    };
    assert!(error.contains("up to 101 B of memory, and there are 100 B"), "{error}");
    assert_eq!(class, FailureClass::Environment);
    assert!(
        second.values().all(|second| *second == Reproduction::Same),
        "{second:?}"
    );
}
