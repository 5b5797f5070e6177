//! Recorded runs, read back.

use crate::fixture::{Workshop, action, all, concatenate, files_below, graph};
use orchestrate_engine::{ActionGraph, Change, KeyDifference, LeasePurpose, RecordedOutcome, RunCounts, RunState};
use serde_json::json;
use std::fs::{self, File};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// A record as an earlier version wrote it, without times of actions and without counts.
const OLD: &str = r#"{"line":"run","recipe":"old","started_millis":5}
{"line":"action","action":"a","step":"s","key":null,"tree":null,"outcome":"executed","reason":null,"seconds":1.0}
{"line":"action","action":"b","step":"s","key":null,"tree":null,"outcome":"failed","reason":null,"seconds":1.0}
"#;

#[test]
fn runs_are_listed_oldest_first_with_what_came_of_them() {
    let workshop = Workshop::new();
    workshop.build(&graph(&[("a", "1", &[])]));
    workshop.build(&graph(&[("a", "1", &[]), ("b", "b", &[])]));
    let store = workshop.store();
    let runs = store.runs().unwrap();
    let told: Vec<_> = runs.iter().map(|run| (run.recipe.as_str(), run.counts)).collect();
    let counts = |executed, cached| RunCounts {
        executed,
        cached,
        ..RunCounts::default()
    };
    assert_eq!(told, [("recipe", counts(1, 0)), ("recipe", counts(1, 1))]);
    for run in &runs {
        let is_over = matches!(run.state, RunState::Ended { cancelled: false, .. });
        assert!(is_over && run.process == std::process::id());
        assert_eq!(
            store.run(&run.id).unwrap().unwrap().summary,
            *run,
            "in full as in brief"
        );
    }
    assert_ne!(runs[0].id, runs[1].id);
}

#[test]
fn a_failed_action_leaves_its_error_and_its_log() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    graph.add(action("a", json!({"fail": true}), &[])).unwrap();
    workshop.build(&graph);
    let store = workshop.store();
    let run = store.run(&store.runs().unwrap()[0].id).unwrap().unwrap();
    let failed = run.action("a").unwrap();
    assert_eq!(failed.outcome, RecordedOutcome::Failed);
    assert!(failed.problem.as_ref().unwrap().contains("on purpose"));
    assert!(failed.log.is_some() && failed.ended_millis.unwrap() >= run.summary.started_millis);
}

#[test]
fn a_lease_names_its_holder_though_an_earlier_one_said_more() {
    let workshop = Workshop::new();
    let store = workshop.store();
    let name = "ab".repeat(32);
    let key = name.parse().unwrap();
    let earlier = "{\"process\":1,\"since_millis\":1}";
    let write = |text: &str| fs::write(workshop.path("store/leases").join(&name), text).unwrap();
    write(earlier);
    assert_eq!(
        store.lease_holder(&key).unwrap().to_string(),
        "process 1",
        "of an earlier version"
    );
    write(&format!("{earlier}{}", "x".repeat(400)));
    let purpose = LeasePurpose {
        recipe: "recipe".into(),
        action: "a".into(),
    };
    let lease = store.try_lease(&key, &purpose).unwrap().unwrap();
    let held = store.held_leases().unwrap();
    let holder = held[0].holder.as_ref().unwrap();
    assert_eq!(
        (holder.process, holder.purpose.as_ref()),
        (std::process::id(), Some(&purpose))
    );
    drop(lease);
    assert_eq!(store.held_leases().unwrap(), []);
}

#[test]
fn a_run_goes_on_as_long_as_its_record_is_locked() {
    let workshop = Workshop::new();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let (root, kept) = (workshop.path("store"), std::sync::Arc::clone(&seen));
    let graph = graph(&[("a", "1", &[])]);
    workshop.build_with(&graph, &all(&graph), move |work| {
        let store = orchestrate_engine::Store::open(&root).unwrap();
        let run = || store.run(&store.runs().unwrap()[0].id).unwrap().unwrap();
        // The record is written beside the work, and may be late.
        let late = (0..2000).map(|_| run()).find(|run| {
            thread::sleep(Duration::from_millis(5));
            !run.unfinished.is_empty()
        });
        let run = late.unwrap_or_else(run);
        kept.lock().unwrap().push((run, store.held_leases().unwrap()));
        concatenate(work)
    });
    let (run, leases) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(run.summary.state, RunState::Running);
    assert_eq!(run.unfinished[0].action, "a");
    assert_eq!(leases[0].key, run.unfinished[0].key);
    assert_eq!(leases[0].holder.as_ref().unwrap().process, std::process::id());
    assert_eq!(workshop.store().held_leases().unwrap(), []);

    let record = files_below(&workshop.path("store/runs")).pop_first().unwrap();
    let text = fs::read_to_string(&record).unwrap();
    let without_end = text.rfind("{\"line\":\"end\"").unwrap();
    fs::write(&record, &text[..without_end]).unwrap();
    let state = || workshop.store().runs().unwrap()[0].state;
    assert_eq!(state(), RunState::Lost);
    let lock = File::open(&record).unwrap();
    lock.lock().unwrap();
    assert_eq!(state(), RunState::Running);
}

#[test]
fn records_of_earlier_versions_are_read() {
    let workshop = Workshop::new();
    drop(workshop.store());
    fs::write(workshop.path("store/runs/5-7.jsonl"), OLD).unwrap();
    let end = "{\"line\":\"end\",\"seconds\":2.0,\"cancelled\":true}\n";
    fs::write(workshop.path("store/runs/6-7.jsonl"), format!("{OLD}{end}")).unwrap();
    fs::write(workshop.path("store/runs/7-7.jsonl"), end).unwrap();
    let runs = workshop.store().runs().unwrap();
    let counts = RunCounts {
        executed: 1,
        failed: 1,
        ..RunCounts::default()
    };
    let ended = RunState::Ended {
        seconds: 2.0,
        cancelled: true,
    };
    let told: Vec<_> = runs.iter().map(|run| (run.state, run.counts, run.process)).collect();
    assert_eq!(told, [(RunState::Lost, counts, 7), (ended, counts, 7)]);
}

#[test]
fn keys_of_runs_are_compared() {
    let workshop = Workshop::new();
    let key = |text| workshop.build(&graph(&[("a", text, &[])])).started_keys()[0];
    let (old, new) = (key("1"), key("2"));
    let store = workshop.store();
    assert_eq!(store.difference(&old, &old).unwrap(), KeyDifference::None);
    let change = Change::Parameter {
        path: "text".into(),
        old: Some("\"1\"".into()),
        new: Some("\"2\"".into()),
    };
    assert_eq!(
        store.difference(&old, &new).unwrap(),
        KeyDifference::Changed(vec![change])
    );
    fs::remove_file(workshop.file("keys", &old.to_string())).unwrap();
    assert_eq!(store.difference(&old, &new).unwrap(), KeyDifference::Untold);
    assert_eq!(store.difference(&new, &old).unwrap(), KeyDifference::Untold);
}
