//! In which order actions start, and how many run at the same time.

use crate::fixture::{Built, Fake, Workshop, action, all, concatenate, graph, options};
use orchestrate_engine::{
    Action, ActionGraph, Cancel, Demand, Executed, ExecutionError, Executor, InProcessExecutor, Notice, RunEvent,
    WorkOrder,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// The actions that were started, in that order.
fn order(built: &Built) -> Vec<String> {
    let started = built.events.iter().filter_map(|event| match event {
        RunEvent::ActionStarted { action, .. } => Some(action.clone()),
        _ => None,
    });
    started.collect()
}

#[test]
fn the_head_of_the_longest_path_starts_first_and_the_results_do_not_depend_on_it() {
    let actions: [(&str, &str, &[&'static str]); 6] = [
        ("short", "s", &[]),
        ("other", "o", &[]),
        ("long", "l", &[]),
        ("middle", "m", &["long"]),
        ("last", "e", &["middle", "short"]),
        ("alone", "a", &["other"]),
    ];
    let graph = graph(&actions);
    let (one, many) = (Workshop::new(), Workshop::new());
    let built = one.build(&graph);
    assert_eq!(order(&built), ["long", "short", "other", "middle", "last", "alone"]);
    let fake = Fake::new(concatenate);
    let executor = InProcessExecutor::new(&fake);
    let beside = many.build_on(&many.store(), &graph, &all(&graph), &options(4, false), &executor);
    let trees = |built: &Built| -> Vec<_> {
        let actions = built.report.actions.values();
        actions.map(|action| action.result.as_ref().unwrap().tree).collect()
    };
    assert_eq!(trees(&built), trees(&beside));
}

#[test]
fn what_lasted_longest_in_the_last_run_starts_first() {
    let workshop = Workshop::new();
    let edited = |edit: &str| -> ActionGraph {
        let text = |name: &str| format!("{name} {edit}");
        graph(&[
            ("first", &text("first"), &[]),
            ("second", &text("second"), &["first"]),
            ("slow", &text("slow"), &[]),
        ])
    };
    let build = |edit: &str, slow: Duration| {
        let graph = edited(edit);
        workshop.build_with(&graph, &all(&graph), move |work| {
            if work.parameters["text"].as_str().unwrap().starts_with("slow") {
                std::thread::sleep(slow);
            }
            concatenate(work)
        })
    };
    let unknown = build("1", Duration::from_millis(400));
    assert_eq!(
        order(&unknown),
        ["first", "second", "slow"],
        "the longest path is that of most actions"
    );
    let known = build("2", Duration::ZERO);
    assert_eq!(
        order(&known),
        ["slow", "first", "second"],
        "one lasts longer than the two"
    );
}

/// Notes which actions run while which others do, by their names.
struct Overlaps {
    running: Mutex<Vec<String>>,
    seen: Mutex<BTreeSet<(String, String)>>,
    /// Each action waits, for a while, until so many have run together.
    together: Condvar,
}

impl Executor for Overlaps {
    fn execute(&self, order: &WorkOrder, _: &Cancel, _: &mut dyn FnMut(Notice)) -> Result<Executed, ExecutionError> {
        let mut running = self.running.lock().unwrap();
        let mut seen = self.seen.lock().unwrap();
        for other in running.iter() {
            seen.insert((other.clone(), order.action.clone()));
            seen.insert((order.action.clone(), other.clone()));
        }
        drop(seen);
        running.push(order.action.clone());
        self.together.notify_all();
        let wait = Duration::from_millis(300);
        let (mut running, _) = self
            .together
            .wait_timeout_while(running, wait, |running| running.len() < 3)
            .unwrap();
        running.retain(|name| *name != order.action);
        fs::write(order.output.join("out"), &order.action).unwrap();
        Ok(Executed::default())
    }
}

#[test]
fn an_action_on_the_accelerator_has_it_for_itself_beside_those_on_the_processor() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    let demands = [
        ("gpu-1", Demand::Device),
        ("gpu-2", Demand::Device),
        ("gpu-3", Demand::Device),
        ("cpu-1", Demand::Slot),
        ("cpu-2", Demand::Slot),
        ("whole", Demand::Whole),
    ];
    for (name, demand) in demands {
        let action = action(name, json!({"text": name}), &[]);
        graph.add(Action { demand, ..action }).unwrap();
    }
    let overlaps = Overlaps {
        running: Mutex::default(),
        seen: Mutex::default(),
        together: Condvar::new(),
    };
    let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options(8, false), &overlaps);
    assert_eq!(built.report.executed, 6);
    let seen = overlaps.seen.into_inner().unwrap();
    let are_beside = |one: &str, other: &str| seen.iter().any(|(a, b)| a.starts_with(one) && b.starts_with(other));
    assert!(!are_beside("gpu", "gpu"), "two are on the accelerator: {seen:?}");
    assert!(!are_beside("whole", ""), "the machine is shared: {seen:?}");
    assert!(
        are_beside("gpu", "cpu") && are_beside("cpu", "cpu"),
        "what may go on beside does: {seen:?}"
    );
}
