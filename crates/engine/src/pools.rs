//! Who may run at the same time.
//!
//! Invariant: while an action that demands the whole machine runs, nothing else does, the light pool included.

use crate::action::Demand;
use std::num::NonZeroUsize;

/// Depth of the light pool.
const LIGHT_PLACES: usize = 2;

/// The places that are taken.
#[derive(Debug)]
pub(crate) struct Pools {
    slots: usize,
    taken_slots: usize,
    taken_light: usize,
    is_whole_taken: bool,
}

impl Pools {
    /// Empty pools; the main one has `slots` places.
    pub(crate) fn new(slots: NonZeroUsize) -> Self {
        Self {
            slots: slots.get(),
            taken_slots: 0,
            taken_light: 0,
            is_whole_taken: false,
        }
    }

    /// Whether there is a place.
    pub(crate) fn has_room(&self, demand: Demand) -> bool {
        !self.is_whole_taken
            && match demand {
                Demand::Slot => self.taken_slots < self.slots,
                Demand::Light => self.taken_light < LIGHT_PLACES,
                Demand::Whole => self.taken_slots == 0 && self.taken_light == 0,
            }
    }

    /// Takes a place, for which there is room.
    pub(crate) fn enter(&mut self, demand: Demand) {
        debug_assert!(self.has_room(demand), "nobody enters a full pool");
        match demand {
            Demand::Slot => self.taken_slots += 1,
            Demand::Light => self.taken_light += 1,
            Demand::Whole => self.is_whole_taken = true,
        }
    }

    /// Gives a place back.
    pub(crate) fn leave(&mut self, demand: Demand) {
        match demand {
            Demand::Slot => self.taken_slots -= 1,
            Demand::Light => self.taken_light -= 1,
            Demand::Whole => self.is_whole_taken = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_machine_is_for_one_alone() {
        let mut pools = Pools::new(NonZeroUsize::new(2).unwrap());
        let try_enter = |pools: &mut Pools, demand: Demand| {
            let has_room = pools.has_room(demand);
            if has_room {
                pools.enter(demand);
            }
            has_room
        };
        let enter = |pools: &mut Pools, demands: &[Demand]| -> Vec<bool> {
            demands.iter().map(|demand| try_enter(pools, *demand)).collect()
        };
        use Demand::{Light, Slot, Whole};
        assert_eq!(
            enter(&mut pools, &[Slot, Whole, Slot, Slot]),
            [true, false, true, false]
        );
        assert_eq!(enter(&mut pools, &[Light, Light, Light]), [true, true, false]);
        for demand in [Slot, Slot, Light] {
            pools.leave(demand);
            assert!(!pools.has_room(Whole));
        }
        pools.leave(Light);
        assert_eq!(
            enter(&mut pools, &[Whole, Slot, Light, Whole]),
            [true, false, false, false]
        );
        pools.leave(Whole);
        assert!(pools.has_room(Slot));
    }
}
