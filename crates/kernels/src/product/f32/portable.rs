//! The f32 tile in plain Rust.

use super::super::{COLUMNS, Tile};

/// As [`super::super::Arithmetic::add_products`].
///
/// # Safety
/// As there.
pub(super) unsafe fn tile(tile: Tile<'_>) {
    for row in 0..tile.height {
        let mut sums = [0.0f32; COLUMNS];
        for (place, right) in tile.right.iter().enumerate() {
            // SAFETY: a row and a place of the tile.
            let left = f32::from_bits(unsafe { tile.left(row, place) });
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = left.mul_add(f32::from_bits(*right), *sum);
            }
        }
        if let Some((start, stride)) = tile.start {
            for (column, sum) in sums.iter_mut().enumerate() {
                // SAFETY: an element of a row of the start.
                *sum += unsafe { *start.add(row * stride + column) };
            }
        }
        sums.iter_mut().for_each(|sum| *sum *= tile.factor);
        // SAFETY: a row of the output.
        unsafe {
            tile.out
                .add(row * tile.out_stride)
                .copy_from_nonoverlapping(sums.as_ptr(), COLUMNS)
        };
    }
}
