//! The action cache: results and key documents, by key.
//!
//! Invariant: a damaged file is never taken for a result. A result's file has two lines, the result as JSON and the
//! digest of the first line; a key document must have the key that it is filed under.

use super::check::read_if_there;
use super::{Store, StoreError};
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
        let path = self.path_of("results", key.digest());
        let Some(text) = read_if_there(&path)? else {
            return Ok(Lookup::Absent);
        };
        match parse_result(&text) {
            Some(result) if result.key == *key => Ok(Lookup::Found(result)),
            Some(_) | None => {
                tracing::warn!(file = %path.display(), "a result is damaged and counts as missing");
                Ok(Lookup::Unreadable)
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

    /// Keeps `result`, whose artifact was published before, and the document of its key.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn put_result(&self, document: &KeyDocument, result: &ActionResult) -> Result<(), StoreError> {
        let json = serde_json::to_vec(document).expect("a key document is plain JSON");
        self.write_named("keys", result.key.digest(), &json)?;
        let line = serde_json::to_string(result).expect("a result is plain JSON");
        let text = format!("{line}\n{}\n", Digest::of_bytes(line.as_bytes()));
        self.write_named("results", result.key.digest(), text.as_bytes())
    }
}

/// The result that a file of that text holds, if it is whole.
pub(super) fn parse_result(text: &[u8]) -> Option<ActionResult> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let line = lines.next()?;
    let digest: Digest = lines.next()?.parse().ok()?;
    if Digest::of_bytes(line.as_bytes()) == digest {
        serde_json::from_str(line).ok()
    } else {
        None
    }
}
