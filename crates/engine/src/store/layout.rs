//! The folders and marks of a store, and the version of their arrangement.
//!
//! Invariant: the format file is written last, so that a store that has one is complete, and nothing is written into a
//! folder that holds anything but a store.

use super::occupancy::LOCK_FILE;
use super::{Store, StoreError};
use std::fs;
use std::io;
use std::path::Path;

/// The newest arrangement that is known, and the one that is made.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";

const SECTIONS: [&str; 9] = [
    "blobs",
    "trees",
    "keys",
    "results",
    "runs",
    "leases",
    "checkpoints",
    "tmp",
    "quarantine",
];

/// Tells backup programs to leave the folder out; the signature is the specification's (bford.info/cachedir).
const TAG_FILE: &str = "CACHEDIR.TAG";
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                   # This folder is a cache of orchestrate: all of it can be made again.\n";
const IGNORE_FILE: &str = ".gitignore";

/// Whether `root` is a store that we can read, or may become one.
pub(super) fn check(root: &Path) -> Result<(), StoreError> {
    let path = root.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(FORMAT) => Ok(()),
            Ok(found) if found > FORMAT => Err(StoreError::NewerFormat {
                path: root.to_owned(),
                found,
                known: FORMAT,
            }),
            Ok(_) | Err(_) => Err(StoreError::BadFormat { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_unused(root),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StoreError::BadFormat { path }),
        Err(source) => Err(StoreError::NotWritable {
            path: root.to_owned(),
            source,
        }),
    }
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

/// Makes what is missing, the format file aside.
pub(super) fn create(root: &Path) -> io::Result<()> {
    for section in SECTIONS {
        fs::create_dir_all(root.join(section))?;
    }
    for (name, content) in [(TAG_FILE, TAG), (IGNORE_FILE, "*\n")] {
        let path = root.join(name);
        if !path.exists() {
            fs::write(path, content)?;
        }
    }
    Ok(())
}

/// Writes the format file if there is none.
pub(super) fn seal(store: &Store) -> Result<(), StoreError> {
    let path = store.root.join(FORMAT_FILE);
    if path.exists() {
        Ok(())
    } else {
        store.write_file(&path, format!("{FORMAT}\n").as_bytes())
    }
}
