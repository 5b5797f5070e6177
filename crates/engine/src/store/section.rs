//! A section of a store in which a build looks for one file after another.
//!
//! It is opened once, and its files are found from there: the kernel need not walk the path of the store again for each
//! of thousands of files. As long as it cannot be opened, files are found by their paths. A section that another program
//! takes away and makes anew meanwhile is empty for whoever has it open.

use super::StoreError;
use super::check::{if_there, read_to_end};
use crate::digest::Digest;
use rustix::fs as at;
use rustix::io::retry_on_intr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder of files that are named by digests and lie in 256 folders, by the beginning of their names.
#[derive(Debug)]
pub(super) struct Section {
    path: PathBuf,
    /// Set when it was first needed and was there.
    folder: OnceLock<File>,
}

impl Section {
    /// The section `name` of the store in `root`.
    pub(super) fn new(root: &Path, name: &str) -> Self {
        Self {
            path: root.join(name),
            folder: OnceLock::new(),
        }
    }

    /// The bytes of the file named `digest`, or nothing if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.if_there(digest, self.open(digest).and_then(read_to_end))
    }

    /// The size of that file in bytes, or nothing if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.if_there(digest, self.look(digest))
    }

    fn if_there<T>(&self, digest: &Digest, found: io::Result<T>) -> Result<Option<T>, StoreError> {
        if_there(found).map_err(|error| StoreError::io("read", &self.path.join(relative(digest)))(error))
    }

    fn open(&self, digest: &Digest) -> io::Result<File> {
        let name = relative(digest);
        if let Some(folder) = self.folder() {
            let flags = at::OFlags::RDONLY | at::OFlags::CLOEXEC;
            let opened = retry_on_intr(|| at::openat(folder, &*name, flags, at::Mode::empty()))?;
            return Ok(opened.into());
        }
        File::open(self.path.join(name))
    }

    fn look(&self, digest: &Digest) -> io::Result<u64> {
        let name = relative(digest);
        if let Some(folder) = self.folder() {
            let size = at::statat(folder, name, at::AtFlags::empty())?.st_size;
            return Ok(size.try_into().expect("no file has a negative size"));
        }
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn folder(&self) -> Option<&File> {
        if self.folder.get().is_none() {
            let folder = File::open(&self.path).ok()?;
            // Another thread may have been faster.
            let _ = self.folder.set(folder);
        }
        self.folder.get()
    }
}

/// Where in a section the file named `digest` lies.
pub(super) fn relative(digest: &Digest) -> String {
    let name = digest.hex();
    let mut path = String::with_capacity(name.len() + 3);
    path.extend([&name[..2], "/", &name]);
    path
}
