//! What a store holds and what refers to what: results to trees, trees to blobs.
//!
//! Invariants: `bytes` is what is left of results, trees, blobs and key documents once the garbage is gone; a blob is
//! garbage if no result that keeps its bytes refers to it.

use super::check::read_if_there;
use super::durable::sync_folder;
use super::inventory::Named;
use super::result::parse_result;
use super::survey::tally;
use super::{Store, StoreError, Survey, disk};
use crate::artifact::Tree;
use crate::digest::Digest;
use crate::key::ActionKey;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;

/// A result.
pub(super) struct Held {
    pub(super) file: Named,
    pub(super) key: ActionKey,
    tree: Digest,
    is_dropped: bool,
    /// Whether it keeps the bytes of its artifact.
    keeps_bytes: bool,
}

/// A tree or a blob.
struct Referred {
    file: Named,
    /// Of a tree: its blobs, each once.
    refers_to: BTreeSet<Digest>,
    /// How many refer to it; of a blob: how many trees whose bytes are kept.
    users: usize,
    /// Of a tree: how many results keep its bytes.
    keepers: usize,
}

/// What a store holds.
pub(super) struct Holdings<'a> {
    /// The results that are whole.
    pub(super) results: Vec<Held>,
    pub(super) bytes: u64,
    trees: HashMap<Digest, Referred>,
    blobs: HashMap<Digest, Referred>,
    documents: HashMap<Digest, Named>,
    /// Keys whose documents stay without a result: run records name them, and `why` compares with them.
    named: &'a HashSet<ActionKey>,
    /// Damaged results and trees.
    damaged: Garbage,
}

/// What is to be removed.
#[derive(Default)]
pub(super) struct Garbage {
    results: Vec<Named>,
    trees: Vec<Named>,
    blobs: Vec<Named>,
    documents: Vec<Named>,
}

impl<'a> Holdings<'a> {
    /// Reads what `store` holds.
    pub(super) fn read(store: &Store, named: &'a HashSet<ActionKey>) -> Result<Self, StoreError> {
        let mut holdings = Self {
            results: Vec::new(),
            bytes: 0,
            trees: HashMap::new(),
            blobs: referred(store.named("blobs")?),
            documents: HashMap::new(),
            named,
            damaged: Garbage::default(),
        };
        for file in store.named("trees")? {
            let json = read_if_there(&file.path)?.unwrap_or_default();
            match serde_json::from_slice::<Tree>(&json) {
                Ok(tree) if tree.digest() == file.digest => holdings.add_tree(file, &tree),
                Ok(_) | Err(_) => holdings.damaged.trees.push(file),
            }
        }
        let documents = store.named("keys")?;
        holdings.documents = documents.into_iter().map(|file| (file.digest, file)).collect();
        for file in store.named("results")? {
            let text = read_if_there(&file.path)?.unwrap_or_default();
            match parse_result(&text).filter(|result| *result.key.digest() == file.digest) {
                Some(result) => holdings.add_result(file, result.key, result.tree),
                None => holdings.damaged.results.push(file),
            }
        }
        holdings.bytes = holdings.count();
        Ok(holdings)
    }

    fn add_tree(&mut self, file: Named, tree: &Tree) {
        let refers_to = tree.entries().iter().map(|entry| entry.digest).collect();
        self.trees.insert(
            file.digest,
            Referred {
                file,
                refers_to,
                users: 0,
                keepers: 0,
            },
        );
    }

    fn add_result(&mut self, file: Named, key: ActionKey, tree: Digest) {
        if let Some(tree) = self.trees.get_mut(&tree) {
            tree.users += 1;
            tree.keepers += 1;
            if tree.keepers == 1 {
                for blob in &tree.refers_to {
                    if let Some(blob) = self.blobs.get_mut(blob) {
                        blob.users += 1;
                    }
                }
            }
        }
        self.results.push(Held {
            file,
            key,
            tree,
            is_dropped: false,
            keeps_bytes: true,
        });
    }

