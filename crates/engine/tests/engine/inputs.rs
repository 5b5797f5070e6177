//! Input files: what counts as a change, and what becomes of one that changes while a step reads it.

use crate::fixture::{Workshop, action, all, concatenate};
use orchestrate_engine::{ActionGraph, FailureClass, Input};
use serde_json::json;
use std::fs;
use std::time::Duration;

#[test]
fn an_input_file_counts_by_its_content() {
    let workshop = Workshop::new();
    let path = workshop.path("data.csv");
    let mut graph = ActionGraph::new();
    graph
        .add(action(
            "a",
            json!({"text": "a"}),
            &[("data", Input::File(path.clone()))],
        ))
        .unwrap();
    let missing = workshop.build(&graph);
    let (error, class) = missing.error("a");
    assert!(
        error.starts_with("input `data` of action `a`: cannot read") && class == FailureClass::Input,
        "{error}"
    );
    fs::write(&path, "1").unwrap();
    assert_eq!(workshop.build(&graph).started(), ["a"]);
    fs::write(&path, "1").unwrap();
    assert!(workshop.build(&graph).started().is_empty());
    fs::write(&path, "2").unwrap();
    assert_eq!(workshop.build(&graph).reasons()["a"], "input data changed");
}

#[test]
fn input_files_whose_contents_are_swapped_are_changed_both() {
    let workshop = Workshop::new();
    let paths = ["one.csv", "two.csv"].map(|name| workshop.path(name));
    let mut graph = ActionGraph::new();
    for (name, path) in ["a", "b"].into_iter().zip(&paths) {
        fs::write(path, format!("of {name}")).unwrap();
        let data = ("data", Input::File(path.clone()));
        graph.add(action(name, json!({"text": name}), &[data])).unwrap();
    }
    assert_eq!(workshop.build(&graph).started(), ["a", "b"]);
    // Moved, so that each has the size and the time of modification that it had.
    let aside = workshop.path("aside");
    fs::rename(&paths[0], &aside).unwrap();
    fs::rename(&paths[1], &paths[0]).unwrap();
    fs::rename(&aside, &paths[1]).unwrap();
    let swapped = workshop.build(&graph);
    let reasons: Vec<(&str, String)> = swapped.reasons().into_iter().collect();
    let expected = ["a", "b"].map(|name| (name, "input data changed".to_owned()));
    assert_eq!(reasons, expected);
    assert_eq!(workshop.text_of(&swapped, "a"), "a(of b)");
    assert_eq!(workshop.text_of(&swapped, "b"), "b(of a)");
}

#[test]
fn an_input_file_that_changes_during_the_run_poisons_nothing() {
    let workshop = Workshop::new();
    let path = workshop.path("data.csv");
    fs::write(&path, "1").unwrap();
    let mut graph = ActionGraph::new();
    graph
        .add(action("a", json!({}), &[("data", Input::File(path.clone()))]))
        .unwrap();
    let edited = path.clone();
    let built = workshop.build_with(&graph, &all(&graph), move |work| {
        fs::write(&edited, "2").unwrap();
        concatenate(work)
    });
    let (error, class) = built.error("a");
    assert!(
        error.contains("data.csv changed since") && class == FailureClass::Input,
        "{error}"
    );
    fs::write(&path, "1").unwrap();
    let built = workshop.build(&graph);
    assert_eq!(built.started(), ["a"]);
    assert_eq!(workshop.text_of(&built, "a"), "(1)");
}

#[test]
fn an_input_file_that_is_restored_before_the_run_ends_poisons_nothing() {
    let workshop = Workshop::new();
    let path = workshop.path("data.csv");
    fs::write(&path, "1").unwrap();
    let mut graph = ActionGraph::new();
    graph
        .add(action("a", json!({}), &[("data", Input::File(path.clone()))]))
        .unwrap();
    let edited = path.clone();
    let built = workshop.build_with(&graph, &all(&graph), move |work| {
        // Moved into its place, so that its inode tells, however coarse the file system's clock is.
        fs::write(edited.with_extension("new"), "2").unwrap();
        fs::rename(edited.with_extension("new"), &edited).unwrap();
        let outcome = concatenate(work);
        fs::write(&edited, "1").unwrap();
        outcome
    });
    let (error, class) = built.error("a");
    let expected = "data.csv changed since this build read it, before the step had ended (another file is in its place); \
                    nothing was kept: build again";
    assert!(error.ends_with(expected) && class == FailureClass::Input, "{error}");
    let built = workshop.build(&graph);
    assert_eq!(built.started(), ["a"]);
    assert_eq!(workshop.text_of(&built, "a"), "(1)");
}

#[test]
fn an_input_file_that_is_written_in_place_and_restored_with_its_time_poisons_nothing() {
    let workshop = Workshop::new();
    let path = workshop.path("data.csv");
    fs::write(&path, "1").unwrap();
    let mut graph = ActionGraph::new();
    graph
        .add(action("a", json!({}), &[("data", Input::File(path.clone()))]))
        .unwrap();
    let edited = path.clone();
    let built = workshop.build_with(&graph, &all(&graph), move |work| {
        // More than a tick of the file system's clock after it was hashed.
        std::thread::sleep(Duration::from_millis(50));
        let modified = fs::metadata(&edited).unwrap().modified().unwrap();
        fs::write(&edited, "2").unwrap();
        let outcome = concatenate(work);
        fs::write(&edited, "1").unwrap();
        fs::File::open(&edited).unwrap().set_modified(modified).unwrap();
        outcome
    });
    let (error, _) = built.error("a");
    assert!(error.contains("its time of change is another"), "{error}");
    assert_eq!(workshop.text_of(&workshop.build(&graph), "a"), "(1)");
}
