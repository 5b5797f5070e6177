//! Copying an artifact out to a folder of the user's.
//!
//! Invariants:
//! - A file that we did not write, or that was edited since, is neither overwritten nor removed. What we wrote is
//!   listed, with its digests, in a manifest in the folder, which is made to last before the files it lists change, and
//!   forgets what was there before only when they have changed for good.
//! - Files appear whole: all are copied, verified and synced before the first is moved to its place.
//! - One build at a time writes to a folder.
//! - What is done to a file in the folder never reaches the store. Where the file system can, the file shares the bytes of
//!   its blob until one of the two is written to (a reflink); elsewhere it is a copy. It is never a hard link: that would
//!   be the blob itself, under a second name, and an edit of the one would be damage to the other.

use super::check::{missing_tree, read_if_there};
use super::disk::{self, NewFile};
use super::durable::sync_folder;
use super::{Integrity, Lease, Store, StoreError};
use crate::artifact::{RESERVED_PREFIX, TreeEntry, check_path};
use crate::digest::{Digest, copy_and_hash};
use crate::file_digest::digest_of_file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What we wrote into a folder. A path may come twice, with the digest before and after.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    files: Vec<TreeEntry>,
}

impl Store {
    /// Makes the folder `destination` hold the files of an artifact, and no longer those that an earlier call put there
    /// and that the artifact lacks. Files that are right already are left as they are.
    ///
    /// # Errors
    /// [`StoreError::InTheWay`] before anything is changed if a file would be lost, [`StoreError::NotWhole`] if bytes
    /// are missing or damaged, [`StoreError::Io`].
    pub fn materialize(&self, tree: &Digest, destination: &Path) -> Result<(), StoreError> {
        let role = || destination.display().to_string();
        let not_whole = |found| StoreError::NotWhole {
            tree: *tree,
            role: role(),
            found,
        };
        let wanted = self.tree(tree)?.ok_or_else(|| not_whole(missing_tree(tree)))?;
        disk::make_folders(destination).map_err(StoreError::io("make the folder", destination))?;
        let target = Target::open(self, destination)?;
        let mut missing = Vec::new();
        for entry in wanted.entries() {
            if target.must_write(entry)? {
                missing.push(entry);
            }
        }
        if missing.is_empty() && target.known.files == wanted.entries() {
            return Ok(());
        }
        target.make_partial()?;
        for (number, entry) in missing.iter().enumerate() {
            match self.copy_verified(&entry.digest, &target.partial(number))? {
                Integrity::Whole => {}
                found => return Err(not_whole(found)),
            }
        }
        target.write_manifest(target.known.files.iter().chain(wanted.entries()))?;
        let mut changed = target.remove_stale(wanted.entries())?;
        for (number, entry) in missing.into_iter().enumerate() {
            changed.insert(target.put(&target.partial(number), entry)?);
        }
        for folder in changed.iter().filter(|folder| folder.is_dir()) {
            sync_folder(folder)?;
        }
        target.write_manifest(wanted.entries().iter())
    }

    /// Puts the bytes of a blob into the new file `to`, hashes what came of it, and makes it last.
    fn copy_verified(&self, digest: &Digest, to: &Path) -> Result<Integrity, StoreError> {
        let blob = self.path_of("blobs", digest);
        let mut source = match File::open(&blob) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Integrity::Missing {
                    what: format!("blob {}", digest.short()),
                });
            }
            Err(error) => return Err(StoreError::io("read", &blob)(error)),
        };
        let copied = NewFile::create(to).and_then(|mut file| {
            let (found, _) = if file.share(&source)? {
                digest_of_file(to)?
            } else {
                copy_and_hash(&mut source, &mut file)?
            };
            file.sync()?;
            Ok(found)
        });
        if copied.map_err(StoreError::io("write", to))? == *digest {
            return Ok(Integrity::Whole);
        }
        self.quarantine(&blob)?;
        Ok(Integrity::Corrupt { digest: *digest })
    }
}

/// A folder that is being written to.
struct Target<'a> {
    folder: &'a Path,
    known: Manifest,
    _lease: Lease,
}

impl<'a> Target<'a> {
    fn open(store: &Store, folder: &'a Path) -> Result<Self, StoreError> {
        let lease = store.lease_folder(folder)?;
        let json = read_if_there(&manifest_path(folder))?.unwrap_or_default();
        let mut known: Manifest = serde_json::from_slice(&json).unwrap_or_default();
        known.files.retain(|entry| check_path(&entry.path).is_ok());
        Ok(Self {
            folder,
            known,
            _lease: lease,
        })
    }

    /// Where copies are put before they are moved to their places; in the folder, so that both are on one file system.
    fn partial_folder(&self) -> PathBuf {
        self.folder.join(format!("{RESERVED_PREFIX}-partial"))
    }

    fn partial(&self, number: usize) -> PathBuf {
        self.partial_folder().join(number.to_string())
    }

