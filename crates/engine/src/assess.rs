//! The assessment of one action: its key, and whether it must run. Planning and building share it, so that they agree.

use crate::action::{Action, ActionId, Input};
use crate::change::changes;
use crate::digest::Digest;
use crate::error::EngineError;
use crate::freshness::{Freshness, Reason};
use crate::graph::ActionGraph;
use crate::input_file::{FileDigests, InputFile};
use crate::key::{ActionKey, InputDigest, KeyDocument, KeyParts};
use crate::record::History;
use crate::result::ActionResult;
use crate::store::{Integrity, Lookup, Store, StoreError};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::iter;
use std::sync::mpsc;

/// So many actions are worth being assessed by several threads, so many at a time by each.
pub(crate) const WORTH_SHARING: usize = 32;
/// No more are asked for at a time.
pub(crate) const MOST_AT_A_TIME: usize = 1024;

/// What was found of one action.
#[derive(Debug)]
pub(crate) struct Assessment {
    pub(crate) keyed: Keyed,
    pub(crate) freshness: Freshness,
}

/// An action's key, and what it reads.
#[derive(Debug)]
pub(crate) struct Keyed {
    pub(crate) key: ActionKey,
    pub(crate) inputs: Inputs,
}

impl Keyed {
    /// What the key of `action`, whose it is, is the digest of.
    pub(crate) fn document(&self, action: &Action) -> KeyDocument {
        self.inputs.document(action)
    }
}

/// What an action reads.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    /// In the order of their roles.
    pub(crate) digests: Vec<InputDigest>,
    /// Those that are external, as they were hashed.
    pub(crate) files: Vec<InputFile>,
}

impl Inputs {
    fn document(&self, action: &Action) -> KeyDocument {
        let roles = action.inputs.keys().cloned();
        KeyDocument::new(action, roles.zip(self.digests.iter().copied()).collect())
    }
}

/// An action that is to be assessed.
pub(crate) struct Asked {
    id: ActionId,
    /// Whether a result without the artifact's bytes is of no use.
    needs_bytes: bool,
    inputs: Result<Inputs, EngineError>,
}

/// An action whose result was looked for.
struct LookedUp {
    keyed: Keyed,
    result: Result<ActionResult, Option<Reason>>,
}

impl Asked {
    fn look_up(self, graph: &ActionGraph, store: &Store) -> (ActionId, Result<LookedUp, EngineError>) {
        let look_up = |inputs: Inputs| {
            let key = KeyParts::of(graph.get(self.id), &inputs.digests).key();
            Ok(LookedUp {
                result: find_result(store, &key, self.needs_bytes)?,
                keyed: Keyed { key, inputs },
            })
        };
        (self.id, self.inputs.and_then(look_up))
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
        let asked = self.ask(ids, tree_of);
        let mut assessed = Vec::with_capacity(ids.len());
        self.assess_each(asked, &mut |id, assessment| assessed.push((id, assessment)));
        assessed
    }

    /// The first half of [`Assessor::assess`], after which `tree_of` is not needed any more.
    pub(crate) fn ask(&mut self, ids: &[(ActionId, bool)], tree_of: &dyn Fn(ActionId) -> Digest) -> Vec<Asked> {
        let asked = ids.iter().map(|(id, needs_bytes)| Asked {
            id: *id,
            needs_bytes: *needs_bytes,
            inputs: self.inputs(*id, tree_of),
        });
        asked.collect()
    }

    /// The second half: gives each assessment to `then`, in the order in which they were asked for, while other threads
    /// look up those that follow.
    pub(crate) fn assess_each(
        &mut self,
        asked: Vec<Asked>,
        then: &mut dyn FnMut(ActionId, Result<Assessment, EngineError>),
    ) {
        let (graph, store) = (self.graph, self.store);
        let mut judge = |(id, found): (ActionId, Result<LookedUp, EngineError>)| {
            then(id, found.and_then(|found| self.judge(id, found)));
        };
        // A thread of the pool that waited here might be the one that is waited for.
        if asked.len() < WORTH_SHARING || rayon::current_thread_index().is_some() {
            asked
                .into_iter()
                .map(|asked| asked.look_up(graph, store))
                .for_each(judge);
            return;
        }
        let mut asked = asked.into_iter();
        let parts = iter::from_fn(move || {
            let part: Vec<Asked> = asked.by_ref().take(WORTH_SHARING).collect();
            (!part.is_empty()).then_some(part)
        });
        let (sender, found) = mpsc::channel();
        rayon::in_place_scope(|scope| {
            scope.spawn(move |_| {
                parts
                    .enumerate()
                    .par_bridge()
                    .for_each_with(sender, |sender, (at, part)| {
                        let found: Vec<_> = part.into_iter().map(|asked| asked.look_up(graph, store)).collect();
                        // Nobody listens any more after a panic, which the scope passes on.
                        let _ = sender.send((at, found));
                    });
            });
            let mut early = BTreeMap::new();
            let mut next = 0;
            for (at, part) in found {
                early.insert(at, part);
                while let Some(part) = early.remove(&next) {
                    part.into_iter().for_each(&mut judge);
                    next += 1;
                }
            }
        });
    }

    /// The key document of `id`.
    pub(crate) fn document(
        &mut self,
        id: ActionId,
        tree_of: &dyn Fn(ActionId) -> Digest,
    ) -> Result<KeyDocument, EngineError> {
        let inputs = self.inputs(id, tree_of)?;
        Ok(inputs.document(self.graph.get(id)))
    }

    /// What an action reads.
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
            inputs.digests.push(digest);
        }
        Ok(inputs)
    }

    fn judge(&mut self, id: ActionId, found: LookedUp) -> Result<Assessment, EngineError> {
        let LookedUp { keyed, result } = found;
        let freshness = match result {
            Ok(result) => Freshness::Fresh(result),
            Err(Some(reason)) => Freshness::Stale(reason),
            Err(None) => Freshness::Stale(self.explain(self.graph.get(id), &keyed)?),
        };
        Ok(Assessment { keyed, freshness })
    }

    /// How long `id` lasted when it last ran in this recipe, if that is known.
    pub(crate) fn seconds_of(&mut self, id: ActionId) -> Result<Option<f64>, StoreError> {
        let record = self.history.last(&self.graph.get(id).name)?;
        let Some(key) = record.and_then(|record| record.key) else {
            return Ok(None);
        };
        Ok(self.store.result(&key)?.found().map(|result| result.seconds))
    }

    /// Why there is no result of `action`, as it is `keyed`.
    fn explain(&mut self, action: &Action, keyed: &Keyed) -> Result<Reason, StoreError> {
        let Some(former) = self.history.last(&action.name)?.and_then(|record| record.key) else {
            return Ok(Reason::NeverRan);
        };
        if former == keyed.key {
            return Ok(Reason::OutputsMissing {
                what: "its result".to_owned(),
            });
        }
        Ok(match self.store.key_document(&former)? {
            Some(old) => Reason::Changed(changes(&old, &keyed.document(action))),
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
    let (lookup, integrity) = if needs_bytes {
        store.result_and_bytes(key)?
    } else {
        (store.result(key)?, Integrity::Whole)
    };
    let result = match lookup {
        Lookup::Found(result) => result,
        Lookup::Absent => return Ok(Err(None)),
        Lookup::Unreadable => return Ok(Err(Some(Reason::ResultUnreadable))),
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
