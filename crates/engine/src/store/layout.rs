//! The folders and marks of a store, and the version of their arrangement.
//!
//! Invariants: the format file is written last, so that a store that has one is complete; nothing is written into a
//! folder that holds anything but a store. Marks that were lost or damaged are written again: of the format file that
//! can be told because it carries its own digest.

use super::check::read_if_there;
use super::occupancy::LOCK_FILE;
use super::{Store, StoreError, disk};
use crate::digest::Digest;
use std::fs;
use std::io;
use std::path::Path;

/// The newest arrangement that is known, and the one that is made.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";

const SECTIONS: [&str; 11] = [
    "blobs",
    "trees",
    "keys",
    "results",
    "runs",
    "stat",
    "leases",
    "checkpoints",
    "tmp",
    "quarantine",
    ROOTS,
];
/// Stores of earlier versions lack this one.
const ROOTS: &str = "roots";

/// Tells backup programs to leave the folder out; the signature is the specification's (bford.info/cachedir).
const TAG_FILE: &str = "CACHEDIR.TAG";
const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55";
const IGNORE_FILE: &str = ".gitignore";

/// Whether `root` is a store that we can read, or may become one.
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join(FORMAT_FILE);
    let not_writable = |source| StoreError::NotWritable {
        path: root.to_owned(),
        source,
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return check_unused(root),
        Err(source) => return Err(not_writable(source)),
    };
    match parse_format(&text) {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => Err(StoreError::NewerFormat {
            path: root.to_owned(),
            found,
            known: FORMAT,
        }),
        // Damaged, but no other folder has all of these.
        Some(_) | None => {
            let mut sections = SECTIONS.iter().filter(|section| **section != ROOTS);
            if sections.all(|section| root.join(section).is_dir()) {
                Ok(())
            } else {
                Err(StoreError::BadFormat { path })
            }
        }
    }
}

/// The format that a format file tells: a line with its number, and one with the digest of the first. The second was
/// not always written: the number that it went without is believed alone.
fn parse_format(text: &[u8]) -> Option<u32> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let line = lines.next()?;
    let format: u32 = line.parse().ok()?;
    let is_whole = match lines.next() {
        Some(digest) => digest.parse() == Ok(Digest::of_bytes(line.as_bytes())),
        None => format == FORMAT,
    };
    is_whole.then_some(format)
}

fn check_unused(root: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(StoreError::NotWritable {
                path: root.to_owned(),
                source,
            });
        }
    };
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", root))?.file_name();
        let is_ours = SECTIONS
            .iter()
            .chain(&[TAG_FILE, IGNORE_FILE, LOCK_FILE])
            .any(|ours| name == *ours);
        if !is_ours {
            return Err(StoreError::NotAStore {
                path: root.to_owned(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

/// Makes the folders that are missing.
pub(super) fn create(root: &Path) -> io::Result<()> {
    SECTIONS
        .iter()
        .try_for_each(|section| disk::make_folders(&root.join(section)))
}

/// Writes the marks that are missing or damaged, the format file last.
pub(super) fn seal(store: &Store) -> Result<(), StoreError> {
    let tag = store.root.join(TAG_FILE);
    if !read_if_there(&tag)?.is_some_and(|text| text.starts_with(SIGNATURE.as_bytes())) {
        let text = format!("{SIGNATURE}\n# This folder is a cache of orchestrate: all of it can be made again.\n");
        store.write_file(&tag, text.as_bytes())?;
    }
    let ignore = store.root.join(IGNORE_FILE);
    if !ignore.exists() {
        store.write_file(&ignore, b"*\n")?;
    }
    let path = store.root.join(FORMAT_FILE);
    if read_if_there(&path)?.and_then(|text| parse_format(&text)) != Some(FORMAT) {
        let line = FORMAT.to_string();
        let text = format!("{line}\n{}\n", Digest::of_bytes(line.as_bytes()));
        store.write_file(&path, text.as_bytes())?;
    }
    Ok(())
}
