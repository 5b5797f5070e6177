//! A file's stamp: what changes whenever its content does, if one waits long enough.
//!
//! Invariant: a stamp stands for a content only if it was settled when the content was read: all its times were so long
//! past that a later change could not have left them the same. One with a time in the future, which a clock that was
//! set back leaves behind, is not settled. It does not see a program that has the file mapped and writes to it: the
//! kernel tells those changes with a delay.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// File systems tell times as coarsely as this.
const COARSEST_TIME: Duration = Duration::from_secs(2);

/// What a file system tells of a file's content without reading it. Times are seconds and nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of the file at `path`, links followed.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            size: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// What tells that the file of this stamp is another or was changed when it has the stamp `later`, in words.
    pub(crate) fn change(&self, later: &Self) -> Option<&'static str> {
        if (self.device, self.inode) != (later.device, later.inode) {
            Some("another file is in its place")
        } else if self.size != later.size {
            Some("its size is another")
        } else if self.modified != later.modified {
            Some("its time of modification is another")
        } else if self.changed != later.changed {
            Some("its time of change is another")
        } else {
            None
        }
    }

    /// Whether the file had long been left alone at the time `now`.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(0);
        let last = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        last.is_some_and(|last| now.duration_since(last).is_ok_and(|age| age > COARSEST_TIME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_settled_when_both_times_are_past_by_more_than_a_tick() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let stamp = |modified, changed| Stamp {
            size: 1,
            device: 1,
            inode: 1,
            modified: (modified, 999_999_999),
            changed: (changed, 0),
        };
        assert!(stamp(100, 90).is_settled(at(103)) && stamp(90, 100).is_settled(at(103)));
        assert!(!stamp(100, 90).is_settled(at(102)) && !stamp(90, 100).is_settled(at(102)));
        assert!(
            !stamp(200, 90).is_settled(at(103)) && !stamp(90, 200).is_settled(at(103)),
            "the future"
        );
        assert!(stamp(-5, -5).is_settled(at(103)) && !stamp(i64::MAX, 0).is_settled(at(103)));
    }
}
