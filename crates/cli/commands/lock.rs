//! `orchestrate lock`: writes down what the cache has for a recipe, for `build --locked` to hold later builds to, and has
//! the cache keep it.

use crate::arguments::LockArguments;
use crate::exit::{ExitCode, Failure};
use crate::locked::{differences, folder_of};
use crate::output;
use crate::session::{Session, open_store};
use orchestrate_engine::{ActionId, Decision, Digest, KeyDocument, Store, documents, plan};
use orchestrate_recipe::lock::{Lock, LockError};
use std::collections::BTreeMap;

/// Writes the lock.
pub fn run(arguments: &LockArguments) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    session.require_device()?;
    let store = open_store(&arguments.cache)?;
    let path = Lock::path(&arguments.recipe.recipe, arguments.recipe.profile.as_deref());
    let former = match Lock::read(&path) {
        Ok(lock) => Some(lock),
        Err(LockError::Absent { .. }) => None,
        Err(LockError::Damaged { .. }) if arguments.rebuild => None,
        Err(error) => return Err(error.into()),
    };
    let lock = Lock::new(
        &session.lowered.graph,
        made(&session, &store)?,
        folder_of(&arguments.recipe.recipe),
    );
    if former.as_ref().is_some_and(|former| former.to_text() == lock.to_text()) {
        store.register_roots(&path)?;
        output::line(&format!("{} is up to date", path.display()))?;
        return Ok(ExitCode::Done);
    }
    if let Some(former) = &former {
        let mut changed = differences(former, &arguments.recipe.recipe, &session, &store, &[])?;
        let same_key = |name: &String, key| former.action.get(name).is_some_and(|former| former.key == key);
        let artifacts = lock.action.iter().filter(|(name, locked)| same_key(name, locked.key));
        changed.extend(former.other_artifacts(artifacts.map(|(name, locked)| (name.as_str(), locked.artifact))));
        changed
            .iter()
            .try_for_each(|difference| output::line(&format!("  {difference}")))?;
    }
    lock.write(&path)?;
    store.register_roots(&path)?;
    output::line(&format!(
        "wrote {}: {} actions, {} external files",
        path.display(),
        lock.action.len(),
        lock.input.len()
    ))?;
    Ok(ExitCode::Done)
}

/// The document and artifact of every action, all of which must be in the cache.
fn made(session: &Session, store: &Store) -> Result<BTreeMap<ActionId, (KeyDocument, Digest)>, Failure> {
    let graph = &session.lowered.graph;
    let targets = session.lowered.targets(&[]);
    let mut artifacts = BTreeMap::new();
    for action in plan(graph, store, &targets, &session.recipe.name)?.actions {
        match action.decision {
            Decision::Hit { tree, .. } => artifacts.insert(action.id, tree),
            Decision::Run { .. } | Decision::Maybe { .. } => {
                return Err(Failure::Usage(format!(
                    "{} is not up to date in the cache: run `orchestrate build` first, with the same profile and overrides",
                    action.name
                )));
            }
        };
    }
    let documents = documents(graph, store, &targets, &|id| artifacts.get(&id).copied())?;
    let made = documents.into_iter().map(|(id, document)| {
        let document = document.expect("all artifacts are known");
        (id, (document, artifacts[&id]))
    });
    Ok(made.collect())
}
