//! What can be wrong with data, each error with the file, the line where there is one, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// An error of reading, checking or writing data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{}: cannot be read: {source}; check the path and its permissions", file.display())]
    Unreadable { file: PathBuf, source: io::Error },

    #[error("{}: cannot be written: {source}; check the folder's permissions and the free space", file.display())]
    Unwritable { file: PathBuf, source: io::Error },

    #[error("no file was given for `{role}`; add it to the data's files")]
    MissingFile { role: String },

    #[error("{}: its name does not tell its format; set `format` to \"tsv\", \"csv\" or \"jsonl\"", file.display())]
    UnknownFormat { file: PathBuf },

    #[error("{}: holds no rows; give a file with at least one", file.display())]
    Empty { file: PathBuf },

    #[error("{}:{line}: no column `{column}`, the columns are {available}{}", file.display(), hint(suggestion.as_deref()))]
    MissingColumn {
        file: PathBuf,
        line: usize,
        column: String,
        /// The names that exist, quoted and joined by commas.
        available: String,
        suggestion: Option<String>,
    },

    #[error("{}:{line}: not UTF-8 at byte {column} of the line; convert the file to UTF-8", file.display())]
    InvalidUtf8 { file: PathBuf, line: usize, column: usize },

    #[error("{}:{line}: has {found} fields where the header has {expected}; fix the row or the header", file.display())]
    RaggedRow {
        file: PathBuf,
        line: usize,
        found: usize,
        expected: usize,
    },

    #[error("{}:{line}: not well-formed CSV: {reason}; fix the line", file.display())]
    BadCsv { file: PathBuf, line: usize, reason: String },

    #[error("{}:{line}: not a JSON object: {reason}; every line must be one object", file.display())]
    BadJson { file: PathBuf, line: usize, reason: String },

    #[error("{}:{line}: `{column}` must be {expected}, found {found}; fix the value", file.display())]
    BadValue {
        file: PathBuf,
        line: usize,
        column: String,
        expected: &'static str,
        found: String,
    },

    #[error(
        "{}:{line}: label `{label}` does not occur in the training file, whose labels are {known}; fix the row, or train on \
         a file that has it", file.display()
    )]
    UnknownLabel {
        file: PathBuf,
        line: usize,
        label: String,
        known: String,
    },

    #[error("{}: every row has the label `{label}`; a classifier needs at least two", file.display())]
    OneClass { file: PathBuf, label: String },

    #[error("{}: not an IDX file of unsigned bytes: {reason}; give a file as MNIST's, gzipped or not", file.display())]
    NotIdx { file: PathBuf, reason: String },

    #[error("{}: the header promises {expected} bytes, the file holds {found}; fetch it again", file.display())]
    IdxLength {
        file: PathBuf,
        expected: u64,
        found: String,
    },

    #[error("{}: broken gzip: {source}; fetch it again", file.display())]
    BadGzip { file: PathBuf, source: io::Error },

    #[error(
        "{} holds {images} images but {} {labels} labels; give files of one set", images_file.display(), labels_file.display()
    )]
    CountMismatch {
        images_file: PathBuf,
        images: usize,
        labels_file: PathBuf,
        labels: usize,
    },

    #[error(
        "{}: images of {found_width}×{found_height} where the training images are {width}×{height}; give files of one set",
        file.display()
    )]
    SizeMismatch {
        file: PathBuf,
        width: usize,
        height: usize,
        found_width: usize,
        found_height: usize,
    },

    #[error("{}: row {row} has label {label}, the training labels go up to {largest}; fix it or train with it", file.display())]
    LabelOutOfRange {
        file: PathBuf,
        row: usize,
        label: u32,
        largest: u32,
    },

    #[error(
        "the data do not fit the model: it was trained for the classes {wanted}, the data are of another sort or have the \
         classes {found}; name data of the same shape and classes"
    )]
    OtherTask { wanted: String, found: String },

    #[error("{}: cannot be decoded as PNG: {reason}; convert it anew", file.display())]
    BadPng { file: PathBuf, reason: String },

    #[error("{origin}: not a tokenizer to use here: {reason}; give a BERT tokenizer.json or vocab.txt")]
    BadTokenizer { origin: String, reason: String },

    #[error("data setting `{field}` is {found}, but must be {expected}; change it")]
    BadSetting {
        field: &'static str,
        found: String,
        expected: String,
    },

    #[error("{}: not what a data step writes: {reason}; run the step again", file.display())]
    Corrupt { file: PathBuf, reason: String },
}

impl DataError {
    pub(super) fn unreadable(file: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| DataError::Unreadable {
            file: file.to_owned(),
            source,
        }
    }

    pub(super) fn corrupt(file: &Path, reason: impl Into<String>) -> Self {
        DataError::Corrupt {
            file: file.to_owned(),
            reason: reason.into(),
        }
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(
        || "; choose one of them".to_owned(),
        |name| format!("; did you mean `{name}`?"),
    )
}

/// Names for an error text: quoted, joined by commas, cut after the first twenty.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let total = names.len();
    let mut text = names
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if total > SHOWN {
        text.push_str(&format!(" and {} more", total - SHOWN));
    }
    text
}
