//! What is in an action's key, and what is not.

use crate::fixture::{Fake, Workshop, action, all, concatenate};
use orchestrate_engine::{Action, ActionGraph, ActionKey, BuildOptions, Demand, InProcessExecutor, Input, Kind};
use serde_json::json;
use std::time::Duration;

#[test]
fn names_seeds_and_demands_enter_keys_only_as_they_should() {
    let workshop = Workshop::new();
    let with = |change: &dyn Fn(&mut Action)| {
        let mut graph = ActionGraph::new();
        let mut changed = action("a", json!({"text": "a"}), &[]);
        change(&mut changed);
        graph.add(changed).unwrap();
        workshop.build(&graph).started().len()
    };
    assert_eq!(with(&|_| {}), 1);
    assert_eq!(with(&|action| action.name = "other".into()), 0);
    assert_eq!(with(&|action| action.step = "other".into()), 0);
    assert_eq!(with(&|action| action.demand = Demand::Whole), 0);
    assert_eq!(with(&|action| action.seed = 1), 1);
    assert_eq!(with(&|action| action.numerics = "other".into()), 1);
    assert_eq!(with(&|action| action.kind.version = 2), 1);
}

/// A data set, two trainings on it and an evaluation of each, where `train` is of this version.
fn of_kinds(train: u32) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let add = |graph: &mut ActionGraph, name: &str, kind: &str, version: u32, input: Option<&str>| {
        let input = input.map(|input| ("in", Input::Action(graph.find(input).unwrap())));
        let kind = Kind {
            name: kind.into(),
            version,
        };
        let action = action(name, json!({"text": name}), input.as_slice());
        graph.add(Action { kind, ..action }).unwrap();
    };
    add(&mut graph, "data", "data", 1, None);
    for number in 1..=2 {
        let model = format!("model-{number}");
        add(&mut graph, &model, "train", train, Some("data"));
        add(&mut graph, &format!("{model}.evaluate"), "evaluate", 3, Some(&model));
    }
    graph
}

#[test]
fn a_new_version_of_a_kind_runs_that_kind_again_and_nothing_else() {
    let workshop = Workshop::new();
    assert_eq!(workshop.build(&of_kinds(1)).report.executed, 5);
    let raised = workshop.build(&of_kinds(2));
    let reasons: Vec<(&str, String)> = raised.reasons().into_iter().collect();
    let expected = ["model-1", "model-2"].map(|name| (name, "kind train version 1 → 2".to_owned()));
    assert_eq!(reasons, expected, "the evaluations read what is as it was");
    assert_eq!((raised.report.executed, raised.report.cached), (2, 3));
    let back = workshop.build(&of_kinds(1));
    assert!(back.started().is_empty(), "results of the earlier version are kept");
}

#[test]
fn how_often_checkpoints_are_written_is_in_no_key() {
    let workshop = Workshop::new();
    let mut graph = ActionGraph::new();
    let parameters = json!({"text": "a"});
    let trains = action("trains", parameters.clone(), &[]);
    let trajectory = Some(parameters);
    graph.add(Action { trajectory, ..trains }).unwrap();
    let fake = Fake::new(concatenate);
    let executor = InProcessExecutor::new(&fake);
    let build = |checkpoint_every| {
        let options = BuildOptions {
            checkpoint_every,
            ..crate::fixture::options(1, false)
        };
        let built = workshop.build_on(&workshop.store(), &graph, &all(&graph), &options, &executor);
        let keys = built.report.actions.values().map(|action| action.key.unwrap());
        (keys.collect::<Vec<ActionKey>>(), built.report.executed)
    };
    let (keys, executed) = build(Some(Duration::from_secs(60)));
    assert_eq!(executed, 1);
    for every in [Some(Duration::from_secs(1)), None] {
        assert_eq!(build(every), (keys.clone(), 0), "{every:?}");
    }
}
