//! The disk is full at every change, for a moment or for good: that is told, and nothing is lost.

use super::model::{list, write};
use super::scenario::{Scenario, folder};
use super::{Fault, Watch};
use crate::{EngineError, FailureClass};

/// Fills the disk at each change of `scenario`; how often that is.
fn fill_everywhere(scenario: Scenario) -> usize {
    let (before, undisturbed) = (folder(), folder());
    scenario.prepare(before.path());
    let before = list(before.path());
    write(&before, undisturbed.path());
    let watch = Watch::start(undisturbed.path(), None);
    scenario.act(undisturbed.path()).unwrap();
    let count = watch.changes().len();
    let mut told = 0;
    for (number, fault) in (0..count).flat_map(|at| [(at, Fault::FullOnce), (at, Fault::FullFromHere)]) {
        let folder = folder();
        write(&before, folder.path());
        let watch = Watch::start(folder.path(), Some((number, fault)));
        let problem = match scenario.act(folder.path()) {
            Ok(ended) => ended.failure,
            // All of these have the exit code of the environment.
            Err(EngineError::Store(error)) => Some((error.to_string(), FailureClass::Environment)),
            Err(error) => panic!("{error}"),
        };
        drop(watch);
        if let Some((message, class)) = problem {
            told += 1;
            assert_eq!(class, FailureClass::Environment, "{message}");
            assert!(message.contains("No space left on device"), "{message}");
            assert!(message.contains("free some space"), "{message}");
        }
        scenario.go_on(folder.path());
    }
    eprintln!("{scenario:?}: {} full disks, {told} told", 2 * count);
    told
}

#[test]
fn the_disk_is_full_at_every_change_of_a_first_build() {
    assert!(fill_everywhere(Scenario::Fresh) >= 390);
}

#[test]
fn the_disk_is_full_at_every_change_of_a_build_after_an_edit_and_damage() {
    assert!(fill_everywhere(Scenario::Edited) >= 225);
}

#[test]
fn the_disk_is_full_at_every_change_of_a_collection() {
    assert!(fill_everywhere(Scenario::Collected) >= 20);
}

#[test]
fn the_disk_is_full_at_every_change_of_a_collection_that_gives_up_bytes() {
    assert!(fill_everywhere(Scenario::Shrunk) >= 28);
}
