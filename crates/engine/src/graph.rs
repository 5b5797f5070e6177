//! The action graph: actions and what they read from each other.
//!
//! Invariants: an action's inputs are in the graph before it, so that there is no cycle and ids ascend in topological
//! order; names are unique; names, roles and kinds are not empty and have no control characters; numbers are finite.

use crate::action::{Action, ActionId, Input};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Actions, and an edge from each to those that read its artifact.
#[derive(Debug, Default)]
pub struct ActionGraph {
    graph: DiGraph<Action, ()>,
    names: HashMap<String, ActionId>,
}

/// An action that cannot be in a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The name is taken.
    #[error("there are two actions named `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// An input that was not added before.
    #[error("input `{role}` of action `{action}` is no action of this graph")]
    UnknownInput {
        /// The action.
        action: String,
        /// The input's role.
        role: String,
    },
    /// A name, role, kind or numerics class that is empty or has control characters.
    #[error("action `{}`: the {what} is empty or has control characters", action.escape_debug())]
    BadName {
        /// The action.
        action: String,
        /// Which of its names.
        what: &'static str,
    },
    /// A parameter that no key can hold.
    #[error("action `{action}` has a parameter that is no finite number: {number}")]
    NotFinite {
        /// The action.
        action: String,
        /// The number.
        number: String,
    },
}

impl ActionGraph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an action.
    ///
    /// # Errors
    /// [`GraphError`] if it breaks an invariant of the graph.
    pub fn add(&mut self, action: Action) -> Result<ActionId, GraphError> {
        self.check(&action)?;
        let id = ActionId(self.graph.node_count());
        let inputs: BTreeSet<ActionId> = action_inputs(&action).map(|(_, input)| input).collect();
        self.names.insert(action.name.clone(), id);
        let node = self.graph.add_node(action);
        for input in inputs {
            self.graph.add_edge(NodeIndex::new(input.0), node, ());
        }
        Ok(id)
    }

    fn check(&self, action: &Action) -> Result<(), GraphError> {
        let texts = [
            ("name", &action.name),
            ("step", &action.step),
            ("kind", &action.kind.name),
        ];
        let texts = texts.into_iter().chain([("numerics class", &action.numerics)]);
        for (what, text) in texts.chain(action.inputs.keys().map(|role| ("role of an input", role))) {
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err(GraphError::BadName {
                    action: action.name.clone(),
                    what,
                });
            }
        }
        if self.names.contains_key(&action.name) {
            return Err(GraphError::DuplicateName {
                name: action.name.clone(),
            });
        }
        if let Some((role, _)) = action_inputs(action).find(|(_, input)| input.0 >= self.graph.node_count()) {
            return Err(GraphError::UnknownInput {
                action: action.name.clone(),
                role: role.to_owned(),
            });
        }
        match number_not_finite(&action.parameters) {
            Some(number) => Err(GraphError::NotFinite {
                action: action.name.clone(),
                number,
            }),
            None => Ok(()),
        }
    }

    /// The action of that id.
    ///
    /// # Panics
    /// If the id is another graph's.
    #[must_use]
    pub fn get(&self, id: ActionId) -> &Action {
        &self.graph[NodeIndex::new(id.0)]
    }

    /// The id of the action of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ActionId> {
        self.names.get(name).copied()
    }

    /// How many actions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    /// All actions in topological order, which is that of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (ActionId, &Action)> {
        self.graph
            .node_weights()
            .enumerate()
            .map(|(index, action)| (ActionId(index), action))
    }

    /// The actions whose artifacts `id` reads, each once, ascending.
    #[must_use]
    pub fn dependencies(&self, id: ActionId) -> Vec<ActionId> {
        self.neighbours(id, Direction::Incoming)
    }

    /// The actions that read the artifact of `id`, each once, ascending.
    #[must_use]
    pub fn dependents(&self, id: ActionId) -> Vec<ActionId> {
        self.neighbours(id, Direction::Outgoing)
    }

    fn neighbours(&self, id: ActionId, direction: Direction) -> Vec<ActionId> {
        let nodes = self.graph.neighbors_directed(NodeIndex::new(id.0), direction);
        let mut ids: Vec<ActionId> = nodes.map(|node| ActionId(node.index())).collect();
        ids.sort_unstable();
        ids
    }

    /// `targets` and everything that they need, directly or not.
    #[must_use]
    pub fn ancestors_of(&self, targets: &[ActionId]) -> BTreeSet<ActionId> {
        let mut found: BTreeSet<ActionId> = targets.iter().copied().collect();
        let mut open: Vec<ActionId> = targets.to_vec();
        while let Some(id) = open.pop() {
            open.extend(self.dependencies(id).into_iter().filter(|input| found.insert(*input)));
        }
        found
    }
}

