//! Graphs of trivial actions, and the step that carries them out.

use crate::Outcome;
use orchestrate_engine::{Action, ActionGraph, ActionId, Demand, Input, Kind, Step, StepError, Steps, Work};
use std::collections::BTreeMap;
use std::path::Path;

/// How many actions read the same one in a tree.
const BRANCHES: usize = 10;

/// Which action reads which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each reads the one before it.
    Chain,
    /// Nothing reads anything.
    Wide,
    /// Ten read each.
    Tree,
    /// Each reads three of a hundred of the layer before it.
    Layers,
}

impl Shape {
    /// All of them, with their words.
    pub const ALL: [(&str, Self); 4] = [
        ("chain", Self::Chain),
        ("wide", Self::Wide),
        ("tree", Self::Tree),
        ("layers", Self::Layers),
    ];

    /// The shape of that word.
    pub fn of(word: &str) -> Outcome<Self> {
        let found = Self::ALL.iter().find(|(name, _)| *name == word);
        found
            .map(|(_, shape)| *shape)
            .ok_or_else(|| format!("there is no shape `{word}`").into())
    }

    /// The positions of those that the action at `at` reads.
    pub fn reads(self, at: usize) -> Vec<usize> {
        match self {
            Self::Chain => at.checked_sub(1).into_iter().collect(),
            Self::Wide => Vec::new(),
            Self::Tree => at.checked_sub(1).map(|before| before / BRANCHES).into_iter().collect(),
            Self::Layers => {
                let layer = at / 100;
                let above = |way: usize| (layer - 1) * 100 + (at % 100 + 7 * way) % 100;
                if layer == 0 {
                    Vec::new()
                } else {
                    (0..3).map(above).collect()
                }
            }
        }
    }
}

/// A graph of `count` trivial actions.
pub fn graph(count: usize, shape: Shape) -> Outcome<ActionGraph> {
    let mut graph = ActionGraph::new();
    let mut ids: Vec<ActionId> = Vec::with_capacity(count);
    for at in 0..count {
        let inputs = (0..).zip(shape.reads(at));
        let inputs = inputs.map(|(role, from): (usize, usize)| (format!("in{role}"), Input::Action(ids[from])));
        ids.push(graph.add(action(at, inputs.collect()))?);
    }
    Ok(graph)
}

/// A graph of one action that reads `file`.
pub fn graph_of_file(file: &Path) -> Outcome<ActionGraph> {
    let mut graph = ActionGraph::new();
    graph.add(action(0, [("data".to_owned(), Input::File(file.to_owned()))].into()))?;
    Ok(graph)
}

fn action(at: usize, inputs: BTreeMap<String, Input>) -> Action {
    Action {
        name: format!("out{at}"),
        step: format!("step{at}"),
        kind: Kind {
            name: "touch".to_owned(),
            version: 1,
        },
        parameters: serde_json::json!({"text": at.to_string(), "rate": 1e-4, "layers": [300, 100]}),
        seed: 0,
        numerics: "exact".to_owned(),
        inputs,
        demand: Demand::Slot,
        memory: None,
        trajectory: None,
    }
}

/// All ids of `graph`.
pub fn all(graph: &ActionGraph) -> Vec<ActionId> {
    graph.iter().map(|(id, _)| id).collect()
}

/// Writes its parameter `text` to the file `out`.
pub struct Touch;

impl Steps for Touch {
    fn get(&self, _kind: &str) -> Option<&dyn Step> {
        Some(self)
    }
}

impl Step for Touch {
    fn run(&self, work: &Work<'_>) -> Result<orchestrate_engine::Outcome, StepError> {
        let text = work.parameters["text"].as_str().unwrap_or_default();
        let written = std::fs::write(work.output.join("out"), text);
        written.map_err(|error| StepError::new(orchestrate_engine::FailureClass::Environment, error.to_string()))?;
        Ok(orchestrate_engine::Outcome::default())
    }
}
