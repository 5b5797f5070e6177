//! The power goes at every change: what was not made lasting is gone, in part or in disorder.

use super::model::{Contents, Disk, Listing, Names, list, write};
use super::scenario::{Scenario, folder};
use super::{Change, Watch};
use crate::{ActionRecord, RecordedOutcome, Store};
use std::collections::BTreeSet;
use std::path::Path;

const NAMES: [Names; 4] = [Names::Lasting, Names::Even, Names::Odd, Names::Seen];
const CONTENTS: [Contents; 3] = [Contents::Lasting, Contents::Half, Contents::Zeros];

/// Cuts the power at each change of `scenario`; how many different states of the disk that gives.
fn cut_everywhere(scenario: Scenario) -> usize {
    let before = folder();
    scenario.prepare(before.path());
    let mut disk = Disk::read(before.path());
    let watch = Watch::start(before.path(), None);
    scenario.act(before.path()).unwrap();
    let changes = watch.changes();
    drop(watch);
    let mut states: BTreeSet<Listing> = BTreeSet::new();
    for at in 0..=changes.len() {
        for (names, contents) in NAMES
            .iter()
            .flat_map(|names| CONTENTS.map(|contents| (*names, contents)))
        {
            let state = disk.left(names, contents);
            if states.contains(&state) {
                continue;
            }
            let folder = folder();
            write(&state, folder.path());
            expect_all_that_was_told(&changes[..at], before.path(), folder.path());
            scenario.go_on(folder.path());
            states.insert(state);
        }
        if let Some(change) = changes.get(at) {
            disk.apply(change);
        }
    }
    assert_eq!(
        settled(disk.left(Names::Seen, Contents::Seen)),
        settled(list(before.path())),
        "all changes were told"
    );
    eprintln!("{scenario:?}: {} changes, {} states", changes.len(), states.len());
    states.len()
}

/// What a run record called executed has its result, and is still called so once the record was synced after it.
fn expect_all_that_was_told(changes: &[Change], folder: &Path, to: &Path) {
    let mut told = Vec::new();
    for change in changes {
        match change {
            Change::Write(path, line) if path.starts_with(folder.join("store/runs")) => {
                let Ok(record) = serde_json::from_slice::<ActionRecord>(line) else {
                    continue;
                };
                if record.outcome == RecordedOutcome::Executed {
                    let key = record.key.unwrap().to_string();
                    let result = to.join("store/results").join(&key[..2]).join(&key);
                    assert!(result.exists(), "{} was told to be done", record.action);
                    told.push(record.action);
                }
            }
            // The action that was told last may just be on its way to the disk.
            Change::MakeFolder(path) if path.starts_with(folder.join("store/tmp")) => {
                let store = Store::open(&to.join("store")).unwrap();
                for action in &told {
                    assert!(
                        store.last_record_of("recipe", action).unwrap().is_some(),
                        "{action} is a root"
                    );
                }
            }
            Change::MakeFolder(_) | Change::MakeFile(_) | Change::Write(..) | Change::SyncFile(_) => {}
            Change::Overwrite(..)
            | Change::SyncFolder(_)
            | Change::Rename(..)
            | Change::Remove(_)
            | Change::RemoveEmpty(_) => {}
        }
    }
}

/// Without what a step wrote, which the engine does not do, and which is in no one's way.
fn settled(mut listing: Listing) -> Listing {
    listing.retain(|path, _| !path.starts_with("store/tmp"));
    listing
}

#[test]
fn a_first_build_loses_power_at_every_change() {
    assert!(cut_everywhere(Scenario::Fresh) >= 900);
}

#[test]
fn a_build_after_an_edit_and_damage_loses_power_at_every_change() {
    assert!(cut_everywhere(Scenario::Edited) >= 580);
}

#[test]
fn a_collection_loses_power_at_every_change() {
    assert!(cut_everywhere(Scenario::Collected) >= 12);
}

#[test]
fn a_collection_that_gives_up_bytes_loses_power_at_every_change() {
    assert!(cut_everywhere(Scenario::Shrunk) >= 20);
}
