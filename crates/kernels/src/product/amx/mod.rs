//! Products of f32 operands that are rounded to bf16, summed in f32 in the order of AMX.
//!
//! An element of a product is what `tdpbf16ps` gives (Intel SDM, volume 2): the operands' elements, rounded to the nearest
//! bf16, ties to even, are taken 32 by 32 along the inner dimension, the last ones with zeros if they are fewer; of each 32
//! those at even places and those at odd ones are two chains of multiply-adds, which begin at zero and round once each; the sum of both is
//! added to what there was. Numbers below the smallest normal one count as zero, in operands, chains and sums. What is added
//! to is where the sums begin. Where a result is not a number, that much is the same everywhere, its payload is not.

mod portable;
#[cfg(target_arch = "x86_64")]
mod tile;

use super::bf16::Bf16;
use super::{Arithmetic, Entries, Entry, Tile};
#[cfg(target_arch = "x86_64")]
use crate::isa::Isa;

/// Rows of a register.
const ROWS: usize = 16;

/// Entries of a row of a register: what is multiplied in one step.
const STEP: usize = 16;

/// An entry is a pair, as in [`super::bf16`].
pub(super) struct Amx;

impl Entries for Amx {
    const STEP: usize = Bf16::STEP;

    #[inline(always)]
    fn entry(first: f32, second: f32) -> Entry {
        Bf16::entry(first, second)
    }
}

/// What a task holds while it visits tiles.
pub(super) struct Session {
    #[cfg(target_arch = "x86_64")]
    tiles: Option<crate::amx::Tiles>,
}

impl Arithmetic for Amx {
    /// Two registers.
    const HEIGHT: usize = 2 * ROWS;

    const BLOCK: usize = ROWS;

    const UNIT: usize = STEP;

    /// With [`Self::visit`], a task's rows stay in the second-level cache.
    const TASK: [usize; 2] = [4, 16];

    type Session = Session;

    /// A panel's part stays in the first-level cache.
    fn visit(_: usize) -> usize {
        16 * STEP
    }

    fn begin() -> Session {
        Session {
            // SAFETY: `Isa::current` names only sets that this processor has. A task of a product starts none within itself.
            #[cfg(target_arch = "x86_64")]
            tiles: (Isa::current() == Isa::Amx).then(|| unsafe { crate::amx::Tiles::set_up() }),
        }
    }

    unsafe fn add_products(session: &Session, tile: Tile<'_>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &session.tiles {
            // SAFETY: by this function's contract.
            return unsafe { tile::tile(tiles, tile) };
        }
        let _ = session;
        // SAFETY: by this function's contract.
        unsafe { portable::tile(tile) }
    }
}