/// The inputs of `action` that are actions, by role.
fn action_inputs(action: &Action) -> impl Iterator<Item = (&str, ActionId)> {
    action.inputs.iter().filter_map(|(role, input)| match input {
        Input::Action(id) => Some((role.as_str(), *id)),
        Input::File(_) => None,
    })
}

fn number_not_finite(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => (!number.as_f64().is_some_and(f64::is_finite)).then(|| number.to_string()),
        Value::Array(elements) => elements.iter().find_map(number_not_finite),
        Value::Object(members) => members.values().find_map(number_not_finite),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Demand, Kind};
    use serde_json::json;

    fn action(name: &str, inputs: &[(&str, usize)]) -> Action {
        Action {
            name: name.into(),
            step: "step".into(),
            kind: Kind {
                name: "kind".into(),
                version: 1,
            },
            parameters: json!({}),
            seed: 0,
            numerics: "exact".into(),
            inputs: inputs
                .iter()
                .map(|(role, id)| ((*role).into(), Input::Action(ActionId(*id))))
                .collect(),
            demand: Demand::Slot,
            memory: None,
            trajectory: None,
        }
    }

    #[test]
    fn relations_are_those_of_the_inputs_each_once() {
        let mut graph = ActionGraph::new();
        let inputs: [&[(&str, usize)]; 5] = [&[], &[("x", 0), ("y", 0)], &[("x", 0)], &[("a", 2), ("b", 1)], &[]];
        let ids: Vec<ActionId> = (0..)
            .zip(inputs)
            .map(|(n, i)| graph.add(action(&format!("{n}"), i)).unwrap())
            .collect();
        assert_eq!(graph.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
        assert_eq!(graph.dependencies(ids[1]), [ids[0]]);
        assert_eq!(graph.dependencies(ids[3]), [ids[1], ids[2]]);
        assert_eq!(graph.dependents(ids[0]), [ids[1], ids[2]]);
        assert_eq!(graph.ancestors_of(&[ids[3]]), ids[..4].iter().copied().collect());
        assert_eq!(graph.ancestors_of(&[ids[2], ids[4]]), [ids[0], ids[2], ids[4]].into());
        assert_eq!((graph.find("3"), graph.find("9"), graph.len()), (Some(ids[3]), None, 5));
    }

    #[test]
    fn what_breaks_an_invariant_is_refused_and_changes_nothing() {
        let mut graph = ActionGraph::new();
        graph.add(action("a", &[])).unwrap();
        assert_eq!(
            graph.add(action("a", &[])),
            Err(GraphError::DuplicateName { name: "a".into() })
        );
        let unknown = GraphError::UnknownInput {
            action: "b".into(),
            role: "x".into(),
        };
        assert_eq!(graph.add(action("b", &[("x", 1)])), Err(unknown));
        for (name, role) in [("", "x"), ("b\n", "x"), ("b", "")] {
            assert!(
                matches!(graph.add(action(name, &[(role, 0)])), Err(GraphError::BadName { .. })),
                "{name:?} {role:?}"
            );
        }
        assert_eq!(graph.len(), 1);
        assert!(graph.dependents(ActionId(0)).is_empty());
    }
}
