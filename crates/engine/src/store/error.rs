//! What can go wrong in the store. Each message says what was tried, where, and what to do.

use crate::artifact::TreeError;
use crate::digest::Digest;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What a look at an artifact's bytes found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// All is there.
    Whole,
    /// Something is not there.
    Missing {
        /// What.
        what: String,
    },
    /// A blob has other bytes than its name says.
    Corrupt {
        /// The blob.
        digest: Digest,
    },
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Missing { what } => write!(f, "{what} is no longer in the store"),
            Self::Corrupt { digest } => write!(f, "blob {} is corrupt", digest.short()),
        }
    }
}

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation on a file failed.
    #[error("cannot {operation} {path}: {source}{advice}", path = path.display(), advice = advice(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store's folder cannot be written.
    #[error(
        "the cache {path} cannot be read and written: {source}; {remedy} or choose another folder with `--cache DIR`",
        path = path.display(), remedy = remedy(source)
    )]
    NotWritable {
        /// The folder, or what in it could not be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The folder holds something else already.
    #[error(
        "{path} is no cache: it holds `{found}`; choose an empty or a new folder with `--cache DIR`",
        path = path.display()
    )]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The store was made by a newer program.
    #[error(
        "the cache {path} has format {found}, but {known} is the newest that this program knows: use the newer \
         program, or another folder with `--cache DIR`",
        path = path.display()
    )]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The file that tells the store's format does not.
    #[error("{path} tells no cache format; choose another folder with `--cache DIR`", path = path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
    },
    /// A step left something that cannot be kept.
    #[error("{path} cannot be kept in an artifact: {problem}", path = path.display())]
    BadOutput {
        /// What it left.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An artifact's bytes are not as they should be. Building again makes them anew.
    #[error("artifact {tree} ({role}): {found}; build again to make it anew", tree = tree.short())]
    NotWhole {
        /// Its digest.
        tree: Digest,
        /// What it was wanted for.
        role: String,
        /// What was found.
        found: Integrity,
    },
    /// A file that the store did not write is where one of an artifact's should go.
    #[error(
        "{path} is in the way: it is not what an earlier build wrote there; move it away or choose another output \
         folder",
        path = path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Someone else has the store open, and it is wanted alone.
    #[error(
        "the cache {path} is in use by a running build or another command; garbage is collected when that has ended",
        path = path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A tree that breaks an invariant.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl StoreError {
    /// Turns an error of `operation` on `path` into ours; made for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

/// What to do about a failed operation, where that can be told from the error alone.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space there, or keep the cache elsewhere with `--cache DIR`"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make it accessible, or keep the cache elsewhere with `--cache DIR`"
        }
        io::ErrorKind::Unsupported => "; this file system lacks it: keep the cache elsewhere with `--cache DIR`",
        _ => "",
    }
}

/// What to do about a cache that cannot be written.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there",
        _ => "make it so",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_was_tried_where_and_what_to_do() {
        let error = StoreError::io("write", Path::new("/cache/x"))(io::ErrorKind::StorageFull.into()).to_string();
        for part in ["cannot write /cache/x: ", "; free some space there", "--cache DIR"] {
            assert!(error.contains(part), "{error}");
        }
        let other = StoreError::io("read", Path::new("/cache/x"))(io::ErrorKind::IsADirectory.into()).to_string();
        assert!(!other.contains("--cache"), "{other}");
    }
}
