//! One PNG file as grayscale bytes of the size a model wants, for prediction.
//!
//! Colour becomes luma by ITU-R BT.601 in integers; transparency is laid over black. A larger picture is averaged over
//! areas, a smaller one interpolated linearly. The picture is not inverted: MNIST has light strokes on black.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::DataError;

/// The decoder refuses a picture that takes more bytes than this.
const LARGEST_PICTURE: usize = 256 << 20;

/// Reads `file` as `height × width` bytes, row by row.
pub fn read_grayscale(file: &Path, width: usize, height: usize) -> Result<Vec<u8>, DataError> {
    let bytes = std::fs::read(file).map_err(DataError::unreadable(file))?;
    let picture = decode(&bytes).map_err(|reason| DataError::BadPng {
        file: file.to_owned(),
        reason,
    })?;
    Ok(picture.resized(width, height))
}

/// Gray values, row by row.
struct Picture {
    width: usize,
    height: usize,
    gray: Vec<u8>,
}

/// Decodes to 8-bit gray; the error is the decoder's own words.
fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: LARGEST_PICTURE });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader
        .output_buffer_size()
        .filter(|size| *size <= LARGEST_PICTURE)
        .ok_or("it is too large")?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(|error| error.to_string())?;
    if frame.bit_depth != BitDepth::Eight {
        return Err(format!("samples of {:?} bits", frame.bit_depth));
    }
    let samples = &samples[..frame.buffer_size()];
    let gray = match frame.color_type {
        ColorType::Grayscale => samples.to_vec(),
        ColorType::GrayscaleAlpha => samples
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[gray, a]| over_black(*gray, *a))
            .collect(),
        ColorType::Rgb => samples
            .as_chunks::<3>()
            .0
            .iter()
            .map(|[r, g, b]| luma(*r, *g, *b))
            .collect(),
        ColorType::Rgba => samples
            .as_chunks::<4>()
            .0
            .iter()
            .map(|[r, g, b, a]| over_black(luma(*r, *g, *b), *a))
            .collect(),
        ColorType::Indexed => return Err("its palette could not be expanded".to_owned()),
    };
    Ok(Picture {
        width: frame.width as usize,
        height: frame.height as usize,
        gray,
    })
}

fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    u8::try_from((sum + 500) / 1000).expect("a mean of bytes is a byte")
}

fn over_black(gray: u8, alpha: u8) -> u8 {
    u8::try_from((u32::from(gray) * u32::from(alpha) + 127) / 255).expect("a share of a byte is a byte")
}

impl Picture {
    fn resized(self, width: usize, height: usize) -> Vec<u8> {
        if (self.width, self.height) == (width, height) {
            return self.gray;
        }
        let columns = taps(self.width, width);
        let rows = taps(self.height, height);
        let narrowed: Vec<f32> = self
            .gray
            .chunks_exact(self.width)
            .flat_map(|row| {
                columns
                    .iter()
                    .map(|taps| taps.iter().map(|&(x, weight)| f32::from(row[x]) * weight).sum())
            })
            .collect();
        let value = |taps: &[(usize, f32)], x: usize| -> f32 {
            taps.iter().map(|&(y, weight)| narrowed[y * width + x] * weight).sum()
        };
        rows.iter()
            .flat_map(|taps| (0..width).map(move |x| value(taps, x).round() as u8))
            .collect()
    }
}

/// For each of `to` output samples along one axis, the input samples it takes and their weights, which sum to 1.
fn taps(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    let shrinking = |out: usize| {
        let (start, end) = (out as f64 * scale, (out + 1) as f64 * scale);
        let last = (end.ceil() as usize).min(from);
        let covered = |x: usize| (end.min((x + 1) as f64) - start.max(x as f64)) / scale;
        (start as usize..last).map(|x| (x, covered(x) as f32)).collect()
    };
    let growing = |out: usize| {
        let centre = ((out as f64 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f64);
        let left = centre as usize;
        let share = (centre - left as f64) as f32;
        vec![(left, 1.0 - share), ((left + 1).min(from - 1), share)]
    };
    (0..to)
        .map(|out| if scale > 1.0 { shrinking(out) } else { growing(out) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(width: u32, height: u32, color: ColorType, samples: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(samples).unwrap();
        bytes
    }

    fn read_as(bytes: &[u8], width: usize, height: usize) -> Result<Vec<u8>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("picture.png");
        std::fs::write(&file, bytes).unwrap();
        read_grayscale(&file, width, height)
    }

    #[test]
    fn a_picture_of_the_wanted_size_is_kept_as_it_is() {
        let samples = [0, 50, 100, 150, 200, 250];
        assert_eq!(
            read_as(&encoded(3, 2, ColorType::Grayscale, &samples), 3, 2).unwrap(),
            samples
        );
    }

    #[test]
    fn colour_becomes_luma_and_transparency_black() {
        let colour = [255, 0, 0, 0, 255, 0];
        assert_eq!(
            read_as(&encoded(2, 1, ColorType::Rgb, &colour), 2, 1).unwrap(),
            [76, 150]
        );
        let faded = [255, 255, 255, 128, 255, 255, 255, 0];
        assert_eq!(
            read_as(&encoded(2, 1, ColorType::Rgba, &faded), 2, 1).unwrap(),
            [128, 0]
        );
    }

    #[test]
    fn shrinking_averages_areas_and_growing_interpolates() {
        let wide = encoded(3, 1, ColorType::Grayscale, &[0, 90, 240]);
        // The first half covers pixel 0 and half of pixel 1: (0 + 45) / 1.5.
        assert_eq!(read_as(&wide, 2, 1).unwrap(), [30, 190]);
        let narrow = encoded(2, 1, ColorType::Grayscale, &[0, 200]);
        assert_eq!(read_as(&narrow, 4, 1).unwrap(), [0, 50, 150, 200]);
    }

    #[test]
    fn what_is_no_png_is_refused() {
        let good = encoded(4, 4, ColorType::Grayscale, &[9; 16]);
        for bytes in [&b"GIF89a"[..], &good[..good.len() - 20], &[]] {
            let error = read_as(bytes, 4, 4).unwrap_err();
            assert!(matches!(error, DataError::BadPng { .. }), "{error}");
        }
    }
}
