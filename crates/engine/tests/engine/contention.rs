//! Several builds on one store, each a process of its own: this program, started once more.

use crate::fixture::{Fake, Workshop, all, concatenate, graph, options};
use crate::process::ourselves;
use orchestrate_engine::{ActionGraph, Cancel, GcOptions, InProcessExecutor, Store, StoreError, build};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Tells [`build_of_this_program`] how to build, which round, and where.
const ORDER: &str = "ORCHESTRATE_TEST_BUILD";

const BUILDS: usize = 8;

/// Two actions of a round's own that two others read.
pub fn diamond(round: u32) -> ActionGraph {
    graph(&[
        ("top", &round.to_string(), &[]),
        ("left", "l", &["top"]),
        ("right", "r", &["top"]),
        ("end", "e", &["left", "right"]),
    ])
}

/// Starts a process that builds the diamond of `round` in the workshop: in `processes` of workers, in itself and
/// `noting` what runs, or `forever`.
pub fn beside(workshop: &Workshop, how: &str, round: u32) -> Child {
    let folder = workshop.folder.path().display();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "contention::build_of_this_program", "--nocapture"])
        .env(ORDER, format!("{how} {round} {folder}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// No test by itself: what this program does when a test starts it as a build.
#[test]
fn build_of_this_program() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let [how, round, folder] = order.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let (how, folder) = (how.to_owned(), Path::new(folder).to_owned());
    let graph = diamond(round.parse().unwrap());
    let store = Store::open(&folder.join("store")).unwrap();
    let is_with_workers = how == "processes";
    let fake = Fake::new(move |work| {
        if how == "forever" {
            loop {
                std::thread::park();
            }
        }
        let mut log = fs::File::options()
            .append(true)
            .create(true)
            .open(folder.join("ran"))
            .unwrap();
        writeln!(log, "{}", work.parameters["text"]).unwrap();
        concatenate(work)
    });
    let (inside, outside) = (InProcessExecutor::new(&fake), ourselves());
    let report = build(
        &graph,
        &all(&graph),
        &options(2, false),
        &store,
        if is_with_workers { &outside } else { &inside },
        &Cancel::new(),
        &|_| {},
    );
    assert!(report.unwrap().is_success());
}

#[test]
fn eight_builds_at_the_same_time_run_each_action_once() {
    let workshop = Workshop::in_memory();
    let rounds: u32 = 10;
    for round in 0..rounds {
        let builds: Vec<Child> = (0..BUILDS).map(|_| beside(&workshop, "noting", round)).collect();
        for mut build in builds {
            assert!(build.wait().unwrap().success());
        }
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in fs::read_to_string(workshop.path("ran")).unwrap().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    for text in ["l", "r", "e"] {
        assert_eq!(counts.remove(&format!("{text:?}")), Some(rounds), "{text}");
    }
    assert!(
        counts.len() == 10 && counts.values().all(|count| *count == 1),
        "{counts:?}"
    );
    assert_eq!(fs::read_dir(workshop.path("store/leases")).unwrap().count(), 0);
}

#[test]
fn collections_beside_builds_of_other_processes_are_refused_or_lose_nothing() {
    let workshop = Workshop::in_memory();
    let (mut refused, mut done) = (0, 0);
    for round in 0..20 {
        let mut build = beside(&workshop, "noting", round);
        while build.try_wait().unwrap().is_none() {
            match workshop.store().gc(&GcOptions::default()) {
                Ok(_) => done += 1,
                Err(StoreError::InUse { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(build.wait().unwrap().success());
        let built = workshop.build(&diamond(round));
        assert!(built.started().is_empty(), "a root was lost: {:?}", built.reasons());
        assert_eq!(workshop.text_of(&built, "end"), format!("e(l({round}))(r({round}))"));
    }
    eprintln!("20 builds: {refused} collections refused, {done} done");
    assert!(refused >= 20 && refused + done >= 200, "{refused} refused, {done} done");
}
