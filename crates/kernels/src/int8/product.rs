//! The integer product: cut into tasks of rows and columns, each through the best kernel of the processor.

use super::packed::{GROUP, PANEL, PackedInt8};
use super::portable;
use crate::isa::Isa;
use crate::storage::Shared;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Rows of a task: their activations and sums stay in the second-level cache.
const ROWS: usize = 64;

/// Panels of a task.
const PANELS: usize = 8;

/// Most columns of a task.
pub(super) const TASK_COLUMNS: usize = PANELS * PANEL;

/// Multiplications from which waking other threads pays.
const PARALLEL: usize = 1 << 21;

/// a · wᵀ in exact i32. `a: [m, k]` row-major, `w` packed from `[n, k]`, `out: [m, n]` row-major.
///
/// # Panics
/// If `a` or `out` is of another size.
pub fn int8_gemm(a: &[u8], m: usize, w: &PackedInt8, out: &mut [i32]) {
    let n = w.n();
    assert_eq!(
        (a.len(), out.len()),
        (m * w.k(), m * n),
        "a {m}×{} by {n}×{} product",
        w.k(),
        w.k()
    );
    let a = pad_rows(a, w);
    let out = Shared::new(out);
    product(&a, m, w, |rows, columns, sums, stride| {
        for (row, sums) in rows.zip(sums.chunks(stride)) {
            // SAFETY: each task has rows and columns of its own.
            let out = unsafe { out.range(row * n + columns.start, columns.len()) };
            out.copy_from_slice(&sums[..columns.len()]);
        }
    });
}

/// Rows of whole groups, with zeros at their ends if k is no multiple of 4.
fn pad_rows<'a>(a: &'a [u8], w: &PackedInt8) -> Cow<'a, [u8]> {
    if w.k().is_multiple_of(GROUP) {
        return Cow::Borrowed(a);
    }
    let stride = w.row_stride();
    let mut padded = vec![0; a.len() / w.k() * stride];
    for (target, source) in padded.chunks_exact_mut(stride).zip(a.chunks_exact(w.k())) {
        target[..w.k()].copy_from_slice(source);
    }
    Cow::Owned(padded)
}

/// Calls `sink(rows, columns, sums, stride)` for every task of the product, `sums` having rows `stride` apart. The rows of
/// `a` are `w.row_stride()` bytes apart.
pub(super) fn product(
    a: &[u8],
    m: usize,
    w: &PackedInt8,
    sink: impl Fn(Range<usize>, Range<usize>, &[i32], usize) + Sync,
) {
    let column_tasks = w.panels().div_ceil(PANELS);
    let tasks = m.div_ceil(ROWS) * column_tasks;
    let isa = Isa::current();
    let run = |sums: &mut Vec<i32>, task: usize| {
        let rows = task / column_tasks * ROWS..(task / column_tasks * ROWS + ROWS).min(m);
        let first = task % column_tasks * PANELS;
        let count = PANELS.min(w.panels() - first);
        let stride = count * PANEL;
        let sums = &mut sums[..rows.len() * stride];
        if w.groups() == 0 {
            sums.fill(0);
        } else {
            let a = &a[rows.start * w.row_stride()..rows.end * w.row_stride()];
            tile(isa, a, rows.len(), w.panel(first, count), w.groups(), sums, stride);
        }
        let columns = first * PANEL..((first + count) * PANEL).min(w.n());
        sink(rows, columns, sums, stride);
    };
    let room = || vec![0; ROWS.min(m) * TASK_COLUMNS];
    if m * w.n() * w.k() < PARALLEL {
        let mut sums = room();
        (0..tasks).for_each(|task| run(&mut sums, task));
    } else {
        (0..tasks).into_par_iter().for_each_init(room, run);
    }
}

