//! The stat cache: the digests of external inputs, so that a large one that is as it was is not read again.
//!
//! An entry is named by the digest of the input's canonical path and has two lines, the entry as JSON and the digest of
//! that name and the first line. Invariants: an entry is believed only if it is whole, under its own name, not from the
//! future, and of the very stamp that the file has now, which was settled when the file was read; whatever else is
//! found, or goes wrong, only means that the file is read.

use super::Store;
use super::check::read_if_there;
use crate::digest::Digest;
use crate::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Smaller files are read each time: that is as quick.
const SMALLEST: u64 = 64 << 10;

/// What is remembered of an input.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Its path, for people.
    path: String,
    stamp: Stamp,
    digest: Digest,
    /// When it was read, in milliseconds since 1970.
    read_millis: u64,
}

impl Store {
    /// The digest of the file at `path`, which has the stamp `stamp`, if it was read since it changed and
    /// before `now`.
    pub(crate) fn known_digest(&self, path: &Path, stamp: &Stamp, now: SystemTime) -> Option<Digest> {
        if stamp.size < SMALLEST {
            return None;
        }
        let (_, name) = self.stat_name(path)?;
        let text = read_if_there(&self.path_of("stat", &name)).ok()??;
        let entry = parse_entry(&name, &text)?;
        let read = UNIX_EPOCH.checked_add(Duration::from_millis(entry.read_millis))?;
        let is_valid = entry.stamp == *stamp && stamp.is_settled(read) && read <= now;
        is_valid.then_some(entry.digest)
    }

    /// Remembers that the file at `path` had the digest `digest` when it had the stamp `stamp` and was read at `read`.
    pub(crate) fn remember_digest(&self, path: &Path, stamp: &Stamp, digest: Digest, read: SystemTime) {
        if stamp.size < SMALLEST || !stamp.is_settled(read) {
            return;
        }
        let Some((path, name)) = self.stat_name(path) else {
            return;
        };
        let since = read.duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Entry {
            path: path.to_string_lossy().into_owned(),
            stamp: stamp.clone(),
            digest,
            read_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        let line = serde_json::to_string(&entry).expect("an entry is plain JSON");
        let text = format!("{line}\n{}\n", check_of(&name, &line));
        if let Err(error) = self.write_named("stat", &name, text.as_bytes()) {
            tracing::debug!(%error, "the digest of an input could not be remembered");
        }
    }

    /// The canonical path of an input, and the name of its entry.
    fn stat_name(&self, path: &Path) -> Option<(PathBuf, Digest)> {
        let path = path.canonicalize().ok()?;
        let name = Digest::of_bytes(path.as_os_str().as_encoded_bytes());
        Some((path, name))
    }
}

/// Whether a file of the stat cache holds an entry of its name.
pub(super) fn is_entry(name: &Digest, text: &[u8]) -> bool {
    parse_entry(name, text).is_some()
}

fn parse_entry(name: &Digest, text: &[u8]) -> Option<Entry> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let line = lines.next()?;
    let check: Digest = lines.next()?.parse().ok()?;
    if check_of(name, line) == check {
        serde_json::from_str(line).ok()
    } else {
        None
    }
}

