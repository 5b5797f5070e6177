//! The lock file of a recipe: which key, artifact and inputs each action had when the lock was made.
//!
//! It is sorted TOML that users commit. An action's key document is in it whole, so that a difference can be told where
//! nothing else of that build is left. A lock is held to all that it says: keys, artifacts, numerics classes and external
//! files. Invariants of what was read: each document has the key that stands beside it;
//! paths of inputs are relative to the recipe's folder where they lie below it.

use crate::steps::training::name_of_class;
use orchestrate_engine::{
    Action, ActionGraph, ActionId, ActionKey, Change, Digest, Input, InputDigest, KeyDocument, changes,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The only arrangement there is.
const VERSION: u32 = 1;

const HEAD: &str =
    "# Written by `orchestrate lock`, held by `orchestrate build --locked`: commit it, and do not edit it.\n\n";

/// A lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Version of the program that made it.
    pub tool: String,
    /// External files by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub input: BTreeMap<String, LockedFile>,
    /// Actions by name.
    pub action: BTreeMap<String, LockedAction>,
}

/// An external file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl fmt::Display for LockedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of digest {}", self.size, self.digest.short())
    }
}

/// An action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedAction {
    /// The recipe's step that it belongs to.
    pub step: String,
    /// Its numerics class, which is in the document, too: to be seen at a glance.
    pub numerics: String,
    /// Its key.
    pub key: ActionKey,
    /// Digest of what it made.
    pub artifact: Digest,
    /// Its key document.
    #[serde(with = "as_json")]
    pub document: KeyDocument,
}

/// Why a lock file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read or written.
    #[error("cannot {action} the lock file {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is none.
    #[error("there is no lock file {}: make it with `orchestrate lock`, and commit it", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// It is no lock file, or was edited.
    #[error("{} is no lock file that this version knows: {problem}; `orchestrate lock --rebuild` writes it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A difference between a lock and the present.
#[derive(Debug, Clone, PartialEq)]
pub enum LockDifference {
    /// The recipe has an action that is not locked.
    New {
        /// The action.
        action: String,
    },
    /// The recipe no longer has a locked action.
    Gone {
        /// The action.
        action: String,
    },
    /// An external file has another content.
    Input {
        /// The file.
        path: String,
        /// What is locked.
        locked: LockedFile,
        /// What it is.
        found: LockedFile,
    },
    /// The action has another numerics class.
    Numerics {
        /// The action.
        action: String,
        /// What is locked.
        locked: String,
        /// What it is.
        found: String,
    },
    /// The action has another key, for more than the content of external files and the numerics class.
    Changed {
        /// The action.
        action: String,
        /// In what.
        changes: Vec<Change>,
    },
    /// The action has the same key and made something else.
    Artifact {
        /// The action.
        action: String,
        /// What is locked.
        locked: Digest,
        /// What it made.
        made: Digest,
    },
}

impl fmt::Display for LockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New { action } => write!(f, "{action}: is not in the lock"),
            Self::Gone { action } => write!(f, "{action}: is locked, but the recipe has no such action any more"),
            Self::Input { path, locked, found } => write!(f, "input file {path}: {locked} → {found}"),
            Self::Numerics { action, locked, found } => {
                write!(f, "{action}: numerics class {locked} → {found}")?;
                match (name_of_class(locked), name_of_class(found)) {
                    (Some(name), Some(_)) => write!(
                        f,
                        "; where the recipe says \"bf16\", that is what is fastest on this processor: `precision = \"{name}\"` is what is locked, on every one"
                    ),
                    _ => Ok(()),
                }
            }
            Self::Changed { action, changes } => {
                let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
                write!(f, "{action}: {}", changes.join("; "))
            }
            Self::Artifact { action, locked, made } => write!(
                f,
                "{action}: made {} where {} is locked, from the same key",
                made.short(),
                locked.short()
            ),
        }
    }
}

impl Lock {
    /// Where the lock of `recipe` lies: beside it, one for each profile.
    pub fn path(recipe: &Path, profile: Option<&str>) -> PathBuf {
        let extension = profile.map_or_else(|| "lock".to_owned(), |profile| format!("{profile}.lock"));
        recipe.with_extension(extension)
    }

    /// The lock of the actions of `graph` that have a `made` document and artifact; `folder` is the recipe's.
    pub fn new(graph: &ActionGraph, made: BTreeMap<ActionId, (KeyDocument, Digest)>, folder: &Path) -> Self {
        let mut lock = Self {
            version: VERSION,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            input: BTreeMap::new(),
            action: BTreeMap::new(),
        };
        for (id, (document, artifact)) in made {
            let action = graph.get(id);
            let files = files_of(action, &document, folder);
            lock.input.extend(files.map(|(_, path, file)| (path, file)));
            let locked = LockedAction {
                step: action.step.clone(),
                numerics: action.numerics.clone(),
                key: document.key(),
                artifact,
                document,
            };
            lock.action.insert(action.name.clone(), locked);
        }
        lock
    }

