//! The scheduler: what runs, when, and what is told of it.

use crate::fixture::{Built, Fake, Workshop, action, all, concatenate, concatenate_or_fail, graph, options};
use orchestrate_engine::{
    ActionGraph, ActionOutcome, Cancel, Change, Decision, Demand, FailureClass, InProcessExecutor, Input, Outcome,
    Reason, RunEvent, Store, Work, build, plan,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

fn diamond(left: &str) -> ActionGraph {
    graph(&[
        ("top", "t", &[]),
        ("left", left, &["top"]),
        ("right", "r", &["top"]),
        ("end", "e", &["left", "right"]),
    ])
}

#[test]
fn a_second_build_runs_nothing_and_gives_the_same() {
    let workshop = Workshop::new();
    let first = workshop.build(&diamond("l"));
    assert_eq!(first.started(), ["end", "left", "right", "top"]);
    assert_eq!(
        first
            .events
            .iter()
            .filter(|e| matches!(e, RunEvent::ActionStarted { .. }))
            .count(),
        4
    );
    assert_eq!((first.report.executed, first.report.cached), (4, 0));
    assert!(first.reasons().values().all(|reason| reason == "never ran"));
    assert_eq!(workshop.text_of(&first, "end"), "e(l(t))(r(t))");
    let second = workshop.build(&diamond("l"));
    assert_eq!((second.report.executed, second.report.cached), (0, 4));
    assert!(second.report.is_success() && second.started().is_empty());
    for (id, report) in &second.report.actions {
        assert_eq!(report.result, first.report.actions[id].result);
    }
}

#[test]
fn an_edit_reruns_the_least_and_says_why() {
    let workshop = Workshop::new();
    workshop.build(&diamond("l"));
    let edited = workshop.build(&diamond("L"));
    let reasons: Vec<(&str, String)> = edited.reasons().into_iter().collect();
    let expected = [("end", "input left changed"), ("left", "text \"l\" → \"L\"")];
    assert_eq!(reasons, expected.map(|(name, reason)| (name, reason.to_owned())));
    assert!(
        matches!(edited.reason("left"), Reason::Changed(changes) if matches!(changes[..], [Change::Parameter { .. }]))
    );
    let back = workshop.build(&diamond("l"));
    assert!(back.started().is_empty(), "results of earlier keys are kept");
}

#[test]
fn an_action_that_comes_out_as_it_was_cuts_its_dependents_off() {
    let workshop = Workshop::new();
    let chain = |text: &str| {
        let mut graph = ActionGraph::new();
        let a = graph
            .add(action("a", json!({"text": text, "emit": "same"}), &[]))
            .unwrap();
        let b = graph
            .add(action("b", json!({"text": "b"}), &[("in", Input::Action(a))]))
            .unwrap();
        graph
            .add(action("c", json!({"text": "c"}), &[("in", Input::Action(b))]))
            .unwrap();
        graph
    };
    workshop.build(&chain("one"));
    let maybe = Decision::Maybe {
        depends_on: vec!["a".into()],
    };
    let planned = plan(&chain("two"), &workshop.store(), &all(&chain("two")), "recipe").unwrap();
    assert_eq!(planned.actions[1].decision, maybe);
    let edited = workshop.build(&chain("two"));
    assert_eq!(edited.started(), ["a"]);
    assert_eq!((edited.report.executed, edited.report.cached), (1, 2));
}

#[test]
fn only_what_the_targets_need_is_built() {
    let workshop = Workshop::new();
    let graph = diamond("l");
    let built = workshop.build_with(&graph, &[graph.find("left").unwrap()], concatenate);
    assert_eq!(built.started(), ["left", "top"]);
    assert_eq!(built.report.actions.len(), 2);
}

#[test]
fn two_actions_with_one_key_run_once() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "same", &[]), ("b", "same", &[])]);
    let fake = Fake::new(concatenate);
    let executor = InProcessExecutor::new(&fake);
    let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options(2, false), &executor);
    assert_eq!((built.report.executed, built.report.cached), (1, 1));
}

#[test]
fn independent_actions_run_at_the_same_time() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[]), ("b", "b", &[])]);
    // Neither gets through alone.
    let barrier = Barrier::new(2);
    let fake = Fake::new(move |work| {
        barrier.wait();
        concatenate(work)
    });
    let executor = InProcessExecutor::new(&fake);
    let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options(2, false), &executor);
    assert_eq!(built.report.executed, 2);
}

