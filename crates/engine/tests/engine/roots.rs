//! What garbage collection keeps: the last runs of each profile, what lock files name, and bytes for as long as there is
//! room.

use crate::fixture::{Built, Workshop, action, all, concatenate, files_below, flip_bit, graph, options};
use crate::gc::{gc, keep, result_file, trees};
use orchestrate_engine::{ActionGraph, ActionKey, BuildOptions, Digest, GcOptions, Input, Variant};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn each_profile_of_a_recipe_has_its_last_runs() {
    let workshop = Workshop::new();
    let build = |profile: Option<&str>, text: &str| {
        let variant = Variant {
            profile: profile.map(str::to_owned),
            overrides: Vec::new(),
            digest: Digest::of_bytes(text.as_bytes()),
        };
        let options = BuildOptions {
            variant: Some(variant),
            ..options(1, false)
        };
        let graph = graph(&[("a", text, &[])]);
        workshop.build_under(&options, &graph, &all(&graph), concatenate)
    };
    build(None, "full");
    for text in ["1", "2", "3", "4"] {
        build(Some("smoke"), text);
    }
    // One of an earlier version, whose record tells no variant, counts as one without a profile.
    workshop.build(&graph(&[("a", "of an earlier version", &[])]));
    let report = gc(&workshop, &keep(2));
    assert_eq!((report.roots, report.removed.results.files), (4, 2));
    assert!(build(None, "full").started().is_empty());
    assert!(build(Some("smoke"), "4").started().is_empty());
}

#[test]
fn what_a_lock_file_names_stays_until_the_file_is_changed_or_gone() {
    let workshop = Workshop::new();
    let lock = workshop.path("recipe.lock");
    let key = |built: &Built| built.report.actions.values().next().unwrap().key.unwrap();
    let keys = ["1", "2", "3", "4"].map(|text| key(&workshop.build(&graph(&[("a", text, &[])]))));
    fs::write(&lock, format!("key = \"{}\"\nkey = \"{}\"\n", keys[0], keys[1])).unwrap();
    workshop.store().register_roots(&lock).unwrap();
    let left = |options: &GcOptions| -> Vec<bool> {
        let roots = gc(&workshop, options).roots;
        let results = workshop.store().results(options.keep_last).unwrap();
        assert_eq!(results.iter().filter(|result| result.is_root).count(), roots);
        keys.iter()
            .map(|key| results.iter().any(|result| result.key == *key))
            .collect()
    };
    assert_eq!(left(&keep(1)), [true, true, false, true]);
    let small = GcOptions {
        max_bytes: Some(0),
        max_age: Some(Duration::ZERO),
        ..keep(0)
    };
    assert_eq!(left(&small), [true, true, false, false], "whatever its size and age");
    fs::write(&lock, format!("<<<<<<< ours\nkey = \"{}\"\n", keys[1])).unwrap();
    assert_eq!(left(&keep(0)), [false, true, false, false], "as the file is now");
    assert_eq!(workshop.store().verify_all(false).unwrap().damaged, []);
    fs::remove_file(&lock).unwrap();
    assert_eq!(left(&keep(0)), [false; 4]);
    assert!(files_below(&workshop.path("store/roots")).is_empty(), "it has lapsed");
    assert!(workshop.store().register_roots(&lock).is_err(), "there is no such file");
}

/// A result, and a registered lock file that names its key.
fn locked(workshop: &Workshop) -> (PathBuf, ActionKey) {
    let built = workshop.build(&graph(&[("a", "1", &[])]));
    let lock = workshop.path("recipe.lock");
    let key = built.report.actions.values().next().unwrap().key.unwrap();
    fs::write(&lock, key.to_string()).unwrap();
    workshop.store().register_roots(&lock).unwrap();
    (lock, key)
}

/// Such as one on a disk that does not answer: what it names cannot be known.
#[test]
fn nothing_is_collected_while_a_lock_file_cannot_be_read() {
    let workshop = Workshop::new();
    let (lock, key) = locked(&workshop);
    fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&lock, &lock).unwrap();
    let refused = workshop.store().gc(&keep(0)).unwrap_err().to_string();
    assert!(refused.contains("recipe.lock"), "{refused}");
    fs::remove_file(&lock).unwrap();
    fs::write(&lock, key.to_string()).unwrap();
    assert_eq!(gc(&workshop, &keep(0)).roots, 1);
}

#[test]
fn a_registration_that_is_damaged_names_nothing_and_is_made_anew() {
    let workshop = Workshop::new();
    let (lock, _) = locked(&workshop);
    let registration = files_below(&workshop.path("store/roots")).pop_first().unwrap();
    flip_bit(&registration);
    let damaged = workshop.store().verify_all(false).unwrap().damaged;
    assert_eq!(damaged[0].what, "registration of a lock file");
    workshop.store().register_roots(&lock).unwrap();
    assert_eq!(gc(&workshop, &keep(0)).roots, 1);
    flip_bit(&registration);
    assert_eq!(gc(&workshop, &keep(0)).roots, 0);
    assert!(!registration.exists());
}

