//! Clocks that are wrong: no time, of a file or of the machine, decides what is a hit or what is a root.

use crate::fixture::{Workshop, action, all, files_below, graph};
use orchestrate_engine::{ActionGraph, Decision, GcOptions, Input, plan};
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One that reads the file at `path`, and one that reads its artifact.
fn reading(path: &Path) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let first = [("data", Input::File(path.to_owned()))];
    let first = graph.add(action("first", json!({"text": "f"}), &first)).unwrap();
    let second = [("in", Input::Action(first))];
    graph.add(action("second", json!({"text": "s"}), &second)).unwrap();
    graph
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// Long enough for a file that was just changed to count as left alone.
fn leave_alone() {
    std::thread::sleep(Duration::from_millis(3100));
}

/// A file's content that is large enough to be remembered.
fn large(digit: &str) -> String {
    digit.repeat(64 << 10)
}

/// Now, a day ahead and a day behind.
fn times() -> [SystemTime; 3] {
    let now = SystemTime::now();
    [now, now + DAY, now - DAY]
}

#[test]
fn a_touched_input_is_no_change_and_a_change_is_one_with_any_time() {
    let workshop = Workshop::new();
    let path = workshop.path("data");
    fs::write(&path, large("0")).unwrap();
    let graph = reading(&path);
    workshop.build(&graph);
    assert!(
        !workshop.path("store/stat").read_dir().unwrap().any(|_| true),
        "too new"
    );
    for (time, content) in times().into_iter().zip(["1", "2", "3"]) {
        set_time(&path, time);
        leave_alone();
        // The second has the digest from the first, unless the time is in the future.
        for _ in 0..2 {
            assert!(workshop.build(&graph).started().is_empty(), "{time:?}");
        }
        let remembered = files_below(&workshop.path("store/stat"));
        assert_eq!(remembered.len(), 1, "{time:?}");
        // Other content of the same size and time.
        fs::write(&path, large(content)).unwrap();
        set_time(&path, time);
        let planned = plan(&graph, &workshop.store(), &all(&graph), "recipe").unwrap();
        assert!(matches!(planned.actions[0].decision, Decision::Run { .. }), "{content}");
        let built = workshop.build(&graph);
        assert_eq!(built.started(), ["first", "second"], "{content}");
        assert_eq!(workshop.text_of(&built, "second"), format!("s(f({}))", large(content)));
    }
    fs::write(&path, large("0")).unwrap();
    assert!(workshop.build(&graph).started().is_empty(), "known from before");
}

#[test]
fn times_of_files_in_the_store_decide_nothing_but_the_order_in_which_garbage_goes() {
    let workshop = Workshop::new();
    let chain = |last: &str| graph(&[("a", "a", &[]), ("b", last, &["a"])]);
    let first = workshop.build(&chain("b"));
    for time in times() {
        for file in files_below(&workshop.path("store")) {
            set_time(&file, time);
        }
        assert!(workshop.build(&chain("b")).started().is_empty(), "{time:?}");
        let by_age = GcOptions {
            max_age: Some(Duration::ZERO),
            ..GcOptions::default()
        };
        workshop.store().gc(&by_age).unwrap();
        let again = workshop.build(&chain("b"));
        assert!(again.started().is_empty(), "a root went: {:?}", again.reasons());
        assert_eq!(again.report.actions.len(), first.report.actions.len());
    }
}

/// Gives the run records the names that they would have if the clock had been off by `days`.
fn shift_records(workshop: &Workshop, days: i64) {
    let mut records: Vec<PathBuf> = files_below(&workshop.path("store/runs")).into_iter().collect();
    if days > 0 {
        records.reverse();
    }
    for record in records {
        let name = record.file_name().unwrap().to_str().unwrap();
        let (millis, rest) = name.split_once('-').unwrap();
        let shifted = millis.parse::<i64>().unwrap() + days * 24 * 60 * 60 * 1000;
        fs::rename(&record, record.with_file_name(format!("{shifted}-{rest}"))).unwrap();
    }
}

#[test]
fn the_runs_since_a_clock_was_set_right_are_the_last_ones() {
    for days in [1, -1] {
        let workshop = Workshop::new();
        for text in ["1", "2", "3"] {
            workshop.build(&graph(&[("a", text, &[])]));
        }
        shift_records(&workshop, days);
        let newest = graph(&[("a", "newest", &[])]);
        let built = workshop.build(&newest);
        assert_eq!(built.reasons()["a"], "text \"3\" → \"newest\"", "{days}");
        let last = GcOptions {
            keep_last: 1,
            ..GcOptions::default()
        };
        let report = workshop.store().gc(&last).unwrap();
        assert_eq!((report.roots, report.removed.results.files), (1, 3), "{days}");
        assert!(workshop.build(&newest).started().is_empty(), "{days}");
        let next = workshop.build(&graph(&[("a", "next", &[])]));
        assert_eq!(next.reasons()["a"], "text \"newest\" → \"next\"", "{days}");
    }
}
