//! The temporary folder of one open store.
//!
//! Invariants: a session's folder holds a file that is locked as long as its process lives; sessions begin, and dead
//! ones are swept, only under the lock of `tmp/gate`, so that no folder is swept between its making and its locking. No
//! name comes twice: a worker may outlive its build for a moment, and what it still writes must not be in the folder of
//! another.

use super::disk;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const GATE: &str = "gate";
const LOCK: &str = "lock";

/// A temporary folder, removed when dropped, and by the next session if its process dies.
#[derive(Debug)]
pub(super) struct Session {
    folder: PathBuf,
    /// How many names in the folder were given away.
    named: AtomicU64,
    /// Held for its lock alone.
    _lock: File,
}

impl Session {
    /// Begins a session in `tmp` after sweeping the dead ones.
    pub(super) fn start(tmp: &Path) -> io::Result<Self> {
        let tmp = std::path::absolute(tmp)?;
        let gate = disk::open_lock(&tmp.join(GATE))?;
        gate.lock()?;
        sweep(&tmp)?;
        let folder = make_unused(&tmp)?;
        let lock = disk::open_lock(&folder.join(LOCK))?;
        lock.lock()?;
        Ok(Self {
            folder,
            named: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// A path in the folder that was not given away before.
    pub(super) fn unused_path(&self, what: &str) -> PathBuf {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{what}-{number}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = disk::remove_folder(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "a temporary folder could not be removed");
        }
    }
}

/// Makes a folder for a session in `tmp`, whose gate is locked.
fn make_unused(tmp: &Path) -> io::Result<PathBuf> {
    loop {
        // The keys of a hasher are random.
        let chance = RandomState::new().build_hasher().finish();
        let folder = tmp.join(format!("session-{chance:016x}"));
        match disk::make_folder(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
}

fn sweep(tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let path = entry?.path();
        let is_gate = path.file_name().is_some_and(|name| name == GATE);
        if is_gate || is_alive(&path) {
            continue;
        }
        let removed = if path.is_dir() {
            disk::remove_folder(&path)
        } else {
            disk::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "a temporary file of a dead process could not be removed");
        }
    }
    Ok(())
}

/// Whether the session of `folder` is some living process's. A session whose lock cannot be tried is left alone.
fn is_alive(folder: &Path) -> bool {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
        },
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}
