//! Where steps keep what they need to go on after an interruption: one folder a trajectory, which the step fills.
//!
//! The store does not know what is in the files; a step checks what it finds there. Nothing refers to them, so that
//! they may go at any time, at the cost of work that is done again: with the result that they led to, by garbage
//! collection, or by hand.

use super::{Store, StoreError, disk};
use crate::key::ActionKey;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

impl Store {
    /// The folder of `trajectory`, which is there from now on.
    pub(crate) fn checkpoint_folder(&self, trajectory: &ActionKey) -> Result<PathBuf, StoreError> {
        let folder = self.path_of("checkpoints", trajectory.digest());
        disk::make_folders(&folder).map_err(StoreError::io("make the folder", &folder))?;
        Ok(folder)
    }

    /// Removes the files of `folder` whose names begin with `owner`, and the folder if it is empty then.
    pub(crate) fn drop_checkpoints(&self, folder: &Path, owner: &str) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("list", folder)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", folder))?;
            if entry.file_name().as_encoded_bytes().starts_with(owner.as_bytes()) {
                let path = entry.path();
                disk::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        match disk::remove_empty_folder(folder) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(StoreError::io("remove", folder)(error)),
        }
    }
}
