//! Data sets: built in, read from files, tokenised, and prepared for training.
//!
//! Rows flow one way: a source ([`reviews`], [`digits`], [`text_file`], [`idx`]) gives plain [`TextRows`] or
//! [`ImageRows`]; [`prepare`] checks them, learns or loads the [`tokenizer`], and gives [`prepared::Prepared`],
//! which is what training reads. Everything here is plain vectors: no tensor, no device, no batch.
//!
//! Invariants: the same spec and file contents give the same bytes, whatever the thread count; a file is never trusted
//! (no allocation follows a header's word alone); every error names the file and, where there is one, the line.

pub mod digits;
mod error;
pub mod idx;
#[cfg(test)]
mod linear_probe;
pub mod png;
mod prepare;
pub mod prepared;
pub mod reviews;
pub mod spec;
#[cfg(test)]
mod test_data;
pub mod text_file;
pub mod tokenizer;
mod wordpiece;

pub use error::DataError;
pub(crate) use idx::LARGEST_SIDE;
pub(crate) use prepare::LARGEST_LENGTH;
pub use prepare::{given_tokenizer, prepare};
pub use prepared::{EncodedSplit, ImageSplit, Prepared, Task, TextSplit};
pub use spec::DataSpec;
pub use tokenizer::Tokenizer;

/// Labelled texts: `labels[i]` is the class of `texts[i]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextRows {
    pub texts: Vec<String>,
    pub labels: Vec<u32>,
}

/// Labelled images of one size: `pixels` holds `[rows, channels, height, width]` bytes, 0 the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRows {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub pixels: Vec<u8>,
    pub labels: Vec<u32>,
}

impl ImageRows {
    /// Keeps the first `rows`, if a number is given.
    pub fn truncate(&mut self, rows: Option<usize>) {
        let rows = rows.unwrap_or(usize::MAX);
        self.labels.truncate(rows);
        self.pixels
            .truncate(rows.saturating_mul(self.width * self.height * self.channels));
    }
}

/// What a model learns from and what it is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits<T> {
    pub train: T,
    pub test: T,
}
