//! A store that was damaged repairs itself: nothing found in it stops a build.

use crate::fixture::{Fake, Workshop, action, concatenate, files_below, flip_bit, graph, options, overwrite};
use orchestrate_engine::{
    ActionGraph, Cancel, Decision, Digest, FailureClass, InProcessExecutor, Input, Reason, RunEvent, StoreError, build,
    plan,
};
use serde_json::json;
use std::fs;

fn chain(last: &str) -> ActionGraph {
    graph(&[("a", "a", &[]), ("b", "b", &["a"]), ("c", last, &["b"])])
}

#[test]
fn a_corrupt_intermediate_is_put_aside_and_made_anew() {
    let workshop = Workshop::new();
    let first = workshop.build_last(&chain("c"));
    let blob = workshop.blob_of(&first, "b");
    flip_bit(&blob);
    let digest: Digest = blob.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let built = workshop.build_last(&chain("C"));
    assert_eq!(built.started(), ["b", "c"]);
    assert_eq!(built.reason("b"), Reason::Corrupt { digest });
    assert_eq!(workshop.text_of(&built, "c"), "C(b(a))");
    assert_eq!(fs::read_to_string(&blob).unwrap(), "b(a)");
    let aside = files_below(&workshop.path("store/quarantine"));
    assert_eq!(aside.len(), 1);
    assert!(aside.first().unwrap().to_string_lossy().contains(&digest.to_string()));
}

#[test]
fn results_outlive_bytes_until_something_reads_them() {
    let workshop = Workshop::new();
    let first = workshop.build_last(&chain("c"));
    for name in ["a", "b"] {
        fs::remove_file(workshop.blob_of(&first, name)).unwrap();
    }
    assert!(workshop.build_last(&chain("c")).started().is_empty());
    let target = [chain("C").find("c").unwrap()];
    let planned = plan(&chain("C"), &workshop.store(), &target, "recipe").unwrap();
    assert!(
        planned
            .actions
            .iter()
            .all(|action| matches!(action.decision, Decision::Run { .. })),
        "{planned:?}"
    );
    let built = workshop.build_last(&chain("C"));
    assert_eq!(built.started(), ["a", "b", "c"]);
    assert_eq!(built.reasons()["a"], "the content of out is no longer in the store");
    assert_eq!(workshop.text_of(&built, "c"), "C(b(a))");
    assert!(built.report.is_success());
}

#[test]
fn a_target_has_its_bytes_after_a_build() {
    let workshop = Workshop::new();
    let first = workshop.build_last(&chain("c"));
    let blob = workshop.blob_of(&first, "c");
    fs::remove_file(&blob).unwrap();
    assert_eq!(workshop.build_last(&chain("c")).started(), ["c"]);
    overwrite(&blob, b"short");
    assert!(matches!(
        workshop.build_last(&chain("c")).reason("c"),
        Reason::Corrupt { .. }
    ));
    assert_eq!(fs::read_to_string(&blob).unwrap(), "c(b(a))");
    // Damage that only hashing shows is found when the artifact is taken out, and repaired by the next build.
    flip_bit(&blob);
    assert!(workshop.build_last(&chain("c")).started().is_empty());
    let tree = first
        .report
        .actions
        .values()
        .last()
        .unwrap()
        .result
        .as_ref()
        .unwrap()
        .tree;
    let taken = workshop.store().materialize(&tree, &workshop.path("out"));
    assert!(matches!(taken, Err(StoreError::NotWhole { .. })));
    assert_eq!(workshop.build_last(&chain("c")).started(), ["c"]);
    workshop.store().materialize(&tree, &workshop.path("out")).unwrap();
}

/// What a result says of its artifact's files spares a look at the list itself, and is never believed against it.
#[test]
fn a_copy_of_a_file_list_is_believed_only_where_it_is_one() {
    let workshop = Workshop::new();
    let [a, b] = ["a", "b"].map(|text| graph(&[(text, text, &[])]));
    let [result, other] = [&a, &b].map(|graph| {
        let built = workshop.build_last(graph);
        built.report.actions.values().next().unwrap().result.clone().unwrap()
    });
    let file = workshop.file("results", &result.key.to_string());
    let whole = fs::read_to_string(&file).unwrap();
    let copy = whole.lines().last().unwrap();
    let list = workshop.file("trees", &result.tree.to_string());
    assert_eq!(copy, fs::read_to_string(&list).unwrap());

    let another = fs::read_to_string(workshop.file("trees", &other.tree.to_string())).unwrap();
    let blob = workshop.file("blobs", &Digest::of_bytes(b"a").to_string());
    for copy_here in [copy, &another, "", "{}", "[]", &copy[..9]] {
        overwrite(&file, whole.replace(copy, copy_here).as_bytes());
        assert!(workshop.build_last(&a).started().is_empty(), "{copy_here}");
        fs::remove_file(&blob).unwrap();
        assert_eq!(
            workshop.build_last(&a).reasons()["a"],
            "the content of out is no longer in the store",
            "{copy_here}"
        );
    }
    let mut no_text = whole.clone().into_bytes();
    no_text[whole.len() - copy.len()] |= 0x80;
    overwrite(&file, &no_text);
    assert!(
        workshop.build_last(&a).started().is_empty(),
        "the result itself is whole"
    );
    let no_copy: String = whole.split_inclusive('\n').take(2).collect();
    overwrite(&file, no_copy.as_bytes());
    assert!(
        workshop.build_last(&a).started().is_empty(),
        "a result of an earlier version"
    );
    fs::remove_file(&list).unwrap();
    assert!(workshop.build_last(&a).reasons()["a"].starts_with("the file list of artifact"));
    for damaged in ["", "[]"] {
        overwrite(&list, damaged.as_bytes());
        let built = workshop.build_last(&a);
        assert!(
            built.reasons()["a"].starts_with("the file list of artifact"),
            "{damaged}"
        );
    }
}

