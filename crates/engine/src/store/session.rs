//! The temporary folder of one open store.
//!
//! Invariants: a session's folder holds a file that is locked as long as its process lives; sessions begin, and dead
//! ones are swept, only under the lock of `tmp/gate`, so that no folder is swept between its making and its locking.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const GATE: &str = "gate";
const LOCK: &str = "lock";

/// A temporary folder, removed when dropped, and by the next session if its process dies.
#[derive(Debug)]
pub(super) struct Session {
    folder: PathBuf,
    /// Held for its lock alone.
    _lock: File,
}

impl Session {
    /// Begins a session in `tmp` after sweeping the dead ones.
    pub(super) fn start(tmp: &Path) -> io::Result<Self> {
        let tmp = std::path::absolute(tmp)?;
        let gate = File::create(tmp.join(GATE))?;
        gate.lock()?;
        sweep(&tmp)?;
        let folder = tempfile::Builder::new().prefix("session-").tempdir_in(&tmp)?.keep();
        let lock = File::create_new(folder.join(LOCK))?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "a temporary folder could not be removed");
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
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
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
