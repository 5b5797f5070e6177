//! Where each action of a build stands.
//!
//! Invariant: a state changes in [`States::set`] alone, which keeps what is counted by state and announces what has
//! ended to the sink and in the run record.

use crate::action::ActionId;
use crate::assess::{Keyed, MOST_AT_A_TIME, WORTH_SHARING};
use crate::event::RunEvent;
use crate::freshness::Reason;
use crate::graph::ActionGraph;
use crate::key::ActionKey;
use crate::ready::Ready;
use crate::record::{ActionRecord, RunCounts, RunRecord};
use crate::report::ActionReport;
use crate::result::ActionResult;
use crate::store::StoreError;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Where an action stands.
pub(crate) enum ActionState {
    /// Its inputs are not all known, or it was not assessed since they are.
    Waiting,
    /// It is stale and waits for a place in its pool.
    Ready(Box<Keyed>, Reason),
    /// A thread has it.
    Running {
        key: ActionKey,
        reason: Reason,
        since: std::time::Instant,
    },
    /// It is over.
    Ended(Box<ActionReport>),
}

/// An action of the build.
pub(crate) struct Node {
    pub(crate) state: ActionState,
    /// How many of its direct inputs have no known artifact.
    unknown_inputs: usize,
    /// Whether the build was asked for it.
    is_target: bool,
    /// Whether its result is of use only with its bytes.
    pub(crate) needs_bytes: bool,
    /// Why it must run whatever is found in the store.
    pub(crate) forced: Option<Reason>,
    /// How often it was sent back to be made anew.
    pub(crate) rebuilds: u32,
}

impl Node {
    /// Its result, if it has ended with one.
    pub(crate) fn result(&self) -> Option<&ActionResult> {
        match &self.state {
            ActionState::Ended(report) => report.result.as_ref(),
            ActionState::Waiting | ActionState::Ready(..) | ActionState::Running { .. } => None,
        }
    }

    /// Whether it has neither started nor ended.
    pub(crate) fn is_idle(&self) -> bool {
        match self.state {
            ActionState::Waiting | ActionState::Ready(..) => true,
            ActionState::Running { .. } | ActionState::Ended(_) => false,
        }
    }

    /// Whether it has ended without a result.
    pub(crate) fn is_lost(&self) -> bool {
        match &self.state {
            ActionState::Ended(report) => report.result.is_none(),
            ActionState::Waiting | ActionState::Ready(..) | ActionState::Running { .. } => false,
        }
    }
}

/// The actions of a build.
pub(crate) struct States<'a> {
    graph: &'a ActionGraph,
    sink: &'a (dyn Fn(RunEvent) + Sync),
    record: RunRecord,
    /// Why the run record is not complete, if it is not.
    pub(crate) record_error: Option<StoreError>,
    nodes: BTreeMap<ActionId, Node>,
    /// Waiting actions whose inputs are all known.
    assessable: BTreeSet<ActionId>,
    /// Ready actions.
    pub(crate) ready: Ready,
}

impl<'a> States<'a> {
    /// `targets` and all that they need, waiting.
    pub(crate) fn new(
        graph: &'a ActionGraph,
        targets: &[ActionId],
        sink: &'a (dyn Fn(RunEvent) + Sync),
        record: RunRecord,
    ) -> Self {
        let targeted: HashSet<&ActionId> = targets.iter().collect();
        let node = |id: ActionId| Node {
            state: ActionState::Waiting,
            unknown_inputs: graph.dependencies(id).len(),
            is_target: targeted.contains(&id),
            needs_bytes: targeted.contains(&id),
            forced: None,
            rebuilds: 0,
        };
        let nodes: BTreeMap<ActionId, Node> = graph
            .ancestors_of(targets)
            .into_iter()
            .map(|id| (id, node(id)))
            .collect();
        let assessable = nodes
            .iter()
            .filter(|(_, node)| node.unknown_inputs == 0)
            .map(|(id, _)| *id)
            .collect();
        Self {
            graph,
            sink,
            record,
            record_error: None,
            nodes,
            assessable,
            ready: Ready::default(),
        }
    }

    /// How many actions there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All of them, ascending.
    pub(crate) fn ids(&self) -> BTreeSet<ActionId> {
        self.nodes.keys().copied().collect()
    }