/// A chain whose artifacts are large beside all else.
fn large_chain(last: &str) -> ActionGraph {
    let [a, b] = ["a", "b"].map(|text| text.repeat(50_000));
    graph(&[("a", &a, &[]), ("b", &b, &["a"]), ("c", &last.repeat(50_000), &["b"])])
}

#[test]
fn bytes_made_on_the_way_go_before_results_and_a_build_is_none_the_wiser() {
    let (workshop, clean) = (Workshop::new(), Workshop::new());
    let first = workshop.build_last(&large_chain("c"));
    let limit = GcOptions {
        max_bytes: Some(350_000),
        ..keep(3)
    };
    let report = gc(&workshop, &limit);
    assert_eq!((report.roots, report.bytes_over), (3, 0));
    assert_eq!(
        (report.left.results.files, report.left.blobs.files),
        (3, 1),
        "of c alone"
    );
    let results = workshop.store().results(3).unwrap();
    assert!(results.iter().all(|result| result.is_root && result.bytes.is_some()));
    assert!(results.iter().filter(|result| result.own_bytes > 1000).count() == 1);
    assert_eq!(workshop.store().verify_all(false).unwrap().damaged, []);
    let again = workshop.build_last(&large_chain("c"));
    assert!(again.started().is_empty(), "{:?}", again.reasons());
    assert_eq!(trees(&again), trees(&first));
    // What an edit behind them needs is made again, and nothing else.
    let edited = workshop.build_last(&large_chain("C"));
    assert_eq!(edited.started(), ["a", "b", "c"]);
    assert_eq!(edited.reasons()["a"], "the content of out is no longer in the store");
    assert_eq!(trees(&edited), trees(&clean.build_last(&large_chain("C"))));
    assert!(workshop.build_last(&large_chain("c")).started().is_empty());
}

/// What has a trajectory trains for long: its bytes are worth more than their room.
#[test]
fn bytes_of_what_has_a_trajectory_stay_though_made_on_the_way() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    let mut last = None;
    for name in ["data", "train", "export"] {
        let inputs: Vec<(&str, Input)> = last.map(|id| ("in", Input::Action(id))).into_iter().collect();
        let mut action = action(name, json!({"text": name.repeat(50_000)}), &inputs);
        action.trajectory = (name == "train").then(|| json!({"text": name}));
        last = Some(graph.add(action).unwrap());
    }
    workshop.build_last(&graph);
    let limit = GcOptions {
        max_bytes: Some(0),
        ..keep(3)
    };
    let report = gc(&workshop, &limit);
    assert_eq!(
        (report.left.results.files, report.left.blobs.files),
        (3, 2),
        "not of data"
    );
}

#[test]
fn bytes_of_old_results_go_first_and_their_results_last() {
    let workshop = Workshop::new();
    let old = workshop.build_last(&large_chain("1"));
    workshop.build_last(&large_chain("2"));
    let mut left = workshop.store().survey().unwrap();
    let mut counts = Vec::new();
    for _ in 0..4 {
        let limit = GcOptions {
            max_bytes: Some(left.total().bytes - 1),
            ..keep(1)
        };
        left = gc(&workshop, &limit).left;
        counts.push((left.results.files, left.blobs.files, left.trees.files));
        assert_eq!(result_file(&workshop, &old, "c").exists(), left.results.files == 4);
    }
    assert_eq!(counts, [(4, 3, 4), (4, 2, 4), (4, 1, 4), (3, 1, 3)]);
    assert!(workshop.build_last(&large_chain("2")).started().is_empty());
}

#[test]
fn bytes_stay_that_a_record_does_not_tell_to_be_made_on_the_way() {
    let workshop = Workshop::new();
    workshop.build_last(&large_chain("c"));
    let record = files_below(&workshop.path("store/runs")).pop_first().unwrap();
    let text = fs::read_to_string(&record).unwrap();
    assert_eq!(text.matches(",\"is_target\":false").count(), 2);
    fs::write(&record, text.replace(",\"is_target\":false", "")).unwrap();
    let limit = GcOptions {
        max_bytes: Some(0),
        ..keep(3)
    };
    assert_eq!(gc(&workshop, &limit).left.blobs.files, 3);
    // Nor if another run was asked for them.
    fs::write(&record, text).unwrap();
    workshop.build(&large_chain("c"));
    assert_eq!(gc(&workshop, &limit).left.blobs.files, 3);
}
