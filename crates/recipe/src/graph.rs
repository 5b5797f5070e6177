//! The references between steps: do they exist, do they go in a circle, and in which order can the steps run?

use crate::check::Declared;
use crate::diagnostic::{Problem, Problems};
use crate::flow::Parts;
use crate::references::names;
use crate::section::Named;
use crate::steps::Draft;
use crate::suggest::{did_you_mean, listed, quoted};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The steps' indices, each behind the steps it needs, otherwise as they are written. Steps in a circle, or that need
/// one which is, are left out.
pub(crate) fn order(parts: &Parts, problems: &mut Problems) -> Vec<usize> {
    let graph = needs(parts, problems);
    report_cycles(&graph, &parts.steps, problems);
    let mut waiting: Vec<usize> = graph.node_indices().map(|node| graph.neighbors(node).count()).collect();
    let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|index| waiting[*index] == 0).collect();
    let mut order = Vec::new();
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for user in graph.neighbors_directed(NodeIndex::new(index), petgraph::Direction::Incoming) {
            waiting[user.index()] -= 1;
            if waiting[user.index()] == 0 {
                ready.insert(user.index());
            }
        }
    }
    order
}

/// A graph whose node `i` is step `i`, with an edge to each step that it needs.
fn needs(parts: &Parts, problems: &mut Problems) -> DiGraph<(), ()> {
    let steps = &parts.steps;
    let indices: BTreeMap<&str, usize> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| (step.name.name.as_str(), index))
        .collect();
    let mut graph = DiGraph::new();
    for _ in steps {
        graph.add_node(());
    }
    for (index, step) in steps.iter().enumerate() {
        for link in step.value.iter().flat_map(Draft::links) {
            match indices.get(link.name.as_str()) {
                Some(needed) => {
                    graph.add_edge(NodeIndex::new(index), NodeIndex::new(*needed), ());
                }
                None => problems.push(missing_step(link, parts)),
            }
        }
    }
    graph
}

/// The problem of a reference to a step that is not there.
pub(crate) fn missing_step(named: &Named, parts: &Parts) -> Problem {
    let is_of = |names: &[&str]| names.contains(&named.name.as_str());
    let other_sort = if is_of(&names(&parts.models)) {
        Some("model")
    } else if is_of(&names(&parts.data)) {
        Some("data set")
    } else {
        None
    };
    let steps = names(&parts.steps);
    let help = format!(
        "{}known steps: {}",
        did_you_mean(&named.name, steps.clone()),
        listed(steps)
    );
    match other_sort {
        Some(sort) => Problem::error(
            format!("{} is a {sort}, not a step", quoted(&named.name)),
            named.place,
            "must be a step",
            help,
        ),
        None => Problem::error(
            format!("there is no step {}", quoted(&named.name)),
            named.place,
            "no such step",
            help,
        ),
    }
}

fn report_cycles(graph: &DiGraph<(), ()>, steps: &[Declared<Draft>], problems: &mut Problems) {
    for component in kosaraju_scc(graph) {
        let Some(first) = component.iter().copied().min() else {
            continue;
        };
        if component.len() == 1 && !graph.contains_edge(first, first) {
            continue;
        }
        let Some(cycle) = shortest_cycle(graph, first) else {
            continue;
        };
        let path: Vec<&str> = cycle
            .iter()
            .map(|node| steps[node.index()].name.name.as_str())
            .collect();
        let mut labels = path.windows(2).zip(&cycle).filter_map(|(pair, node)| {
            let links = steps[node.index()].value.as_ref()?.links();
            let link = links.into_iter().find(|link| link.name == pair[1])?;
            Some((link.place, format!("{} needs {}", quoted(pair[0]), quoted(pair[1]))))
        });
        let (place, label) = labels.next().expect("a cycle has at least one reference");
        let problem = Problem::error(
            format!("steps need each other in a circle: {}", path.join(" → ")),
            place,
            label,
            "give one of them an input from outside of the circle",
        );
        problems.push(labels.fold(problem, |problem, (place, label)| problem.and(place, label)));
    }
}

/// The shortest way from `start` back to it, both ends included.
fn shortest_cycle(graph: &DiGraph<(), ()>, start: NodeIndex) -> Option<Vec<NodeIndex>> {
    let mut reached_from: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(node) {
            if next == start {
                let mut path = vec![start, node];
                let mut at = node;
                while at != start {
                    at = reached_from[&at];
                    path.push(at);
                }
                path.reverse();
                return Some(path);
            }
            reached_from.entry(next).or_insert_with(|| {
                queue.push_back(next);
                node
            });
        }
    }
    None
}
