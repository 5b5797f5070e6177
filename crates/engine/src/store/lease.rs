//! Leases: who makes what. Two builds on one store run each action once, for they take its lease first.
//!
//! Invariants: a lease is an exclusive `flock`, freed by the kernel however its holder ends; its file is removed while
//! the lock is held, and a lock on a file that has been removed meanwhile is no lease. The file's text, who holds it, what
//! for and since when, is for people: nothing relies on it.

use super::{Store, StoreError, disk};
use crate::digest::Digest;
use crate::key::ActionKey;
use crate::record::now_millis;
use serde::{Deserialize, Serialize};
use std::fmt;
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

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// The process.
    pub process: u32,
    /// Since when, in milliseconds since 1970.
    pub since_millis: u64,
    /// For what; earlier versions do not say.
    #[serde(flatten)]
    pub purpose: Option<LeasePurpose>,
}

/// What a lease is held for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasePurpose {
    /// Name of the recipe that is built.
    pub recipe: String,
    /// Name of the action that is carried out.
    pub action: String,
}

impl fmt::Display for LeaseHolder {
    /// `process 7, as action a of recipe r`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        match &self.purpose {
            Some(LeasePurpose { recipe, action }) => write!(
                f,
                ", as action {} of recipe {}",
                action.escape_debug(),
                recipe.escape_debug()
            ),
            None => Ok(()),
        }
    }
}

/// The lease of an action that someone holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// The action's key.
    pub key: ActionKey,
    /// Who holds it, if the file says so.
    pub holder: Option<LeaseHolder>,
}

impl Store {
    /// The lease of `key`, for `purpose`, or nothing if someone else holds it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn try_lease(&self, key: &ActionKey, purpose: &LeasePurpose) -> Result<Option<Lease>, StoreError> {
        self.require_writable()?;
        let path = self.lease_path(key);
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
            }
            if is_current(&file, &path)? {
                sign(&file, &path, purpose);
                return Ok(Some(Lease { path, _file: file }));
            }
        }
    }

    /// Who holds the lease of `key`, as its file has it; nothing if it does not say, which it does a moment after it was
    /// taken, or if there is none.
    #[must_use]
    pub fn lease_holder(&self, key: &ActionKey) -> Option<LeaseHolder> {
        holder_in(&self.lease_path(key))
    }

    fn lease_path(&self, key: &ActionKey) -> PathBuf {
        self.root.join("leases").join(key.to_string())
    }

    /// The leases of actions that are held at this moment, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn held_leases(&self) -> Result<Vec<HeldLease>, StoreError> {
        let mut held = Vec::new();
        for (path, _) in self.unnamed("leases")? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(key) = name.and_then(|name| name.parse::<ActionKey>().ok()) else {
                continue;
            };
            if is_locked(&path)? {
                let holder = holder_in(&path);
                held.push(HeldLease { key, holder });
            }
        }
        held.sort_by_key(|lease| lease.key);
        Ok(held)
    }

    /// The lease of the folder `folder` outside of the store; waits for it.
    pub(super) fn lease_folder(&self, folder: &Path) -> Result<Lease, StoreError> {
        let folder = folder.canonicalize().map_err(StoreError::io("find", folder))?;
        self.require_writable()?;
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

/// Writes into a lease's file who holds it.
fn sign(file: &File, path: &Path, purpose: &LeasePurpose) {
    let holder = LeaseHolder {
        process: std::process::id(),
        since_millis: now_millis(),
        purpose: Some(purpose.clone()),
    };
    let json = serde_json::to_vec(&holder).expect("a holder is plain JSON");
    if let Err(error) = disk::write_lock(file, path, &json) {
        tracing::debug!(lease = %path.display(), %error, "a lease does not say who holds it");
    }
}

fn holder_in(lease: &Path) -> Option<LeaseHolder> {
    serde_json::from_slice(&fs::read(lease).ok()?).ok()
}

/// Whether someone holds the file of that name locked.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn is_locked(path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
    }
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
