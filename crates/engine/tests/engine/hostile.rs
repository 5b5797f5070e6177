//! Graphs and names that no one should make: very deep, very long, alike but not the same, or made to get out.

use crate::fixture::{Fake, Workshop, action, all, files_below, graph, options};
use orchestrate_engine::{
    ActionGraph, FailureClass, GraphError, InProcessExecutor, Input, Outcome, Store, StoreError, Work, plan,
};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

const DEPTH: usize = 10_000;

/// A chain of [`DEPTH`] actions, of which the first fails if `fails`.
fn deep(fails: bool) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let mut last = graph
        .add(action("a0", json!({"text": "", "emit": "", "fail": fails}), &[]))
        .unwrap();
    for number in 1..DEPTH {
        let input = [("in", Input::Action(last))];
        let parameters = json!({"text": number.to_string(), "emit": number.to_string()});
        last = graph.add(action(&format!("a{number}"), parameters, &input)).unwrap();
    }
    graph
}

#[test]
fn a_chain_of_ten_thousand_actions_is_planned_built_and_known() {
    let workshop = Workshop::in_memory();
    let failing = workshop.build(&deep(true));
    assert_eq!((failing.report.failed, failing.report.skipped), (1, DEPTH - 1));
    let graph = deep(false);
    let planned = plan(&graph, &workshop.store(), &all(&graph), "recipe").unwrap();
    assert_eq!(planned.actions.len(), DEPTH);
    assert_eq!(workshop.build(&graph).report.executed, DEPTH);
    let again = workshop.build(&graph);
    assert_eq!((again.report.executed, again.report.cached), (0, DEPTH));
}

