//! Who may run at the same time.
//!
//! Invariants: while an action that demands the whole machine runs, nothing else does, the light pool included; no two
//! actions have the accelerator at the same time; what runs together is not expected to hold more memory than there is, unless it is one action alone.

use crate::action::{Action, Demand};
use std::num::NonZeroUsize;

/// Depth of the light pool.
const LIGHT_PLACES: usize = 2;

/// The places and the memory that are taken.
#[derive(Debug)]
pub(crate) struct Pools {
    slots: usize,
    /// In bytes; nothing for no limit.
    memory: Option<u64>,
    taken_slots: usize,
    taken_light: usize,
    is_device_taken: bool,
    is_whole_taken: bool,
    taken_memory: u128,
}

impl Pools {
    /// Empty pools; the main one has `slots` places, all of them together `memory` bytes.
    pub(crate) fn new(slots: NonZeroUsize, memory: Option<u64>) -> Self {
        Self {
            slots: slots.get(),
            memory,
            taken_slots: 0,
            taken_light: 0,
            is_device_taken: false,
            is_whole_taken: false,
            taken_memory: 0,
        }
    }

    /// Whether there is a place.
    pub(crate) fn has_place(&self, demand: Demand) -> bool {
        !self.is_whole_taken
            && match demand {
                Demand::Slot => self.taken_slots < self.slots,
                Demand::Light => self.taken_light < LIGHT_PLACES,
                Demand::Device => !self.is_device_taken,
                Demand::Whole => self.is_empty(),
            }
    }

    /// Whether there is the memory for `action`, as far as it is known.
    pub(crate) fn has_memory(&self, action: &Action) -> bool {
        let needed = self.taken_memory + needed_by(action);
        self.memory.is_none_or(|memory| needed <= memory.into()) || self.is_empty()
    }

    /// Whether `action` is expected to need more memory than there is when nothing else runs; how much there is.
    pub(crate) fn exceeded_by(&self, action: &Action) -> Option<u64> {
        self.memory
            .filter(|memory| action.memory.is_some_and(|needed| needed > *memory))
    }

    /// Takes a place, for which there is room.
    pub(crate) fn enter(&mut self, action: &Action) {
        debug_assert!(
            self.has_place(action.demand) && self.has_memory(action),
            "nobody enters a full pool"
        );
        match action.demand {
            Demand::Slot => self.taken_slots += 1,
            Demand::Light => self.taken_light += 1,
            Demand::Device => self.is_device_taken = true,
            Demand::Whole => self.is_whole_taken = true,
        }
        self.taken_memory += needed_by(action);
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, action: &Action) {
        match action.demand {
            Demand::Slot => self.taken_slots -= 1,
            Demand::Light => self.taken_light -= 1,
            Demand::Device => self.is_device_taken = false,
            Demand::Whole => self.is_whole_taken = false,
        }
        self.taken_memory -= needed_by(action);
    }

    fn is_empty(&self) -> bool {
        !self.is_whole_taken && !self.is_device_taken && self.taken_slots == 0 && self.taken_light == 0
    }
}

/// Sums of it are not to overflow.
fn needed_by(action: &Action) -> u128 {
    action.memory.unwrap_or(0).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Demand::{Device, Light, Slot, Whole};

    fn action(demand: Demand, memory: Option<u64>) -> Action {
        Action {
            demand,
            memory,
            ..crate::fixture::action("a", serde_json::Value::Null, &[])
        }
    }

    fn enter(pools: &mut Pools, actions: &[(Demand, Option<u64>)]) -> Vec<bool> {
        let mut try_enter = |(demand, memory): &(Demand, Option<u64>)| {
            let action = action(*demand, *memory);
            let has_room = pools.has_place(*demand) && pools.has_memory(&action);
            if has_room {
                pools.enter(&action);
            }
            has_room
        };
        actions.iter().map(&mut try_enter).collect()
    }

    #[test]
    fn the_whole_machine_is_for_one_alone() {
        let mut pools = Pools::new(NonZeroUsize::new(2).unwrap(), None);
        let of = |demands: &[Demand]| -> Vec<(Demand, Option<u64>)> { demands.iter().map(|d| (*d, Some(9))).collect() };
        assert_eq!(
            enter(&mut pools, &of(&[Slot, Whole, Slot, Slot])),
            [true, false, true, false]
        );
        assert_eq!(enter(&mut pools, &of(&[Light, Light, Light])), [true, true, false]);
        for demand in [Slot, Slot, Light] {
            pools.leave(&action(demand, Some(9)));
            assert!(!pools.has_place(Whole));
        }
        pools.leave(&action(Light, Some(9)));
        assert_eq!(
            enter(&mut pools, &of(&[Whole, Slot, Light, Whole])),
            [true, false, false, false]
        );
        pools.leave(&action(Whole, Some(9)));
        assert!(pools.has_place(Slot));
    }

    #[test]
    fn the_accelerator_is_for_one_beside_those_on_the_processor() {
        let mut pools = Pools::new(NonZeroUsize::MIN, Some(100));
        assert_eq!(
            enter(
                &mut pools,
                &[
                    (Slot, Some(50)),
                    (Device, Some(51)),
                    (Device, Some(50)),
                    (Device, None),
                    (Slot, None),
                    (Light, None),
                    (Whole, None)
                ]
            ),
            [true, false, true, false, false, true, false]
        );
        pools.leave(&action(Slot, Some(50)));
        pools.leave(&action(Light, None));
        assert!(!pools.has_place(Whole) && pools.has_place(Slot));
        pools.leave(&action(Device, Some(50)));
        assert_eq!(enter(&mut pools, &[(Whole, None), (Device, None)]), [true, false]);
    }

    #[test]
    fn memory_is_shared_and_one_action_alone_may_have_more_than_there_is() {
        let mut pools = Pools::new(NonZeroUsize::new(9).unwrap(), Some(100));
        assert_eq!(
            enter(
                &mut pools,
                &[
                    (Slot, Some(60)),
                    (Slot, Some(41)),
                    (Light, Some(40)),
                    (Slot, Some(1)),
                    (Slot, None)
                ]
            ),
            [true, false, true, false, true]
        );
        for (demand, memory) in [(Slot, Some(60)), (Light, Some(40)), (Slot, None)] {
            pools.leave(&action(demand, memory));
        }
        let huge = action(Slot, Some(101));
        assert_eq!(
            (pools.exceeded_by(&huge), pools.exceeded_by(&action(Slot, Some(100)))),
            (Some(100), None)
        );
        assert_eq!(enter(&mut pools, &[(Slot, Some(101)), (Slot, Some(1))]), [true, false]);
        assert_eq!(Pools::new(NonZeroUsize::MIN, None).exceeded_by(&huge), None);
    }
}