/// One task's sums by the kernel of `isa`, which this processor has.
fn tile(isa: Isa, a: &[u8], rows: usize, panels: &[i8], groups: usize, out: &mut [i32], stride: usize) {
    match isa {
        // SAFETY: `Isa::current` names only sets that this processor has.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => unsafe { super::amx::tile(a, rows, panels, groups, out, stride) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 | Isa::Avx512Vnni => unsafe { super::avx512::tile(a, rows, panels, groups, out, stride) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => unsafe { super::avx2::tile(a, rows, panels, groups, out, stride) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => {
            portable::tile(a, rows, panels, groups, out, stride)
        }
        Isa::Portable => portable::tile(a, rows, panels, groups, out, stride),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::with_isa;
    use crate::random::{RandomKey, RandomStream};
    use proptest::prelude::*;

    fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
        let mut stream = RandomStream::new(RandomKey {
            seed,
            purpose: 1,
            step: 0,
        });
        (0..len).map(|_| stream.next_u32() as u8).collect()
    }

    fn plain(a: &[u8], m: usize, w: &[i8], n: usize, k: usize) -> Vec<i32> {
        let element = |i: usize| -> i32 {
            let (a, w) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
            a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum()
        };
        (0..m * n).map(element).collect()
    }

    #[test]
    fn every_instruction_set_is_exact_at_odd_sizes() -> candle_core::Result<()> {
        let sizes = [1, 3, 7, 17, 63, 65];
        for (i, m) in sizes.into_iter().enumerate() {
            for (j, n) in sizes.into_iter().chain([129, 300]).enumerate() {
                let k = [1, 5, 64, 17, 130, 63][(i + j) % 6];
                let a = random_bytes(m * k, 1);
                let w: Vec<i8> = random_bytes(n * k, 2).into_iter().map(|b| b as i8).collect();
                let expected = plain(&a, m, &w, n, k);
                let packed = PackedInt8::pack(&w, n, k)?;
                for isa in Isa::available() {
                    let mut out = vec![7; m * n];
                    with_isa(isa, || int8_gemm(&a, m, &packed, &mut out));
                    assert!(out == expected, "{isa:?}: {m}×{k} by {n}×{k}");
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn every_instruction_set_is_exact_at_any_size(m in 0usize..40, n in 0usize..80, k in 0usize..90, seed: u64) {
            let a = random_bytes(m * k, seed);
            let w: Vec<i8> = random_bytes(n * k, !seed).into_iter().map(|b| b as i8).collect();
            let packed = PackedInt8::pack(&w, n, k)?;
            for isa in Isa::available() {
                let mut out = vec![7; m * n];
                with_isa(isa, || int8_gemm(&a, m, &packed, &mut out));
                prop_assert_eq!(&out, &plain(&a, m, &w, n, k), "{:?}", isa);
            }
        }
    }

    #[test]
    fn extremes_do_not_saturate() -> candle_core::Result<()> {
        for (m, n, k) in [(9, 33, 1024), (41, 33, 1027)] {
            for weight in [127i8, -128] {
                let packed = PackedInt8::pack(&vec![weight; n * k], n, k)?;
                for isa in Isa::available() {
                    let mut out = vec![0; m * n];
                    with_isa(isa, || int8_gemm(&vec![255; m * k], m, &packed, &mut out));
                    let expected = 255 * k as i32 * i32::from(weight);
                    assert!(out.iter().all(|&v| v == expected), "{isa:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn large_products_agree_between_threads() -> candle_core::Result<()> {
        let (m, n, k) = (130, 200, 257);
        let (a, w) = (random_bytes(m * k, 1), random_bytes(n * k, 2));
        let w: Vec<i8> = w.into_iter().map(|b| b as i8).collect();
        let packed = PackedInt8::pack(&w, n, k)?;
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool can be started");
            let mut out = vec![0; m * n];
            pool.install(|| int8_gemm(&a, m, &packed, &mut out));
            assert!(out == plain(&a, m, &w, n, k), "{threads} threads");
        }
        Ok(())
    }

    #[test]
    fn empty_products() -> candle_core::Result<()> {
        int8_gemm(&[], 0, &PackedInt8::pack(&[1, 2], 1, 2)?, &mut []);
        int8_gemm(&[], 3, &PackedInt8::pack(&[], 0, 0)?, &mut []);
        let mut out = [5; 6];
        int8_gemm(&[], 3, &PackedInt8::pack(&[], 2, 0)?, &mut out);
        assert_eq!(out, [0; 6]);
        Ok(())
    }
}
