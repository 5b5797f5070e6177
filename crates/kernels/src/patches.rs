//! The geometry of a convolution, and images laid out as columns of patches and back.

use candle_core::{Result, bail};
use std::ops::Range;

/// Sizes of a convolution of one image with square kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Channels in.
    pub(crate) channels: usize,
    /// Height and width in.
    pub(crate) input: [usize; 2],
    /// Height and width of the kernel.
    pub(crate) kernel: usize,
    /// Step between patches.
    pub(crate) stride: usize,
    /// Rows and columns added on every side.
    pub(crate) padding: usize,
    /// Height and width out.
    pub(crate) output: [usize; 2],
}

impl Geometry {
    /// # Errors
    /// If the stride or the kernel is 0, or the kernel is larger than the padded image.
    pub(crate) fn new(
        channels: usize,
        input: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let padded = input.map(|side| side + 2 * padding);
        if channels == 0 || input.contains(&0) {
            bail!("a convolution over nothing: {channels} channels of {input:?}")
        }
        if stride == 0 || kernel == 0 || padded.iter().any(|&side| side < kernel) {
            bail!("a kernel of {kernel} with stride {stride} and padding {padding} over an image of {input:?}")
        }
        let output = padded.map(|side| (side - kernel) / stride + 1);
        Ok(Self {
            channels,
            input,
            kernel,
            stride,
            padding,
            output,
        })
    }

    /// Elements of an image.
    pub(crate) fn image(&self) -> usize {
        self.channels * self.input[0] * self.input[1]
    }

