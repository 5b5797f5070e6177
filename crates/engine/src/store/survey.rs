//! How much a store holds. Bytes are those in the files; what a file system takes for them may be more.

use super::inventory::Named;
use super::{Store, StoreError};
use std::fs::Metadata;
use std::path::PathBuf;

/// A number of files and the bytes in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    /// That of files of so many bytes each.
    pub(super) fn of(files: impl Iterator<Item = u64>) -> Self {
        let mut tally = Self::default();
        files.for_each(|bytes| tally.add(bytes));
        tally
    }

    /// Counts one more file.
    pub(super) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What a store holds, temporary files and locks aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Contents of files.
    pub blobs: Tally,
    /// Artifacts.
    pub trees: Tally,
    /// Results of actions.
    pub results: Tally,
    /// Key documents.
    pub documents: Tally,
    /// Run records.
    pub records: Tally,
    /// What interrupted steps go on from.
    pub checkpoints: Tally,
    /// The stat cache.
    pub stat: Tally,
    /// What was found damaged.
    pub quarantine: Tally,
}

impl std::ops::Sub for Tally {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            files: self.files - other.files,
            bytes: self.bytes - other.bytes,
        }
    }
}

impl Survey {
    /// What is left without `removed`, which is part of it.
    pub(super) fn without(&self, removed: &Self) -> Self {
        Self {
            blobs: self.blobs - removed.blobs,
            trees: self.trees - removed.trees,
            results: self.results - removed.results,
            documents: self.documents - removed.documents,
            records: self.records - removed.records,
            checkpoints: self.checkpoints - removed.checkpoints,
            stat: self.stat - removed.stat,
            quarantine: self.quarantine - removed.quarantine,
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.blobs
            + self.trees
            + self.results
            + self.documents
            + self.records
            + self.checkpoints
            + self.stat
            + self.quarantine
    }
}

impl Store {
    /// Counts what the store holds.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn survey(&self) -> Result<Survey, StoreError> {
        Ok(Survey {
            blobs: tally(&self.named("blobs")?),
            trees: tally(&self.named("trees")?),
            results: tally(&self.named("results")?),
            documents: tally(&self.named("keys")?),
            records: tally_unnamed(&self.unnamed("runs")?),
            checkpoints: tally_unnamed(&self.checkpoints()?),
            stat: tally(&self.named("stat")?),
            quarantine: tally_unnamed(&self.unnamed("quarantine")?),
        })
    }
}

pub(super) fn tally(files: &[Named]) -> Tally {
    Tally::of(files.iter().map(|file| file.bytes))
}

fn tally_unnamed(files: &[(PathBuf, Metadata)]) -> Tally {
    Tally::of(files.iter().map(|(_, metadata)| metadata.len()))
}
