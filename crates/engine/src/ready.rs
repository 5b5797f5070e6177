//! The actions that are ready to start, the most urgent first.
//!
//! Urgency is how long the work is that waits behind an action, itself included: started late, the head of the longest
//! path delays the whole build. Invariants: among equally urgent actions the first in graph order comes first; those for
//! which there is no memory are passed over, and no others. Order is all that this decides: results do not depend on it.

use crate::action::{ActionId, Demand};
use crate::event::RunEvent;
use crate::graph::ActionGraph;
use crate::memory::memory_in_words;
use crate::pools::Pools;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What an action is taken to last of which nothing is known.
const UNKNOWN_SECONDS: f64 = 1.0;

type Queue = BTreeSet<(Reverse<u64>, ActionId)>;

/// Ready actions, by what they demand.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    slot: Queue,
    light: Queue,
    device: Queue,
    whole: Queue,
    /// Microseconds; equal for all before they are ranked.
    urgencies: BTreeMap<ActionId, u64>,
}

impl Ready {
    /// Adds an action that demands `demand`.
    pub(crate) fn insert(&mut self, id: ActionId, demand: Demand) {
        let entry = self.entry(id);
        self.queue(demand).insert(entry);
    }

    /// Takes an action out, if it is there.
    pub(crate) fn remove(&mut self, id: ActionId, demand: Demand) {
        let entry = self.entry(id);
        self.queue(demand).remove(&entry);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slot.len() + self.light.len() + self.device.len() + self.whole.len()
    }

    /// Whether they were ranked.
    pub(crate) fn is_ranked(&self) -> bool {
        !self.urgencies.is_empty()
    }

    /// Ranks all actions, of which those to come are some, by `urgencies`.
    pub(crate) fn rank(&mut self, urgencies: BTreeMap<ActionId, u64>) {
        self.urgencies = urgencies;
        for demand in [Demand::Slot, Demand::Light, Demand::Device, Demand::Whole] {
            let ids: Vec<ActionId> = self.queue(demand).iter().map(|(_, id)| *id).collect();
            let ranked = ids.into_iter().map(|id| self.entry(id)).collect();
            *self.queue(demand) = ranked;
        }
    }

    /// The most urgent action of `graph` for which there is room in `pools`, where it now has its place. It stays among the
    /// ready.
    pub(crate) fn enter_first(&self, graph: &ActionGraph, pools: &mut Pools) -> Option<ActionId> {
        let first = |queue: &Queue| queue.iter().find(|(_, id)| pools.has_memory(graph.get(*id))).copied();
        let (_, id) = self.with_place(pools).filter_map(first).min()?;
        pools.enter(graph.get(id));
        Some(id)
    }

    /// The most urgent of each sort for which there is a place in `pools`: after [`Ready::enter_first`] found none, these
    /// lack memory alone.
    fn lacking_memory(&self, pools: &Pools) -> Vec<ActionId> {
        let firsts = self.with_place(pools).filter_map(Queue::first);
        firsts.map(|(_, id)| *id).collect()
    }

    fn with_place(&self, pools: &Pools) -> impl Iterator<Item = &Queue> {
        let queues = [
            (Demand::Slot, &self.slot),
            (Demand::Light, &self.light),
            (Demand::Device, &self.device),
            (Demand::Whole, &self.whole),
        ];
        let with_place = queues.map(|(demand, queue)| pools.has_place(demand).then_some(queue));
        with_place.into_iter().flatten()
    }

    fn entry(&self, id: ActionId) -> (Reverse<u64>, ActionId) {
        (Reverse(self.urgencies.get(&id).copied().unwrap_or(0)), id)
    }

    fn queue(&mut self, demand: Demand) -> &mut Queue {
        match demand {
            Demand::Slot => &mut self.slot,
            Demand::Light => &mut self.light,
            Demand::Device => &mut self.device,
            Demand::Whole => &mut self.whole,
        }
    }
}

/// Of which actions it was told that they wait for memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryWaits(BTreeSet<ActionId>);

impl MemoryWaits {
    /// Tells `sink` which of the `ready` actions of `graph` lack nothing but memory, of each once. To be called after
    /// [`Ready::enter_first`] found none.
    pub(crate) fn tell(&mut self, ready: &Ready, pools: &Pools, graph: &ActionGraph, sink: &dyn Fn(RunEvent)) {
        for id in ready.lacking_memory(pools) {
            if self.0.insert(id) {
                let action = graph.get(id);
                sink(RunEvent::ActionWaiting {
                    action: action.name.clone(),
                    reason: format!(
                        "it needs about {}, and what runs has the memory",
                        memory_in_words(action.memory.unwrap_or(0))
                    ),
                });
            }
        }
    }
}

