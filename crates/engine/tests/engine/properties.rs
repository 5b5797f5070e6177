//! What holds of every graph and every edit.

use crate::fixture::{Fake, concatenate};
use crate::fixture::{Workshop, action, all, files_below, options};
use orchestrate_engine::{ActionGraph, ActionOutcome, Decision, InProcessExecutor, Input, Reason, plan};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Which earlier actions an action reads.
type Reads = Vec<prop::sample::Index>;

/// An action as it is drawn: its text, whether it hides its text from those that read it, which earlier ones it reads,
/// and which file.
type Drawn = (u8, bool, Reads, Option<u8>);

/// Files that actions may read.
const FILES: u8 = 2;

/// A change of the recipe or of what it reads.
#[derive(Debug, Clone)]
enum Edit {
    /// An action gets this text.
    Text(prop::sample::Index, u8),
    /// An action reads others.
    Reads(prop::sample::Index, Reads, Option<u8>),
    /// A file gets this content.
    File(u8, u8),
}

fn any_actions() -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec((0..3_u8, any::<bool>(), any_reads(), any_file()), 1..8)
}

fn any_reads() -> impl Strategy<Value = Reads> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..3)
}

fn any_file() -> impl Strategy<Value = Option<u8>> {
    prop::option::of(0..FILES)
}

fn any_edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (any::<prop::sample::Index>(), 0..3_u8).prop_map(|(at, text)| Edit::Text(at, text)),
        (any::<prop::sample::Index>(), any_reads(), any_file())
            .prop_map(|(at, reads, file)| Edit::Reads(at, reads, file)),
        (0..FILES, 0..3_u8).prop_map(|(file, content)| Edit::File(file, content)),
    ];
    prop::collection::vec(edit, 0..4)
}

/// All contents have one size, and one that is changed at once may have its old time, too.
fn write_file(folder: &Path, file: u8, content: u8) {
    fs::write(folder.join(file.to_string()), content.to_string()).unwrap();
}

/// The graph of `actions`, whose files lie in `folder`.
fn lower(actions: &[Drawn], folder: &Path) -> ActionGraph {
    let mut graph = ActionGraph::new();
    for (number, (text, hides, reads, file)) in actions.iter().enumerate() {
        let ids = all(&graph);
        let mut roles: Vec<(String, Input)> = (0..)
            .zip(reads)
            .filter(|_| number > 0)
            .map(|(role, read)| (format!("role{role}"), Input::Action(*read.get(&ids))))
            .collect();
        roles.extend(file.map(|file| ("file".to_owned(), Input::File(folder.join(file.to_string())))));
        let inputs: Vec<(&str, Input)> = roles
            .iter()
            .map(|(role, input)| (role.as_str(), input.clone()))
            .collect();
        let parameters = if *hides {
            json!({"text": text.to_string(), "emit": ""})
        } else {
            json!({"text": text.to_string()})
        };
        graph.add(action(&format!("a{number}"), parameters, &inputs)).unwrap();
    }
    graph
}

/// The keys that have a result.
fn known_keys(workshop: &Workshop) -> BTreeSet<String> {
    let files = files_below(&workshop.path("store/results"));
    files
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn an_incremental_build_is_a_clean_build_with_less_work(
        mut actions in any_actions(),
        edits in any_edits(),
        slots in 1..4_usize,
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..2),
    ) {
        let (workshop, clean, files) = (Workshop::new(), Workshop::new(), tempfile::tempdir().unwrap());
        let files = files.path();
        (0..FILES).for_each(|file| write_file(files, file, 0));
        let fake = Fake::new(concatenate);
        let executor = InProcessExecutor::new(&fake);
        let before = lower(&actions, files);
        workshop.build_on(&workshop.store(), &before, &all(&before), &options(slots, false), &executor);
        let count = actions.len();
        for edit in edits {
            match edit {
                Edit::Text(at, text) => actions[at.index(count)].0 = text,
                Edit::Reads(at, reads, file) => {
                    let action = &mut actions[at.index(count)];
                    (action.2, action.3) = (reads, file);
                }
                Edit::File(file, content) => write_file(files, file, content),
            }
        }
        let blobs: Vec<_> = files_below(&workshop.path("store/blobs")).into_iter().collect();
        for at in lost {
            let _ = fs::remove_file(at.get(&blobs));
        }
        let graph = lower(&actions, files);
        let target = [*all(&graph).last().unwrap()];
        let planned = plan(&graph, &workshop.store(), &target, "recipe").unwrap();
        let known = known_keys(&workshop);
        let built = workshop.build_on(&workshop.store(), &graph, &target, &options(slots, false), &executor);
        let whole = clean.build_on(&clean.store(), &graph, &target, &options(slots, false), &executor);
        prop_assert!(built.report.is_success() && whole.report.is_success());

        for (id, report) in &built.report.actions {
            let (ours, theirs) = (report.result.as_ref().unwrap(), whole.report.actions[id].result.as_ref().unwrap());
            prop_assert_eq!((ours.key, ours.tree, &ours.metrics), (theirs.key, theirs.tree, &theirs.metrics));
        }
        let started: BTreeSet<String> = built.started_keys().iter().map(ToString::to_string).collect();
        prop_assert_eq!(started.len(), built.started_keys().len(), "no key runs twice");
        if blobs.iter().all(|blob| blob.exists()) && lost_nothing(&built) {
            prop_assert!(started.is_disjoint(&known), "what was known ran again");
        }
        for action in &planned.actions {
            let report = &built.report.actions[&action.id];
            match &action.decision {
                Decision::Hit { key, tree } => {
                    prop_assert_eq!(report.key, Some(*key));
                    prop_assert_eq!(report.result.as_ref().unwrap().tree, *tree);
                    prop_assert!(report.outcome == ActionOutcome::Cached || !lost_nothing(&built));
                }
                // Bytes that are wanted may come back with another action that has the same.
                Decision::Run { reason: Reason::OutputsMissing { .. }, .. } => {}
                Decision::Run { key, .. } => prop_assert!(started.contains(&key.to_string())),
                Decision::Maybe { depends_on } => prop_assert!(!depends_on.is_empty()),
            }
        }
        prop_assert_eq!(planned.is_up_to_date(), started.is_empty());
        prop_assert!(plan(&graph, &workshop.store(), &target, "recipe").unwrap().is_up_to_date());
    }
}

/// Whether nothing ran for want of bytes.
fn lost_nothing(built: &crate::fixture::Built) -> bool {
    !built
        .reasons()
        .values()
        .any(|reason| reason.ends_with("no longer in the store"))
}
