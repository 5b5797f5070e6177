//! `builtin:digits`: 28×28 grayscale digits drawn from strokes, with the label known by construction.
//!
//! A digit is one of a few ways to write its class ([`glyphs`]), moved by a random affine map, bent by an elastic field
//! ([`elastic`]) and drawn with a pen of random width ([`ink`]), with noise on top. Light strokes on black, as MNIST.
//! Row `i` depends on the seed and `i` alone, so rows are drawn in parallel and the bytes do not depend on how. Only
//! operations that IEEE 754 rounds exactly are used: the same bytes on every machine.

mod elastic;
mod glyphs;
mod ink;

use orchestrate_kernels::{RandomKey, RandomStream};
use rayon::prelude::*;

use self::elastic::Field;
use self::glyphs::{Point, sine};
use super::{ImageRows, Splits};

/// Version of the glyphs and distortions: the same spec gives the same pixels under the same version.
///
/// - 1: first.
pub const VERSION: u32 = 1;

/// The class names in label order.
pub const LABELS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Width and height of an image.
pub const SIDE: usize = 28;

const PURPOSE_TRAIN: u32 = u32::from_be_bytes(*b"dgtr");
const PURPOSE_TEST: u32 = u32::from_be_bytes(*b"dgte");

/// How many digits to draw, from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigitsSpec {
    pub train: usize,
    pub test: usize,
    pub seed: u64,
}

/// Draws both splits; row `i` has label `i mod 10`.
pub fn generate(spec: &DigitsSpec) -> Splits<ImageRows> {
    Splits {
        train: rows(spec.train, spec.seed, PURPOSE_TRAIN),
        test: rows(spec.test, spec.seed, PURPOSE_TEST),
    }
}

fn rows(count: usize, seed: u64, purpose: u32) -> ImageRows {
    let classes = LABELS.len();
    let mut pixels = vec![0; count * SIDE * SIDE];
    pixels
        .par_chunks_exact_mut(SIDE * SIDE)
        .enumerate()
        .for_each(|(index, image)| {
            let mut random = RandomStream::new(RandomKey {
                seed,
                purpose,
                step: index as u64,
            });
            draw(&mut random, index % classes, image);
        });
    let labels = (0..count).map(|index| (index % classes) as u32).collect();
    ImageRows {
        width: SIDE,
        height: SIDE,
        channels: 1,
        pixels,
        labels,
    }
}

fn draw(random: &mut RandomStream, class: usize, image: &mut [u8]) {
    let affine = Affine::random(random);
    let field = Field::random(random);
    let styles = glyphs::STYLES[class];
    let style = styles[random.below(styles.len())];
    let strokes: Vec<Vec<Point>> = style
        .iter()
        .map(|stroke| {
            stroke
                .points()
                .into_iter()
                .map(|point| field.displaced(affine.apply(point)))
                .collect()
        })
        .collect();
    let pen = ink::Pen {
        radius: between(random, 0.75, 1.6),
        darkness: between(random, 190.0, 255.0),
    };
    pen.draw(&strokes, image);
    for pixel in image {
        // The sum of two uniform draws: a triangle around zero.
        let noise = NOISE * (random.uniform() + random.uniform() - 1.0);
        *pixel = (f32::from(*pixel) + noise).round() as u8;
    }
}

/// Largest change of a pixel by noise, of 255.
const NOISE: f32 = 32.0;

fn between(random: &mut RandomStream, low: f32, high: f32) -> f32 {
    low + (high - low) * random.uniform()
}

/// Maps the unit square that glyphs are written in to pixels.
struct Affine {
    /// Row by row.
    matrix: [[f32; 2]; 2],
    centre: Point,
}

