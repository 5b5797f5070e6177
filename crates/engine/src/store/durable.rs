//! Writing so that a crash at any moment leaves the old file, the new one or none: never half of one.

use super::{Store, StoreError};
use crate::digest::{Digest, copy_and_hash};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{NamedTempFile, TempDir};

impl Store {
    /// Puts `bytes` in the place of `path` and makes it last.
    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut file = self.temporary_file()?;
        let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
        written.map_err(StoreError::io("write", path))?;
        persist(file, path)?;
        sync_folder(path.parent().expect("a file of the store lies in a folder"))
    }

    /// Puts `bytes` in the place of the file named `digest` of `section`.
    pub(super) fn write_named(&self, section: &str, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path_of(section, digest);
        make_shard(&path)?;
        self.write_file(&path, bytes)
    }

    /// Takes in what `source` holds as a read-only blob, whose folder is yet to be synced. A blob of that name that is
    /// there already is replaced: it may be damaged.
    pub(super) fn write_blob(&self, source: &mut dyn Read, origin: &Path) -> Result<(Digest, u64), StoreError> {
        let mut file = self.temporary_file()?;
        let copied = copy_and_hash(source, &mut file).and_then(|copied| {
            file.as_file().set_permissions(Permissions::from_mode(0o444))?;
            file.as_file().sync_all()?;
            Ok(copied)
        });
        let (digest, size) = copied.map_err(StoreError::io("store", origin))?;
        let path = self.path_of("blobs", &digest);
        make_shard(&path)?;
        persist(file, &path)?;
        Ok((digest, size))
    }

    /// A new empty folder in the store, removed when dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn scratch(&self) -> Result<TempDir, StoreError> {
        let folder = self.session.folder();
        tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(folder)
            .map_err(StoreError::io("make a folder in", folder))
    }

    pub(super) fn temporary_file(&self) -> Result<NamedTempFile, StoreError> {
        let folder = self.session.folder();
        // As any other new file: what others may do with it is the user's umask's business.
        let permissions = Permissions::from_mode(0o666);
        let made = tempfile::Builder::new().permissions(permissions).tempfile_in(folder);
        made.map_err(StoreError::io("make a file in", folder))
    }
}

fn persist(file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    file.persist(path)
        .map(drop)
        .map_err(|error| StoreError::io("write", path)(error.error))
}

/// Makes the folder of `path`, which is one of a section's 256, and makes it last.
fn make_shard(path: &Path) -> Result<(), StoreError> {
    let shard = path.parent().expect("a named file lies in a folder");
    match fs::create_dir(shard) {
        Ok(()) => sync_folder(shard.parent().expect("a section's folder lies in the store")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("make the folder", shard)(error)),
    }
}

/// Makes the names in `folder` last. Some network file systems cannot, and need not be asked twice.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        done => done.map_err(StoreError::io("sync", folder)),
    }
}
