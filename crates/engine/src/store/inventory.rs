//! What files a store has, by section: the ground that surveying, verifying and collecting garbage share.

use super::{Store, StoreError};
use crate::digest::Digest;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that is named by a digest.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) digest: Digest,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
}

impl Store {
    /// The files of `section`, in the order of their names. What is not named and placed as the store does is no file
    /// of the store, and left alone.
    pub(super) fn named(&self, section: &str) -> Result<Vec<Named>, StoreError> {
        let mut files = Vec::new();
        for (shard, metadata) in entries(&self.root.join(section))? {
            if !metadata.is_dir() {
                continue;
            }
            for (path, metadata) in entries(&shard)? {
                let name = path.file_name().and_then(|name| name.to_str());
                let digest: Option<Digest> = name.and_then(|name| name.parse().ok());
                if let Some(digest) =
                    digest.filter(|digest| metadata.is_file() && self.path_of(section, digest) == path)
                {
                    files.push(Named {
                        digest,
                        bytes: metadata.len(),
                        modified: metadata.modified().map_err(StoreError::io("read", &path))?,
                        path,
                    });
                }
            }
        }
        files.sort_by_key(|file| file.digest);
        Ok(files)
    }

    /// The files below `checkpoints/`, two folders down.
    pub(super) fn checkpoints(&self) -> Result<Vec<(PathBuf, Metadata)>, StoreError> {
        let mut files = entries(&self.root.join("checkpoints"))?;
        for _ in 0..2 {
            let mut below = Vec::new();
            for (folder, metadata) in files {
                if metadata.is_dir() {
                    below.extend(entries(&folder)?);
                }
            }
            files = below;
        }
        files.retain(|(_, metadata)| metadata.is_file());
        Ok(files)
    }

    /// The files right in the folder of `section`, for those sections whose files have other names.
    pub(super) fn unnamed(&self, section: &str) -> Result<Vec<(PathBuf, Metadata)>, StoreError> {
        let mut files = entries(&self.root.join(section))?;
        files.retain(|(_, metadata)| metadata.is_file());
        Ok(files)
    }
}

/// What lies in `folder`, links not followed. What vanishes meanwhile, another process being at work, is passed over.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, StoreError> {
    let mut found = Vec::new();
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    for entry in listed {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        match entry.metadata() {
            Ok(metadata) => found.push((entry.path(), metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", &entry.path())(error)),
        }
    }
    Ok(found)
}
