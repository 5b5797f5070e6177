//! The tile for AMX: `tdpbf16ps` adds the products of 16 rows and 16 columns of 32 elements each.

use super::super::{COLUMNS, Entry, Tile};
use super::{ROWS, STEP};
use crate::amx::Tiles;
use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes from one place of a panel to the next.
const PANEL_STRIDE: usize = COLUMNS * size_of::<Entry>();

/// Bytes from one row of a block to the next.
const LINE: usize = STEP * size_of::<Entry>();

/// Where sums begin that begin at zero.
static ZEROS: [f32; COLUMNS] = [0.0; COLUMNS];

/// As [`super::super::Arithmetic::add_products`], with four registers of sums: 16 rows alone are summed up in all four.
///
/// # Safety
/// As there.
pub(super) unsafe fn tile(_: &Tiles, tile: Tile<'_>) {
    const { assert!(ROWS == crate::amx::ROWS) }
    let [row_stride, place_stride] = tile.left_strides;
    debug_assert!(
        tile.height.is_multiple_of(ROWS) && place_stride == ROWS,
        "blocks of entries"
    );
    let (start, start_stride) = tile.start.unwrap_or((ZEROS.as_ptr(), 0));
    let low = tile.height - ROWS;
    for row in 0..tile.height {
        let row = tile.out.wrapping_add(row * tile.out_stride);
        // SAFETY: hints change nothing. The output is fetched while its sums are made: stores would wait for it.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(row.cast::<i8>());
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(COLUMNS / 2).cast::<i8>());
        }
    }
    // SAFETY: the tiles are set up. The block reads as many rows of the left operand as the tile has and as many places of them
    // as the panel, the panel, and as many rows of 32 elements of the start or zeros; it writes as many rows of the output: all
    // valid for that by this function's contract.
    unsafe {
        asm!(
            "tileloadd tmm0, [{start} + {start_stride}*1]",
            "tileloadd tmm1, [{start} + {start_stride}*1 + 64]",
            "tileloadd tmm2, [{low_start} + {start_stride}*1]",
            "tileloadd tmm3, [{low_start} + {start_stride}*1 + 64]",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm6, [{right} + {panel_stride}*1]",
            "tileloadd tmm4, [{left} + {line}*1]",
            "tileloadd tmm7, [{right} + {panel_stride}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{low_left} + {line}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, {block_bytes}",
            "add {low_left}, {block_bytes}",
            "add {right}, {step_bytes}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{out} + {out_stride}*1], tmm0",
            "tilestored [{out} + {out_stride}*1 + 64], tmm1",
            "tilestored [{low_out} + {out_stride}*1], tmm2",
            "tilestored [{low_out} + {out_stride}*1 + 64], tmm3",
            start = in(reg) start,
            low_start = in(reg) start.wrapping_add(low * start_stride),
            start_stride = in(reg) start_stride * size_of::<f32>(),
            left = inout(reg) tile.left => _,
            low_left = inout(reg) tile.left.wrapping_add(low * row_stride) => _,
            line = in(reg) LINE,
            block_bytes = const ROWS * LINE,
            right = inout(reg) tile.right.as_ptr() => _,
            panel_stride = in(reg) PANEL_STRIDE,
            step_bytes = const STEP * PANEL_STRIDE,
            steps = inout(reg) tile.right.len() / STEP => _,
            out = in(reg) tile.out,
            low_out = in(reg) tile.out.wrapping_add(low * tile.out_stride),
            out_stride = in(reg) tile.out_stride * size_of::<f32>(),
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
    if tile.factor != 1.0 {
        for row in 0..tile.height {
            // SAFETY: a row of the output, which was just written.
            let row = unsafe { std::slice::from_raw_parts_mut(tile.out.add(row * tile.out_stride), COLUMNS) };
            row.iter_mut().for_each(|sum| *sum *= tile.factor);
        }
    }
}
