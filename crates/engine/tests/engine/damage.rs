//! Damage in every class of file of a store: a bit flipped, the end cut off, all of it gone.

use crate::fixture::{Built, Workshop, action, all, concatenate, files_below, graph, options, overwrite};
use orchestrate_engine::{
    ActionGraph, ActionId, BuildOptions, Digest, GcOptions, Input, InputFiles, Outcome, StepError, StoreError, Work,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In how many bytes of a file a bit is flipped, one at a time.
const FLIPS: usize = 24;

fn chain(last: &str) -> ActionGraph {
    graph(&[("a", "a", &[]), ("b", last, &["a"])])
}

/// The same with all that a store can hold: the first reads a file that is remembered, the second keeps a checkpoint.
fn full_chain(last: &str) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let data = ("data", Input::File(fs::canonicalize("/bin/sh").unwrap()));
    let a = graph.add(action("a", json!({"text": "a"}), &[data])).unwrap();
    let mut b = action("b", json!({"text": last}), &[("in", Input::Action(a))]);
    b.trajectory = Some(json!({}));
    graph.add(b).unwrap();
    graph
}

fn build_full(workshop: &Workshop, last: &str, targets: impl Fn(&ActionGraph) -> Vec<ActionId>) -> Built {
    let options = BuildOptions {
        checkpoint_every: Some(Duration::from_secs(60)),
        ..options(1, false)
    };
    let graph = full_chain(last);
    workshop.build_under(&options, &graph, &targets(&graph), keep_a_checkpoint)
}

fn last_of(graph: &ActionGraph) -> Vec<ActionId> {
    all(graph)[graph.len() - 1..].to_vec()
}

/// Concatenates; what may keep a checkpoint has one that tells its own digest, and writes it anew if it does not.
fn keep_a_checkpoint(work: &Work<'_>) -> Result<Outcome, StepError> {
    if let Some(place) = work.checkpoints {
        let path = place.folder.join("shared");
        let whole = format!("a checkpoint {}", Digest::of_bytes(b"a checkpoint"));
        if fs::read(&path).ok().is_none_or(|text| text != whole.as_bytes()) {
            fs::write(place.scratch.join("shared"), whole).unwrap();
            fs::rename(place.scratch.join("shared"), path).unwrap();
        }
    }
    if let Some(InputFiles::File(_)) = work.inputs.get("data") {
        fs::write(work.output.join("out"), "a").unwrap();
        return Ok(Outcome::default());
    }
    concatenate(work)
}

