//! What a build would do, without doing it.
//!
//! Invariants, for a build that follows with nothing changed in between: of the actions planned to run, each key is
//! run; one that is planned as a hit is not. The exceptions are about bytes alone: a hit is run if an action that *may*
//! run turns out to need its bytes and they are gone, or if they are found damaged when they are hashed; and one that
//! would run for want of bytes need not if another brings the same bytes back.

use crate::action::ActionId;
use crate::assess::{Assessment, Assessor, MOST_AT_A_TIME, reason_of};
use crate::digest::Digest;
use crate::error::EngineError;
use crate::freshness::{Freshness, Reason};
use crate::graph::ActionGraph;
use crate::key::{ActionKey, KeyDocument};
use crate::store::Store;
use std::collections::{BTreeMap, HashSet};

/// What a build would do with one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the result is known.
    Hit {
        /// Its key.
        key: ActionKey,
        /// Its artifact.
        tree: Digest,
    },
    /// Run it.
    Run {
        /// Its key.
        key: ActionKey,
        /// Why.
        reason: Reason,
    },
    /// That shows when its inputs are there: they are to run, and may come out as they were.
    Maybe {
        /// Names of the direct inputs that are not known yet.
        depends_on: Vec<String>,
    },
}

/// One action of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAction {
    /// Its id.
    pub id: ActionId,
    /// Its name.
    pub name: String,
    /// Its step.
    pub step: String,
    /// What would be done.
    pub decision: Decision,
    /// What its key is the digest of, if it is known.
    pub document: Option<KeyDocument>,
}

/// What a build would do: every action that the targets need, in topological order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The actions.
    pub actions: Vec<PlannedAction>,
}

impl Plan {
    /// Whether a build would run nothing.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.actions
            .iter()
            .all(|action| matches!(action.decision, Decision::Hit { .. }))
    }
}

/// What a build of `targets` would do. `recipe` is the name under which earlier runs are looked up.
///
/// # Errors
/// [`EngineError`] if an input file or the store cannot be read.
pub fn plan(graph: &ActionGraph, store: &Store, targets: &[ActionId], recipe: &str) -> Result<Plan, EngineError> {
    let mut planner = Planner {
        graph,
        assessor: Assessor::new(graph, store, recipe)?,
        targets: targets.iter().copied().collect(),
        decisions: BTreeMap::new(),
        documents: BTreeMap::new(),
    };
    let mut undecided = Vec::new();
    for id in graph.ancestors_of(targets) {
        let is_decided = |input: &ActionId| planner.decisions.contains_key(input);
        if undecided.len() == MOST_AT_A_TIME || !graph.dependencies(id).iter().all(is_decided) {
            planner.decide(&undecided)?;
            undecided.clear();
        }
        undecided.push(id);
    }
    planner.decide(&undecided)?;
    let Planner {
        mut decisions,
        mut documents,
        ..
    } = planner;
    demand_bytes(graph, store, &mut decisions)?;
    let actions = decisions.into_iter().map(|(id, decision)| {
        let action = graph.get(id);
        PlannedAction {
            id,
            name: action.name.clone(),
            step: action.step.clone(),
            decision,
            document: documents.remove(&id),
        }
    });
    Ok(Plan {
        actions: actions.collect(),
    })
}

/// The key documents of `targets` and all that they need, if each action's artifact is what `artifact` says. Nothing for
/// an action that reads one of which it says nothing.
///
/// # Errors
/// [`EngineError`] if an input file or the store cannot be read.
pub fn documents(
    graph: &ActionGraph,
    store: &Store,
    targets: &[ActionId],
    artifact: &dyn Fn(ActionId) -> Option<Digest>,
) -> Result<BTreeMap<ActionId, Option<KeyDocument>>, EngineError> {
    let mut assessor = Assessor::new(graph, store, "")?;
    let documents = graph.ancestors_of(targets).into_iter().map(|id| {
        if graph
            .dependencies(id)
            .into_iter()
            .any(|input| artifact(input).is_none())
        {
            return Ok((id, None));
        }
        let tree_of = |input| artifact(input).expect("it was asked for before");
        Ok((id, Some(assessor.document(id, &tree_of)?)))
    });
    documents.collect()
}

struct Planner<'a> {
    graph: &'a ActionGraph,
    assessor: Assessor<'a>,
    targets: HashSet<ActionId>,
    decisions: BTreeMap<ActionId, Decision>,
    documents: BTreeMap<ActionId, KeyDocument>,
}

impl Planner<'_> {
    /// Decides on `ids`, whose inputs were all decided on.
    fn decide(&mut self, ids: &[ActionId]) -> Result<(), EngineError> {
        let mut known = Vec::new();
        for id in ids {
            let inputs = self.graph.dependencies(*id).into_iter();
            let unknown = inputs.filter(|input| hit_tree(&self.decisions, *input).is_none());
            let depends_on: Vec<String> = unknown.map(|input| self.graph.get(input).name.clone()).collect();
            if depends_on.is_empty() {
                known.push((*id, self.targets.contains(id)));
            } else {
                self.decisions.insert(*id, Decision::Maybe { depends_on });
            }
        }
        let decisions = &self.decisions;
        let tree_of = |input| hit_tree(decisions, input).expect("all inputs are hits");
        for (id, assessment) in self.assessor.assess(&known, &tree_of) {
            let Assessment { keyed, freshness } = assessment?;
            self.documents.insert(id, keyed.document(self.graph.get(id)));
            let key = keyed.key;
            let decision = match freshness {
                Freshness::Fresh(result) => Decision::Hit { key, tree: result.tree },
                Freshness::Stale(reason) => Decision::Run { key, reason },
            };
            self.decisions.insert(id, decision);
        }
        Ok(())
    }
}

fn hit_tree(decisions: &BTreeMap<ActionId, Decision>, id: ActionId) -> Option<Digest> {
    match decisions.get(&id) {
        Some(Decision::Hit { tree, .. }) => Some(*tree),
        Some(Decision::Run { .. } | Decision::Maybe { .. }) | None => None,
    }
}

/// An action that runs needs the bytes of its inputs: those that are known but gone must be made anew, and so on.
fn demand_bytes(
    graph: &ActionGraph,
    store: &Store,
    decisions: &mut BTreeMap<ActionId, Decision>,
) -> Result<(), EngineError> {
    let descending: Vec<ActionId> = decisions.keys().rev().copied().collect();
    for id in descending {
        if !matches!(decisions[&id], Decision::Run { .. }) {
            continue;
        }
        for input in graph.dependencies(id) {
            if let Decision::Hit { key, tree } = decisions[&input]
                && let Some(reason) = reason_of(store.has_bytes(&tree)?)
            {
                decisions.insert(input, Decision::Run { key, reason });
            }
        }
    }
    Ok(())
}
