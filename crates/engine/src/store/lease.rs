//! Leases: who makes what. Two builds on one store run each action once, for they take its lease first.
//!
//! Invariants: a lease is an exclusive `flock`, freed by the kernel however its holder ends; its file is removed while
//! the lock is held, and a lock on a file that has been removed meanwhile is no lease.

use super::{Store, StoreError, disk};
use crate::digest::Digest;
use crate::key::ActionKey;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The sole right to make something, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    /// Held for its lock alone.
    _file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = disk::remove_file(&self.path) {
            tracing::warn!(lease = %self.path.display(), %error, "a lease could not be removed");
        }
    }
}

impl Store {
    /// The lease of `key`, or nothing if another build holds it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn try_lease(&self, key: &ActionKey) -> Result<Option<Lease>, StoreError> {
        let path = self.root.join("leases").join(key.to_string());
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
            }
            if is_current(&file, &path)? {
                return Ok(Some(Lease { path, _file: file }));
            }
        }
    }

    /// The lease of the folder `folder` outside of the store; waits for it.
    pub(super) fn lease_folder(&self, folder: &Path) -> Result<Lease, StoreError> {
        let folder = folder.canonicalize().map_err(StoreError::io("find", folder))?;
        let name = Digest::of_bytes(folder.as_os_str().as_encoded_bytes());
        let path = self.root.join("leases").join(format!("folder-{name}"));
        loop {
            let file = open(&path)?;
            file.lock().map_err(StoreError::io("lock", &path))?;
            if is_current(&file, &path)? {
                return Ok(Lease { path, _file: file });
            }
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    disk::open_lock(path).map_err(StoreError::io("open", path))
}

/// Whether `file`, now locked, is still the one of that name: its last holder may have removed it meanwhile.
fn is_current(file: &File, path: &Path) -> Result<bool, StoreError> {
    let ours = file.metadata().map_err(StoreError::io("read", path))?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}
