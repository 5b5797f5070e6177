//! The assessment of one action: its key, and whether it must run. Planning and building share it, so that they agree.

use crate::action::{ActionId, Input};
use crate::change::changes;
use crate::digest::Digest;
use crate::error::EngineError;
use crate::freshness::{Freshness, Reason};
use crate::graph::ActionGraph;
use crate::input_file::{FileDigests, InputFile};
use crate::key::{ActionKey, InputDigest, KeyDocument};
use crate::record::History;
use crate::result::ActionResult;
use crate::store::{Integrity, Lookup, Store, StoreError};
use std::collections::BTreeMap;

/// What was found of one action.
#[derive(Debug)]
pub(crate) struct Assessment {
    pub(crate) key: ActionKey,
    pub(crate) document: KeyDocument,
    /// Its external inputs as they were hashed.
    pub(crate) files: Vec<InputFile>,
    pub(crate) freshness: Freshness,
}

/// Assesses the actions of one graph.
pub(crate) struct Assessor<'a> {
    graph: &'a ActionGraph,
    store: &'a Store,
    history: History,
    files: FileDigests,
}

impl<'a> Assessor<'a> {
    /// An assessor that compares with the runs of `recipe` recorded so far.
    pub(crate) fn new(graph: &'a ActionGraph, store: &'a Store, recipe: &str) -> Result<Self, StoreError> {
        Ok(Self {
            graph,
            store,
            history: History::open(store, recipe)?,
            files: FileDigests::default(),
        })
    }

    /// Assesses `id`. `tree_of` tells the artifacts of its inputs; `needs_bytes` whether a result without the
    /// artifact's bytes is of no use.
    pub(crate) fn assess(
        &mut self,
        id: ActionId,
        tree_of: &dyn Fn(ActionId) -> Digest,
        needs_bytes: bool,
    ) -> Result<Assessment, EngineError> {
        let (document, files) = self.document(id, tree_of)?;
        let key = document.key();
        let freshness = match find_result(self.store, &key, needs_bytes)? {
            Ok(result) => Freshness::Fresh(result),
            Err(Some(reason)) => Freshness::Stale(reason),
            Err(None) => Freshness::Stale(self.explain(&self.graph.get(id).name, &document, &key)?),
        };
        Ok(Assessment {
            key,
            document,
            files,
            freshness,
        })
    }

    /// The key document of `id`, and its external inputs as they are now.
    pub(crate) fn document(
        &mut self,
        id: ActionId,
        tree_of: &dyn Fn(ActionId) -> Digest,
    ) -> Result<(KeyDocument, Vec<InputFile>), EngineError> {
        let action = self.graph.get(id);
        let mut inputs = BTreeMap::new();
        let mut files = Vec::new();
        for (role, input) in &action.inputs {
            let digest = match input {
                Input::Action(input) => InputDigest::Artifact(tree_of(*input)),
                Input::File(path) => {
                    let file = self.files.get(path).map_err(|source| EngineError::InputFile {
                        action: action.name.clone(),
                        role: role.clone(),
                        path: path.clone(),
                        source,
                    })?;
                    let digest = InputDigest::File {
                        digest: file.digest,
                        size: file.size,
                    };
                    files.push(file);
                    digest
                }
            };
            inputs.insert(role.clone(), digest);
        }
        Ok((KeyDocument::new(action, inputs), files))
    }

    /// Why there is no result of `key`.
    fn explain(&mut self, name: &str, document: &KeyDocument, key: &ActionKey) -> Result<Reason, StoreError> {
        let Some(former) = self.history.last(name)?.and_then(|record| record.key) else {
            return Ok(Reason::NeverRan);
        };
        if former == *key {
            return Ok(Reason::OutputsMissing {
                what: "its result".to_owned(),
            });
        }
        Ok(match self.store.key_document(&former)? {
            Some(old) => Reason::Changed(changes(&old, document)),
            None => Reason::DocumentLost { former },
        })
    }
}

/// The result of `key` if it is of use; otherwise why the one that is there is not, or nothing if there is none.
pub(crate) fn find_result(
    store: &Store,
    key: &ActionKey,
    needs_bytes: bool,
) -> Result<Result<ActionResult, Option<Reason>>, StoreError> {
    let result = match store.result(key)? {
        Lookup::Found(result) => result,
        Lookup::Absent => return Ok(Err(None)),
        Lookup::Unreadable => return Ok(Err(Some(Reason::ResultUnreadable))),
    };
    let integrity = if needs_bytes {
        store.has_bytes(&result.tree)?
    } else {
        Integrity::Whole
    };
    Ok(match reason_of(integrity) {
        None => Ok(result),
        Some(reason) => Err(Some(reason)),
    })
}

/// Why an artifact must be made anew, unless it is whole.
pub(crate) fn reason_of(integrity: Integrity) -> Option<Reason> {
    match integrity {
        Integrity::Whole => None,
        Integrity::Missing { what } => Some(Reason::OutputsMissing { what }),
        Integrity::Corrupt { digest } => Some(Reason::Corrupt { digest }),
    }
}
