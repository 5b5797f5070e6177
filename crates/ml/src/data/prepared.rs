//! What a data step publishes and training reads: rows as numbers, with all that is needed to read new input alike.
//!
//! A [`Prepared`] that was read back is sound: no empty split, every label below the number of classes, every id below the
//! vocabulary. The private module `files` writes and reads the files.

mod files;

pub use files::files_for_training;

use super::{DataError, Tokenizer};

/// A data set ready for training. Both splits are of the task's sort.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    pub task: Task,
    pub train: EncodedSplit,
    pub test: EncodedSplit,
}

/// What the rows are, and how new input becomes like them.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Classification of texts.
    Text {
        tokenizer: Tokenizer,
        /// No row has more ids.
        max_length: usize,
        /// The class names in label order.
        labels: Vec<String>,
    },
    /// Classification of images of one size.
    Image {
        width: usize,
        height: usize,
        channels: usize,
        /// Mean of the training pixels, scaled to 0 to 1.
        mean: f32,
        /// Standard deviation of the same, above 0.
        std: f32,
        /// The class names in label order.
        labels: Vec<String>,
    },
}

/// One split's rows as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedSplit {
    Text(TextSplit),
    Image(ImageSplit),
}

/// Rows of token ids, end to end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextSplit {
    pub ids: Vec<u32>,
    /// Row `i` is `ids[offsets[i]..offsets[i + 1]]`; one entry more than rows.
    pub offsets: Vec<u32>,
    pub labels: Vec<u32>,
}

/// Images as bytes, `[rows, channels, height, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSplit {
    /// Channels, height, width.
    pub shape: [usize; 3],
    pub pixels: Vec<u8>,
    pub labels: Vec<u32>,
}

impl Task {
    /// The class names in label order.
    pub fn labels(&self) -> &[String] {
        match self {
            Task::Text { labels, .. } | Task::Image { labels, .. } => labels,
        }
    }

    /// Whether its rows are images of that size.
    pub(super) fn is_of_images(&self, wanted_width: usize, wanted_height: usize, wanted_channels: usize) -> bool {
        match self {
            Task::Text { .. } => false,
            &Task::Image {
                width,
                height,
                channels,
                ..
            } => (width, height, channels) == (wanted_width, wanted_height, wanted_channels),
        }
    }
}

impl Prepared {
    /// The class names in label order.
    pub fn labels(&self) -> &[String] {
        self.task.labels()
    }

    /// The id that fills a batch's short rows of text; 0 for images, which have none.
    pub fn pad_id(&self) -> u32 {
        match &self.task {
            Task::Text { tokenizer, .. } => tokenizer.pad_id(),
            Task::Image { .. } => 0,
        }
    }
}

impl EncodedSplit {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.labels().len()
    }

    /// The class of every row.
    pub fn labels(&self) -> &[u32] {
        match self {
            EncodedSplit::Text(split) => &split.labels,
            EncodedSplit::Image(split) => &split.labels,
        }
    }

    /// The token ids of a row of text; nothing for images. Panics if there is no such row.
    pub fn tokens(&self, row: usize) -> Option<&[u32]> {
        match self {
            EncodedSplit::Text(split) => Some(split.row(row)),
            EncodedSplit::Image(_) => None,
        }
    }

    /// The pixels of an image, `[channels, height, width]`; nothing for text. Panics if there is no such row.
    pub fn image(&self, row: usize) -> Option<&[u8]> {
        match self {
            EncodedSplit::Text(_) => None,
            EncodedSplit::Image(split) => Some(split.image(row)),
        }
    }
}

impl TextSplit {
    /// Joins encoded rows. Fails if they hold 2³² ids or more.
    pub(super) fn from_rows(rows: &[Vec<u32>], labels: Vec<u32>) -> Result<Self, DataError> {
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        offsets.push(0);
        let mut end = 0usize;
        for row in rows {
            end += row.len();
            offsets.push(u32::try_from(end).map_err(|_| DataError::BadSetting {
                field: "max_length",
                found: "a length that gives 2³² tokens or more".to_owned(),
                expected: "shorter, or the file split".to_owned(),
            })?);
        }
        Ok(Self {
            ids: rows.concat(),
            offsets,
            labels,
        })
    }

    /// Number of rows.
    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn row(&self, index: usize) -> &[u32] {
        &self.ids[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }
}

impl ImageSplit {
    fn image(&self, index: usize) -> &[u8] {
        let size: usize = self.shape.iter().product();
        &self.pixels[index * size..][..size]
    }
}
