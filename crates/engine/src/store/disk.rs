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
use std::thread::JoinHandle;
use std::time::SystemTime;

/// As any other new file: what others may do with it is the user's umask's business.
pub(super) const WRITABLE: u32 = 0o666;
/// Read-only for all.
pub(super) const READ_ONLY: u32 = 0o444;

/// Of a large file so much is sent to the disk at a time while more is written, so that the last sync has less to wait for.
/// Tests have small files.
const SENT_AT_A_TIME: usize = if cfg!(test) { 1 << 10 } else { 64 << 20 };

/// A file that was made here and is being written, from its beginning on.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    /// Bytes written since something was last sent to the disk.
    unsent: usize,
    /// What sends it.
    sending: Option<JoinHandle<io::Result<()>>>,
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
            unsent: 0,
            sending: None,
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

    /// Makes the file, to which nothing was written yet, hold what `source` holds without copying it, and returns whether
    /// the file system can. The two share the bytes until one of them is written to; neither sees what is written to the
    /// other. After false, and after an error, the file is to be written as any other.
    pub(super) fn share(&mut self, source: &File) -> io::Result<bool> {
        if !share_bytes(&self.file, source) {
            return Ok(false);
        }
        // Told when it is made, for only then is it known that it can be.
        #[cfg(test)]
        faults::before_write(&self.path, &mut io::sink(), &read_all(source)?)?;
        Ok(true)
    }

    /// Makes what was written last.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        #[cfg(test)]
        faults::before(Change::SyncFile(self.path.clone()))?;
        self.wait_until_sent()?;
        self.file.sync_all()
    }

    fn send(&mut self) -> io::Result<()> {
        self.wait_until_sent()?;
        let file = self.file.try_clone()?;
        self.sending = Some(std::thread::spawn(move || file.sync_data()));
        self.unsent = 0;
        Ok(())
    }

    /// The system tells an error of the disk to one sync alone, which may be an earlier one.
    fn wait_until_sent(&mut self) -> io::Result<()> {
        match self.sending.take() {
            Some(sending) => sending.join().expect("a sync does not panic"),
            None => Ok(()),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        faults::before_write(&self.path, &mut self.file, bytes)?;
        let written = self.file.write(bytes)?;
        self.unsent += written;
        if self.unsent >= SENT_AT_A_TIME && self.sending.as_ref().is_none_or(JoinHandle::is_finished) {
            self.send()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether `file` now shares the bytes of `source`. What stands in the way is told by those who copy them then.
#[cfg(target_os = "linux")]
fn share_bytes(file: &File, source: &File) -> bool {
    rustix::fs::ioctl_ficlone(file, source).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn share_bytes(_: &File, _: &File) -> bool {
    false
}

#[cfg(test)]
fn read_all(mut source: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut source, &mut bytes)?;
    Ok(bytes)
}

/// Opens the file `path` to lock it, and makes it if it is not there; what is in it does not matter.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    faults::before(Change::MakeFile(path.to_owned()))?;
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Puts `text` in the place of what the file `path` holds, which is open as `file` and of which nothing was read or written
/// yet. Half of the old text and half of the new one may be seen meanwhile.
///
/// The file is cut after it is written: files that were empty in between are sent to the disk when they are closed (ext4's
/// `auto_da_alloc`), which a lease that is removed would wait for.
#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "tests alone are told of changes by path")
)]
pub(super) fn write_lock(mut file: &File, path: &Path, text: &[u8]) -> io::Result<()> {
    let written = (|| {
        #[cfg(test)]
        faults::before_overwrite(path, &mut file, text)?;
        file.write_all(text)?;
        file.set_len(text.len() as u64)
    })();
    // What was there before is not to stay.
    written.or_else(|error| file.set_len(0).and(Err(error)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_while_more_is_written_is_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(&folder.path().join("file")).unwrap();
        let bytes: Vec<u8> = (0..100 * SENT_AT_A_TIME).map(|i| (i % 251) as u8).collect();
        for piece in bytes.chunks(SENT_AT_A_TIME / 3) {
            file.write_all(piece).unwrap();
        }
        assert!(file.sending.is_some());
        file.sync().unwrap();
        assert!(file.sending.is_none());
        assert_eq!(fs::read(file.path()).unwrap(), bytes);
    }

    #[test]
    fn files_that_share_their_bytes_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("source"), "bytes").unwrap();
        let source = File::open(path("source")).unwrap();
        let mut file = NewFile::create(&path("file")).unwrap();
        let expected = if file.share(&source).unwrap() {
            eprintln!("bytes are shared here");
            "bytes"
        } else {
            eprintln!(
                "the file system of {} shares no bytes: not tested",
                folder.path().display()
            );
            ""
        };
        file.sync().unwrap();
        assert_eq!(fs::read_to_string(path("file")).unwrap(), expected);
        fs::write(path("file"), "edited").unwrap();
        assert_eq!(fs::read_to_string(path("source")).unwrap(), "bytes");
    }
}
