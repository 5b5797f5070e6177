//! exp, ln, tanh, the normal distribution's Φ, sine and cosine in f32, as polynomials of our own.
//!
//! The C library's functions differ between machines in their last bits, and cannot be vectorized. These use additions,
//! multiplications, divisions and bit operations alone, so that they give the same bits everywhere, and have no branches,
//! so that loops over them vectorize. Accuracy is stated at each and tested.

/// Adding and taking away 1.5 · 2²³ rounds to the nearest integer, ties to even, where |x| < 2²².
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// The integer nearest to `x`, ties to even. Exact for |x| < 2²²; NaN stays NaN.
#[inline(always)]
pub(crate) fn round_ties_even(x: f32) -> f32 {
    (x + ROUNDER) - ROUNDER
}

/// `x` held within `low..=high`; NaN stays NaN.
#[inline(always)]
pub(crate) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > high { high } else { x };
    if x < low { low } else { x }
}

/// eˣ within 2 units in the last place over the whole range, subnormal results included (there within one subnormal
/// step). Overflows to infinity and underflows to zero; NaN stays NaN.
///
/// Reduction to |r| ≤ ln 2 / 2 in two parts (Cody & Waite 1980), then a polynomial that interpolates at Chebyshev points.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = clamp(x, -105.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.392_618_2e-3;
    let p = p * r + 8.363_178e-3;
    let p = p * r + 4.166_655_5e-2;
    let p = p * r + 1.666_657_7e-1;
    let p = p * r + 0.5;
    let y = (p * (r * r) + r) + 1.0;
    // 2ⁿ as two factors, so that neither is out of range. The rounder's bits end in n.
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let half = exponent >> 1;
    y * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// ln x for positive, finite, normal `x`, within 2 units in the last place (1e-7 absolute near 1).
///
/// With x = m · 2ᵉ and √½ ≤ m < √2, ln m = 2 artanh((m − 1)/(m + 1)), whose series ends here at the ninth power.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bits = x.to_bits().wrapping_sub(SQRT_HALF);
    let e = (bits as i32 >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF));
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let p = 2.0 / 9.0;
    let p = p * z + 2.0 / 7.0;
    let p = p * z + 2.0 / 5.0;
    let p = p * z + 2.0 / 3.0;
    // 2 s = f − s f, which keeps the leading term exact.
    let tail = s * (z * p - f) + e * LN2_LOW;
    e * LN2_HIGH + (f + tail)
}

/// The hyperbolic tangent within 4e-7 relative; NaN stays NaN.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = 62.0 / 2835.0;
    let p = p * z - 17.0 / 315.0;
    let p = p * z + 2.0 / 15.0;
    let p = p * z - 1.0 / 3.0;
    let small = x + x * (z * p);
    let large = (1.0 - 2.0 / (exp(2.0 * a) + 1.0)).copysign(x);
    if a < 0.25 { small } else { large }
}

/// The standard normal distribution function Φ(x) within 3e-7 absolute, and e^(−x²/2), which its derivative needs.
///
/// The complementary error function by formula 7.1.26 of Abramowitz & Stegun (1964), taken from the nearer tail so that
/// small values of Φ keep their relative accuracy.
#[inline(always)]
pub(crate) fn normal_cdf(x: f32) -> (f32, f32) {
    let gauss = exp(-0.5 * (x * x));
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * (p * t) * gauss;
    (if x < 0.0 { tail } else { 1.0 - tail }, gauss)
}

/// Sine and cosine of `turns` full turns, for 0 ≤ turns < 1, with 2e-7 absolute error.
#[inline(always)]
pub(crate) fn sin_cos_turns(turns: f32) -> (f32, f32) {
    let quarters = turns * 4.0;
    let nearest = round_ties_even(quarters);
    let a = (quarters - nearest) * std::f32::consts::FRAC_PI_2;
    let z = a * a;
    let s = a + a * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362_880.0))));
    let c = 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40_320.0))));
    match nearest as u32 & 3 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        3.. => (-c, s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance from `exact` in units in the last place of the f32 nearest to it.
    fn ulps(got: f32, exact: f64) -> f64 {
        let near = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(got) - exact).abs() / unit
    }

    #[test]
    fn exp_is_within_two_ulps() {
        let mut worst = 0.0f64;
        for i in -1_030_000..887_000 {
            let x = i as f32 * 1e-4;
            worst = worst.max(ulps(exp(x), f64::from(x).exp()));
        }
        assert!(worst <= 2.0, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_within_two_ulps() {
        let mut worst = 0.0f64;
        let mut x = f32::MIN_POSITIVE;
        while x < 1e38 {
            let exact = f64::from(x).ln();
            worst = worst.max(ulps(ln(x), exact).min((f64::from(ln(x)) - exact).abs() / 1e-7));
            x *= 1.000_37;
        }
        assert!(worst <= 2.0, "{worst}");
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn tanh_is_within_its_bound() {
        for i in -200_000..200_000 {
            let x = i as f32 * 5e-5;
            let exact = f64::from(x).tanh();
            assert!(
                (f64::from(tanh(x)) - exact).abs() <= 4e-7 * exact.abs(),
                "{x}: {} {exact}",
                tanh(x)
            );
        }
        assert_eq!(tanh(100.0), 1.0);
        assert_eq!(tanh(-100.0), -1.0);
        assert!(tanh(f32::NAN).is_nan());
    }

    /// Φ by the series Σ x^(2k+1) / (1·3·5…(2k+1)), good to f64 for |x| ≤ 6.
    fn cdf_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for k in 1..400 {
            term *= x * x / f64::from(2 * k + 1);
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn normal_cdf_is_within_its_bound() {
        for i in -6000..=6000 {
            let x = i as f32 * 1e-3;
            let (cdf, gauss) = normal_cdf(x);
            assert!((f64::from(cdf) - cdf_series(f64::from(x))).abs() < 3e-7, "{x}");
            assert!(
                (f64::from(gauss) - (-0.5 * f64::from(x).powi(2)).exp()).abs() < 2e-7,
                "{x}"
            );
        }
        assert_eq!(normal_cdf(50.0).0, 1.0);
        assert_eq!(normal_cdf(-50.0).0, 0.0);
    }

    #[test]
    fn sine_and_cosine_are_within_their_bound() {
        for i in 0..100_000 {
            let turns = i as f32 * 1e-5;
            let (s, c) = sin_cos_turns(turns);
            let angle = f64::from(turns) * std::f64::consts::TAU;
            assert!(
                (f64::from(s) - angle.sin()).abs() < 4e-7 && (f64::from(c) - angle.cos()).abs() < 4e-7,
                "{turns}"
            );
        }
    }

    #[test]
    fn rounding_is_to_even() {
        for (x, rounded) in [
            (0.5, 0.0),
            (1.5, 2.0),
            (2.5, 2.0),
            (-0.5, 0.0),
            (-1.5, -2.0),
            (126.7, 127.0),
            (-3.2, -3.0),
        ] {
            assert_eq!(round_ties_even(x), rounded);
        }
    }
}
