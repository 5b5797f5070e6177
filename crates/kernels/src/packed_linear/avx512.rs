//! The f32 tile kernel for AVX-512: two panels of 16 columns, and as many rows as there are registers for.

use super::Line;
use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps,
};

/// Adds to `sums` the products of `R` rows with two panels, block by block of the inner dimension: each element is summed up
/// over a block from its first to its last product, each fused with its addition, and then added to what there was.
///
/// `a` has the `R` elements of each place of the inner dimension side by side.
#[target_feature(enable = "avx512f")]
pub(super) fn tile<const R: usize>(a: &[f32], panels: [&[Line]; 2], block: usize, sums: &mut [[Line; 2]; R]) {
    let [left, right] = panels.map(|panel| panel.chunks(block));
    for ((a, left), right) in a.chunks(block * R).zip(left).zip(right) {
        let products = products::<R>(a, left, right);
        for (sums, products) in sums.iter_mut().zip(products) {
            for (sum, product) in sums.iter_mut().zip(products) {
                // SAFETY: a line is 16 elements, aligned to their 64 bytes.
                unsafe { _mm512_store_ps(sum.0.as_mut_ptr(), _mm512_add_ps(product, load(sum))) };
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn products<const R: usize>(a: &[f32], left: &[Line], right: &[Line]) -> [[__m512; 2]; R] {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for ((a, left), right) in a.as_chunks::<R>().0.iter().zip(left).zip(right) {
        let (left, right) = (load(left), load(right));
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = _mm512_set1_ps(*a);
            sums[0] = _mm512_fmadd_ps(a, left, sums[0]);
            sums[1] = _mm512_fmadd_ps(a, right, sums[1]);
        }
    }
    sums
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(line: &Line) -> __m512 {
    // SAFETY: a line is 16 elements, aligned to their 64 bytes.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}
