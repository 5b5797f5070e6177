//! Writing so that a crash at any moment leaves the old file, the new one or none: never half of one.

use super::disk::{self, NewFile, READ_ONLY, WRITABLE};
use super::{Store, StoreError};
use crate::digest::{Digest, copy_and_hash};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A folder in the store for what is being made, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = disk::remove_folder(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a temporary folder could not be removed");
        }
    }
}

/// A file in the session's folder, removed when dropped unless it was moved to its place.
struct TemporaryFile {
    file: NewFile,
    is_placed: bool,
}

impl TemporaryFile {
    /// Makes what was written last, and then moves it to `path`, in the place of what may be there.
    fn place(mut self, path: &Path) -> io::Result<()> {
        self.file.sync()?;
        disk::rename(self.file.path(), path)?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_placed
            && let Err(error) = disk::remove_file(self.file.path())
        {
            tracing::warn!(file = %self.file.path().display(), %error, "a temporary file could not be removed");
        }
    }
}

impl Store {
    /// Puts `bytes` in the place of `path` and makes it last.
    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary_file(WRITABLE)?;
        let written = temporary.file.write_all(bytes).and_then(|()| temporary.place(path));
        written.map_err(StoreError::io("write", path))?;
        sync_folder(path.parent().expect("a file of the store lies in a folder"))
    }

    /// Puts `bytes` in the place of the file named `digest` of `section`.
    pub(super) fn write_named(&self, section: &str, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.require_writable()?;
        let path = self.path_of(section, digest);
        make_shard(&path)?;
        self.write_file(&path, bytes)
    }

    /// Takes in what `source` holds as a read-only blob, whose folder is yet to be synced. A blob of that name that is
    /// there already is replaced: it may be damaged.
    pub(super) fn write_blob(&self, source: &mut dyn Read, origin: &Path) -> Result<(Digest, u64), StoreError> {
        let mut temporary = self.temporary_file(READ_ONLY)?;
        let copied = copy_and_hash(source, &mut temporary.file);
        let (digest, size) = copied.map_err(StoreError::io("store", origin))?;
        let path = self.path_of("blobs", &digest);
        make_shard(&path)?;
        temporary.place(&path).map_err(StoreError::io("write", &path))?;
        Ok((digest, size))
    }

    /// A new empty folder in the store, removed when dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let path = self.to_write()?.0.unused_path("work");
        disk::make_folder(&path).map_err(StoreError::io("make the folder", &path))?;
        Ok(Scratch(path))
    }

    fn temporary_file(&self, mode: u32) -> Result<TemporaryFile, StoreError> {
        let path = self.to_write()?.0.unused_path("file");
        let file = NewFile::with_mode(&path, mode).map_err(StoreError::io("make", &path))?;
        Ok(TemporaryFile { file, is_placed: false })
    }
}

/// Makes the folder of `path`, which is one of a section's 256, and makes it last.
fn make_shard(path: &Path) -> Result<(), StoreError> {
    let shard = path.parent().expect("a named file lies in a folder");
    match disk::make_folder(shard) {
        Ok(()) => sync_folder(shard.parent().expect("a section's folder lies in the store")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("make the folder", shard)(error)),
    }
}

/// Makes the names in `folder` last.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    disk::sync_folder(folder).map_err(StoreError::io("sync", folder))
}
