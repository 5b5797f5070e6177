//! Faults on purpose: the tests that stop, refuse or forget any change that the engine makes on disk.
//!
//! [`disk`](super::disk) tells each change to [`before`] before it is made, in tests of this crate only. A [`Watch`]
//! lists those below one folder and may put a [`Fault`] in the place of one. Folders that are not watched are not
//! disturbed, so that other tests may run at the same time.

mod full;
mod kill;
mod model;
mod power_cut;
mod scenario;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What a process says that stands still before a change.
const STOPPED: &str = "stopped before a change";

/// The number by which Unix systems tell that a disk is full.
const ENOSPC: i32 = 28;

/// A change on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    MakeFolder(PathBuf),
    /// Of a file that may be there.
    MakeFile(PathBuf),
    /// At the end of a file.
    Write(PathBuf, Vec<u8>),
    /// In the place of all that a file holds.
    Overwrite(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    /// Of a file, or of a folder with all that is in it.
    Remove(PathBuf),
    /// Of a folder that may not be empty.
    RemoveEmpty(PathBuf),
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::MakeFolder(path)
            | Self::MakeFile(path)
            | Self::Write(path, _)
            | Self::Overwrite(path, _)
            | Self::SyncFile(path)
            | Self::SyncFolder(path)
            | Self::Rename(path, _)
            | Self::Remove(path)
            | Self::RemoveEmpty(path) => path,
        }
    }

    /// Whether it cannot be made on a disk that is full.
    fn takes_space(&self) -> bool {
        match self {
            Self::MakeFolder(path) | Self::MakeFile(path) => !path.exists(),
            Self::Write(..) | Self::Overwrite(..) | Self::SyncFile(_) | Self::SyncFolder(_) | Self::Rename(..) => true,
            Self::Remove(_) | Self::RemoveEmpty(_) => false,
        }
    }
}

/// What happens in the place of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process stands still, for the test to kill it.
    Stop,
    /// As that, after half of what was to be written.
    StopWithin,
    /// The disk is full for this one change, of which half is made if it is a write.
    FullOnce,
    /// The disk is full from this change on.
    FullFromHere,
}

/// Watches the changes below one folder until it is dropped.
struct Watch(Arc<Watched>);

struct Watched {
    folder: PathBuf,
    fault: Option<(usize, Fault)>,
    /// Locked while the process stands still, so that no other thread changes anything either.
    changes: Mutex<Vec<Change>>,
}

static WATCHED: Mutex<Vec<Arc<Watched>>> = Mutex::new(Vec::new());

impl Watch {
    /// Watches `folder`; `fault` comes in the place of the change of that number.
    fn start(folder: &Path, fault: Option<(usize, Fault)>) -> Self {
        let watched = Arc::new(Watched {
            folder: folder.to_owned(),
            fault,
            changes: Mutex::new(Vec::new()),
        });
        WATCHED.lock().unwrap().push(Arc::clone(&watched));
        Self(watched)
    }

    /// The changes so far.
    fn changes(&self) -> Vec<Change> {
        self.0.changes.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.lock().unwrap().retain(|watched| !Arc::ptr_eq(watched, &self.0));
    }
}

impl Watched {
    /// Notes `change`, or does what comes in its place; `half` makes half of it.
    fn meet(&self, change: Change, half: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut changes = self.changes.lock().unwrap();
        let number = changes.len();
        let takes_space = change.takes_space();
        changes.push(change);
        match self.fault {
            Some((at, Fault::Stop)) if at == number => stand_still(),
            Some((at, Fault::StopWithin)) if at == number => {
                half()?;
                stand_still()
            }
            Some((at, Fault::FullOnce)) if at == number => {
                half()?;
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            Some((at, Fault::FullFromHere)) if at <= number && takes_space => Err(io::Error::from_raw_os_error(ENOSPC)),
            Some((_, Fault::Stop | Fault::StopWithin | Fault::FullOnce | Fault::FullFromHere)) | None => Ok(()),
        }
    }
}

fn stand_still() -> ! {
    writeln!(io::stdout(), "{STOPPED}").expect("the test listens");
    loop {
        std::thread::park();
    }
}

/// What is called before any change but a write.
pub(super) fn before(change: Change) -> io::Result<()> {
    watched(change.path()).map_or(Ok(()), |watched| watched.meet(change, &mut || Ok(())))
}

/// What is called before `bytes` are written at the end of `file`.
pub(super) fn before_write(path: &Path, file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    before_bytes(path, file, bytes, Change::Write)
}

/// What is called before `bytes` are written in the place of all that `file` holds.
pub(super) fn before_overwrite(path: &Path, file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    before_bytes(path, file, bytes, Change::Overwrite)
}

fn before_bytes(
    path: &Path,
    file: &mut impl Write,
    bytes: &[u8],
    change: fn(PathBuf, Vec<u8>) -> Change,
) -> io::Result<()> {
    let Some(watched) = watched(path) else { return Ok(()) };
    let change = change(path.to_owned(), bytes.to_owned());
    watched.meet(change, &mut || file.write_all(&bytes[..bytes.len() / 2]))
}

fn watched(path: &Path) -> Option<Arc<Watched>> {
    let all = WATCHED.lock().unwrap();
    all.iter().find(|watched| path.starts_with(&watched.folder)).cloned()
}