#[test]
fn an_action_that_demands_the_whole_machine_runs_alone() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    let demands = [
        Demand::Slot,
        Demand::Whole,
        Demand::Light,
        Demand::Slot,
        Demand::Whole,
        Demand::Light,
    ];
    for (number, demand) in demands.into_iter().enumerate() {
        let mut action = action(&format!("a{number}"), json!({"text": number.to_string()}), &[]);
        action.demand = demand;
        action.seed = u64::from(demand == Demand::Whole);
        graph.add(action).unwrap();
    }
    let running = AtomicUsize::new(0);
    let fake = Fake::new(move |work| {
        let others = running.fetch_add(1, Ordering::SeqCst);
        assert!(work.seed == 0 || others == 0, "{others} others run");
        let outcome = concatenate(work);
        assert!(work.seed == 0 || running.load(Ordering::SeqCst) == 1);
        running.fetch_sub(1, Ordering::SeqCst);
        outcome
    });
    let executor = InProcessExecutor::new(&fake);
    let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options(4, false), &executor);
    assert!(built.report.is_success(), "{:?}", built.report);
}

/// `bad` fails, `after` needs it, `apart` does not.
fn failing(fail: bool) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let first = graph.add(action("first", json!({"text": "f"}), &[])).unwrap();
    let bad = graph
        .add(action(
            "bad",
            json!({"text": "b", "fail": fail}),
            &[("in", Input::Action(first))],
        ))
        .unwrap();
    let after = graph
        .add(action("after", json!({"text": "a"}), &[("in", Input::Action(bad))]))
        .unwrap();
    graph
        .add(action("last", json!({"text": "l"}), &[("in", Input::Action(after))]))
        .unwrap();
    graph
        .add(action("apart", json!({"text": "x"}), &[("in", Input::Action(first))]))
        .unwrap();
    graph
}

#[test]
fn a_failure_stops_the_build_and_keeps_what_is_done() {
    let workshop = Workshop::new();
    let built = workshop.build(&failing(true));
    assert_eq!(built.error("bad"), ("on purpose", FailureClass::Step));
    let because = |name| match built.outcome(name) {
        ActionOutcome::Skipped { because } => because.as_str(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(
        (because("after"), because("last"), because("apart")),
        ("bad failed", "bad failed", "bad failed")
    );
    assert_eq!(built.report.first_failure, failing(true).find("bad"));
    assert_eq!(
        (built.report.executed, built.report.failed, built.report.skipped),
        (1, 1, 3)
    );
    let fixed = workshop.build(&failing(false));
    assert_eq!(fixed.started(), ["after", "apart", "bad", "last"]);
    assert_eq!(
        fixed.reasons()["bad"],
        "never ran",
        "a run that failed is no result to compare with"
    );
}

#[test]
fn keep_going_skips_only_what_needs_the_failed() {
    let workshop = Workshop::new();
    let (graph, fake) = (failing(true), Fake::new(concatenate_or_fail));
    let executor = InProcessExecutor::new(&fake);
    let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options(1, true), &executor);
    assert_eq!(built.outcome("apart"), &ActionOutcome::Executed);
    assert_eq!(
        (built.report.executed, built.report.failed, built.report.skipped),
        (2, 1, 2)
    );
}

#[test]
fn panics_numbers_that_are_not_finite_and_bad_outputs_are_failures() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[])]);
    let error = |act: fn(&Work<'_>) -> Outcome| {
        let built = workshop.build_with(&graph, &all(&graph), move |work| Ok(act(work)));
        let (error, class) = built.error("a");
        assert_eq!(class, FailureClass::Step);
        error.to_owned()
    };
    assert_eq!(error(|_| panic!("broken")), "the step panicked: broken");
    let infinite = |_: &Work<'_>| Outcome {
        metrics: [("loss".into(), f64::INFINITY)].into(),
        ..Outcome::default()
    };
    assert_eq!(error(infinite), "the step reported `loss` as inf");
    let link = error(|work| {
        std::os::unix::fs::symlink("/etc/passwd", work.output.join("out")).unwrap();
        Outcome::default()
    });
    assert!(link.contains("symbolic link"), "{link}");
    assert_eq!(workshop.build(&graph).started(), ["a"], "nothing was kept");
}

#[test]
fn a_cancelled_build_keeps_what_ran_and_starts_nothing_more() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[]), ("b", "b", &["a"])]);
    let cancel = Cancel::new();
    let raised = cancel.clone();
    let fake = Fake::new(move |work| {
        raised.stop();
        concatenate(work)
    });
    let store = workshop.store();
    let executor = InProcessExecutor::new(&fake);
    let report = build(
        &graph,
        &all(&graph),
        &options(1, false),
        &store,
        &executor,
        &cancel,
        &|_| {},
    )
    .unwrap();
    assert!(report.cancelled && !report.is_success());
    assert_eq!((report.executed, report.skipped, report.first_failure), (1, 1, None));
    assert_eq!(workshop.build(&graph).started(), ["b"]);
}

