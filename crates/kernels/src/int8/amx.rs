//! The tile kernel for AMX: `tdpbusd` adds the products of 16 rows and 16 columns of 64 bytes each to sums in i32.
//!
//! What is left over AVX-512 adds: sums of integers are the same in any order.

use super::avx512;
use super::packed::{GROUP, PANEL};
use crate::amx::{ROWS, Tiles};
use std::arch::asm;

/// Groups of a step: 64 bytes of a row.
const STEP: usize = 16;

/// Bytes of a group in a panel.
const LINE: usize = PANEL * GROUP;

/// As [`super::portable::tile`], for any number of rows and panels.
///
/// # Safety
/// The processor has AMX, and the system lets this process use it.
pub(super) unsafe fn tile(a: &[u8], rows: usize, panels: &[i8], groups: usize, out: &mut [i32], stride: usize) {
    let whole = rows / ROWS * ROWS;
    let steps = groups / STEP;
    let mut done = 0;
    if whole > 0 && steps > 0 {
        // SAFETY: by this function's contract.
        let tiles = unsafe { Tiles::set_up() };
        steps_of_rows(&tiles, a, whole, panels, [groups, steps], out, stride);
        done = steps * STEP;
    }
    // SAFETY: a processor with AMX has AVX-512 with VNNI.
    unsafe {
        if whole > 0 && done < groups {
            avx512::add_groups(a, whole, panels, [groups, done], out, stride);
        }
        if whole < rows {
            let (a, out) = (&a[whole * groups * GROUP..], &mut out[whole * stride..]);
            avx512::tile(a, rows - whole, panels, groups, out, stride);
        }
    }
}

/// The first `steps` steps of `rows` rows, a multiple of 16 above 0, and all panels of `groups` groups. What has no second
/// panel or no second 16 rows beside it is summed up twice.
fn steps_of_rows(
    _: &Tiles,
    a: &[u8],
    rows: usize,
    panels: &[i8],
    [groups, steps]: [usize; 2],
    out: &mut [i32],
    stride: usize,
) {
    let count = panels.len() / (groups * LINE);
    let row_bytes = groups * GROUP;
    assert!(rows.is_multiple_of(ROWS) && a.len() >= rows * row_bytes && steps * STEP <= groups);
    assert!(stride >= count * PANEL && out.len() >= rows * stride);
    for panel in (0..count).step_by(2) {
        let beside = (panel + 1).min(count - 1) - panel;
        for row in (0..rows).step_by(2 * ROWS) {
            let below = (row + ROWS).min(rows - ROWS) - row;
            let left = a[row * row_bytes..].as_ptr();
            let right = panels[panel * groups * LINE..].as_ptr();
            let sums = out[row * stride + panel * PANEL..].as_mut_ptr();
            let low_sums = sums.wrapping_add(below * stride);
            // SAFETY: the tiles are set up. The block reads `steps` · 64 bytes of 16 rows from `row` on and from `below` rows
            // after it, and `steps` · 16 groups of panels `panel` and `beside` it; it writes 16 sums for each of these rows
            // and panels: all within the slices, by the assertions above.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm6, [{right} + {line}*1]",
                    "tileloadd tmm4, [{left} + {row_bytes}*1]",
                    "tileloadd tmm7, [{right_beside} + {line}*1]",
                    "tdpbusd tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{left_below} + {row_bytes}*1]",
                    "tdpbusd tmm1, tmm4, tmm7",
                    "tdpbusd tmm2, tmm5, tmm6",
                    "tdpbusd tmm3, tmm5, tmm7",
                    "add {left}, 64",
                    "add {left_below}, 64",
                    "add {right}, {step_bytes}",
                    "add {right_beside}, {step_bytes}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {stride}*1], tmm0",
                    "tilestored [{sums_beside} + {stride}*1], tmm1",
                    "tilestored [{low_sums} + {stride}*1], tmm2",
                    "tilestored [{low_sums_beside} + {stride}*1], tmm3",
                    left = inout(reg) left => _,
                    left_below = inout(reg) left.wrapping_add(below * row_bytes) => _,
                    row_bytes = in(reg) row_bytes,
                    right = inout(reg) right => _,
                    right_beside = inout(reg) right.wrapping_add(beside * groups * LINE) => _,
                    line = in(reg) LINE,
                    step_bytes = const STEP * LINE,
                    steps = inout(reg) steps => _,
                    sums = in(reg) sums,
                    sums_beside = in(reg) sums.wrapping_add(beside * PANEL),
                    low_sums = in(reg) low_sums,
                    low_sums_beside = in(reg) low_sums.wrapping_add(beside * PANEL),
                    stride = in(reg) stride * size_of::<i32>(),
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
        }
    }
}