#[test]
fn names_of_actions_are_no_paths_and_not_in_any_key() {
    let workshop = Workshop::new();
    let long = "n".repeat(300);
    // The last two are é in one character and in two.
    let names = [
        "../../outside",
        "/etc/passwd",
        ".",
        "..",
        long.as_str(),
        "\u{e9}",
        "e\u{301}",
    ];
    let actions: Vec<(&str, &str, &[&'static str])> = names.iter().map(|name| (*name, *name, &[][..])).collect();
    let built = workshop.build(&graph(&actions));
    assert_eq!((built.report.executed, built.report.failed), (names.len(), 0));
    for name in names {
        assert_eq!(workshop.text_of(&built, name), name);
    }
    let outside: Vec<_> = fs::read_dir(workshop.folder.path()).unwrap().collect();
    assert_eq!(outside.len(), 1, "nothing but the store: {outside:?}");
    for bad in ["", "a\0b", "a\nb", "a\u{1b}[2Jb"] {
        let refused = ActionGraph::new().add(action(bad, json!({}), &[]));
        assert!(matches!(refused, Err(GraphError::BadName { .. })), "{bad:?}");
    }
}

/// What comes of an action that leaves what `leave` does in its output folder.
fn outcome_of(leave: impl Fn(&Work<'_>) + Send + Sync + 'static) -> (Workshop, Result<Vec<String>, String>) {
    let workshop = Workshop::new();
    let graph = graph(&[("a", "a", &[])]);
    let fake = Fake::new(move |work| {
        leave(work);
        Ok(Outcome::default())
    });
    let executor = InProcessExecutor::new(&fake);
    let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options(1, false), &executor);
    let result = built.report.actions.values().next().unwrap().result.clone();
    let outcome = match result {
        Some(result) => {
            let tree = workshop.store().tree(&result.tree).unwrap().unwrap();
            Ok(tree.entries().iter().map(|entry| entry.path.clone()).collect())
        }
        None => {
            let (error, class) = built.error("a");
            assert_eq!(class, FailureClass::Step, "{error}");
            Err(error.to_owned())
        }
    };
    (workshop, outcome)
}

#[test]
fn names_of_files_are_kept_as_they_are_or_refused() {
    let long = "n".repeat(255);
    let names = [
        "\u{e9}",
        "e\u{301}",
        "\u{430}",
        "a",
        "a b",
        "-rf",
        "*",
        "...",
        long.as_str(),
    ];
    let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut deep = vec!["d".repeat(200); 10].join("/");
    deep.push_str("/file");
    let path = deep.clone();
    let (workshop, kept) = outcome_of(move |work| {
        for name in &owned {
            fs::write(work.output.join(name), name).unwrap();
        }
        let deep = work.output.join(&path);
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        fs::write(deep, "deep").unwrap();
    });
    let mut expected: Vec<&str> = names.to_vec();
    expected.push(&deep);
    expected.sort_unstable();
    assert_eq!(kept.unwrap(), expected);
    let store = workshop.store();
    let key = files_below(&workshop.path("store/results")).pop_first().unwrap();
    let key = key.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let tree = store.result(&key).unwrap().found().unwrap().tree;
    store.materialize(&tree, &workshop.path("out")).unwrap();
    for name in names {
        assert_eq!(fs::read_to_string(workshop.path("out").join(name)).unwrap(), name);
    }
    assert_eq!(fs::read_to_string(workshop.path("out").join(&deep)).unwrap(), "deep");

    for (bad, problem) in [
        (&b"a\nb"[..], "control character"),
        (b"a\\..\\b", "backslash"),
        (b".orchestrate-manifest.json", "reserved"),
        (b"\xff\xfe", "not UTF-8"),
    ] {
        let (_, refused) = outcome_of(move |work| fs::write(work.output.join(OsStr::from_bytes(bad)), "").unwrap());
        let error = refused.unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn links_in_output_folders_are_refused_wherever_they_are_and_lead() {
    type Leave = fn(&Work<'_>);
    let leaves: [Leave; 5] = [
        |work| symlink("/etc/passwd", work.output.join("out")).unwrap(),
        |work| symlink("/etc", work.output.join("folder")).unwrap(),
        |work| symlink(".", work.output.join("loop")).unwrap(),
        |work| symlink("nowhere", work.output.join("dangling")).unwrap(),
        |work| {
            fs::create_dir_all(work.output.join("a/b")).unwrap();
            symlink("../..", work.output.join("a/b/up")).unwrap();
        },
    ];
    for leave in leaves {
        let (workshop, refused) = outcome_of(leave);
        let error = refused.unwrap_err();
        assert!(error.contains("symbolic link"), "{error}");
        assert!(files_below(&workshop.path("store/results")).is_empty());
        assert!(fs::metadata("/etc/passwd").is_ok());
    }
}

#[test]
fn an_output_folder_that_became_a_link_is_refused() {
    let (_, refused) = outcome_of(|work| {
        fs::remove_dir(work.output).unwrap();
        symlink("/etc", work.output).unwrap();
    });
    let error = refused.unwrap_err();
    assert!(error.contains("symbolic link"), "{error}");
}

#[test]
fn a_name_too_long_for_the_users_disk_is_told_and_leaves_nothing() {
    let workshop = Workshop::new();
    let built = workshop.build(&graph(&[("a", "a", &[])]));
    let blob = workshop.blob_of(&built, "a");
    let entry = orchestrate_engine::TreeEntry {
        path: "n".repeat(300),
        size: 1,
        digest: blob.file_name().unwrap().to_str().unwrap().parse().unwrap(),
    };
    let tree = orchestrate_engine::Tree::new(vec![entry]).unwrap();
    let file = workshop.file("trees", &tree.digest().to_string());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, serde_json::to_string(&tree).unwrap()).unwrap();
    let store: Store = workshop.store();
    let refused = store.materialize(&tree.digest(), &workshop.path("out"));
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert!(files_below(&workshop.path("out")).is_empty());
}

#[test]
fn texts_that_look_alike_are_two_keys() {
    let workshop = Workshop::new();
    workshop.build(&graph(&[("a", "\u{e9}", &[])]));
    let other = workshop.build(&graph(&[("a", "e\u{301}", &[])]));
    assert_eq!(other.started(), ["a"]);
    assert_eq!(workshop.text_of(&other, "a"), "e\u{301}");
}