#[test]
fn damaged_results_trees_and_documents_are_misses() {
    let workshop = Workshop::new();
    let first = workshop.build_last(&chain("c"));
    let result = first.report.actions.values().next().unwrap().result.clone().unwrap();
    let file = workshop.file("results", &result.key.to_string());
    let whole = fs::read_to_string(&file).unwrap();
    let metric = whole.find("1.0").expect("the length of `a`");
    let altered = format!("{}2.0{}", &whole[..metric], &whole[metric + 3..]);
    let copy = whole.lines().last().expect("the tree's copy");
    let cut = &whole[..whole.len() - copy.len() - 4];
    for damaged in ["", "{", &whole[..whole.len() / 5], cut, &altered] {
        overwrite(&file, damaged.as_bytes());
        assert_eq!(
            workshop.build_last(&chain("c")).reason("a"),
            Reason::ResultUnreadable,
            "{damaged}"
        );
        assert_eq!(
            workshop.store().result(&result.key).unwrap().found().unwrap().metrics,
            result.metrics
        );
    }
    let tree = workshop.file("trees", &result.tree.to_string());
    for damaged in [
        &b"["[..],
        b"[]",
        b"[{\"path\":\"../../x\",\"size\":0,\"digest\":\"0\"}]",
    ] {
        overwrite(&tree, damaged);
        let built = workshop.build_last(&chain(&format!("c{}", damaged.len())));
        assert!(built.started() == ["c"], "b is known and nothing reads a");
        let mut graph = chain("c");
        let input = [("in", Input::Action(graph.find("a").unwrap()))];
        graph.add(action("d", json!({"text": damaged.len()}), &input)).unwrap();
        let built = workshop.build_last(&graph);
        assert_eq!(built.started(), ["a", "d"]);
        assert!(
            built.reasons()["a"].starts_with("the file list of artifact"),
            "{:?}",
            built.reasons()
        );
    }
    overwrite(&workshop.file("keys", &result.key.to_string()), b"{}");
    let built = workshop.build_last(&graph(&[("a", "A", &[])]));
    assert_eq!(built.reason("a"), Reason::DocumentLost { former: result.key });
    fs::remove_file(&file).unwrap();
    workshop.build_last(&graph(&[("a", "a", &[])]));
    fs::remove_file(&file).unwrap();
    assert_eq!(
        workshop.build_last(&graph(&[("a", "a", &[])])).reasons()["a"],
        "its result is no longer in the store"
    );
}

#[test]
fn bytes_that_keep_vanishing_end_the_build_with_an_error() {
    let workshop = Workshop::new();
    let first = workshop.build_last(&chain("c"));
    let blob = workshop.blob_of(&first, "b");
    fs::remove_file(&blob).unwrap();
    let sink = |event| {
        if matches!(&event, RunEvent::ActionFinished { action, .. } if action == "b") {
            fs::remove_file(&blob).unwrap();
        }
    };
    let (graph, store, fake) = (chain("C"), workshop.store(), Fake::new(concatenate));
    let executor = InProcessExecutor::new(&fake);
    let target = [graph.find("c").unwrap()];
    let report = build(
        &graph,
        &target,
        &options(1, false),
        &store,
        &executor,
        &Cancel::new(),
        &sink,
    )
    .unwrap();
    let failure = &report.actions[&report.first_failure.unwrap()];
    assert_eq!(failure.name, "c");
    let outcome = format!("{:?}", failure.outcome);
    assert!(outcome.contains("is the disk sound?"), "{outcome}");
    assert!(outcome.contains(&format!("{:?}", FailureClass::Environment)));
    assert!(workshop.build_last(&graph).report.is_success());
}