    /// The node of `id`.
    pub(crate) fn get(&self, id: ActionId) -> &Node {
        &self.nodes[&id]
    }

    /// The node of `id`; its state is changed by [`States::set`] only.
    pub(crate) fn get_mut(&mut self, id: ActionId) -> &mut Node {
        self.nodes
            .get_mut(&id)
            .expect("only actions of the build are asked for")
    }

    /// The actions that have neither started nor ended.
    pub(crate) fn idle(&self) -> Vec<ActionId> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.is_idle())
            .map(|(id, _)| *id)
            .collect()
    }

    /// The actions that read the artifact of `id` and have neither started nor ended.
    pub(crate) fn idle_dependents(&self, id: ActionId) -> Vec<ActionId> {
        let is_idle = |id: &ActionId| self.nodes.get(id).is_some_and(Node::is_idle);
        self.graph.dependents(id).into_iter().filter(is_idle).collect()
    }

    /// Takes some of those that can be assessed, each with whether it needs bytes: the first, or many at once if there
    /// are many.
    pub(crate) fn take_assessable(&mut self) -> Vec<(ActionId, bool)> {
        let count = if self.assessable.len() < WORTH_SHARING {
            1
        } else {
            MOST_AT_A_TIME
        };
        let taken = (0..count).map_while(|_| self.assessable.pop_first());
        taken.map(|id| (id, self.nodes[&id].needs_bytes)).collect()
    }

    /// The one place where a state changes.
    pub(crate) fn set(&mut self, id: ActionId, state: ActionState) {
        let node = self.get_mut(id);
        let had_result = node.result().is_some();
        node.state = state;
        let has_result = node.result().is_some();
        self.file(id);
        if had_result != has_result {
            for dependent in self.graph.dependents(id) {
                if let Some(node) = self.nodes.get_mut(&dependent) {
                    node.unknown_inputs = if has_result {
                        node.unknown_inputs - 1
                    } else {
                        node.unknown_inputs + 1
                    };
                    self.file(dependent);
                }
            }
        }
        let node = &self.nodes[&id];
        let noted = match &node.state {
            ActionState::Ended(report) => {
                (self.sink)(RunEvent::from(&**report));
                self.record.note(ActionRecord {
                    is_target: Some(node.is_target || self.graph.get(id).trajectory.is_some()),
                    ..ActionRecord::from(&**report)
                })
            }
            ActionState::Running { key, .. } => {
                let action = self.graph.get(id);
                self.record.note_start(&action.name, &action.step, *key);
                Ok(())
            }
            ActionState::Waiting | ActionState::Ready(..) => Ok(()),
        };
        if let Err(error) = noted {
            self.record_error.get_or_insert(error);
        }
    }

    /// Puts an action into the sets that it belongs to, and takes it out of the others.
    fn file(&mut self, id: ActionId) {
        let node = &self.nodes[&id];
        let is_ready = matches!(node.state, ActionState::Ready(..));
        let is_assessable = matches!(node.state, ActionState::Waiting) && node.unknown_inputs == 0;
        let demand = self.graph.get(id).demand;
        if is_ready {
            self.ready.insert(id, demand);
        } else {
            self.ready.remove(id, demand);
        }
        if is_assessable {
            self.assessable.insert(id);
        } else {
            self.assessable.remove(&id);
        }
    }

    /// Writes what the run record still holds back.
    pub(crate) fn flush_record(&mut self) {
        if let Err(error) = self.record.flush() {
            self.record_error.get_or_insert(error);
        }
    }

    /// Ends the run record and gives the reports of all actions, which have ended.
    pub(crate) fn end(mut self, seconds: f64, cancelled: bool) -> Result<BTreeMap<ActionId, ActionReport>, StoreError> {
        let reports = self.nodes.into_iter().map(|(id, node)| match node.state {
            ActionState::Ended(report) => (id, *report),
            ActionState::Waiting | ActionState::Ready(..) | ActionState::Running { .. } => {
                unreachable!("a build is over when all its actions are")
            }
        });
        let reports: BTreeMap<ActionId, ActionReport> = reports.collect();
        let mut counts = RunCounts::default();
        for report in reports.values() {
            counts.add(report.outcome.recorded());
        }
        self.record.end(seconds, cancelled, counts)?;
        Ok(reports)
    }
}
