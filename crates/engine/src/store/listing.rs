//! The results in a store, one by one: what each is, how large, and who needs it.
//!
//! A result's bytes are those of its artifact's files; its own bytes are what only it holds, and what would go with it.
//! Nothing is changed here but by [`Store::remove_result`], which leaves to garbage collection what the result held.

use super::check::read_if_there;
use super::durable::sync_folder;
use super::holdings::remove_file;
use super::inventory::Named;
use super::result::parse_result;
use super::{Store, StoreError};
use crate::action::Kind;
use crate::artifact::Tree;
use crate::digest::Digest;
use crate::key::ActionKey;
use crate::record::{recorded_keys, recorded_names};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

/// What an action was called in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedName {
    /// The recipe.
    pub recipe: String,
    /// The step.
    pub step: String,
    /// The action.
    pub action: String,
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedResult {
    /// Its key.
    pub key: ActionKey,
    /// The action's kind.
    pub kind: Kind,
    /// Its artifact.
    pub tree: Digest,
    /// Bytes of the artifact's files; nothing if the list of them is gone.
    pub bytes: Option<u64>,
    /// Bytes of files that are in the store and that it alone refers to, and those of its own records.
    pub own_bytes: u64,
    /// When it was made.
    pub made: SystemTime,
    /// Whether one of a recipe's last runs needed it, or a registered lock file names it.
    pub is_root: bool,
    /// What it was called by recorded runs, the newest first; one name a recipe.
    pub names: Vec<RecordedName>,
}

/// What a store has of an artifact.
struct Artifact {
    file_bytes: u64,
    blobs: BTreeMap<Digest, u64>,
    results: usize,
}

impl Store {
    /// All whole results, oldest first. Roots are what the last `keep_last` runs of each recipe and profile needed, and
    /// what registered lock files name.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn results(&self, keep_last: usize) -> Result<Vec<ListedResult>, StoreError> {
        let mut roots = recorded_keys(self, keep_last)?.recent;
        roots.extend(self.registered()?.keys);
        let mut names = recorded_names(self)?;
        let mut results = Vec::new();
        let mut artifacts: HashMap<Digest, Artifact> = HashMap::new();
        for file in self.named("results")? {
            let text = read_if_there(&file.path)?.unwrap_or_default();
            let Some(result) = parse_result(&text).filter(|result| *result.key.digest() == file.digest) else {
                continue;
            };
            if let Some(artifact) = artifacts.get_mut(&result.tree) {
                artifact.results += 1;
            } else if let Some(artifact) = self.artifact(&result.tree)? {
                artifacts.insert(result.tree, artifact);
            }
            results.push((file, result));
        }
        let present: HashSet<Digest> = self.named("blobs")?.into_iter().map(|blob| blob.digest).collect();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for blob in artifacts.values().flat_map(|artifact| artifact.blobs.keys()) {
            *users.entry(*blob).or_default() += 1;
        }
        let mut listed: Vec<ListedResult> = results
            .into_iter()
            .map(|(file, result)| {
                let artifact = artifacts.get(&result.tree);
                ListedResult {
                    key: result.key,
                    kind: result.kind,
                    tree: result.tree,
                    bytes: artifact.map(|artifact| artifact.blobs.values().sum()),
                    own_bytes: own_bytes(&file, artifact, |blob| present.contains(blob) && users[blob] == 1),
                    made: file.modified,
                    is_root: roots.contains(&result.key),
                    names: names.remove(&result.key).unwrap_or_default(),
                }
            })
            .collect();
        listed.sort_by_key(|result| (result.made, result.key));
        Ok(listed)
    }

    /// Removes the result of `key`, so that its action runs again when it is next needed; whether there was one. Its
    /// artifact stays until garbage is collected. A running build that found it earlier goes on with it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove_result(&self, key: &ActionKey) -> Result<bool, StoreError> {
        self.require_writable()?;
        let path = self.path_of("results", key.digest());
        if !path.exists() {
            return Ok(false);
        }
        remove_file(&path)?;
        sync_folder(path.parent().expect("a result lies in a folder"))?;
        Ok(true)
    }

    fn artifact(&self, tree: &Digest) -> Result<Option<Artifact>, StoreError> {
        let json = read_if_there(&self.path_of("trees", tree))?.unwrap_or_default();
        let Ok(tree) = serde_json::from_slice::<Tree>(&json) else {
            return Ok(None);
        };
        Ok(Some(Artifact {
            file_bytes: json.len() as u64,
            blobs: tree.entries().iter().map(|entry| (entry.digest, entry.size)).collect(),
            results: 1,
        }))
    }
}

fn own_bytes(file: &Named, artifact: Option<&Artifact>, is_own: impl Fn(&Digest) -> bool) -> u64 {
    let Some(artifact) = artifact.filter(|artifact| artifact.results == 1) else {
        return file.bytes;
    };
    let alone = artifact.blobs.iter().filter(|(blob, _)| is_own(blob));
    file.bytes + artifact.file_bytes + alone.map(|(_, bytes)| bytes).sum::<u64>()
}
