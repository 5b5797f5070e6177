//! Changes of files: the one way by which the engine makes, writes, moves and removes them.
//!
//! Invariants: nothing else in the engine changes what is on disk (a step's own folder aside), so that the tests can
//! stop, refuse or forget any change ([`faults`](super::faults)); outside of tests, nothing stands between a call and
//! the system's. Which changes are made, in which order, and what becomes of errors is the callers' matter.

#[cfg(test)]
use super::faults::{self, Change};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// As any other new file: what others may do with it is the user's umask's business.
pub(super) const WRITABLE: u32 = 0o666;
/// Read-only for all.
pub(super) const READ_ONLY: u32 = 0o444;

/// A file that was made here and is being written, from its beginning on.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
}

impl NewFile {
    /// Makes the file `path`, which must not be there, with those permissions that the umask leaves of `mode`.
    pub(super) fn with_mode(path: &Path, mode: u32) -> io::Result<Self> {
        #[cfg(test)]
        faults::before(Change::MakeFile(path.to_owned()))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Makes the file `path`, which must not be there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::with_mode(path, WRITABLE)
    }

    /// Where it was made.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Locks it, until it is closed; nobody else has had the time to.
    pub(crate) fn lock(&self) -> io::Result<()> {
        self.file.lock()
    }

    /// Makes what was written last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        faults::before(Change::SyncFile(self.path.clone()))?;
        self.file.sync_all()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        faults::before_write(&self.path, &mut self.file, bytes)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens the file `path` to lock it, and makes it if it is not there; what is in it does not matter.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    faults::before(Change::MakeFile(path.to_owned()))?;
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Makes a folder.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::before(Change::MakeFolder(path.to_owned()))?;
    fs::create_dir(path)
}

/// Makes a folder and those that it lies in, as far as they are not there, and makes their names last.
pub(super) fn make_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // That of a plain name is the current folder.
    let parent = path.parent().map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    let made = match (make_folder(path), parent) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(parent)?;
            make_folder(path)
        }
        (made, _) => made,
    };
    match (made, parent) {
        (Ok(()), Some(parent)) => sync_folder(parent),
        // Another process was faster.
        (Err(error), _) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        (made, _) => made,
    }
}

/// Moves a file, in the place of one that may be there.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::before(Change::Rename(from.to_owned(), to.to_owned()))?;
    fs::rename(from, to)
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::before(Change::Remove(path.to_owned()))?;
    fs::remove_file(path)
}

/// Removes a folder that is empty.
pub(super) fn remove_empty_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::before(Change::RemoveEmpty(path.to_owned()))?;
    fs::remove_dir(path)
}

/// Removes a folder and all that lies in it; links are not followed.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::before(Change::Remove(path.to_owned()))?;
    fs::remove_dir_all(path)
}

/// Sets a file's time of modification to that of now.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Makes the names in a folder last. Some network file systems cannot, and need not be asked twice.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::before(Change::SyncFolder(path.to_owned()))?;
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}