impl Affine {
    /// Rotation by up to 15°, slant, scale in each direction, shift by up to 2¼ pixels.
    fn random(random: &mut RandomStream) -> Self {
        let turn = between(random, -15.0 / 360.0, 15.0 / 360.0);
        let (sin, cos) = (sine(turn), sine(turn + 0.25));
        let slant = between(random, -0.25, 0.25);
        let width = between(random, 13.0, 19.0);
        let height = between(random, 16.0, 21.0);
        // rotation · shear · scale
        let matrix = [
            [cos * width, (cos * slant - sin) * height],
            [sin * width, (sin * slant + cos) * height],
        ];
        let middle = SIDE as f32 / 2.0;
        let centre = [
            middle + between(random, -2.25, 2.25),
            middle + between(random, -2.25, 2.25),
        ];
        Self { matrix, centre }
    }

    fn apply(&self, [x, y]: Point) -> Point {
        let (x, y) = (x - 0.5, y - 0.5);
        let [top, bottom] = self.matrix;
        [
            self.centre[0] + top[0] * x + top[1] * y,
            self.centre[1] + bottom[0] * x + bottom[1] * y,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear_probe::{self, Rows};
    use super::*;

    #[test]
    fn rows_depend_on_the_seed_and_their_index_alone() {
        let few = generate(&DigitsSpec {
            train: 7,
            test: 3,
            seed: 5,
        });
        let more = generate(&DigitsSpec {
            train: 40,
            test: 30,
            seed: 5,
        });
        assert_eq!(few.train.pixels, more.train.pixels[..7 * SIDE * SIDE]);
        assert_eq!(few.test.pixels, more.test.pixels[..3 * SIDE * SIDE]);
        assert_ne!(
            more.train.pixels[..SIDE * SIDE],
            more.test.pixels[..SIDE * SIDE],
            "splits are drawn apart"
        );
        assert_ne!(
            generate(&DigitsSpec {
                train: 7,
                test: 3,
                seed: 6
            }),
            few
        );
    }

    #[test]
    fn version_1_draws_what_it_always_drew() {
        let Splits { train, test } = generate(&DigitsSpec {
            train: 200,
            test: 100,
            seed: 0,
        });
        let drawn = [train.pixels, test.pixels].concat();
        // A change here is a change of every digits data set: raise VERSION.
        assert_eq!(
            blake3::hash(&drawn).to_hex().as_str(),
            "21301e85def117a0b104e252bbb688163cb2e21079a6de827850bb11a7ef1d4e"
        );
    }

    #[test]
    fn the_thread_count_changes_nothing() {
        let spec = DigitsSpec {
            train: 64,
            test: 1,
            seed: 5,
        };
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(alone.install(|| generate(&spec)), generate(&spec));
    }

    #[test]
    fn every_image_has_ink_within_its_border() {
        let rows = generate(&DigitsSpec {
            train: 300,
            test: 0,
            seed: 1,
        })
        .train;
        for (index, image) in rows.pixels.chunks_exact(SIDE * SIDE).enumerate() {
            let bright = image.iter().filter(|&&pixel| pixel > 128).count();
            assert!((20..300).contains(&bright), "image {index} has {bright} bright pixels");
            // The foot of a one may touch the border; no digit runs along it.
            let border = image[..SIDE]
                .iter()
                .chain(&image[SIDE * (SIDE - 1)..])
                .filter(|&&pixel| pixel > 128)
                .count();
            assert!(
                border < SIDE / 2,
                "image {index} has {border} bright pixels on its border"
            );
        }
    }

    #[test]
    fn a_linear_classifier_stays_under_92_percent() {
        let splits = generate(&DigitsSpec {
            train: 4000,
            test: 1000,
            seed: 1,
        });
        let rows = |rows: &ImageRows| Rows {
            features: rows
                .pixels
                .chunks_exact(SIDE * SIDE)
                .map(|image| {
                    image
                        .iter()
                        .map(|&pixel| f32::from(pixel) / 255.0)
                        .enumerate()
                        .collect()
                })
                .collect(),
            labels: rows.labels.clone(),
        };
        let (train, test) = (rows(&splits.train), rows(&splits.test));
        let accuracy = linear_probe::accuracy(&train, &test, SIDE * SIDE, LABELS.len(), 15, 0.02);
        assert!((0.70..0.92).contains(&accuracy), "accuracy {accuracy}");
    }
}
