//! The action cache: results and key documents, by key.
//!
//! Invariant: a damaged file is never taken for a result. A result's file has three lines: the result as JSON, the digest
//! of the first line, and a copy of its artifact's tree, so that a look at what is there need not open another file. The
//! copy is believed if it has the tree's digest; files of earlier versions have none. A key document must have the key
//! that it is filed under.

use super::check::read_if_there;
use super::{Integrity, Store, StoreError};
use crate::artifact::Tree;
use crate::digest::Digest;
use crate::key::{ActionKey, KeyDocument};
use crate::result::ActionResult;

/// What the action cache has for a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// A result.
    Found(ActionResult),
    /// Nothing.
    Absent,
    /// A file that is damaged: the action must run again.
    Unreadable,
}

impl Lookup {
    /// The result, if there is one.
    #[must_use]
    pub fn found(self) -> Option<ActionResult> {
        match self {
            Self::Found(result) => Some(result),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

impl Store {
    /// What the action cache has for `key`. The bytes of the artifact may be gone all the same.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is a file and it cannot be read at all.
    pub fn result(&self, key: &ActionKey) -> Result<Lookup, StoreError> {
        Ok(self.read_result(key)?.0)
    }

    /// The same, and what [`Store::has_bytes`] says of the artifact of a result that is found.
    pub(crate) fn result_and_bytes(&self, key: &ActionKey) -> Result<(Lookup, Integrity), StoreError> {
        let (lookup, copy) = self.read_result(key)?;
        let integrity = match (&lookup, copy) {
            (Lookup::Found(result), Some(copy)) => self.has_bytes_by_copy(&result.tree, &copy)?,
            (Lookup::Found(result), None) => self.has_bytes(&result.tree)?,
            (Lookup::Absent | Lookup::Unreadable, _) => Integrity::Whole,
        };
        Ok((lookup, integrity))
    }

    /// What there is for `key`, and the copy of the tree that comes with it.
    fn read_result(&self, key: &ActionKey) -> Result<(Lookup, Option<String>), StoreError> {
        let Some(text) = self.results.read(key.digest())? else {
            return Ok((Lookup::Absent, None));
        };
        match parse_result(&text) {
            Some(result) if result.key == *key => Ok((Lookup::Found(result), copy_of_tree(&text))),
            Some(_) | None => {
                let path = self.path_of("results", key.digest());
                tracing::warn!(file = %path.display(), "a result is damaged and counts as missing");
                Ok((Lookup::Unreadable, None))
            }
        }
    }

    /// The document of `key`, if it is there and whole.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is a file and it cannot be read at all.
    pub fn key_document(&self, key: &ActionKey) -> Result<Option<KeyDocument>, StoreError> {
        let json = read_if_there(&self.path_of("keys", key.digest()))?;
        let document: Option<KeyDocument> = json.and_then(|json| serde_json::from_slice(&json).ok());
        Ok(document.filter(|document| document.key() == *key))
    }

    /// Keeps `result`, whose artifact `tree` was published before, and the document of its key.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn put_result(&self, document: &KeyDocument, result: &ActionResult, tree: &Tree) -> Result<(), StoreError> {
        let json = serde_json::to_vec(document).expect("a key document is plain JSON");
        self.write_named("keys", result.key.digest(), &json)?;
        let line = serde_json::to_string(result).expect("a result is plain JSON");
        let copy = serde_json::to_string(tree).expect("a tree is plain JSON");
        let text = format!("{line}\n{}\n{copy}\n", Digest::of_bytes(line.as_bytes()));
        self.write_named("results", result.key.digest(), text.as_bytes())
    }
}

/// The result that a file of that text holds, if it is whole.
pub(super) fn parse_result(text: &[u8]) -> Option<ActionResult> {
    let mut lines = as_far_as_text(text).lines();
    let line = lines.next()?;
    let digest: Digest = lines.next()?.parse().ok()?;
    if Digest::of_bytes(line.as_bytes()) == digest {
        serde_json::from_str(line).ok()
    } else {
        None
    }
}

/// The copy of a tree, whole or not, in the file of that text.
fn copy_of_tree(text: &[u8]) -> Option<String> {
    as_far_as_text(text).lines().nth(2).map(str::to_owned)
}

/// What stands before bytes that are no text: damage to a copy is none to the result before it.
fn as_far_as_text(bytes: &[u8]) -> &str {
    let text = std::str::from_utf8(bytes).or_else(|damage| std::str::from_utf8(&bytes[..damage.valid_up_to()]));
    text.unwrap_or_default()
}