/// Builds `graph` as another process would, with a store of its own; each action waits for one word of `go`.
fn build_beside(workshop: &Workshop, graph: &ActionGraph, go: Arc<Mutex<Receiver<()>>>, waiting: Sender<()>) -> Built {
    let fake = Fake::new(move |work| {
        go.lock()
            .unwrap()
            .recv_timeout(Duration::from_secs(60))
            .expect("the other build waits for us");
        concatenate(work)
    });
    let store = Store::open(&workshop.path("store")).unwrap();
    let events = Mutex::new(Vec::new());
    let sink = |event| {
        if matches!(event, RunEvent::ActionWaiting { .. }) {
            waiting.send(()).unwrap();
        }
        events.lock().unwrap().push(event);
    };
    let executor = InProcessExecutor::new(&fake);
    let report = build(
        graph,
        &all(graph),
        &options(1, false),
        &store,
        &executor,
        &Cancel::new(),
        &sink,
    )
    .unwrap();
    Built {
        report,
        events: events.into_inner().unwrap(),
    }
}

#[test]
fn two_builds_on_one_store_run_each_action_once() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[]), ("b", "b", &["a"]), ("c", "c", &["b"])]);
    // Whoever runs an action gets through when the other says that it waits.
    let (waiting, waits) = channel();
    let waits = Arc::new(Mutex::new(waits));
    let builds: Vec<Built> = std::thread::scope(|scope| {
        let start = || {
            let (waits, waiting) = (Arc::clone(&waits), waiting.clone());
            let (workshop, graph) = (&workshop, &graph);
            scope.spawn(move || build_beside(workshop, graph, waits, waiting))
        };
        let threads = [start(), start()];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let started: usize = builds.iter().map(|built| built.started().len()).sum();
    assert_eq!(started, 3);
    assert!(builds.iter().all(|built| built.report.is_success()));
    let waits = builds
        .iter()
        .flat_map(|built| &built.events)
        .filter_map(|event| match event {
            RunEvent::ActionWaiting { action, reason } => Some((action, reason)),
            _ => None,
        });
    let mut count = 0;
    for (action, reason) in waits {
        let process = std::process::id();
        let expected = format!("the same is being made by process {process}, as action {action} of recipe recipe");
        assert_eq!(*reason, expected);
        count += 1;
    }
    assert_eq!(count, 3);
    assert!(fs::read_dir(workshop.path("store/leases")).unwrap().next().is_none());
}

#[test]
fn events_are_one_tagged_object_each() {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[])]);
    let built = workshop.build_with(&graph, &all(&graph), |work| {
        (work.progress)(orchestrate_engine::Progress {
            done: 1,
            total: 2,
            values: [("loss".into(), 0.5)].into(),
        });
        concatenate(work)
    });
    let mut lines = Vec::new();
    for event in &built.events {
        let json = serde_json::to_string(event).unwrap();
        assert_eq!(&serde_json::from_str::<RunEvent>(&json).unwrap(), event);
        let mut members: BTreeMap<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        members
            .entry("seconds".into())
            .and_modify(|seconds| *seconds = json!(0));
        lines.push(serde_json::to_string(&members).unwrap());
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"actions":1,"event":"run_started","recipe":"recipe"}
    {"action":"a","event":"action_started","key":"8b3bac74a0ea72a42083f372e021f03bdffbd1cee35701b36489d3ee404cb832","reason":"never_ran","step":"step of a"}
    {"action":"a","done":1,"event":"action_progress","total":2,"values":{"loss":0.5}}
    {"action":"a","event":"action_finished","key":"8b3bac74a0ea72a42083f372e021f03bdffbd1cee35701b36489d3ee404cb832","measurements":{},"metrics":{"length":1.0},"peak_memory_bytes":null,"seconds":0,"step":"step of a","tree":"8f3879ccbc259c514c46d93a7516729a0be7c96e5bf7d9021d7ad8fcc86fe4d6"}
    {"cached":0,"cancelled":false,"event":"run_finished","executed":1,"failed":0,"seconds":0,"skipped":0}
    "#);
}

#[test]
fn plan_tells_what_build_then_does() {
    let workshop = Workshop::new();
    let decisions = |graph: &ActionGraph| -> BTreeMap<String, String> {
        let planned = plan(graph, &workshop.store(), &all(graph), "recipe").unwrap();
        let decision = |decision| match decision {
            Decision::Hit { .. } => "hit".to_owned(),
            Decision::Run { reason, .. } => format!("run: {reason}"),
            Decision::Maybe { depends_on } => format!("maybe: {}", depends_on.join(" ")),
        };
        planned
            .actions
            .into_iter()
            .map(|planned| (planned.name, decision(planned.decision)))
            .collect()
    };
    let lines = |graph: &ActionGraph| decisions(graph).values().cloned().collect::<Vec<_>>();
    assert_eq!(
        lines(&diamond("l")),
        ["maybe: left right", "maybe: top", "maybe: top", "run: never ran"]
    );
    workshop.build(&diamond("l"));
    assert_eq!(lines(&diamond("l")), ["hit", "hit", "hit", "hit"]);
    assert_eq!(
        lines(&diamond("L")),
        ["maybe: left", "run: text \"l\" → \"L\"", "hit", "hit"]
    );
    assert!(matches!(
        workshop.build(&diamond("L")).reason("left"),
        Reason::Changed(_)
    ));
}
