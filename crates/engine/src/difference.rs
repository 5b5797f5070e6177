//! How the key of an action differs from one that it had before, as far as key documents tell.

use crate::change::{Change, changes};
use crate::key::{ActionKey, KeyDocument};
use crate::store::{Store, StoreError};

/// How a key differs from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyDifference {
    /// They are the same.
    None,
    /// In this; never empty.
    Changed(Vec<Change>),
    /// They differ, and a document is lost: in what cannot be told.
    Untold,
}

impl Store {
    /// How `new` differs from the key `old`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn difference_to(&self, old: &ActionKey, new: &KeyDocument) -> Result<KeyDifference, StoreError> {
        if *old == new.key() {
            return Ok(KeyDifference::None);
        }
        let old = self.key_document(old)?;
        Ok(old.map_or(KeyDifference::Untold, |old| KeyDifference::Changed(changes(&old, new))))
    }

    /// How the key `new` differs from the key `old`.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn difference(&self, old: &ActionKey, new: &ActionKey) -> Result<KeyDifference, StoreError> {
        if old == new {
            return Ok(KeyDifference::None);
        }
        match self.key_document(new)? {
            Some(new) => self.difference_to(old, &new),
            None => Ok(KeyDifference::Untold),
        }
    }
}
