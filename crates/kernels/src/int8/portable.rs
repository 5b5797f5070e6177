//! The tile kernel in plain Rust: what the others are compared with.

use super::packed::{GROUP, PANEL};

/// Adds up `rows` rows of `a`, `groups` · 4 bytes each, with `panels` packed panels, into rows of `out`, `stride` apart.
pub(super) fn tile(a: &[u8], rows: usize, panels: &[i8], groups: usize, out: &mut [i32], stride: usize) {
    let panel_size = groups * PANEL * GROUP;
    for row in 0..rows {
        let bytes = &a[row * groups * GROUP..(row + 1) * groups * GROUP];
        for (index, panel) in panels.chunks_exact(panel_size).enumerate() {
            let mut sums = [0i32; PANEL];
            for (a, weights) in bytes
                .as_chunks::<GROUP>()
                .0
                .iter()
                .zip(panel.as_chunks::<{ PANEL * GROUP }>().0)
            {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    for i in 0..GROUP {
                        *sum += i32::from(a[i]) * i32::from(weights[lane * GROUP + i]);
                    }
                }
            }
            out[row * stride + index * PANEL..][..PANEL].copy_from_slice(&sums);
        }
    }
}