    /// Elements of a patch.
    pub(crate) fn patch(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    /// Patches of an image.
    pub(crate) fn patches(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Calls `visit(row, inside, pixel)` for each output row of each place of a patch, in order: the output columns that have
    /// that place within the image, and the pixel that the first of them has there. In the padding there are none.
    fn rows(&self, mut visit: impl FnMut(usize, Range<usize>, usize)) {
        let kernel = self.kernel;
        for place in 0..self.patch() {
            let (channel, row, column) = (place / (kernel * kernel), place / kernel % kernel, place % kernel);
            // Once for all rows: it divides, and rows are short.
            let (inside, first) = self.inside(column);
            for y in 0..self.output[0] {
                let input_row = (y * self.stride + row)
                    .checked_sub(self.padding)
                    .filter(|&r| r < self.input[0] && !inside.is_empty());
                let (inside, pixel) = match input_row {
                    Some(r) => (inside.clone(), (channel * self.input[0] + r) * self.input[1] + first),
                    None => (0..0, 0),
                };
                visit(place * self.output[0] + y, inside, pixel);
            }
        }
    }

    /// The output columns whose patches have `column` within the image, and the image column of the first.
    fn inside(&self, column: usize) -> (Range<usize>, usize) {
        let first = self.padding.saturating_sub(column).div_ceil(self.stride);
        let end = (self.input[1] + self.padding)
            .saturating_sub(column)
            .div_ceil(self.stride)
            .min(self.output[1]);
        (
            first..end.max(first),
            first * self.stride + column - self.padding.min(first * self.stride + column),
        )
    }

    /// Writes the patches of `image` as columns: `[patch, patches]`. Padding is `fill`.
    pub(crate) fn write_columns(&self, image: &[f32], fill: f32, columns: &mut [f32]) {
        let width = self.output[1];
        self.rows(|row, inside, pixel| {
            let target = &mut columns[row * width..][..width];
            target[..inside.start].fill(fill);
            target[inside.end..].fill(fill);
            let target = &mut target[inside];
            if self.stride == 1 {
                target.copy_from_slice(&image[pixel..][..target.len()]);
            } else {
                for (x, target) in target.iter_mut().enumerate() {
                    *target = image[pixel + x * self.stride];
                }
            }
        });
    }

    /// Height and width of an image with its padding.
    fn padded(&self) -> [usize; 2] {
        self.input.map(|side| side + 2 * self.padding)
    }

    /// Bytes of an image pixel by pixel, with its padding.
    pub(crate) fn pixels(&self) -> usize {
        self.channels * self.padded()[0] * self.padded()[1]
    }

    /// Writes the planes of `image` pixel by pixel, `[height, width, channels]`, with padding around, which is left as it is.
    pub(crate) fn write_pixels(&self, image: &[u8], pixels: &mut [u8]) {
        let ([height, width], channels) = (self.input, self.channels);
        let lines = pixels.chunks_exact_mut((self.padded()[1] * channels).max(1));
        for (y, line) in lines.skip(self.padding).take(height).enumerate() {
            let line = &mut line[self.padding * channels..][..width * channels];
            for channel in 0..channels {
                let row = &image[(channel * height + y) * width..][..width];
                let targets = line[channel..].iter_mut().step_by(channels);
                targets.zip(row).for_each(|(target, pixel)| *target = *pixel);
            }
        }
    }

    /// Writes the patches of an image as rows of `row_stride` bytes: `[patches, kernel, kernel, channels]`, what lies behind a
    /// patch untouched. `pixels` are as [`Geometry::write_pixels`] gives them.
    pub(crate) fn write_rows(&self, pixels: &[u8], row_stride: usize, rows: &mut [u8]) {
        let (line, piece) = (self.padded()[1] * self.channels, self.kernel * self.channels);
        for (patch, row) in rows.chunks_exact_mut(row_stride).enumerate().take(self.patches()) {
            let (y, x) = (patch / self.output[1], patch % self.output[1]);
            let corner = y * self.stride * line + x * self.stride * self.channels;
            for (kernel_row, target) in row[..self.patch()].chunks_exact_mut(piece).enumerate() {
                target.copy_from_slice(&pixels[corner + kernel_row * line..][..piece]);
            }
        }
    }

    /// Adds columns back to where [`Geometry::write_columns`] took them from.
    pub(crate) fn add_columns(&self, columns: &[f32], image: &mut [f32]) {
        let width = self.output[1];
        self.rows(|row, inside, pixel| {
            let source = &columns[row * width..][..width][inside];
            if self.stride == 1 {
                let target = &mut image[pixel..][..source.len()];
                target
                    .iter_mut()
                    .zip(source)
                    .for_each(|(target, source)| *target += source);
            } else {
                for (x, source) in source.iter().enumerate() {
                    image[pixel + x * self.stride] += source;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The element of a padded image, by the definition.
    fn padded(image: &[f32], g: &Geometry, channel: usize, y: usize, x: usize) -> f32 {
        let inside = |v: usize, side: usize| v.checked_sub(g.padding).filter(|&v| v < side);
        match (inside(y, g.input[0]), inside(x, g.input[1])) {
            (Some(y), Some(x)) => image[(channel * g.input[0] + y) * g.input[1] + x],
            (None, _) | (_, None) => -1.0,
        }
    }

    #[test]
    fn columns_and_rows_by_the_definition() -> Result<()> {
        for (input, kernel, stride, padding) in [
            ([5, 4], 3, 1, 1),
            ([5, 4], 3, 2, 1),
            ([4, 7], 2, 3, 0),
            ([3, 3], 3, 1, 3),
            ([2, 2], 5, 2, 4),
            ([1, 1], 1, 1, 0),
            ([6, 5], 1, 2, 2),
        ] {
            let g = Geometry::new(2, input, kernel, stride, padding)?;
            let image: Vec<f32> = (0..g.image()).map(|i| i as f32).collect();
            let mut columns = vec![9.0; g.patch() * g.patches()];
            g.write_columns(&image, -1.0, &mut columns);
            let bytes: Vec<u8> = (0..g.image()).map(|i| i as u8).collect();
            let mut rows = vec![0; (g.patch() + 3) * g.patches()];
            let mut pixels = vec![255; g.pixels()];
            g.write_pixels(&bytes, &mut pixels);
            g.write_rows(&pixels, g.patch() + 3, &mut rows);
            let mut counts = vec![0.0; g.image()];
            g.add_columns(&vec![1.0; columns.len()], &mut counts);
            let mut expected_counts = vec![0.0; g.image()];
            for place in 0..g.patch() {
                let (c, ky, kx) = (place / (kernel * kernel), place / kernel % kernel, place % kernel);
                for p in 0..g.patches() {
                    let (y, x) = (p / g.output[1] * stride + ky, p % g.output[1] * stride + kx);
                    let expected = padded(&image, &g, c, y, x);
                    assert_eq!(columns[place * g.patches() + p], expected, "{g:?} {place} {p}");
                    assert_eq!(
                        rows[p * (g.patch() + 3) + (ky * kernel + kx) * g.channels + c],
                        expected as i32 as u8,
                        "{g:?} {place} {p}"
                    );
                    if expected >= 0.0 {
                        expected_counts[expected as usize] += 1.0;
                    }
                }
            }
            assert_eq!(counts, expected_counts, "{g:?}");
        }
        Ok(())
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Geometry::new(1, [2, 2], 3, 1, 0).is_err());
        assert!(Geometry::new(1, [2, 2], 2, 0, 0).is_err());
        assert!(Geometry::new(1, [2, 2], 0, 1, 0).is_err());
        assert!(Geometry::new(0, [2, 2], 1, 1, 0).is_err());
        assert!(Geometry::new(1, [2, 0], 1, 1, 1).is_err());
    }
}
