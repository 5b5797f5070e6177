//! Files that nothing refers to and that are kept for a while all the same: damaged ones, and checkpoints.

use super::holdings::remove_file;
use super::{StoreError, Tally};
use std::cmp::Reverse;
use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The files of one section, parted into garbage and what is kept.
pub(super) struct Asides {
    garbage: Vec<Aside>,
    /// The oldest last.
    kept: Vec<Aside>,
}

struct Aside {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl Asides {
    /// Those of `files` that are older than `age` are garbage.
    pub(super) fn split(files: Vec<(PathBuf, Metadata)>, now: SystemTime, age: Duration) -> Result<Self, StoreError> {
        let (mut garbage, mut kept) = (Vec::new(), Vec::new());
        for (path, metadata) in files {
            let modified = metadata.modified().map_err(StoreError::io("read", &path))?;
            let bytes = metadata.len();
            let is_old = now.duration_since(modified).unwrap_or_default() > age;
            let files = if is_old { &mut garbage } else { &mut kept };
            files.push(Aside { path, bytes, modified });
        }
        kept.sort_by_key(|file| Reverse(file.modified));
        Ok(Self { garbage, kept })
    }

    /// Makes the oldest garbage, too, until no more than `max` bytes are kept.
    pub(super) fn shrink(&mut self, max: u64) {
        let mut bytes = self.kept_bytes();
        while bytes > max
            && let Some(oldest) = self.kept.pop()
        {
            bytes -= oldest.bytes;
            self.garbage.push(oldest);
        }
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|file| file.bytes).sum()
    }

    /// How much is garbage.
    pub(super) fn garbage(&self) -> Tally {
        Tally::of(self.garbage.iter().map(|file| file.bytes))
    }

    /// Removes the garbage.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        self.garbage.iter().try_for_each(|file| remove_file(&file.path))
    }
}
