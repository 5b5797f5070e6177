//! An artifact: a content-addressed tree of files, what an action leaves behind.
//!
//! Invariants of a [`Tree`], held by its constructor and when it is read back: entries are sorted by path and unique; a
//! path is relative, with `/` between names that are neither empty, `.` nor `..`, without control characters or
//! backslashes; no file is also the folder of another; no name begins with `.orchestrate`, which is ours.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// Names that begin so are kept for what the store itself puts beside a materialized artifact.
pub(crate) const RESERVED_PREFIX: &str = ".orchestrate";

const DOMAIN: &[u8] = b"orchestrate tree 1\n";

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Where it lies in the tree.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// The files of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TreeEntry>", into = "Vec<TreeEntry>")]
pub struct Tree {
    entries: Vec<TreeEntry>,
}

/// A set of entries that makes no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A path that may not be in a tree.
    #[error("`{}` cannot be a path in an artifact: {problem}", path.escape_debug())]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path that comes twice, or is a file and a folder.
    #[error("`{path}` comes more than once in an artifact")]
    Twice {
        /// The path.
        path: String,
    },
}

impl Tree {
    /// A tree of `entries`, in any order.
    ///
    /// # Errors
    /// [`TreeError`] if they break an invariant.
    pub fn new(mut entries: Vec<TreeEntry>) -> Result<Self, TreeError> {
        entries.sort();
        for entry in &entries {
            check_path(&entry.path)?;
        }
        let paths: std::collections::BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        let folders = |path: &'_ str| path.match_indices('/').map(|(at, _)| at).collect::<Vec<_>>();
        let is_folder_too = |entry: &&TreeEntry| {
            folders(&entry.path)
                .into_iter()
                .any(|at| paths.contains(&entry.path[..at]))
        };
        let twice = entries
            .windows(2)
            .find(|pair| pair[0].path == pair[1].path)
            .map(|pair| &pair[0]);
        if let Some(entry) = twice.or_else(|| entries.iter().find(is_folder_too)) {
            return Err(TreeError::Twice {
                path: entry.path.clone(),
            });
        }
        Ok(Self { entries })
    }

    /// Its files, sorted by path.
    #[must_use]
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// Sum of its files' sizes in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// The artifact's digest: blake3 of the tag `orchestrate tree 1\n`, the number of entries and, for each in order,
    /// the length of its path, the path, its size and its digest; numbers are 64-bit little-endian.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = DOMAIN.to_vec();
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            bytes.extend((entry.path.len() as u64).to_le_bytes());
            bytes.extend(entry.path.as_bytes());
            bytes.extend(entry.size.to_le_bytes());
            bytes.extend(entry.digest.as_bytes());
        }
        Digest::of_bytes(&bytes)
    }
}

pub(crate) fn check_path(path: &str) -> Result<(), TreeError> {
    let bad = |problem| {
        Err(TreeError::BadPath {
            path: path.to_owned(),
            problem,
        })
    };
    if path.starts_with('/') {
        return bad("it is absolute");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return bad("it has a control character or a backslash");
    }
    for name in path.split('/') {
        match name {
            "" => return bad("it has an empty name"),
            "." | ".." => return bad("it has a `.` or `..`"),
            _ if name.starts_with(RESERVED_PREFIX) => return bad("names that begin with `.orchestrate` are reserved"),
            _ => {}
        }
    }
    Ok(())
}

impl TryFrom<Vec<TreeEntry>> for Tree {
    type Error = TreeError;

    fn try_from(entries: Vec<TreeEntry>) -> Result<Self, TreeError> {
        Self::new(entries)
    }
}

impl From<Tree> for Vec<TreeEntry> {
    fn from(tree: Tree) -> Self {
        tree.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &str) -> TreeEntry {
        TreeEntry {
            path: path.into(),
            size: content.len() as u64,
            digest: Digest::of_bytes(content.as_bytes()),
        }
    }

    #[test]
    fn digest_is_golden_and_ignores_the_order_given() {
        let tree = Tree::new(vec![entry("b/c", "2"), entry("a", "1")]).unwrap();
        assert_eq!(tree, Tree::new(vec![entry("a", "1"), entry("b/c", "2")]).unwrap());
        insta::assert_snapshot!(tree.digest(), @"f8786d43e4ac3b3308d9b1b8650f8b2350f5aab4ad348d54bf4857e62f1671ae");
        assert_ne!(tree.digest(), Tree::new(vec![entry("a", "1")]).unwrap().digest());
        assert_ne!(
            tree.digest(),
            Tree::new(vec![entry("a", "1"), entry("b/d", "2")]).unwrap().digest()
        );
    }

    #[test]
    fn hostile_paths_are_refused_also_when_read() {
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "a\0b",
            "a\nb",
            "a\\b",
            ".orchestrate.json",
        ] {
            let entry = entry(path, "");
            let json = serde_json::to_string(&[&entry]).unwrap();
            assert!(
                matches!(Tree::new(vec![entry]), Err(TreeError::BadPath { .. })),
                "{path:?}"
            );
            assert!(serde_json::from_str::<Tree>(&json).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_path_comes_once_and_is_file_or_folder() {
        for paths in [["a", "a"], ["a", "a/b"], ["a/b/c", "a"]] {
            let entries = paths.iter().map(|path| entry(path, path)).collect();
            assert!(matches!(Tree::new(entries), Err(TreeError::Twice { .. })), "{paths:?}");
        }
        assert!(Tree::new(vec![entry("a.b", ""), entry("a", ""), entry("ab/c", "")]).is_ok());
    }
}
