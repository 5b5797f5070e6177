//! External input files: hashed when an action is assessed, and looked at again after it ran.
//!
//! Invariants: a file's digest is believed without reading it again only while its size, inode and times are the same
//! and its time of change was not so recent that a later change could have left that the same, too. A file whose stamp
//! is another after an action ran counts as changed whatever it holds: what it held in between cannot be told.

use crate::digest::Digest;
use crate::file_digest::digest_of_file;
use crate::stamp::Stamp;
use crate::store::Store;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How often a file is read that changes while it is read.
const ATTEMPTS: usize = 3;

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
            let read = digest_of_file(path);
            if stamp == Stamp::of(path)? {
                let (digest, size) = read?;
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

    /// How the file was changed since it was hashed, in words; nothing if it had that content all the time.
    ///
    /// A file that was touched, or that was edited and restored, counts as changed. One whose stamp was too recent to stand
    /// for its content is read again.
    pub(crate) fn change(&self) -> io::Result<Option<&'static str>> {
        if let Some(how) = self.stamp.change(&Stamp::of(&self.path)?) {
            return Ok(Some(how));
        }
        if self.is_settled || Digest::of_file(&self.path)? == self.digest {
            return Ok(None);
        }
        Ok(Some("its content is another"))
    }
}

/// The files of one build or plan; each is hashed once while it stays as it is, and not at all if an earlier build
/// remembered its digest.
#[derive(Debug)]
pub(crate) struct FileDigests<'a> {
    store: &'a Store,
    known: HashMap<PathBuf, InputFile>,
}

impl<'a> FileDigests<'a> {
    /// None so far; `store` remembers.
    pub(crate) fn new(store: &'a Store) -> Self {
        Self {
            store,
            known: HashMap::new(),
        }
    }

    /// The file at `path` as it is now.
    pub(crate) fn get(&mut self, path: &Path) -> io::Result<InputFile> {
        if let Some(known) = self.known.get(path)
            && known.is_settled
            && Stamp::of(path)? == known.stamp
        {
            return Ok(known.clone());
        }
        let file = self.remembered_or_read(path)?;
        self.known.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn remembered_or_read(&self, path: &Path) -> io::Result<InputFile> {
        let now = SystemTime::now();
        let stamp = Stamp::of(path)?;
        if let Some(digest) = self.store.known_digest(path, &stamp, now) {
            return Ok(InputFile {
                path: path.to_owned(),
                digest,
                size: stamp.size,
                is_settled: stamp.is_settled(now),
                stamp,
            });
        }
        let file = InputFile::read(path)?;
        self.store.remember_digest(path, &file.stamp, file.digest, now);
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_change_is_seen_however_soon_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, "one").unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut files = FileDigests::new(&store);
        let first = files.get(&path).unwrap();
        assert_eq!((first.digest, first.size), (Digest::of_bytes(b"one"), 3));
        assert_eq!(first.change().unwrap(), None);
        // Of the same size and, most likely, in the same tick of the file system's clock.
        fs::write(&path, "two").unwrap();
        assert!(first.change().unwrap().is_some());
        assert_eq!(files.get(&path).unwrap().digest, Digest::of_bytes(b"two"));
        fs::remove_file(&path).unwrap();
        assert!(files.get(&path).is_err() && first.change().is_err());
    }

    #[test]
    fn a_file_of_another_stamp_may_have_held_anything_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, "one").unwrap();
        let first = InputFile::read(&path).unwrap();
        let touch = || {
            let times = SystemTime::now() + Duration::from_secs(60);
            fs::File::open(&path).unwrap().set_modified(times).unwrap();
        };
        touch();
        assert_eq!(first.change().unwrap(), Some("its time of modification is another"));
        let touched = InputFile::read(&path).unwrap();
        assert_eq!((touched.digest, touched.change().unwrap()), (first.digest, None));
        fs::write(folder.path().join("other"), "one").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert_eq!(touched.change().unwrap(), Some("another file is in its place"));
        let moved = InputFile::read(&path).unwrap();
        fs::write(&path, "longer").unwrap();
        assert_eq!(moved.change().unwrap(), Some("its size is another"));
    }
}
