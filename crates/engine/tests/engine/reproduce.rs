//! A second run that gives other bytes is told, with what differs first.

use crate::fixture::{Fake, Workshop, all, concatenate, files_below, graph, options};
use orchestrate_engine::{
    Cancel, InProcessExecutor, Outcome, Reproduction, RunEvent, StepError, Work, build, reproduce,
};
use std::fs;
use std::path::Path;
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
