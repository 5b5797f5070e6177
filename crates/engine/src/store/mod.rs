//! The store: a folder that holds every artifact, every result and what is known of earlier runs.
//!
//! | in the folder | what |
//! |---|---|
//! | `blobs/ab/<digest>` | the content of files, read-only |
//! | `trees/ab/<digest>` | artifacts: which path has which blob |
//! | `keys/ab/<key>` | key documents |
//! | `results/ab/<key>` | action results: the action cache |
//! | `runs/` | run records |
//! | `stat/ab/<digest>` | the stat cache: digests of external inputs; may be lost at any time |
//! | `roots/ab/<digest>` | paths of the lock files that keep results |
//! | `leases/` | locks of what is being made |
//! | `checkpoints/ab/<key>/` | what steps need to go on after an interruption, by trajectory |
//! | `tmp/` | one folder for each live [`Store`], swept when its process is gone |
//! | `quarantine/` | what was found damaged |
//! | `LOCK` | locked by everyone who has the store open |
//!
//! Invariants:
//! - A file appears under its name whole or not at all: it is written in `tmp/`, synced, renamed, and its folder
//!   synced.
//! - Blobs are written before their tree, the tree and the key document before the result: what a crash leaves behind
//!   is garbage at worst, never a result whose parts are missing.
//! - Nothing is believed unread: trees, key documents and results carry or are their own digest, and blobs are hashed
//!   before they are used. What is damaged is put aside and counts as missing; no one is asked to clean up.
//! - Locks are `flock`s: the kernel frees them, however their holder ends.
//!
//! Several processes may use one store at the same time, except that garbage is collected by one that has it alone. It
//! does not know of graphs or of scheduling.

mod aside;
mod check;
mod checkpoints;
pub(crate) mod disk;
mod durable;
mod error;
#[cfg(test)]
mod faults;
mod gc;
mod holdings;
mod inventory;
mod layout;
mod lease;
mod listing;
mod materialize;
mod occupancy;
mod publish;
mod result;
mod roots;
mod section;
mod session;
mod stat;
mod survey;
mod verify_all;

pub use durable::Scratch;
pub use error::{Integrity, StoreError};
pub use gc::{GcOptions, GcReport};
pub(crate) use lease::is_locked;
pub use lease::{HeldLease, Lease, LeaseHolder, LeasePurpose};
pub use listing::{ListedResult, RecordedName};
pub(crate) use publish::tree_of_folder;
pub use result::Lookup;
pub use survey::{Survey, Tally};
pub use verify_all::{Damage, VerifyReport};

use crate::digest::Digest;
use occupancy::Occupancy;
use section::{Section, relative};
use session::Session;
use std::io;
use std::path::{Path, PathBuf};

/// The store of one folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    access: Access,
    // Those that a build looks into most.
    results: Section,
    trees: Section,
    blobs: Section,
}

/// What a store may be used for, and what is held meanwhile.
#[derive(Debug)]
enum Access {
    /// Anything.
    Write { session: Session, occupancy: Occupancy },
    /// To be read. Nothing is held if there is no store yet.
    Read { _occupancy: Option<Occupancy> },
}

impl Store {
    /// Opens the store in `root` and makes it if there is none. What processes that are gone left in `tmp/` is removed.
    /// Waits while garbage is collected there.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`], [`StoreError::NotAStore`], [`StoreError::NewerFormat`], [`StoreError::BadFormat`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        layout::check(root)?;
        let not_writable = |source| StoreError::NotWritable {
            path: root.to_owned(),
            source,
        };
        layout::create(root).map_err(not_writable)?;
        let occupancy = Occupancy::share(root).map_err(not_writable)?;
        let session = Session::start(&root.join("tmp")).map_err(not_writable)?;
        let root = std::path::absolute(root).map_err(not_writable)?;
        let access = Access::Write { session, occupancy };
        let store = Self::of(root, access);
        layout::seal(&store)?;
        Ok(store)
    }

    /// Opens the store in `root` to read it. Nothing is made or changed there, so that it may be one that cannot be
    /// written; what would change something is refused. A folder without a store is one that holds nothing. Waits while
    /// garbage is collected there.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`] if it cannot be read, [`StoreError::NotAStore`], [`StoreError::NewerFormat`],
    /// [`StoreError::BadFormat`].
    pub fn open_to_read(root: &Path) -> Result<Self, StoreError> {
        layout::check(root)?;
        let not_readable = |source| StoreError::NotWritable {
            path: root.to_owned(),
            source,
        };
        let _occupancy = Occupancy::share_to_read(root).map_err(not_readable)?;
        let root = std::path::absolute(root).map_err(not_readable)?;
        Ok(Self::of(root, Access::Read { _occupancy }))
    }

    fn of(root: PathBuf, access: Access) -> Self {
        Self {
            results: Section::new(&root, "results"),
            trees: Section::new(&root, "trees"),
            blobs: Section::new(&root, "blobs"),
            root,
            access,
        }
    }

    /// The session and the occupancy of a store that may be changed.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`] if it was opened to be read.
    fn to_write(&self) -> Result<(&Session, &Occupancy), StoreError> {
        match &self.access {
            Access::Write { session, occupancy } => Ok((session, occupancy)),
            Access::Read { .. } => Err(StoreError::NotWritable {
                path: self.root.clone(),
                source: io::ErrorKind::ReadOnlyFilesystem.into(),
            }),
        }
    }

    /// Refuses a store that was opened to be read.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`].
    pub(crate) fn require_writable(&self) -> Result<(), StoreError> {
        self.to_write().map(drop)
    }

    /// Its folder, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file named `digest` lies among those of `section`: in one of 256 folders.
    fn path_of(&self, section: &str, digest: &Digest) -> PathBuf {
        let name = relative(digest);
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + section.len() + name.len() + 2);
        path.extend([self.root.as_path(), section.as_ref(), name.as_ref()]);
        path
    }
}
