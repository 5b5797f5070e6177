//! Draws strokes as a round pen would: a pixel is as bright as the pen covers it, judged by its distance to the stroke.

use super::SIDE;
use super::glyphs::Point;

/// A round pen.
pub(super) struct Pen {
    /// Half the width of a stroke, in pixels.
    pub(super) radius: f32,
    /// Value of a pixel that is wholly covered, up to 255.
    pub(super) darkness: f32,
}

impl Pen {
    /// Draws chains of points, given in pixels, over an empty image.
    pub(super) fn draw(&self, strokes: &[Vec<Point>], image: &mut [u8]) {
        let mut nearest = [f32::INFINITY; SIDE * SIDE];
        for side in strokes.iter().flat_map(|stroke| stroke.windows(2)) {
            self.approach(side[0], side[1], &mut nearest);
        }
        for (pixel, square) in image.iter_mut().zip(nearest) {
            let coverage = (self.radius + 0.5 - square.sqrt()).clamp(0.0, 1.0);
            *pixel = (self.darkness * coverage).round() as u8;
        }
    }

    /// Lowers the squared distances of the pixels that the segment's ink can reach.
    fn approach(&self, a: Point, b: Point, nearest: &mut [f32]) {
        let reach = self.radius + 1.0;
        let span = |axis: usize| {
            let low = (a[axis].min(b[axis]) - reach).clamp(0.0, SIDE as f32);
            let high = (a[axis].max(b[axis]) + reach).clamp(0.0, SIDE as f32);
            low as usize..high.ceil() as usize
        };
        for y in span(1) {
            for x in span(0) {
                let square = squared_distance([x as f32 + 0.5, y as f32 + 0.5], a, b);
                let best = &mut nearest[y * SIDE + x];
                *best = best.min(square);
            }
        }
    }
}

/// Squared distance of a point to the segment from `a` to `b`.
fn squared_distance(point: Point, a: Point, b: Point) -> f32 {
    let along = [b[0] - a[0], b[1] - a[1]];
    let offset = [point[0] - a[0], point[1] - a[1]];
    let length = along[0] * along[0] + along[1] * along[1];
    let share = if length > 0.0 {
        ((offset[0] * along[0] + offset[1] * along[1]) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let (dx, dy) = (offset[0] - share * along[0], offset[1] - share * along[1]);
    dx * dx + dy * dy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_covers_the_stroke_and_nothing_else() {
        let mut image = [0; SIDE * SIDE];
        let pen = Pen {
            radius: 1.0,
            darkness: 200.0,
        };
        pen.draw(&[vec![[5.0, 10.5], [20.0, 10.5]]], &mut image);
        assert_eq!(image[10 * SIDE + 12], 200, "on the stroke");
        assert_eq!(image[11 * SIDE + 12], 100, "half covered at the pen's edge");
        assert_eq!(image[12 * SIDE + 12], 0, "beyond the pen");
        assert_eq!(image[10 * SIDE + 25], 0, "beyond the end");
    }

    #[test]
    fn strokes_outside_the_image_are_cut_off() {
        let mut image = [0; SIDE * SIDE];
        Pen {
            radius: 1.0,
            darkness: 255.0,
        }
        .draw(&[vec![[-50.0, -50.0], [-40.0, 90.0]]], &mut image);
        assert!(image.iter().all(|&pixel| pixel == 0));
    }
}
