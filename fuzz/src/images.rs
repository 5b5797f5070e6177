//! Images and their labels.

use orchestrate_ml::data::{idx, png};
use std::path::Path;

pub fn read_idx(bytes: &[u8], folder: &Path) {
    let path = crate::file(folder, "idx", bytes);
    if let Ok(images) = idx::read_images(&path) {
        assert_eq!(images.pixels.len(), images.rows * images.height * images.width);
    }
    if let Ok(labels) = idx::read_labels(&path) {
        assert!(!labels.is_empty());
    }
}

pub fn read_png(bytes: &[u8], folder: &Path) {
    let path = crate::file(folder, "png", bytes);
    for (width, height) in [(28, 28), (1, 3)] {
        if let Ok(pixels) = png::read_grayscale(&path, width, height) {
            assert_eq!(pixels.len(), width * height);
        }
    }
}
