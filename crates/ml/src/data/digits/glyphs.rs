//! The ways to write each digit: strokes in the unit square, y downwards.
//!
//! Changing any number changes every data set made from it: raise `VERSION` in the parent module with it.

/// x, then y.
pub(super) type Point = [f32; 2];

/// One movement of the pen.
pub(super) enum Stroke {
    /// Straight lines through the points.
    Lines(&'static [Point]),
    /// Part of an ellipse; angles in turns, clockwise from the right since y points down.
    Arc {
        centre: Point,
        radii: Point,
        from: f32,
        to: f32,
    },
    /// A cubic Bézier curve.
    Curve([Point; 4]),
}

use Stroke::{Arc, Curve, Lines};

/// Straight pieces that a curved stroke is drawn with.
const PIECES: u16 = 20;
/// Straight pieces that each line is cut into, so that it can bend.
const PIECES_OF_LINE: u16 = 6;

impl Stroke {
    /// The stroke as a chain of points close enough to join by straight pieces.
    pub(super) fn points(&self) -> Vec<Point> {
        match self {
            Lines(corners) => {
                let sides = corners.windows(2).flat_map(|side| {
                    shares(PIECES_OF_LINE)
                        .skip(1)
                        .map(move |share| mix(side[0], side[1], share))
                });
                corners.iter().take(1).copied().chain(sides).collect()
            }
            Arc {
                centre,
                radii,
                from,
                to,
            } => shares(PIECES)
                .map(|share| {
                    let turn = from + (to - from) * share;
                    [
                        centre[0] + radii[0] * sine(turn + 0.25),
                        centre[1] + radii[1] * sine(turn),
                    ]
                })
                .collect(),
            Curve([a, b, c, d]) => shares(PIECES)
                .map(|share| {
                    let (ab, bc, cd) = (mix(*a, *b, share), mix(*b, *c, share), mix(*c, *d, share));
                    mix(mix(ab, bc, share), mix(bc, cd, share), share)
                })
                .collect(),
        }
    }
}

fn shares(pieces: u16) -> impl Iterator<Item = f32> {
    (0..=pieces).map(move |piece| f32::from(piece) / f32::from(pieces))
}

fn mix(a: Point, b: Point, share: f32) -> Point {
    [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share]
}

/// Sine of an angle in turns, within 1e-5, by its Taylor series on a quarter turn: the platform's own differs between
/// machines.
pub(super) fn sine(turns: f32) -> f32 {
    let turns = turns - turns.round();
    let folded = if turns.abs() > 0.25 {
        turns.signum() * 0.5 - turns
    } else {
        turns
    };
    let x = folded * std::f32::consts::TAU;
    let square = x * x;
    x * (1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0 * (1.0 - square / 72.0))))
}

/// The styles of each digit.
pub(super) const STYLES: [&[&[Stroke]]; 10] = [ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, NINE];

const ZERO: &[&[Stroke]] = &[
    &[Arc {
        centre: [0.5, 0.5],
        radii: [0.42, 0.5],
        from: 0.0,
        to: 1.0,
    }],
    &[Arc {
        centre: [0.5, 0.5],
        radii: [0.3, 0.5],
        from: 0.0,
        to: 1.0,
    }],
    &[Arc {
        centre: [0.5, 0.52],
        radii: [0.38, 0.48],
        from: -0.2,
        to: 0.84,
    }],
];

const ONE: &[&[Stroke]] = &[
    &[Lines(&[[0.5, 0.0], [0.5, 1.0]])],
    &[Lines(&[[0.28, 0.25], [0.55, 0.0], [0.55, 1.0]])],
    &[
        Lines(&[[0.3, 0.2], [0.52, 0.0], [0.52, 1.0]]),
        Lines(&[[0.25, 1.0], [0.8, 1.0]]),
    ],
];

const TWO: &[&[Stroke]] = &[
    &[
        Curve([[0.12, 0.28], [0.15, -0.12], [0.9, -0.08], [0.85, 0.3]]),
        Curve([[0.85, 0.3], [0.8, 0.55], [0.35, 0.75], [0.1, 1.0]]),
        Lines(&[[0.1, 1.0], [0.9, 1.0]]),
    ],
    &[
        Curve([[0.15, 0.2], [0.35, -0.1], [0.85, -0.05], [0.8, 0.32]]),
        Curve([[0.8, 0.32], [0.75, 0.6], [0.5, 0.85], [0.25, 0.95]]),
        Curve([[0.25, 0.95], [-0.05, 1.02], [0.1, 0.68], [0.35, 0.85]]),
        Curve([[0.35, 0.85], [0.55, 1.0], [0.75, 1.02], [0.95, 0.9]]),
    ],
];

const THREE: &[&[Stroke]] = &[
    &[
        Curve([[0.15, 0.12], [0.4, -0.1], [1.05, 0.0], [0.75, 0.38]]),
        Curve([[0.75, 0.38], [0.65, 0.48], [0.5, 0.48], [0.4, 0.48]]),
        Curve([[0.4, 0.48], [1.0, 0.45], [1.0, 1.0], [0.5, 1.0]]),
        Curve([[0.5, 1.0], [0.3, 1.0], [0.18, 0.95], [0.1, 0.85]]),
    ],
    &[
        Lines(&[[0.15, 0.0], [0.85, 0.0], [0.45, 0.4]]),
        Curve([[0.45, 0.4], [1.05, 0.4], [1.0, 1.0], [0.5, 1.0]]),
        Curve([[0.5, 1.0], [0.3, 1.0], [0.15, 0.95], [0.1, 0.82]]),
    ],
];

