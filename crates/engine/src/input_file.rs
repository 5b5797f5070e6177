//! External input files: hashed when an action is assessed, and looked at again after it ran.
//!
//! Invariant: a file's digest is believed without reading it again only while its size, inode and times are the same
//! and its time of change was not so recent that a later change could have left that the same, too.

use crate::digest::{Digest, copy_and_hash};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// File systems tell times as coarsely as this.
const COARSEST_TIME: Duration = Duration::from_secs(2);

/// How often a file is read that changes while it is read.
const ATTEMPTS: usize = 3;

/// What changes whenever a file does, if one waits long enough.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            size: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether the file had long been left alone at the time `now`.
    fn is_settled(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(0);
        now.duration_since(UNIX_EPOCH + Duration::from_secs(seconds))
            .is_ok_and(|age| age > COARSEST_TIME)
    }
}

/// A file as it was when it was hashed.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    stamp: Stamp,
    is_settled: bool,
}

impl InputFile {
    /// Hashes the file.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let stamp = Stamp::of(path)?;
            let is_settled = stamp.is_settled(SystemTime::now());
            let (digest, size) = copy_and_hash(&mut File::open(path)?, &mut io::sink())?;
            if stamp == Stamp::of(path)? {
                return Ok(Self {
                    path: path.to_owned(),
                    digest,
                    size,
                    stamp,
                    is_settled,
                });
            }
        }
        Err(io::Error::other("it keeps changing while it is read"))
    }

    /// Whether the file still has the content that was hashed.
    pub(crate) fn is_unchanged(&self) -> io::Result<bool> {
        if self.is_settled && Stamp::of(&self.path)? == self.stamp {
            return Ok(true);
        }
        Ok(Digest::of_file(&self.path)? == self.digest)
    }
}

/// The files of one build or plan; each is hashed once while it stays as it is.
#[derive(Debug, Default)]
pub(crate) struct FileDigests {
    known: HashMap<PathBuf, InputFile>,
}

impl FileDigests {
    /// The file at `path` as it is now.
    pub(crate) fn get(&mut self, path: &Path) -> io::Result<InputFile> {
        if let Some(known) = self.known.get(path)
            && known.is_settled
            && Stamp::of(path)? == known.stamp
        {
            return Ok(known.clone());
        }
        let file = InputFile::read(path)?;
        self.known.insert(path.to_owned(), file.clone());
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_however_soon_it_comes_and_a_touch_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, "one").unwrap();
        let mut files = FileDigests::default();
        let first = files.get(&path).unwrap();
        assert_eq!((first.digest, first.size), (Digest::of_bytes(b"one"), 3));
        File::open(&path)
            .unwrap()
            .set_modified(SystemTime::now() + Duration::from_secs(60))
            .unwrap();
        assert!(first.is_unchanged().unwrap());
        // Of the same size and, most likely, in the same tick of the file system's clock.
        fs::write(&path, "two").unwrap();
        assert!(!first.is_unchanged().unwrap());
        assert_eq!(files.get(&path).unwrap().digest, Digest::of_bytes(b"two"));
        fs::remove_file(&path).unwrap();
        assert!(files.get(&path).is_err() && first.is_unchanged().is_err());
    }
}