    /// What is left once the garbage is gone.
    fn count(&self) -> u64 {
        let results: u64 = self.results.iter().map(|result| result.file.bytes).sum();
        let referred = self.trees.values().chain(self.blobs.values());
        let referred: u64 = referred.filter(|file| file.users > 0).map(|file| file.file.bytes).sum();
        let keys: HashSet<&ActionKey> = self
            .results
            .iter()
            .map(|result| &result.key)
            .chain(self.named)
            .collect();
        let documents = keys.into_iter().filter_map(|key| self.documents.get(key.digest()));
        results + referred + documents.map(|document| document.bytes).sum::<u64>()
    }

    /// Makes garbage of the bytes that the result at `at` alone keeps. The result stays, and so does its tree.
    pub(super) fn drop_bytes(&mut self, at: usize) {
        let result = &mut self.results[at];
        if !std::mem::replace(&mut result.keeps_bytes, false) {
            return;
        }
        let Some(tree) = self.trees.get_mut(&result.tree) else {
            return;
        };
        tree.keepers -= 1;
        if tree.keepers > 0 {
            return;
        }
        for blob in &tree.refers_to {
            if let Some(blob) = self.blobs.get_mut(blob) {
                blob.users -= 1;
                if blob.users == 0 {
                    self.bytes -= blob.file.bytes;
                }
            }
        }
    }

    /// Makes the result at `at` garbage, and what it alone refers to.
    pub(super) fn drop_result(&mut self, at: usize) {
        self.drop_bytes(at);
        let result = &mut self.results[at];
        result.is_dropped = true;
        self.bytes -= result.file.bytes;
        if !self.named.contains(&result.key)
            && let Some(document) = self.documents.get(result.key.digest())
        {
            self.bytes -= document.bytes;
        }
        let Some(tree) = self.trees.get_mut(&result.tree) else {
            return;
        };
        tree.users -= 1;
        if tree.users == 0 {
            self.bytes -= tree.file.bytes;
        }
    }

    /// Makes garbage until no more than `max` bytes are left or nothing more may go: the bytes of `rest`, those of
    /// `on_the_way`, and then the results `rest`, each in their order.
    pub(super) fn shrink(&mut self, max: u64, rest: &[usize], on_the_way: &[usize]) {
        for at in rest.iter().chain(on_the_way) {
            if self.bytes <= max {
                return;
            }
            self.drop_bytes(*at);
        }
        for at in rest {
            if self.bytes <= max {
                return;
            }
            if !self.results[*at].is_dropped {
                self.drop_result(*at);
            }
        }
    }

    /// All that nothing refers to.
    pub(super) fn garbage(self) -> Garbage {
        let mut garbage = self.damaged;
        let mut kept = self.named.clone();
        for result in self.results {
            if result.is_dropped {
                garbage.results.push(result.file);
            } else {
                kept.insert(result.key);
            }
        }
        garbage.trees.extend(unused(self.trees));
        garbage.blobs.extend(unused(self.blobs));
        let kept: HashSet<&Digest> = kept.iter().map(ActionKey::digest).collect();
        let documents = self.documents.into_values();
        garbage
            .documents
            .extend(documents.filter(|file| !kept.contains(&file.digest)));
        garbage
    }
}

fn referred(files: Vec<Named>) -> HashMap<Digest, Referred> {
    let referred = |file: Named| Referred {
        file,
        refers_to: BTreeSet::new(),
        users: 0,
        keepers: 0,
    };
    files.into_iter().map(|file| (file.digest, referred(file))).collect()
}

fn unused(files: HashMap<Digest, Referred>) -> impl Iterator<Item = Named> {
    files.into_values().filter(|file| file.users == 0).map(|file| file.file)
}

impl Garbage {
    /// How much it is.
    pub(super) fn survey(&self) -> Survey {
        Survey {
            blobs: tally(&self.blobs),
            trees: tally(&self.trees),
            results: tally(&self.results),
            documents: tally(&self.documents),
            ..Survey::default()
        }
    }

    /// Removes it: what refers before what is referred to.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        for files in [&self.results, &self.trees, &self.blobs, &self.documents] {
            let mut shards = BTreeSet::new();
            for file in files {
                remove_file(&file.path)?;
                shards.extend(file.path.parent());
            }
            shards.into_iter().try_for_each(sync_folder)?;
        }
        Ok(())
    }
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match disk::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(StoreError::io("remove", path)),
    }
}
