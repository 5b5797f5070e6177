//! Of products in all precisions.

use super::*;
use crate::isa::{Isa, with_isa};
use crate::random::{RandomKey, RandomStream};

fn plain(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let element = |i: usize| (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum();
    (0..m * n).map(element).collect()
}

#[test]
fn products_of_odd_sizes() {
    for (m, k, n) in [
        (1, 1, 1),
        (3, 7, 5),
        (17, 1, 33),
        (1, 65, 9),
        (65, 63, 1),
        (4, 0, 3),
        (0, 3, 4),
        (64, 64, 64),
        (5, 513, 7),
        (2, 1537, 3),
    ] {
        let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
        let expected = plain(&a, &b, m, k, n);
        assert_eq!(
            multiply(
                Matrix::new(&a, m, k),
                Matrix::new(&b, k, n),
                Output::PLAIN,
                ProductPrecision::F32,
                Threads::All
            ),
            expected,
            "{m} {k} {n}"
        );
        let mut twice = expected.clone();
        multiply_into(
            &mut twice,
            Matrix::new(&a, m, k),
            Matrix::new(&b, k, n),
            Output::Add,
            ProductPrecision::F32,
            Threads::One,
        );
        assert!(twice.iter().zip(&expected).all(|(t, e)| *t == 2.0 * e));
    }
}

#[test]
fn a_strided_product_leaves_the_gaps_alone() {
    const HALVED: Output<'_> = Output::Replace { factor: 0.5 };
    let a = [1.0, 2.0, 3.0, 4.0];
    let a = Matrix::new(&a, 2, 2);
    for precision in ProductPrecision::ALL {
        let mut out = [9.0; 7];
        let shared = Shared::new(&mut out);
        // SAFETY: this is the only task.
        unsafe { multiply_shared(&shared, [1, 4], a, a.transposed(), HALVED, precision) };
        assert_eq!(out, [9.0, 2.5, 5.5, 9.0, 9.0, 5.5, 12.5]);
    }
}

const SIZES: [usize; 9] = [0, 1, 3, 7, 17, 63, 65, 130, 513];

/// What the values are like.
#[derive(Clone, Copy, Debug)]
enum Values {
    Normal,
    /// About the smallest normal number, products of which are below it.
    Tiny,
    /// About the largest number, sums of which are infinite.
    Large,
    /// Any bits: numbers of all sizes, infinities and what is no number.
    Any,
}

fn values(kind: Values, len: usize, seed: u64) -> Vec<f32> {
    let mut stream = RandomStream::new(RandomKey {
        seed,
        purpose: 0,
        step: 0,
    });
    let mut scaled = |scale: f32| stream.normal() * scale;
    match kind {
        Values::Normal => (0..len).map(|_| scaled(1.0)).collect(),
        Values::Tiny => (0..len).map(|i| scaled([1e-19, 1e-38, 3e-20][i % 3])).collect(),
        Values::Large => (0..len).map(|i| scaled([1e19, 1e20, 1e-3][i % 3])).collect(),
        Values::Any => (0..len).map(|_| f32::from_bits(stream.next_u32())).collect(),
    }
}

/// The bits, with one for all that is not a number.
fn bits(values: &[f32]) -> Vec<u32> {
    let bits = |v: &f32| if v.is_nan() { u32::MAX } else { v.to_bits() };
    values.iter().map(bits).collect()
}

fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| values[i % rows * columns + i / rows])
        .collect()
}

fn on_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("a pool can be started").install(run)
}

