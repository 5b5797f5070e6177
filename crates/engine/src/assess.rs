//! The assessment of one action: its key, and whether it must run. Planning and building share it, so that they agree.

use crate::action::{Action, ActionId, Input};
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
use rayon::prelude::*;
use std::collections::BTreeMap;

/// So many actions are worth being assessed by several threads.
pub(crate) const WORTH_SHARING: usize = 32;
/// No more are assessed at a time.
pub(crate) const MOST_AT_A_TIME: usize = 1024;

/// What was found of one action.
#[derive(Debug)]
pub(crate) struct Assessment {
    pub(crate) key: ActionKey,
    pub(crate) document: KeyDocument,
    /// Its external inputs as they were hashed.
    pub(crate) files: Vec<InputFile>,
    pub(crate) freshness: Freshness,
}

/// What an action reads.
#[derive(Default)]
struct Inputs {
    digests: BTreeMap<String, InputDigest>,
    files: Vec<InputFile>,
}

/// An action whose result was looked for.
struct LookedUp {
    key: ActionKey,
    document: KeyDocument,
    files: Vec<InputFile>,
    result: Result<ActionResult, Option<Reason>>,
}

impl LookedUp {
    fn new(store: &Store, action: &Action, inputs: Inputs, needs_bytes: bool) -> Result<Self, StoreError> {
        let document = KeyDocument::new(action, inputs.digests);
        let key = document.key();
        Ok(Self {
            result: find_result(store, &key, needs_bytes)?,
            files: inputs.files,
            key,
            document,
        })
    }
}

/// Assesses the actions of one graph.
pub(crate) struct Assessor<'a> {
    graph: &'a ActionGraph,
    store: &'a Store,
    history: History,
    files: FileDigests<'a>,
}

impl<'a> Assessor<'a> {
    /// An assessor that compares with the runs of `recipe` recorded so far.
    pub(crate) fn new(graph: &'a ActionGraph, store: &'a Store, recipe: &str) -> Result<Self, StoreError> {
        Ok(Self {
            graph,
            store,
            history: History::open(store, recipe)?,
            files: FileDigests::new(store),
        })
    }

    /// Assesses `ids`, for each of which is told whether a result without the artifact's bytes is of no use. `tree_of`
    /// tells the artifacts of their inputs.
    pub(crate) fn assess(
        &mut self,
        ids: &[(ActionId, bool)],
        tree_of: &dyn Fn(ActionId) -> Digest,
    ) -> Vec<(ActionId, Result<Assessment, EngineError>)> {
        let inputs = ids
            .iter()
            .map(|(id, needs_bytes)| (*id, *needs_bytes, self.inputs(*id, tree_of)));
        let inputs: Vec<_> = inputs.collect();
        let looked_up = |(id, needs_bytes, inputs): (ActionId, bool, Result<Inputs, EngineError>)| {
            let found =
                inputs.and_then(|inputs| Ok(LookedUp::new(self.store, self.graph.get(id), inputs, needs_bytes)?));
            (id, found)
        };
        let found: Vec<_> = if ids.len() < WORTH_SHARING {
            inputs.into_iter().map(looked_up).collect()
        } else {
            inputs.into_par_iter().map(looked_up).collect()
        };
        let judged = found
            .into_iter()
            .map(|(id, found)| (id, found.and_then(|found| self.judge(id, found))));
        judged.collect()
    }

    /// The key document of `id`.
    pub(crate) fn document(
        &mut self,
        id: ActionId,
        tree_of: &dyn Fn(ActionId) -> Digest,
    ) -> Result<KeyDocument, EngineError> {
        let inputs = self.inputs(id, tree_of)?;
        Ok(KeyDocument::new(self.graph.get(id), inputs.digests))
    }

    /// What an action reads: by role, and its external inputs as they were hashed.
    fn inputs(&mut self, id: ActionId, tree_of: &dyn Fn(ActionId) -> Digest) -> Result<Inputs, EngineError> {
        let action = self.graph.get(id);
        let mut inputs = Inputs::default();
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
                    inputs.files.push(file);
                    digest
                }
            };
            inputs.digests.insert(role.clone(), digest);
        }
        Ok(inputs)
    }

    fn judge(&mut self, id: ActionId, found: LookedUp) -> Result<Assessment, EngineError> {
        let LookedUp {
            key,
            document,
            files,
            result,
        } = found;
        let freshness = match result {
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

    /// How long `id` lasted when it last ran in this recipe, if that is known.
    pub(crate) fn seconds_of(&mut self, id: ActionId) -> Result<Option<f64>, StoreError> {
        let record = self.history.last(&self.graph.get(id).name)?;
        let Some(key) = record.and_then(|record| record.key) else {
            return Ok(None);
        };
        Ok(self.store.result(&key)?.found().map(|result| result.seconds))
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