    /// Makes the folder of copies; what a killed build left in it goes.
    fn make_partial(&self) -> Result<(), StoreError> {
        let folder = self.partial_folder();
        if metadata_if_there(&folder)?.is_some() {
            disk::remove_folder(&folder).map_err(StoreError::io("remove", &folder))?;
        }
        disk::make_folder(&folder).map_err(StoreError::io("make the folder", &folder))
    }

    /// Whether `entry` must be written: it is not there, or is as an earlier artifact had it.
    fn must_write(&self, entry: &TreeEntry) -> Result<bool, StoreError> {
        for (at, _) in entry.path.match_indices('/') {
            let folder = &entry.path[..at];
            match self.look(folder)? {
                Standing::Folder => {}
                Standing::Nothing | Standing::Ours(_) => return Ok(true),
                Standing::Other(_) => {
                    return Err(StoreError::InTheWay {
                        path: self.folder.join(folder),
                    });
                }
            }
        }
        match self.look(&entry.path)? {
            Standing::Ours(digest) | Standing::Other(Some(digest)) if digest == entry.digest => Ok(false),
            Standing::Nothing | Standing::Folder | Standing::Ours(_) => Ok(true),
            Standing::Other(_) => Err(StoreError::InTheWay {
                path: self.folder.join(&entry.path),
            }),
        }
    }

    /// What stands at `path`; symbolic links are not followed.
    fn look(&self, path: &str) -> Result<Standing, StoreError> {
        for (at, _) in path.match_indices('/') {
            match metadata_if_there(&self.folder.join(&path[..at]))? {
                Some(metadata) if metadata.is_symlink() => return Ok(Standing::Other(None)),
                Some(metadata) if metadata.is_dir() => {}
                Some(_) | None => return Ok(Standing::Nothing),
            }
        }
        let full = self.folder.join(path);
        let Some(metadata) = metadata_if_there(&full)? else {
            return Ok(Standing::Nothing);
        };
        if metadata.is_dir() {
            return Ok(Standing::Folder);
        }
        if !metadata.is_file() {
            return Ok(Standing::Other(None));
        }
        let digest = Digest::of_file(&full).map_err(StoreError::io("read", &full))?;
        let is_ours = self
            .known
            .files
            .iter()
            .any(|known| known.path == path && known.digest == digest);
        Ok(if is_ours {
            Standing::Ours(digest)
        } else {
            Standing::Other(Some(digest))
        })
    }

    /// Removes what earlier artifacts had and this one has not, unless it was edited, and the folders left empty.
    /// Returns the folders that something was removed from.
    fn remove_stale(&self, wanted: &[TreeEntry]) -> Result<BTreeSet<PathBuf>, StoreError> {
        let mut changed = BTreeSet::new();
        let wanted: BTreeSet<&str> = wanted.iter().map(|entry| entry.path.as_str()).collect();
        for entry in self
            .known
            .files
            .iter()
            .filter(|entry| !wanted.contains(entry.path.as_str()))
        {
            let Standing::Ours(_) = self.look(&entry.path)? else {
                continue;
            };
            let path = self.folder.join(&entry.path);
            disk::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            for parent in path.ancestors().skip(1) {
                changed.insert(parent.to_owned());
                if parent == self.folder || disk::remove_empty_folder(parent).is_err() {
                    break;
                }
            }
        }
        Ok(changed)
    }

    /// Moves a copy to its place, and returns the folder of that.
    fn put(&self, partial: &Path, entry: &TreeEntry) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(&entry.path);
        if path.is_dir() {
            return Err(StoreError::InTheWay { path });
        }
        let parent = path.parent().expect("a file in a folder has a parent");
        disk::make_folders(parent).map_err(StoreError::io("make the folder", parent))?;
        disk::rename(partial, &path).map_err(StoreError::io("write", &path))?;
        Ok(parent.to_owned())
    }

    fn write_manifest<'e>(&self, files: impl Iterator<Item = &'e TreeEntry>) -> Result<(), StoreError> {
        let files: BTreeSet<TreeEntry> = files.cloned().collect();
        let manifest = Manifest {
            files: files.into_iter().collect(),
        };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain JSON");
        let (partial, path) = (self.partial_folder().join("manifest"), manifest_path(self.folder));
        let written = NewFile::create(&partial).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync()
        });
        written.map_err(StoreError::io("write", &partial))?;
        disk::rename(&partial, &path).map_err(StoreError::io("write", &path))?;
        sync_folder(self.folder)
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        match disk::remove_folder(&self.partial_folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "partial copies could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// What stands at a path of the folder.
enum Standing {
    Nothing,
    Folder,
    /// A file that an earlier call wrote, unchanged.
    Ours(Digest),
    /// Anything else; a file has a digest.
    Other(Option<Digest>),
}

fn manifest_path(folder: &Path) -> PathBuf {
    folder.join(format!("{RESERVED_PREFIX}-manifest.json"))
}

fn metadata_if_there(path: &Path) -> Result<Option<fs::Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}