fn check_of(name: &Digest, line: &str) -> Digest {
    Digest::of_bytes(&[name.as_bytes(), line.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    struct Fixture {
        folder: TempDir,
        store: Store,
        path: PathBuf,
        /// Some seconds after the input was written.
        now: SystemTime,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("data");
            fs::write(&path, vec![1; SMALLEST as usize]).unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            let now = SystemTime::now() + Duration::from_secs(10);
            Self {
                folder,
                store,
                path,
                now,
            }
        }

        fn stamp(&self) -> Stamp {
            Stamp::of(&self.path).unwrap()
        }

        fn remember(&self) {
            self.store
                .remember_digest(&self.path, &self.stamp(), digest(), self.now);
        }

        fn known(&self, now: SystemTime) -> Option<Digest> {
            self.store.known_digest(&self.path, &self.stamp(), now)
        }

        fn entry(&self) -> PathBuf {
            self.store.path_of("stat", &self.store.stat_name(&self.path).unwrap().1)
        }
    }

    /// No file's: it shows that nothing was read.
    fn digest() -> Digest {
        Digest::of_bytes(b"remembered")
    }

    #[test]
    fn an_entry_is_believed_when_it_is_past_and_was_settled() {
        let fixture = Fixture::new();
        assert_eq!(fixture.known(fixture.now), None);
        let soon = SystemTime::now();
        fixture
            .store
            .remember_digest(&fixture.path, &fixture.stamp(), digest(), soon);
        assert!(!fixture.entry().exists(), "written in the same tick, perhaps");
        fixture.remember();
        assert_eq!(fixture.known(fixture.now), Some(digest()));
        assert_eq!(
            fixture.known(fixture.now - Duration::from_secs(1)),
            None,
            "the clock was set back"
        );
        let link = fixture.folder.path().join("link");
        std::os::unix::fs::symlink(&fixture.path, &link).unwrap();
        assert_eq!(
            fixture.store.known_digest(&link, &fixture.stamp(), fixture.now),
            Some(digest())
        );
    }

    #[test]
    fn other_content_of_the_same_size_and_time_is_no_longer_known() {
        let fixture = Fixture::new();
        fixture.remember();
        let modified = fs::metadata(&fixture.path).unwrap().modified().unwrap();
        let set_back = |path: &Path| fs::File::open(path).unwrap().set_modified(modified).unwrap();
        // In place; the kernel's clock has moved on by then.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&fixture.path, vec![2; SMALLEST as usize]).unwrap();
        set_back(&fixture.path);
        assert_eq!(fixture.known(fixture.now), None);
        fixture.remember();
        let other = fixture.folder.path().join("other");
        fs::write(&other, vec![3; SMALLEST as usize]).unwrap();
        set_back(&other);
        fs::rename(&other, &fixture.path).unwrap();
        assert_eq!(fixture.known(fixture.now), None);
        let tomorrow = fixture.now + Duration::from_secs(86_400);
        fs::File::open(&fixture.path).unwrap().set_modified(tomorrow).unwrap();
        fixture.remember();
        assert_eq!(
            fixture.known(fixture.now),
            None,
            "a time in the future is never believed"
        );
    }

    #[test]
    fn what_is_damaged_or_foreign_is_ignored_and_replaced() {
        let fixture = Fixture::new();
        fixture.remember();
        let whole = fs::read_to_string(fixture.entry()).unwrap();
        let flipped = whole.replacen("65536", "65537", 1);
        let (_, other) = fixture.store.stat_name(fixture.folder.path()).unwrap();
        let line = whole.lines().next().unwrap();
        let foreign = format!("{line}\n{}\n", check_of(&other, line));
        for text in [&flipped, &foreign, &whole[..whole.len() / 2], "", "\u{1}"] {
            fs::write(fixture.entry(), text).unwrap();
            assert_eq!(fixture.known(fixture.now), None, "{text:?}");
            assert!(!is_entry(
                &fixture.store.stat_name(&fixture.path).unwrap().1,
                text.as_bytes()
            ));
            fixture.remember();
            assert_eq!(fixture.known(fixture.now), Some(digest()));
        }
        fs::remove_file(fixture.entry()).unwrap();
        fs::create_dir(fixture.entry()).unwrap();
        fixture.remember();
        assert_eq!(
            fixture.known(fixture.now),
            None,
            "what cannot be written is done without"
        );
    }

    #[test]
    fn a_small_file_is_read_each_time() {
        let fixture = Fixture::new();
        fs::write(&fixture.path, "small").unwrap();
        fixture.remember();
        assert!(!fixture.entry().exists());
    }
}
