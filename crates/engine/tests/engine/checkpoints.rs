//! What steps keep to go on after an interruption: where it lies, who finds it, and when it goes.

use crate::fixture::{Built, Fake, Workshop, action, all, files_below, options};
use orchestrate_engine::{
    ActionGraph, ActionOutcome, BuildOptions, Cancel, FailureClass, InProcessExecutor, Outcome, StepError, Work, build,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Counts up to the parameter `length`, from the number in the checkpoint `shared` on, and leaves that number behind.
fn count(work: &Work<'_>) -> Result<Outcome, StepError> {
    let place = work.checkpoints.expect("checkpoints are on");
    assert_eq!(place.every, Duration::from_secs(7));
    let shared = place.folder.join("shared");
    let from: u64 = fs::read_to_string(&shared).map_or(0, |text| text.parse().unwrap());
    let ours = place.folder.join(format!("{}ours", place.owner));
    let mut at = fs::read_to_string(&ours).map_or(from, |text| text.parse().unwrap());
    let length = work.parameters["length"].as_u64().unwrap();
    let started_at = at;
    while at < length {
        at += 1;
        if (work.is_stopped)() {
            let scratch = place.scratch.join("new");
            fs::write(&scratch, at.to_string()).unwrap();
            fs::rename(scratch, ours).unwrap();
            return Err(StepError::new(FailureClass::Interrupted, format!("stopped at {at}")));
        }
    }
    fs::write(shared, at.to_string()).unwrap();
    fs::write(work.output.join("out"), at.to_string()).unwrap();
    Ok(Outcome {
        measurements: [("started_at".to_owned(), started_at as f64)].into(),
        ..Outcome::default()
    })
}

fn counting(length: u64, trajectory: Option<Value>) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let mut action = action("count", json!({"length": length, "by": 1}), &[]);
    action.trajectory = trajectory;
    graph.add(action).unwrap();
    graph
}

fn trajectory() -> Option<Value> {
    Some(json!({"by": 1}))
}

fn with_checkpoints() -> BuildOptions {
    BuildOptions {
        checkpoint_every: Some(Duration::from_secs(7)),
        ..options(1, false)
    }
}

fn built(workshop: &Workshop, graph: &ActionGraph) -> Built {
    let fake = Fake::new(count);
    let executor = InProcessExecutor::new(&fake);
    workshop.build_on(&workshop.store(), graph, &all(graph), &with_checkpoints(), &executor)
}

fn started_at(built: &Built) -> f64 {
    let report = built.report.actions.values().next().unwrap();
    report.result.as_ref().unwrap().measurements["started_at"]
}

/// Builds and asks to stop as soon as the action has started; tells what became of it.
fn stopped(workshop: &Workshop, graph: &ActionGraph) -> ActionOutcome {
    let cancel = Cancel::new();
    let stop = cancel.clone();
    let fake = Fake::new(move |work| {
        stop.stop();
        count(work)
    });
    let executor = InProcessExecutor::new(&fake);
    let store = workshop.store();
    let report = build(
        graph,
        &all(graph),
        &with_checkpoints(),
        &store,
        &executor,
        &cancel,
        &|_| {},
    )
    .unwrap();
    assert!(report.cancelled);
    report.actions.values().next().unwrap().outcome.clone()
}

fn kept(workshop: &Workshop) -> Vec<PathBuf> {
    files_below(&workshop.path("store/checkpoints")).into_iter().collect()
}

#[test]
fn a_stopped_step_says_so_and_goes_on_and_what_it_kept_goes_with_its_result() {
    let workshop = Workshop::new();
    let graph = counting(5, trajectory());
    for at in 1..=2 {
        let because = format!("stopped at {at}");
        assert_eq!(stopped(&workshop, &graph), ActionOutcome::Skipped { because });
        assert_eq!(kept(&workshop).len(), 1);
    }
    let built = built(&workshop, &graph);
    assert_eq!(started_at(&built), 2.0);
    let [shared] = &kept(&workshop)[..] else {
        panic!("{:?}", kept(&workshop))
    };
    assert!(shared.ends_with("shared"), "{shared:?}");
}

#[test]
fn actions_of_one_trajectory_share_what_they_keep_and_others_do_not() {
    let workshop = Workshop::new();
    assert_eq!(started_at(&built(&workshop, &counting(3, trajectory()))), 0.0);
    assert_eq!(started_at(&built(&workshop, &counting(5, trajectory()))), 3.0);
    let other = Some(json!({"by": 2}));
    assert_eq!(started_at(&built(&workshop, &counting(6, other))), 0.0);
}

#[test]
fn without_a_trajectory_or_an_interval_there_is_no_place() {
    let workshop = Workshop::new();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let look = |graph: &ActionGraph, options: &BuildOptions| {
        let places = seen.clone();
        let fake = Fake::new(move |work| {
            places.lock().unwrap().push(work.checkpoints.is_some());
            Ok(Outcome::default())
        });
        let executor = InProcessExecutor::new(&fake);
        workshop.build_on(&workshop.store(), graph, &all(graph), options, &executor);
    };
    look(&counting(1, None), &with_checkpoints());
    look(&counting(2, trajectory()), &options(1, false));
    look(&counting(3, trajectory()), &with_checkpoints());
    assert_eq!(*seen.lock().unwrap(), [false, false, true]);
    assert_eq!(
        fs::read_dir(workshop.path("store/checkpoints")).unwrap().count(),
        1,
        "the shard of the last"
    );
}