/// The files of a store, temporary ones aside.
fn contents(workshop: &Workshop) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(&workshop.path("store"));
    files.retain(|path| !path.starts_with(workshop.path("store/tmp")));
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Makes the store hold `contents` and nothing else.
fn restore(workshop: &Workshop, contents: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::remove_dir_all(workshop.path("store")).unwrap();
    for folder in ["tmp", "quarantine", "checkpoints", "stat"] {
        fs::create_dir_all(workshop.path("store").join(folder)).unwrap();
    }
    for (path, bytes) in contents {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The class of a store's file: the section that it is in, or its name.
fn class_of(workshop: &Workshop, path: &Path) -> String {
    let relative = path.strip_prefix(workshop.path("store")).unwrap();
    let first = relative.components().next().unwrap();
    first.as_os_str().to_str().unwrap().to_owned()
}

/// `whole` with one bit flipped, in bytes all over it; cut off in three places; and empty.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let flipped = (0..whole.len()).step_by(whole.len() / FLIPS + 1).map(|at| {
        let mut bytes = whole.to_owned();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = [whole.len() / 4, whole.len() / 2, whole.len().saturating_sub(1), 0];
    flipped.chain(cut.map(|length| whole[..length].to_owned())).collect()
}

/// All that a build promises to be as in another, by action.
fn told(built: &Built) -> BTreeMap<String, String> {
    let actions = built.report.actions.values();
    let told = |action: &orchestrate_engine::ActionReport| {
        let result = action.result.as_ref().unwrap();
        format!("{} {} {:?}", result.key, result.tree, result.metrics)
    };
    actions.map(|action| (action.name.clone(), told(action))).collect()
}

#[test]
fn every_class_of_file_is_damaged_and_no_one_is_asked_to_clean_up() {
    let workshop = Workshop::in_memory();
    let builds = ["b", "B"].map(|last| build_full(&workshop, last, all));
    let key = builds[0].report.actions.values().next().unwrap().key.unwrap();
    fs::write(workshop.path("recipe.lock"), key.to_string()).unwrap();
    workshop.store().register_roots(&workshop.path("recipe.lock")).unwrap();
    let lease = workshop.path("store/leases").join(key.to_string());
    fs::write(lease, "left by a holder that was killed").unwrap();
    let before = contents(&workshop);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (file, whole) in &before {
        let class = class_of(&workshop, file);
        for damaged in damages(whole) {
            restore(&workshop, &before);
            overwrite(file, &damaged);
            for (last, undisturbed) in ["b", "B"].into_iter().zip(&builds) {
                let built = build_full(&workshop, last, last_of);
                assert_eq!(told(&built), told(undisturbed), "{class}");
            }
            // What no build reads is found by reading all of it.
            workshop.store().verify_all(true).unwrap();
            for (last, undisturbed) in ["b", "B"].into_iter().zip(&builds) {
                let built = build_full(&workshop, last, all);
                assert_eq!(told(&built), told(undisturbed), "{class}");
                assert_eq!(workshop.text_of(&built, "b"), format!("{last}(a)"), "{class}");
            }
            assert!(
                workshop.store().verify_all(false).unwrap().damaged.is_empty(),
                "{class}"
            );
            *counts.entry(class.clone()).or_default() += 1;
        }
    }
    eprintln!("{counts:?}");
    let classes: Vec<&str> = counts.keys().map(String::as_str).collect();
    let marks = [".gitignore", "CACHEDIR.TAG", "FORMAT", "LOCK"];
    let sections = [
        "blobs",
        "checkpoints",
        "keys",
        "leases",
        "results",
        "roots",
        "runs",
        "stat",
        "trees",
    ];
    assert_eq!(classes, [&marks[..], &sections].concat());
    assert!(counts.values().sum::<usize>() >= 450, "{counts:?}");
}

#[test]
fn a_damaged_manifest_of_an_output_folder_loses_no_file_and_is_written_again() {
    let workshop = Workshop::in_memory();
    let [old, new] = ["b", "B"].map(|last| {
        let built = workshop.build(&chain(last));
        let last = built.report.actions.values().last().unwrap();
        last.result.as_ref().unwrap().tree
    });
    let (out, store) = (workshop.path("out"), workshop.store());
    let (manifest, file) = (out.join(".orchestrate-manifest.json"), out.join("out"));
    store.materialize(&old, &out).unwrap();
    let whole = fs::read(&manifest).unwrap();
    let damages = damages(&whole);
    let mut refused = 0;
    for damaged in &damages {
        // The same artifact again: nothing is in its way.
        fs::write(&manifest, damaged).unwrap();
        for (tree, text) in [(&old, b"b(a)"), (&new, b"B(a)"), (&old, b"b(a)")] {
            store.materialize(tree, &out).unwrap();
            assert_eq!(fs::read(&file).unwrap(), text);
        }
        // Another: what nobody knows for ours any more might be the user's.
        fs::write(&manifest, damaged).unwrap();
        match store.materialize(&new, &out) {
            Ok(()) => assert_eq!(fs::read(&file).unwrap(), b"B(a)"),
            Err(StoreError::InTheWay { path }) => {
                refused += 1;
                assert_eq!((path, fs::read(&file).unwrap()), (file.clone(), b"b(a)".to_vec()));
            }
            Err(error) => panic!("{error}"),
        }
        fs::remove_dir_all(&out).unwrap();
        store.materialize(&old, &out).unwrap();
    }
    eprintln!("{} manifests, {refused} refused to another artifact", damages.len());
    assert!(damages.len() >= 25 && refused >= 15, "{refused} of {}", damages.len());
}

#[test]
fn marks_that_were_damaged_are_written_again() {
    let workshop = Workshop::new();
    workshop.build(&chain("b"));
    for mark in ["FORMAT", "CACHEDIR.TAG"].map(|name| workshop.path("store").join(name)) {
        let whole = fs::read(&mark).unwrap();
        for damaged in [&whole[..0], &whole[..whole.len() / 3], b"\0\0\0\0"] {
            fs::write(&mark, damaged).unwrap();
            drop(workshop.store());
            assert!(fs::read(&mark).unwrap() == whole, "{}", mark.display());
        }
    }
    assert!(workshop.build(&chain("b")).started().is_empty());
}

#[test]
fn a_damaged_record_is_no_reason_to_refuse_a_collection() {
    let workshop = Workshop::in_memory();
    workshop.build(&chain("b"));
    let record = files_below(&workshop.path("store/runs")).pop_first().unwrap();
    let dry = GcOptions {
        dry_run: true,
        ..GcOptions::default()
    };
    for damaged in damages(&fs::read(&record).unwrap()) {
        fs::write(&record, damaged).unwrap();
        assert!(workshop.store().gc(&dry).unwrap().roots <= 2);
    }
}
