//! A look at every byte of a store.
//!
//! A result whose artifact lacks bytes is not damaged: results outlive blobs, and a build makes anew what it needs.
//! Invariant: without `repair` nothing in the store is changed.

use super::check::read_if_there;
use super::inventory::Named;
use super::result::parse_result;
use super::stat::is_entry;
use super::survey::Tally;
use super::{Store, StoreError};
use crate::artifact::Tree;
use crate::digest::Digest;
use crate::key::KeyDocument;
use std::io;
use std::path::PathBuf;

/// A file that does not hold what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What the file should be: `blob`, `tree`, `result`, `key document`, `entry of the stat cache` or
    /// `registration of a lock file`.
    pub what: &'static str,
    /// Its name.
    pub digest: Digest,
    /// Where it lies, or lay before it was put aside.
    pub path: PathBuf,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// What was read.
    pub checked: Tally,
    /// What is damaged; with `repair` it was put aside, and the next build that needs it makes it anew.
    pub damaged: Vec<Damage>,
}

impl Store {
    /// Hashes every blob and registration, and reads every tree, result, key document and entry of the stat cache. With
    /// `repair`, what is damaged is put into quarantine, where it counts as missing.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be read or put aside.
    pub fn verify_all(&self, repair: bool) -> Result<VerifyReport, StoreError> {
        type IsWhole = fn(&Named) -> Result<bool, StoreError>;
        let sections: [(&str, &'static str, IsWhole); 6] = [
            ("blobs", "blob", has_its_digest),
            ("trees", "tree", is_whole_tree),
            ("results", "result", is_whole_result),
            ("keys", "key document", is_whole_document),
            ("stat", "entry of the stat cache", is_whole_entry),
            ("roots", "registration of a lock file", has_its_digest),
        ];
        if repair {
            self.require_writable()?;
        }
        let mut report = VerifyReport::default();
        for (section, what, is_whole) in sections {
            for file in self.named(section)? {
                report.checked.add(file.bytes);
                if is_whole(&file)? {
                    continue;
                }
                if repair {
                    self.quarantine(&file.path)?;
                }
                report.damaged.push(Damage {
                    what,
                    digest: file.digest,
                    path: file.path,
                });
            }
        }
        Ok(report)
    }
}

// A file that another process removed since it was listed is not damaged.

fn has_its_digest(file: &Named) -> Result<bool, StoreError> {
    match Digest::of_file(&file.path) {
        Ok(digest) => Ok(digest == file.digest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(StoreError::io("read", &file.path)(error)),
    }
}

fn is_whole_tree(file: &Named) -> Result<bool, StoreError> {
    let json = read_if_there(&file.path)?;
    Ok(json.is_none_or(|json| serde_json::from_slice::<Tree>(&json).is_ok_and(|tree| tree.digest() == file.digest)))
}

fn is_whole_result(file: &Named) -> Result<bool, StoreError> {
    let text = read_if_there(&file.path)?;
    Ok(text.is_none_or(|text| parse_result(&text).is_some_and(|result| *result.key.digest() == file.digest)))
}

fn is_whole_document(file: &Named) -> Result<bool, StoreError> {
    let json = read_if_there(&file.path)?;
    Ok(json.is_none_or(|json| {
        serde_json::from_slice::<KeyDocument>(&json).is_ok_and(|document| *document.key().digest() == file.digest)
    }))
}

fn is_whole_entry(file: &Named) -> Result<bool, StoreError> {
    let text = read_if_there(&file.path)?;
    Ok(text.is_none_or(|text| is_entry(&file.digest, &text)))
}
