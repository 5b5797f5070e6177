//! `orchestrate graph`: the recipe's graph in a language that draws it.

use crate::arguments::{Graph, GraphFormat};
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::session::Session;
use orchestrate_engine::{ActionId, Input};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes as (name, second line) and edges between their places.
struct Drawing {
    nodes: Vec<(String, String)>,
    edges: BTreeSet<(usize, usize)>,
}

/// Prints the drawing.
pub fn run(arguments: &Graph) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    let drawing = if arguments.actions {
        of_actions(&session)
    } else {
        of_steps(&session)
    };
    match arguments.format {
        GraphFormat::Dot => dot(&drawing)?,
        GraphFormat::Mermaid => mermaid(&drawing)?,
    }
    Ok(ExitCode::Done)
}

fn of_actions(session: &Session) -> Drawing {
    let graph = &session.lowered.graph;
    let nodes = graph
        .iter()
        .map(|(_, action)| (action.name.clone(), action.kind.name.clone()))
        .collect();
    let edge = |(id, input): (ActionId, ActionId)| (input.index(), id.index());
    let edges = edges_of(session).map(edge).collect();
    Drawing { nodes, edges }
}

/// Steps and data sets; the step of a data set's actions is `data:NAME`.
fn of_steps(session: &Session) -> Drawing {
    let kinds: BTreeMap<&str, &str> = session
        .lowered
        .steps
        .iter()
        .map(|s| (s.name.as_str(), s.kind))
        .collect();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nodes = Vec::new();
    let mut place_of = BTreeMap::new();
    for (id, action) in session.lowered.graph.iter() {
        let step = action.step.as_str();
        let place = *places.entry(step).or_insert_with(|| {
            let (name, kind) = match step.strip_prefix("data:") {
                Some(name) => (name, "data"),
                None => (step, kinds.get(step).copied().unwrap_or_default()),
            };
            nodes.push((name.to_owned(), kind.to_owned()));
            nodes.len() - 1
        });
        place_of.insert(id, place);
    }
    let edges = edges_of(session)
        .map(|(id, input)| (place_of[&input], place_of[&id]))
        .filter(|(a, b)| a != b);
    let edges = edges.collect();
    Drawing { nodes, edges }
}

fn edges_of(session: &Session) -> impl Iterator<Item = (ActionId, ActionId)> {
    session.lowered.graph.iter().flat_map(|(id, action)| {
        action.inputs.values().filter_map(move |input| match input {
            Input::Action(input) => Some((id, *input)),
            Input::File(_) => None,
        })
    })
}

fn dot(drawing: &Drawing) -> Result<(), Failure> {
    output::line("digraph recipe {\n  rankdir=LR;\n  node [shape=box];")?;
    for (place, (name, kind)) in drawing.nodes.iter().enumerate() {
        output::line(&format!("  n{place} [label=\"{name}\\n{kind}\"];"))?;
    }
    for (from, to) in &drawing.edges {
        output::line(&format!("  n{from} -> n{to};"))?;
    }
    output::line("}")
}

fn mermaid(drawing: &Drawing) -> Result<(), Failure> {
    output::line("flowchart LR")?;
    for (place, (name, kind)) in drawing.nodes.iter().enumerate() {
        output::line(&format!("  n{place}[\"{name}<br/>{kind}\"]"))?;
    }
    for (from, to) in &drawing.edges {
        output::line(&format!("  n{from} --> n{to}"))?;
    }
    Ok(())
}
