//! Reading artifacts back: nothing is handed out whose bytes were not compared with their name.

use super::{Integrity, Store, StoreError, disk};
use crate::artifact::Tree;
use crate::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Few trees, results and key documents are larger.
const USUAL_SIZE: usize = 2048;

impl Store {
    /// The tree of that digest. One that is damaged is put aside and counts as missing.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn tree(&self, tree: &Digest) -> Result<Option<Tree>, StoreError> {
        let Some(json) = self.trees.read(tree)? else {
            return Ok(None);
        };
        let found = parse_tree(&json, tree);
        if found.is_none() {
            self.quarantine(&self.path_of("trees", tree))?;
        }
        Ok(found)
    }

    /// A cheap look at an artifact: whether its blobs are there and have the right size.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn has_bytes(&self, tree: &Digest) -> Result<Integrity, StoreError> {
        match self.tree(tree)? {
            Some(found) => self.has_blobs(&found),
            None => Ok(missing_tree(tree)),
        }
    }

    /// As [`Store::has_bytes`], without reading the tree if there is a whole copy of it, and its file has the same size. Other
    /// damage to that file shows when the artifact is used.
    pub(super) fn has_bytes_by_copy(&self, tree: &Digest, copy: &str) -> Result<Integrity, StoreError> {
        match parse_tree(copy.as_bytes(), tree) {
            Some(found) if self.trees.size(tree)? == Some(copy.len() as u64) => self.has_blobs(&found),
            Some(_) | None => self.has_bytes(tree),
        }
    }

    fn has_blobs(&self, tree: &Tree) -> Result<Integrity, StoreError> {
        for entry in tree.entries() {
            match self.blobs.size(&entry.digest)? {
                Some(size) if size == entry.size => {}
                Some(_) => return Ok(Integrity::Corrupt { digest: entry.digest }),
                None => return Ok(missing_blob(&entry.path)),
            }
        }
        Ok(Integrity::Whole)
    }

    /// Hashes all blobs of an artifact. Those that are damaged are put aside; the first finding is returned.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn verify(&self, tree: &Digest) -> Result<Integrity, StoreError> {
        let Some(found) = self.tree(tree)? else {
            return Ok(missing_tree(tree));
        };
        let mut integrity = Integrity::Whole;
        let mut seen = BTreeSet::new();
        for entry in found.entries().iter().filter(|entry| seen.insert(entry.digest)) {
            let path = self.path_of("blobs", &entry.digest);
            let finding = match Digest::of_file(&path) {
                Ok(digest) if digest == entry.digest => continue,
                Ok(_) => {
                    self.quarantine(&path)?;
                    Integrity::Corrupt { digest: entry.digest }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing_blob(&entry.path),
                Err(error) => return Err(StoreError::io("read", &path)(error)),
            };
            if integrity == Integrity::Whole {
                integrity = finding;
            }
        }
        Ok(integrity)
    }

    /// Verifies an artifact and tells where the bytes of each of its paths lie. `role` is what it is wanted for, told
    /// in the error.
    ///
    /// # Errors
    /// [`StoreError::NotWhole`] if anything is missing or damaged, [`StoreError::Io`].
    pub fn checkout(&self, tree: &Digest, role: &str) -> Result<BTreeMap<String, PathBuf>, StoreError> {
        match self.verify(tree)? {
            Integrity::Whole => self.paths(tree, role),
            found => Err(StoreError::NotWhole {
                tree: *tree,
                role: role.to_owned(),
                found,
            }),
        }
    }

    /// As [`Store::checkout`], for an artifact that was verified a moment ago.
    pub(crate) fn paths(&self, tree: &Digest, role: &str) -> Result<BTreeMap<String, PathBuf>, StoreError> {
        let not_whole = |found| StoreError::NotWhole {
            tree: *tree,
            role: role.to_owned(),
            found,
        };
        let found = self.tree(tree)?.ok_or_else(|| not_whole(missing_tree(tree)))?;
        let entries = found.entries().iter();
        Ok(entries
            .map(|entry| (entry.path.clone(), self.path_of("blobs", &entry.digest)))
            .collect())
    }

    /// Puts a damaged file aside, unless the store is only read. Its time becomes that of now, from which its age in
    /// quarantine counts.
    pub(super) fn quarantine(&self, path: &Path) -> Result<(), StoreError> {
        if self.require_writable().is_err() {
            tracing::warn!(file = %path.display(), "a file is damaged and counts as missing");
            return Ok(());
        }
        let name = path.file_name().expect("a named file has a name").to_string_lossy();
        let folder = self.root.join("quarantine");
        let aside = (0_u64..)
            .map(|number| folder.join(format!("{name}-{number}")))
            .find(|aside| !aside.exists())
            .expect("a folder does not hold 2^64 files");
        tracing::warn!(file = %path.display(), aside = %aside.display(), "a damaged file was put aside");
        match disk::rename(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done.map_err(StoreError::io("put aside", path))?,
        }
        if let Err(error) = disk::touch(&aside) {
            tracing::warn!(file = %aside.display(), %error, "the time of a file put aside could not be set");
        }
        Ok(())
    }
}

/// The bytes of a file, or nothing if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    if_there(File::open(path).and_then(read_to_end)).map_err(StoreError::io("read", path))
}

/// The bytes of an open file. Most are small: their size is not asked for first.
pub(super) fn read_to_end(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_SIZE);
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What was found, or nothing if it is not there.
pub(super) fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tree whose digest is `digest`, if `json` is that.
fn parse_tree(json: &[u8], digest: &Digest) -> Option<Tree> {
    let tree: Tree = serde_json::from_slice(json).ok()?;
    (tree.digest() == *digest).then_some(tree)
}

pub(super) fn missing_tree(tree: &Digest) -> Integrity {
    Integrity::Missing {
        what: format!("the file list of artifact {}", tree.short()),
    }
}

fn missing_blob(path: &str) -> Integrity {
    Integrity::Missing {
        what: format!("the content of {path}"),
    }
}
