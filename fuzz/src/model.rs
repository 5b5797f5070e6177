//! Exported models: opened, checked, loaded, and run on an image, a text, and what `bench` makes up.

use orchestrate_ml::models::Input;
use orchestrate_recipe::{Predictor, open_device};
use std::path::Path;
use std::time::Duration;

/// An image that every model of images takes: `u8`, one row of 2 × 2 pixels.
const IDX: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 80, 160, 255];

pub fn read(bytes: &[u8], folder: &Path) {
    if crate::model_files(bytes, folder).is_none() {
        return;
    }
    let image = crate::file(folder, "image", IDX);
    let device = open_device("cpu").expect("there is always a CPU");
    if let Ok(predictor) = Predictor::open(folder, &device) {
        drop(predictor.images(&image));
        drop(predictor.texts(&["a text".to_owned()]));
        if is_small(&predictor.artifact().config.input) {
            drop(predictor.bench(None, Duration::ZERO));
        }
    }
}

/// Whether the longest input that the model takes is run in a moment: any other may rightly take long.
fn is_small(input: &Input) -> bool {
    match *input {
        Input::Text { max_length, .. } => max_length <= 256,
        Input::Image {
            width,
            height,
            channels,
            ..
        } => width * height * channels <= 1 << 14,
    }
}
