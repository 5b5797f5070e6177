//! Who has the store open. Builds share it; what removes things must have it alone.
//!
//! Invariants: every open [`Store`](super::Store), also one that is only read, holds the file `LOCK` shared from before
//! its first look at the store until it is dropped, so whoever holds it exclusively knows that no build is about to refer to something that it
//! found earlier. A store is never opened while another process holds it alone: opening waits.

use super::{StoreError, disk};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// The file that is locked.
pub(super) const LOCK_FILE: &str = "LOCK";

/// A share in a store, until it is dropped.
#[derive(Debug)]
pub(super) struct Occupancy {
    file: File,
}

impl Occupancy {
    /// Takes a share in the store in `root`; waits while someone has it alone.
    pub(super) fn share(root: &Path) -> io::Result<Self> {
        Self::of_file(disk::open_lock(&root.join(LOCK_FILE))?, root)
    }

    /// The same without making the file: nothing if there is none, for then there is no store.
    pub(super) fn share_to_read(root: &Path) -> io::Result<Option<Self>> {
        match File::open(root.join(LOCK_FILE)) {
            Ok(file) => Self::of_file(file, root).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of_file(file: File, root: &Path) -> io::Result<Self> {
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::warn!(cache = %root.display(), "waiting for a garbage collection of the cache to end");
                file.lock_shared()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { file })
    }

    /// Does `work` while no one else has the store in `root` open.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if someone has, and those of `work`.
    pub(super) fn alone<T>(&self, root: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = match self.file.try_lock() {
            Ok(()) => work(),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: root.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &root.join(LOCK_FILE))(error)),
        };
        // Turning a lock into another may lose it, also where that fails: it is taken again in any case.
        let shared = self.file.lock_shared();
        shared.map_err(StoreError::io("lock", &root.join(LOCK_FILE)))?;
        done
    }
}

impl Drop for Occupancy {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child that was just forked may have it open for a moment.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the cache could not be unlocked");
        }
    }
}
