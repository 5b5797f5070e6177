//! Killed at every change, and within every write: the next command goes on as if nothing had been.

use super::model::{list, write};
use super::scenario::{BEGINNING, Scenario, folder};
use super::{Change, Fault, STOPPED, Watch};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;

/// Tells [`what_is_killed`] what to do: the scenario, the number of the change, `within` or `before` it, the folder.
const ORDER: &str = "ORCHESTRATE_TEST_STOP";

/// No test by itself: what this program does when it is started to be killed.
#[test]
fn what_is_killed() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let [scenario, number, how, folder] = order.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
    let scenario = Scenario::ALL
        .into_iter()
        .find(|it| format!("{it:?}") == scenario)
        .unwrap();
    let fault = if how == "within" {
        Fault::StopWithin
    } else {
        Fault::Stop
    };
    let _watch = Watch::start(Path::new(folder), Some((number.parse().unwrap(), fault)));
    scenario.act(Path::new(folder)).unwrap();
}

/// Starts this program to carry out `scenario` in `folder`, and kills it when it has come to the change `number`.
fn kill_at(scenario: Scenario, number: usize, how: &str, folder: &Path) {
    let beginning = BEGINNING.write().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::faults::kill::what_is_killed", "--nocapture"])
        .env(ORDER, format!("{scenario:?} {number} {how} {}", folder.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(beginning);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let has_stopped = lines.any(|line| line.unwrap().contains(STOPPED));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has_stopped, "{scenario:?} has no change {number}");
}

/// Kills `scenario` at each of its changes; how often that is.
fn kill_everywhere(scenario: Scenario) -> usize {
    let (before, undisturbed) = (folder(), folder());
    scenario.prepare(before.path());
    let before = list(before.path());
    write(&before, undisturbed.path());
    let watch = Watch::start(undisturbed.path(), None);
    scenario.act(undisturbed.path()).unwrap();
    let changes = watch.changes();
    let mut kills = 0;
    for (number, change) in changes.iter().enumerate() {
        let hows: &[&str] = if matches!(change, Change::Write(..) | Change::Overwrite(..)) {
            &["before", "within"]
        } else {
            &["before"]
        };
        for how in hows {
            let folder = folder();
            write(&before, folder.path());
            kill_at(scenario, number, how, folder.path());
            scenario.go_on(folder.path());
            kills += 1;
        }
    }
    eprintln!("{scenario:?}: {} changes, {kills} kills", changes.len());
    kills
}

#[test]
fn a_first_build_is_killed_at_every_change() {
    assert!(kill_everywhere(Scenario::Fresh) >= 230);
}

#[test]
fn a_build_after_an_edit_and_damage_is_killed_at_every_change() {
    assert!(kill_everywhere(Scenario::Edited) >= 140);
}

#[test]
fn a_collection_is_killed_at_every_change() {
    assert!(kill_everywhere(Scenario::Collected) >= 12);
}

#[test]
fn a_collection_that_gives_up_bytes_is_killed_at_every_change() {
    assert!(kill_everywhere(Scenario::Shrunk) >= 15);
}