    /// Reads the lock at `path`.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn read(path: &Path) -> Result<Self, LockError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LockError::Absent { path: path.into() },
            _ => io_error("read", path)(source),
        })?;
        let damaged = |problem: String| LockError::Damaged {
            path: path.into(),
            problem,
        };
        let lock: Self = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        if lock.version != VERSION {
            return Err(damaged(format!("it is of version {}", lock.version)));
        }
        match lock
            .action
            .iter()
            .find(|(_, locked)| locked.document.key() != locked.key)
        {
            Some((name, _)) => Err(damaged(format!("the key of {name} is not that of its document"))),
            None => Ok(lock),
        }
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        let toml = toml::to_string(self).expect("a lock has string keys and no nulls outside its documents");
        format!("{HEAD}{toml}")
    }

    /// Puts it in the place of `path`, whole or not at all: until it is on the disk, what was there stays.
    ///
    /// # Errors
    /// [`LockError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            Some(_) | None => Path::new("."),
        };
        let written = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(folder)
            .and_then(|mut file| {
                file.write_all(self.to_text().as_bytes())?;
                file.as_file().sync_all()?;
                file.persist(path).map_err(|error| error.error)?;
                sync_folder(folder)
            });
        written.map_err(io_error("write", path))
    }

    /// The artifact that is locked for the action `name`.
    pub fn artifact(&self, name: &str) -> Option<Digest> {
        self.action.get(name).map(|locked| locked.artifact)
    }

    /// How the present `documents` of actions of `graph` differ, external files first; `folder` is the recipe's. They are
    /// those that follow from the locked artifacts, so that a difference is told where it arises and not in all that
    /// depends on it. `is_whole` says that they are all of the recipe's rather than those of some steps.
    pub fn differences(
        &self,
        graph: &ActionGraph,
        documents: &BTreeMap<ActionId, Option<KeyDocument>>,
        folder: &Path,
        is_whole: bool,
    ) -> Vec<LockDifference> {
        let by_name: BTreeMap<&str, (&Action, Option<&KeyDocument>)> = documents
            .iter()
            .map(|(id, document)| (graph.get(*id), document.as_ref()))
            .map(|(action, document)| (action.name.as_str(), (action, document)))
            .collect();
        let mut files = BTreeMap::new();
        let mut others = Vec::new();
        for (name, (action, document)) in &by_name {
            let Some(locked) = self.action.get(*name) else {
                let action = (*name).to_owned();
                others.push(LockDifference::New { action });
                continue;
            };
            others.extend(locked.other_numerics(action));
            // Without a document it depends on one that is not locked, of which is told.
            let Some(document) = document else { continue };
            let other_files = self.other_files(action, document, folder);
            let is_told = |change: &Change| match change {
                Change::Input { role, .. } => other_files.contains_key(role),
                Change::Numerics { .. } => locked.numerics != action.numerics,
                Change::Schema { .. } | Change::Kind { .. } | Change::KindVersion { .. } => false,
                // The form of bf16, which is in the class.
                Change::Parameter { path, .. } if path.ends_with("precision") => locked.numerics != action.numerics,
                Change::Seed { .. } | Change::Parameter { .. } => false,
            };
            let mut changes = changes(&locked.document, document);
            changes.retain(|change| !is_told(change));
            if !changes.is_empty() {
                let action = (*name).to_owned();
                others.push(LockDifference::Changed { action, changes });
            }
            files.extend(other_files.into_values());
        }
        if is_whole {
            let gone = self.action.keys().filter(|name| !by_name.contains_key(name.as_str()));
            others.extend(gone.map(|name| LockDifference::Gone { action: name.clone() }));
        }
        let files = files
            .into_iter()
            .map(|(path, [locked, found])| LockDifference::Input { path, locked, found });
        files.chain(others).collect()
    }

    /// Those external files of `action`, by role, that are locked with another content: as locked, and as they are.
    fn other_files(
        &self,
        action: &Action,
        document: &KeyDocument,
        folder: &Path,
    ) -> BTreeMap<String, (String, [LockedFile; 2])> {
        let files = files_of(action, document, folder);
        let differing = files.filter_map(|(role, path, found)| {
            let locked = self.input.get(&path).filter(|locked| **locked != found)?;
            Some((role, (path, [*locked, found])))
        });
        differing.collect()
    }

    /// Which of the artifacts `made`, by action, are not those that are locked.
    pub fn other_artifacts<'a>(&self, made: impl Iterator<Item = (&'a str, Digest)>) -> Vec<LockDifference> {
        let differing = made.filter_map(|(name, made)| {
            let locked = self.artifact(name).filter(|locked| *locked != made)?;
            let action = name.to_owned();
            Some(LockDifference::Artifact { action, locked, made })
        });
        differing.collect()
    }
}

impl LockedAction {
    /// That `action`, which has its name now, has another numerics class, if it does.
    fn other_numerics(&self, action: &Action) -> Option<LockDifference> {
        (self.numerics != action.numerics).then(|| LockDifference::Numerics {
            action: action.name.clone(),
            locked: self.numerics.clone(),
            found: action.numerics.clone(),
        })
    }
}

/// The external files of `action`, whose document `document` is: role, path as locks have it, and content.
fn files_of<'a>(
    action: &'a Action,
    document: &'a KeyDocument,
    folder: &'a Path,
) -> impl Iterator<Item = (String, String, LockedFile)> + 'a {
    action.inputs.iter().filter_map(move |(role, input)| {
        let (Input::File(path), Some(InputDigest::File { digest, size })) = (input, document.inputs.get(role)) else {
            return None;
        };
        let path = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        let (digest, size) = (*digest, *size);
        Some((role.clone(), path, LockedFile { digest, size }))
    })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    let path = path.to_owned();
    move |source| LockError::Io { action, path, source }
}

/// Makes the names in `folder` last. Some network file systems cannot, and need not be asked.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// A key document as a line of JSON: TOML has no word for its nulls.
mod as_json {
    use super::KeyDocument;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(document: &KeyDocument, serializer: S) -> Result<S::Ok, S::Error> {
        let json = serde_json::to_string(document).expect("a key document is plain JSON");
        serializer.serialize_str(&json)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyDocument, D::Error> {
        let json = String::deserialize(deserializer)?;
        serde_json::from_str(&json).map_err(D::Error::custom)
    }
}