#[test]
fn the_product_of_what_was_rounded() {
    let rounded = |x: &f32| f64::from(f32::from_bits(Bf16::entry(*x, 0.0) << 16));
    for (i, m) in SIZES.into_iter().enumerate() {
        for (j, k) in SIZES.into_iter().enumerate() {
            let n = SIZES[(i + 2 * j) % SIZES.len()];
            let (a, b) = (values(Values::Normal, m * k, 1), values(Values::Normal, k * n, 2));
            let (x, y) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            for precision in [ProductPrecision::Bf16, ProductPrecision::Bf16Amx] {
                let got = multiply(x, y, Output::PLAIN, precision, Threads::All);
                for (i, got) in got.iter().enumerate() {
                    let (row, column) = (i / n, i % n);
                    let terms = (0..k).map(|p| rounded(&a[row * k + p]) * rounded(&b[p * n + column]));
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                    let bound = 1e-7 * (k as f64).sqrt() * size;
                    assert!(
                        (f64::from(*got) - sum).abs() <= bound,
                        "{m} {k} {n} in {precision:?}: {got} is not {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_layout_thread_count_and_instruction_set_gives_the_same_bits() {
    for kind in [Values::Normal, Values::Tiny, Values::Large, Values::Any] {
        for (m, k, n) in [
            (1, 1, 1),
            (7, 17, 65),
            (63, 513, 3),
            (130, 260, 300),
            (1, 65, 1),
            (3, 1537, 40),
            (301, 64, 63),
            // Whole tiles of 16 and of 32 rows, and more than one visit.
            (16, 600, 64),
            (48, 1100, 96),
        ] {
            for precision in ProductPrecision::ALL {
                same_bits(kind, [m, k, n], precision);
            }
        }
    }
}

fn same_bits(kind: Values, [m, k, n]: [usize; 3], precision: ProductPrecision) {
    let (a, b) = (values(kind, m * k, 3), values(kind, k * n, 4));
    let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
    let (x, y) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
    let x_turned = Matrix::new(&a_turned, k, m).transposed();
    let y_turned = Matrix::new(&b_turned, n, k).transposed();
    let (start, bias) = (values(kind, m * n, 5), values(kind, n, 6));
    let run = |x, y| {
        let mut out = start.clone();
        multiply_into(&mut out, x, y, Output::Add, precision, Threads::All);
        for output in [Output::PLAIN, Output::Replace { factor: 0.3 }, Output::Biased(&bias)] {
            out.extend(multiply(x, y, output, precision, Threads::One));
        }
        bits(&out)
    };
    let expected = with_isa(Isa::Portable, || run(x, y));
    for isa in Isa::available() {
        with_isa(isa, || {
            for (x, y) in [(x, y), (x_turned, y), (x, y_turned), (x_turned, y_turned)] {
                assert!(
                    run(x, y) == expected,
                    "{kind:?} {m} {k} {n} in {precision:?} on {isa:?}"
                );
            }
        });
    }
    for threads in 1..=4 {
        assert!(on_threads(threads, || run(x, y)) == expected, "{threads} threads");
    }
}

/// Sums at the edge of what counts as zero: 2⁻¹²⁶ − 2⁻¹⁵⁰ is below the smallest normal number, and rounds to it.
#[test]
fn the_edge_of_zero_is_the_same_everywhere() {
    let tiny = |exponent: i32| 2f32.powi(exponent);
    for (first, second) in [(0, 1), (0, 2), (0, 3), (1, 3), (0, 33), (1, 2)] {
        for (sign, low) in [
            (1.0, tiny(-75)),
            (-1.0, tiny(-75)),
            (1.0, tiny(-74)),
            (1.0, tiny(-76)),
            (-1.0, tiny(-86)),
            (1.0, 1.5 * tiny(-76)),
        ] {
            let mut a = vec![0.0; 64];
            let mut b = vec![0.0; 64 * 40];
            (a[first], a[second]) = (sign * tiny(-63), -sign * low);
            for (at, value) in [(first, tiny(-63)), (second, tiny(-75))] {
                b[at * 40..][..40].fill(value);
            }
            let (a, b) = (Matrix::new(&a, 1, 64), Matrix::new(&b, 64, 40));
            for precision in ProductPrecision::ALL {
                let run = || bits(&multiply(a, b, Output::PLAIN, precision, Threads::One));
                let expected = with_isa(Isa::Portable, run);
                for isa in Isa::available() {
                    let got = with_isa(isa, run);
                    assert!(
                        got == expected,
                        "{first} {second} {sign} {low} in {precision:?} on {isa:?}: {:#x} {:#x}",
                        got[0],
                        expected[0]
                    );
                }
            }
        }
    }
}

/// An element depends on its row and its column alone, so that a batch may be cut anywhere.
#[test]
fn a_product_of_parts_is_the_parts_of_the_product() {
    let (m, k, n) = (37, 700, 45);
    let (a, b) = (values(Values::Normal, m * k, 1), values(Values::Normal, k * n, 2));
    for precision in ProductPrecision::ALL {
        let rows = |first: usize, last: usize| {
            let a = Matrix::new(&a[first * k..last * k], last - first, k);
            multiply(a, Matrix::new(&b, k, n), Output::PLAIN, precision, Threads::All)
        };
        let mut parts = rows(0, 1);
        for (first, last) in [(1, 4), (4, 12), (12, 37)] {
            parts.extend(rows(first, last));
        }
        assert!(bits(&parts) == bits(&rows(0, m)), "{precision:?}");
    }
}

#[test]
fn what_is_not_finite_reaches_the_product() {
    let mut a = values(Values::Normal, 20 * 33, 1);
    let b = values(Values::Normal, 33 * 40, 2);
    a[5 * 33 + 32] = f32::NAN;
    a[7 * 33] = f32::INFINITY;
    let (a, b) = (Matrix::new(&a, 20, 33), Matrix::new(&b, 33, 40));
    for precision in ProductPrecision::ALL {
        let got = multiply(a, b, Output::PLAIN, precision, Threads::All);
        for (row, got) in got.chunks_exact(40).enumerate() {
            match row {
                5 => assert!(got.iter().all(|v| v.is_nan()), "{precision:?}"),
                7 => assert!(got.iter().all(|v| v.is_infinite()), "{precision:?}"),
                _ => assert!(got.iter().all(|v| v.is_finite()), "{precision:?}"),
            }
        }
    }
}
