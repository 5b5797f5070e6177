//! What is disturbed, and how it must end all the same.

use crate::fixture::{Fake, Workshop, action, concatenate, flip_bit, options};
use crate::store::disk::{self, NewFile};
use crate::store::faults::model::{Listing, list};
use crate::{
    ActionGraph, ActionOutcome, BuildOptions, Cancel, CheckpointPlace, Digest, EngineError, FailureClass, GcOptions,
    InProcessExecutor, Input, InputFiles, Integrity, Outcome, StepError, Store, StoreError, Work, build,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tempfile::TempDir;

/// Held for writing while a process is begun: until then it has the locks of this one, and what they lock is not swept.
pub(super) static BEGINNING: RwLock<()> = RwLock::new(());

/// Something that changes a store or an output folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// Three actions are built where there is no store, of which the first reads a large file and the last keeps a
    /// checkpoint, and the last one's artifact is copied out.
    Fresh,
    /// The same after the last was edited and a blob was damaged, over what was copied out before.
    Edited,
    /// What only the last run but one needed is collected.
    Collected,
    /// All bytes are collected but those of what the last run was asked for.
    Shrunk,
}

/// How a build ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) executed: BTreeSet<String>,
    /// Digests of key and artifact, by action.
    pub(super) digests: BTreeMap<String, (Digest, Digest)>,
    pub(super) failure: Option<(String, FailureClass)>,
}

impl Scenario {
    pub(super) const ALL: [Self; 4] = [Self::Fresh, Self::Edited, Self::Collected, Self::Shrunk];

    /// Makes what is there before.
    pub(super) fn prepare(self, folder: &Path) {
        match self {
            Self::Fresh => {}
            Self::Edited => {
                let built = run(folder, "c").unwrap();
                let tree = Store::open(&folder.join("store")).unwrap().tree(&built.digests["b"].1);
                let blob = tree.unwrap().unwrap().entries()[0].digest.to_string();
                flip_bit(&folder.join("store/blobs").join(&blob[..2]).join(blob));
            }
            Self::Collected | Self::Shrunk => {
                run(folder, "1").unwrap();
                run(folder, "2").unwrap();
            }
        }
    }

    /// What is disturbed.
    pub(super) fn act(self, folder: &Path) -> Result<Ended, EngineError> {
        match self {
            Self::Fresh => run(folder, "c"),
            Self::Edited => run(folder, "C"),
            Self::Collected => {
                collect(folder, None)?;
                Ok(Ended::default())
            }
            Self::Shrunk => {
                collect(folder, Some(0))?;
                Ok(Ended::default())
            }
        }
    }

    /// Goes on after a disturbance as a user would, with nothing but the same command again, and looks whether all is
    /// as if there had been none.
    pub(super) fn go_on(self, folder: &Path) {
        let _none_begins = BEGINNING.read().unwrap_or_else(PoisonError::into_inner);
        match self {
            Self::Fresh => {
                let known = known(folder, "c");
                let ended = expect_build(folder, "c");
                assert!(ended.executed.is_disjoint(&known), "{:?} of {known:?}", ended.executed);
            }
            Self::Edited => {
                let known = known(folder, "C");
                let mut ended = expect_build(folder, "C");
                ended.executed.remove("b");
                assert!(ended.executed.is_disjoint(&known), "{:?} of {known:?}", ended.executed);
                assert!(expect_build(folder, "c").executed.is_empty());
            }
            Self::Collected => {
                expect_whole_results(folder);
                assert!(expect_build(folder, "2").executed.is_empty(), "roots stay");
                collect(folder, None).unwrap();
                assert!(list(&folder.join("store/leases")).is_empty(), "leases are collected");
                assert_eq!(known(folder, "2").len(), 3);
                assert_eq!(known(folder, "1").len(), 2);
                expect_build(folder, "1");
            }
            Self::Shrunk => {
                assert!(expect_build(folder, "2").executed.is_empty(), "what is asked for stays");
                collect(folder, Some(0)).unwrap();
                assert_eq!((known(folder, "2").len(), entries_of(folder, "blobs")), (3, 2));
                assert!(expect_build(folder, "2").executed.is_empty());
                assert_eq!(
                    expect_build(folder, "1").executed.len(),
                    3,
                    "what was given up is made again"
                );
            }
        }
        let verified = Store::open(&folder.join("store")).unwrap().verify_all(false).unwrap();
        assert!(verified.damaged.is_empty(), "{:?}", verified.damaged);
        assert_eq!(entries_of(folder, "stat"), 1, "the input's digest is remembered");
        let sessions = list(&folder.join("store/tmp"));
        assert_eq!(
            sessions.keys().collect::<Vec<_>>(),
            [Path::new("gate")],
            "nothing is left behind"
        );
    }
}

/// A folder in memory, if there is such a thing.
pub(super) fn folder() -> TempDir {
    Workshop::in_memory().folder
}

/// How many files there are in a section of the store.
fn entries_of(folder: &Path, section: &str) -> usize {
    let listing = list(&folder.join("store").join(section));
    listing.values().filter(|content| content.is_some()).count()
}