/// How urgent each of `ids` is, in microseconds: its own time and that of the longest path of those that wait for it.
/// `seconds_of` tells how long an action lasted earlier; one that is not known lasts as long as the known ones of its
/// kind, on average.
pub(crate) fn urgencies(
    graph: &ActionGraph,
    ids: &BTreeSet<ActionId>,
    seconds_of: impl FnMut(ActionId) -> Option<f64>,
) -> BTreeMap<ActionId, u64> {
    let known: Vec<Option<f64>> = ids.iter().copied().map(seconds_of).collect();
    let mut kinds: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (id, seconds) in ids.iter().zip(&known) {
        if let Some(seconds) = seconds {
            let (sum, count) = kinds.entry(&graph.get(*id).kind.name).or_default();
            *sum += seconds;
            *count += 1.0;
        }
    }
    let mut urgencies = BTreeMap::new();
    for (id, seconds) in ids.iter().zip(known).rev() {
        let of_kind = || {
            kinds
                .get(graph.get(*id).kind.name.as_str())
                .map(|(sum, count)| sum / count)
        };
        let seconds = seconds.or_else(of_kind).unwrap_or(UNKNOWN_SECONDS);
        let behind = graph.dependents(*id).iter().filter_map(|id| urgencies.get(id)).max();
        // A float that is too large or no number becomes the nearest integer or 0.
        let own = (seconds * 1e6) as u64;
        let urgency = own.saturating_add(behind.copied().unwrap_or(0));
        urgencies.insert(*id, urgency);
    }
    urgencies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Action, Input, Kind};
    use std::num::NonZeroUsize;

    /// Actions named by position, each with its kind, its demand and what it reads.
    fn graph(actions: &[(&str, Demand, &[usize])]) -> ActionGraph {
        let mut graph = ActionGraph::new();
        for (at, (kind, demand, inputs)) in actions.iter().enumerate() {
            let inputs = inputs
                .iter()
                .map(|input| (format!("in{input}"), Input::Action(ActionId(*input))));
            let action = Action {
                name: at.to_string(),
                step: "step".into(),
                kind: Kind {
                    name: (*kind).into(),
                    version: 1,
                },
                parameters: serde_json::json!({}),
                seed: 0,
                numerics: "exact".into(),
                inputs: inputs.collect(),
                demand: *demand,
                memory: None,
                trajectory: None,
            };
            graph.add(action).unwrap();
        }
        graph
    }

    #[test]
    fn urgency_is_the_longest_path_to_the_end() {
        use Demand::Slot;
        let graph = graph(&[
            ("train", Slot, &[]),
            ("train", Slot, &[0]),
            ("prune", Slot, &[0]),
            ("train", Slot, &[1, 2]),
            ("train", Slot, &[]),
        ]);
        let ids = graph.ancestors_of(&[ActionId(3), ActionId(4)]);
        let known = [Some(2.0), Some(4.0), None, None, Some(f64::NAN)];
        let urgencies = urgencies(&graph, &ids, |id| {
            known[id.index()].filter(|seconds| seconds.is_finite())
        });
        // The third train lasts as long as the known ones, 3 s; nothing is known of pruning.
        let micros: Vec<u64> = urgencies.into_values().collect();
        assert_eq!(micros, [9_000_000, 7_000_000, 4_000_000, 3_000_000, 3_000_000]);
    }

    #[test]
    fn the_most_urgent_with_room_comes_first_and_equals_in_graph_order() {
        use Demand::{Light, Slot, Whole};
        let demands = [Slot, Slot, Light, Whole, Slot];
        let mut ready = Ready::default();
        for (at, demand) in demands.iter().enumerate() {
            ready.insert(ActionId(at), *demand);
        }
        let graph = graph(&demands.map(|demand| ("train", demand, &[] as &[usize])));
        let mut pools = Pools::new(NonZeroUsize::new(2).unwrap(), None);
        let start = |ready: &mut Ready, pools: &mut Pools| {
            let id = ready.enter_first(&graph, pools)?;
            ready.remove(id, demands[id.index()]);
            Some(id.index())
        };
        assert_eq!(start(&mut ready, &mut pools), Some(0), "not ranked yet");
        let urgencies = [0, 5, 5, 9, 7].into_iter().enumerate();
        ready.rank(urgencies.map(|(at, urgency)| (ActionId(at), urgency)).collect());
        let started: Vec<_> = (0..3).map(|_| start(&mut ready, &mut pools)).collect();
        assert_eq!(
            started,
            [Some(4), Some(2), None],
            "the whole machine is not free, the slots are taken"
        );
        for at in [0, 4, 2] {
            pools.leave(graph.get(ActionId(at)));
        }
        assert_eq!(start(&mut ready, &mut pools), Some(3));
        assert_eq!(start(&mut ready, &mut pools), None);
        pools.leave(graph.get(ActionId(3)));
        assert_eq!((start(&mut ready, &mut pools), ready.len()), (Some(1), 0));
    }

    #[test]
    fn what_lacks_memory_is_passed_over_until_there_is_some() {
        let mut graph = ActionGraph::new();
        let mut ready = Ready::default();
        for (at, memory) in [60, 50, 40].into_iter().enumerate() {
            let action = Action {
                memory: Some(memory),
                ..crate::fixture::action(&at.to_string(), serde_json::json!({}), &[])
            };
            ready.insert(graph.add(action).unwrap(), Demand::Slot);
        }
        let mut pools = Pools::new(NonZeroUsize::new(3).unwrap(), Some(100));
        let start = |ready: &mut Ready, pools: &mut Pools| {
            let id = ready.enter_first(&graph, pools)?;
            ready.remove(id, Demand::Slot);
            Some(id.index())
        };
        assert_eq!(
            [(); 3].map(|()| start(&mut ready, &mut pools)),
            [Some(0), Some(2), None]
        );
        assert_eq!(ready.lacking_memory(&pools), [ActionId(1)]);
        pools.leave(graph.get(ActionId(0)));
        assert_eq!(start(&mut ready, &mut pools), Some(1));
    }
}
