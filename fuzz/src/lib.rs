//! Whatever the program reads from outside, read from arbitrary bytes in the way that the program reads it.
//!
//! A target takes any bytes and a folder of its own to put them into files. It must come back: soon, within some memory,
//! without a panic. What else holds of any input, such as that what was read can be written and read again, is asserted.
//! `run` beside this crate lets libFuzzer look for bytes that break it; tests read what is in `corpus/`.

mod images;
mod key;
mod model;
mod pretrained;
mod recipe;
mod store;
mod texts;

use std::path::{Path, PathBuf};

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A recipe, and behind NUL bytes arguments of `--set`.
    Recipe,
    /// Two key documents, with a NUL byte between them.
    Key,
    /// What a store holds, and what a worker says.
    Store,
    /// An exported model: two bytes with the length of its configuration, that, and its weights.
    Model,
    /// A model that was trained elsewhere, in the same form.
    Pretrained,
    /// IDX images and labels, gzipped or not.
    Idx,
    /// A PNG image.
    Png,
    /// A format byte, and a file of labelled texts.
    Texts,
    /// A byte that says which, and a `vocab.txt` or a `tokenizer.json`.
    Tokenizer,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Recipe,
        Self::Key,
        Self::Store,
        Self::Model,
        Self::Pretrained,
        Self::Idx,
        Self::Png,
        Self::Texts,
        Self::Tokenizer,
    ];

    /// Its name on the command line, and that of its folder in `corpus/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recipe => "recipe",
            Self::Key => "key",
            Self::Store => "store",
            Self::Model => "model",
            Self::Pretrained => "pretrained",
            Self::Idx => "idx",
            Self::Png => "png",
            Self::Texts => "texts",
            Self::Tokenizer => "tokenizer",
        }
    }

    /// Reads `bytes`; files go into `folder`, which is this target's alone.
    ///
    /// # Panics
    /// If something that must hold of any input does not.
    pub fn read(self, bytes: &[u8], folder: &Path) {
        match self {
            Self::Recipe => recipe::read(bytes, folder),
            Self::Key => key::read(bytes),
            Self::Store => store::read(bytes, folder),
            Self::Model => model::read(bytes, folder),
            Self::Pretrained => pretrained::read(bytes, folder),
            Self::Idx => images::read_idx(bytes, folder),
            Self::Png => images::read_png(bytes, folder),
            Self::Texts => texts::read(bytes, folder),
            Self::Tokenizer => texts::read_tokenizer(bytes),
        }
    }
}

/// Two bytes with the length of a configuration, that, and weights, as the files of a model in `folder`.
fn model_files(bytes: &[u8], folder: &Path) -> Option<()> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (config, weights) = rest.split_at(length);
    file(folder, "config.json", config);
    file(folder, "model.safetensors", weights);
    Some(())
}

/// `bytes` as the file `name` in `folder`.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("the folder can be written to");
    path
}