const FOUR: &[&[Stroke]] = &[
    &[
        Lines(&[[0.2, 0.0], [0.12, 0.6], [0.92, 0.6]]),
        Lines(&[[0.7, 0.15], [0.7, 1.0]]),
    ],
    &[Lines(&[[0.68, 1.0], [0.68, 0.0], [0.05, 0.68], [0.95, 0.68]])],
    &[
        Curve([[0.2, 0.05], [0.1, 0.6], [0.15, 0.62], [0.75, 0.5]]),
        Lines(&[[0.8, 0.0], [0.65, 1.0]]),
    ],
];

const FIVE: &[&[Stroke]] = &[
    &[
        Lines(&[[0.85, 0.0], [0.22, 0.0], [0.18, 0.42]]),
        Curve([[0.18, 0.42], [0.6, 0.28], [0.95, 0.5], [0.85, 0.75]]),
        Curve([[0.85, 0.75], [0.75, 1.05], [0.3, 1.05], [0.1, 0.88]]),
    ],
    &[
        Lines(&[[0.9, 0.02], [0.4, 0.02], [0.25, 0.4]]),
        Curve([[0.25, 0.4], [1.0, 0.3], [0.95, 0.98], [0.45, 1.0]]),
        Curve([[0.45, 1.0], [0.3, 1.0], [0.2, 0.95], [0.15, 0.9]]),
    ],
];

const SIX: &[&[Stroke]] = &[
    &[
        Curve([[0.75, 0.0], [0.35, 0.1], [0.12, 0.4], [0.13, 0.7]]),
        Arc {
            centre: [0.48, 0.71],
            radii: [0.35, 0.29],
            from: 0.5,
            to: 1.5,
        },
    ],
    &[
        Curve([[0.6, 0.0], [0.2, 0.35], [0.12, 0.6], [0.2, 0.8]]),
        Curve([[0.2, 0.8], [0.3, 1.08], [0.85, 1.02], [0.82, 0.72]]),
        Curve([[0.82, 0.72], [0.78, 0.45], [0.4, 0.5], [0.2, 0.75]]),
    ],
];

const SEVEN: &[&[Stroke]] = &[
    &[Lines(&[[0.1, 0.02], [0.88, 0.02], [0.4, 1.0]])],
    &[
        Lines(&[[0.1, 0.02], [0.9, 0.02], [0.42, 1.0]]),
        Lines(&[[0.35, 0.5], [0.85, 0.5]]),
    ],
    &[
        Curve([[0.1, 0.12], [0.4, 0.0], [0.6, 0.1], [0.9, 0.02]]),
        Curve([[0.9, 0.02], [0.7, 0.4], [0.5, 0.6], [0.5, 1.0]]),
    ],
];

const EIGHT: &[&[Stroke]] = &[
    &[
        Arc {
            centre: [0.5, 0.24],
            radii: [0.29, 0.24],
            from: 0.0,
            to: 1.0,
        },
        Arc {
            centre: [0.5, 0.74],
            radii: [0.36, 0.26],
            from: 0.0,
            to: 1.0,
        },
    ],
    &[
        Curve([[0.78, 0.15], [0.6, -0.12], [0.08, -0.02], [0.2, 0.28]]),
        Curve([[0.2, 0.28], [0.3, 0.5], [0.85, 0.55], [0.85, 0.78]]),
        Curve([[0.85, 0.78], [0.8, 1.1], [0.15, 1.05], [0.18, 0.78]]),
        Curve([[0.18, 0.78], [0.2, 0.55], [0.75, 0.4], [0.78, 0.15]]),
    ],
];

const NINE: &[&[Stroke]] = &[
    &[
        Arc {
            centre: [0.48, 0.29],
            radii: [0.34, 0.29],
            from: 0.0,
            to: 1.0,
        },
        Lines(&[[0.82, 0.25], [0.75, 1.0]]),
    ],
    &[
        Arc {
            centre: [0.5, 0.29],
            radii: [0.35, 0.29],
            from: 0.0,
            to: 1.0,
        },
        Curve([[0.85, 0.29], [0.88, 0.7], [0.7, 1.0], [0.3, 0.98]]),
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sine_is_within_its_stated_error() {
        for step in -400..=400 {
            let turns = step as f32 / 200.0;
            let exact = (f64::from(turns) * std::f64::consts::TAU).sin();
            assert!((f64::from(sine(turns)) - exact).abs() < 1e-5, "at {turns} turns");
        }
    }

    #[test]
    fn every_stroke_stays_near_the_unit_square() {
        for stroke in STYLES
            .iter()
            .flat_map(|styles| styles.iter())
            .flat_map(|style| style.iter())
        {
            for [x, y] in stroke.points() {
                assert!((-0.05..=1.05).contains(&x) && (-0.05..=1.05).contains(&y), "({x}, {y})");
            }
        }
    }
}