/// Those actions of the build of `last` whose result is in the store of `folder`.
fn known(folder: &Path, last: &str) -> BTreeSet<String> {
    let files = if folder.join("store/results").is_dir() {
        list(&folder.join("store/results"))
    } else {
        Listing::new()
    };
    let keys: BTreeSet<String> = files
        .keys()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let all = expected()[last].digests.iter();
    all.filter(|(_, (key, _))| keys.contains(&key.to_string()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// No result that is there lacks its bytes.
fn expect_whole_results(folder: &Path) {
    let store = Store::open(&folder.join("store")).unwrap();
    for (key, tree) in ["1", "2"].iter().flat_map(|last| expected()[last].digests.values()) {
        let key = key.to_string().parse().unwrap();
        if store.result(&key).unwrap().found().is_some() {
            assert_eq!(store.has_bytes(tree).unwrap(), Integrity::Whole, "{key}");
        }
    }
}

/// How undisturbed builds end, by the text of their last action.
fn expected() -> &'static BTreeMap<&'static str, Ended> {
    static EXPECTED: OnceLock<BTreeMap<&str, Ended>> = OnceLock::new();
    let clean = |last| (last, run(folder().path(), last).unwrap());
    EXPECTED.get_or_init(|| ["c", "C", "1", "2"].map(clean).into())
}

/// Builds as [`run`], and compares with a build that was not disturbed.
fn expect_build(folder: &Path, last: &str) -> Ended {
    let ended = run(folder, last).unwrap();
    assert_eq!(ended.digests, expected()[last].digests);
    let out: Vec<(PathBuf, Option<Vec<u8>>)> = list(&folder.join("out")).into_iter().collect();
    let file = |name: &str, text: String| (PathBuf::from(name), Some(text.into_bytes()));
    let manifest = fs::read_to_string(folder.join("out/.orchestrate-manifest.json")).unwrap();
    let expected = [
        file(".orchestrate-manifest.json", manifest),
        ("more".into(), None),
        file(&format!("more/{last}"), last.to_owned()),
        file("out", format!("{last}(b(a))")),
    ];
    assert_eq!(out, expected);
    ended
}

/// The first reads a large file that has long been as it is, so that its digest is remembered; the last keeps
/// checkpoints.
fn chain(last: &str) -> ActionGraph {
    let mut graph = ActionGraph::new();
    let data = ("data", Input::File(fs::canonicalize("/bin/sh").unwrap()));
    let a = graph.add(action("a", json!({"text": "a"}), &[data])).unwrap();
    let b = graph.add(action("b", json!({"text": "b"}), &[("in", Input::Action(a))]));
    let mut c = action("c", json!({"text": last}), &[("in", Input::Action(b.unwrap()))]);
    c.trajectory = Some(json!({}));
    graph.add(c).unwrap();
    graph
}

/// Concatenates texts. What keeps checkpoints adds a file whose name and content are its text.
fn act(work: &Work<'_>) -> Result<Outcome, StepError> {
    if let Some(InputFiles::File(data)) = work.inputs.get("data") {
        assert!(!fs::read(data).unwrap().is_empty());
        fs::write(work.output.join("out"), "a").unwrap();
        return Ok(Outcome::default());
    }
    if let Some(place) = work.checkpoints {
        let text = work.parameters["text"].as_str().unwrap();
        go_on_from_half(place, text).map_err(|error| {
            let told = StoreError::io("write", &place.folder)(error);
            StepError::new(FailureClass::Environment, told.to_string())
        })?;
        fs::create_dir(work.output.join("more")).unwrap();
        fs::write(work.output.join("more").join(text), text).unwrap();
    }
    concatenate(work)
}

/// Goes on from a checkpoint, or keeps one: it is written as those of trainings are, so that it is there whole or not
/// at all.
fn go_on_from_half(place: &CheckpointPlace, text: &str) -> io::Result<()> {
    let path = place.folder.join(format!("{}half", place.owner));
    let half = text.repeat(1000);
    if path.exists() {
        assert_eq!(fs::read_to_string(path)?, half, "a checkpoint that is there is whole");
        return Ok(());
    }
    let mut file = NewFile::create(&place.scratch.join("half"))?;
    file.write_all(half.as_bytes())?;
    file.sync()?;
    disk::rename(file.path(), &path)?;
    disk::sync_folder(&place.folder)
}

/// Builds in `folder` the actions of which the last has the text `last`, and copies the last one's artifact out.
fn run(folder: &Path, last: &str) -> Result<Ended, EngineError> {
    let graph = chain(last);
    let store = Store::open(&folder.join("store"))?;
    let fake = Fake::new(act);
    let options = BuildOptions {
        checkpoint_every: Some(Duration::from_secs(60)),
        ..options(1, false)
    };
    let report = build(
        &graph,
        &[graph.find("c").expect("the last")],
        &options,
        &store,
        &InProcessExecutor::new(&fake),
        &Cancel::new(),
        &|_| {},
    )?;
    let mut ended = Ended::default();
    for action in report.actions.values() {
        match &action.outcome {
            ActionOutcome::Executed => {
                ended.executed.insert(action.name.clone());
            }
            ActionOutcome::Failed { error, class, .. } => ended.failure = Some((error.clone(), *class)),
            ActionOutcome::Cached | ActionOutcome::Skipped { .. } => {}
        }
        if let Some(result) = &action.result {
            let digests = (*result.key.digest(), result.tree);
            ended.digests.insert(action.name.clone(), digests);
        }
    }
    if let Some((_, tree)) = ended.digests.get("c") {
        store.materialize(tree, &folder.join("out"))?;
    }
    Ok(ended)
}

fn collect(folder: &Path, max_bytes: Option<u64>) -> Result<(), EngineError> {
    let options = GcOptions {
        keep_last: 1,
        max_bytes,
        ..GcOptions::default()
    };
    Store::open(&folder.join("store"))?.gc(&options)?;
    Ok(())
}
