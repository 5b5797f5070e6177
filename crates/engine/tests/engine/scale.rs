//! Large graphs: what is done for each action must not grow with their number. The times allowed are many times what is
//! needed and far below what quadratic work would take.

use crate::fixture::{Workshop, action, all, concatenate, concatenate_or_fail};
use orchestrate_engine::{ActionGraph, Decision, Input, plan};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MANY: usize = 20_000;

/// As many actions; `reads` tells the positions of those that one reads.
fn many(count: usize, parameters: impl Fn(usize) -> Value, reads: impl Fn(usize) -> Vec<usize>) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let mut ids = Vec::new();
    for at in 0..count {
        let roles: Vec<String> = reads(at).iter().map(|from| format!("in{from}")).collect();
        let inputs = roles.iter().zip(reads(at));
        let inputs: Vec<_> = inputs
            .map(|(role, from)| (role.as_str(), Input::Action(ids[from])))
            .collect();
        ids.push(graph.add(action(&format!("a{at}"), parameters(at), &inputs)).unwrap());
    }
    graph
}

fn within(limit: Duration, work: impl FnOnce()) {
    let started = Instant::now();
    work();
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
}

#[test]
fn plans_of_many_actions_are_quick_whatever_their_shape() {
    let text = |at: usize| json!({"text": at.to_string()});
    let chain = |at: usize| Vec::from_iter(at.checked_sub(1));
    let hub = |at: usize| if at == 0 { vec![] } else { vec![0] };
    let sink = |at: usize| if at + 1 == MANY { (0..at).collect() } else { vec![] };
    let shapes: [&dyn Fn(usize) -> Vec<usize>; 4] = [&chain, &hub, &sink, &|_| vec![]];
    for (shape, maybes) in shapes.into_iter().zip([MANY - 1, MANY - 1, 1, 0]) {
        let (workshop, graph) = (Workshop::new(), many(MANY, text, shape));
        within(Duration::from_secs(20), || {
            let planned = plan(&graph, &workshop.store(), &all(&graph), "recipe").unwrap();
            let is_maybe = |decision: &Decision| matches!(decision, Decision::Maybe { .. });
            let found = planned
                .actions
                .iter()
                .filter(|action| is_maybe(&action.decision))
                .count();
            assert_eq!((planned.actions.len(), found), (MANY, maybes));
        });
    }
}

#[test]
fn a_failure_at_the_head_of_a_long_chain_skips_it_all() {
    let workshop = Workshop::new();
    let graph = many(MANY, |_| json!({"fail": true}), |at| Vec::from_iter(at.checked_sub(1)));
    within(Duration::from_secs(20), || {
        let built = workshop.build_with(&graph, &all(&graph), concatenate_or_fail);
        assert_eq!((built.report.failed, built.report.skipped), (1, MANY - 1));
    });
}

#[test]
fn many_ready_actions_start_without_a_look_at_the_others() {
    let workshop = Workshop::new();
    // All have one key: the first runs, and the others, ready all the same, find its result.
    let graph = many(MANY / 4, |_| json!({"text": "same"}), |_| vec![]);
    within(Duration::from_secs(60), || {
        let built = workshop.build_with(&graph, &all(&graph), concatenate);
        assert_eq!((built.report.executed, built.report.cached), (1, MANY / 4 - 1));
        assert!(
            workshop
                .build_with(&graph, &all(&graph), concatenate)
                .started()
                .is_empty()
        );
    });
}
