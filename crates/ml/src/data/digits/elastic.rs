//! Elastic distortion: a random displacement of every pixel, smoothed so that neighbours move together (Simard,
//! Steinkraus, Platt 2003, "Best practices for convolutional neural networks applied to visual document analysis", §2).
//!
//! Strokes are displaced before they are drawn, rather than pixels after: lines stay sharp.

use orchestrate_kernels::RandomStream;

use super::SIDE;
use super::glyphs::Point;

/// exp(−1 / 2σ²) at σ = 4 pixels, the paper's choice.
const GAUSSIAN_BASE: f32 = 0.969_233_3;
/// Pixels to each side that the smoothing reaches: three σ.
const REACH: usize = 12;
/// Largest displacement before smoothing, in pixels (the paper's α); about one pixel remains after it.
const STRENGTH: f32 = 26.0;

/// Displacements in pixels along one axis, row by row.
type Plane = Vec<f32>;

/// A smooth displacement of the image.
pub(super) struct Field {
    along_x: Plane,
    along_y: Plane,
}

impl Field {
    pub(super) fn random(random: &mut RandomStream) -> Self {
        Self {
            along_x: smooth_plane(random),
            along_y: smooth_plane(random),
        }
    }

    /// Where the field moves a point, given in pixels.
    pub(super) fn displaced(&self, [x, y]: Point) -> Point {
        [
            x + interpolated(&self.along_x, x, y),
            y + interpolated(&self.along_y, x, y),
        ]
    }
}

fn smooth_plane(random: &mut RandomStream) -> Plane {
    let rough: Plane = (0..SIDE * SIDE)
        .map(|_| STRENGTH * (2.0 * random.uniform() - 1.0))
        .collect();
    let weights = gaussian();
    smoothed_columns(&smoothed_rows(&rough, &weights), &weights)
}

/// Weights at distances 0 to `REACH`; over both sides they sum to 1.
fn gaussian() -> [f32; REACH + 1] {
    let mut weights = [1.0; REACH + 1];
    // exp(−k²/2σ²) = baseᵏ², and k² − (k−1)² = 2k − 1.
    let mut ratio = GAUSSIAN_BASE;
    for k in 1..=REACH {
        weights[k] = weights[k - 1] * ratio;
        ratio *= GAUSSIAN_BASE * GAUSSIAN_BASE;
    }
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
    weights.map(|weight| weight / sum)
}

fn smoothed_rows(plane: &[f32], weights: &[f32]) -> Plane {
    let mut out = vec![0.0; plane.len()];
    for (row, out) in plane.chunks_exact(SIDE).zip(out.chunks_exact_mut(SIDE)) {
        for (x, value) in out.iter_mut().enumerate() {
            let (first, last) = (x.saturating_sub(REACH), (x + REACH).min(SIDE - 1));
            *value = (first..=last)
                .map(|other| row[other] * weights[other.abs_diff(x)])
                .sum();
        }
    }
    out
}

fn smoothed_columns(plane: &[f32], weights: &[f32]) -> Plane {
    let mut out = vec![0.0; plane.len()];
    for (y, out) in out.chunks_exact_mut(SIDE).enumerate() {
        for other in y.saturating_sub(REACH)..=(y + REACH).min(SIDE - 1) {
            let weight = weights[other.abs_diff(y)];
            let row = &plane[other * SIDE..][..SIDE];
            out.iter_mut()
                .zip(row)
                .for_each(|(value, from)| *value += weight * from);
        }
    }
    out
}

/// The plane's value between pixel centres; outside, that of the border.
fn interpolated(plane: &[f32], x: f32, y: f32) -> f32 {
    let limit = (SIDE - 1) as f32;
    let (x, y) = ((x - 0.5).clamp(0.0, limit), (y - 0.5).clamp(0.0, limit));
    let (left, top) = (x as usize, y as usize);
    let (right, bottom) = ((left + 1).min(SIDE - 1), (top + 1).min(SIDE - 1));
    let (share_x, share_y) = (x - left as f32, y - top as f32);
    let row = |y: usize| plane[y * SIDE + left] * (1.0 - share_x) + plane[y * SIDE + right] * share_x;
    row(top) * (1.0 - share_y) + row(bottom) * share_y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_a_gaussian_of_unit_mass() {
        let weights = gaussian();
        let mass = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
        assert!((mass - 1.0).abs() < 1e-6);
        assert!((weights[4] / weights[0] - (-0.5f32).exp()).abs() < 1e-5, "one σ away");
    }

    #[test]
    fn a_constant_plane_moves_every_point_alike() {
        let plane = vec![1.5; SIDE * SIDE];
        let field = Field {
            along_x: plane.clone(),
            along_y: plane,
        };
        assert_eq!(field.displaced([3.25, 27.9]), [4.75, 29.4]);
    }
}
