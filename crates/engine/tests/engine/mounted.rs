//! Caches on small and on read-only disks, each a file system in memory that only one process sees.
//!
//! They are mounted in a namespace of their own. Where that is not allowed the tests say so and pass: the disk that is
//! full at every change is tested by injection beside the store, too.

use crate::fixture::{Built, Fake, Workshop, all, files_below, graph, options};
use orchestrate_engine::{
    ActionGraph, Cancel, FailureClass, InProcessExecutor, InputFiles, Outcome, StepError, Store, Work, build, plan,
};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// Tells the tests below that they are in a namespace of their own.
const IS_INSIDE: &str = "ORCHESTRATE_TEST_IS_INSIDE";

const STEP: usize = 64 << 10;

/// Whether the test `name` is in a namespace of its own; if not, runs it in one.
fn is_inside(name: &str) -> bool {
    if std::env::var_os(IS_INSIDE).is_some() {
        return true;
    }
    let namespace = ["--user", "--map-root-user", "--mount"];
    let probe = "mount -t tmpfs tmpfs /mnt && umount /mnt";
    let is_allowed = Command::new("unshare")
        .args(namespace)
        .args(["sh", "-c", probe])
        .output();
    if !is_allowed.is_ok_and(|probe| probe.status.success()) {
        eprintln!("{name} is skipped: file systems cannot be mounted here");
        return false;
    }
    let inside = Command::new("unshare")
        .args(namespace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("mounted::{name}"), "--nocapture"])
        .env(IS_INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stderr);
    eprintln!("{said}");
    assert!(inside.status.success(), "{said}");
    false
}

fn mount(options: &str, folder: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(folder)
        .status();
    assert!(mounted.unwrap().success());
}

fn unmount(folder: &Path) {
    assert!(Command::new("umount").arg(folder).status().unwrap().success());
}

/// Writes 100 KiB, of which what it reads is the beginning; tells a full disk as a real step does.
fn write_much(work: &Work<'_>) -> Result<Outcome, StepError> {
    let mut bytes = work.parameters["text"].as_str().unwrap().as_bytes().to_owned();
    for input in work.inputs.values() {
        let InputFiles::Artifact(files) = input else {
            unreachable!()
        };
        bytes.extend(&fs::read(&files["out"]).unwrap()[..10]);
    }
    bytes.resize(100 << 10, b'.');
    let written = fs::write(work.output.join("out"), bytes);
    written.map_err(|error: io::Error| StepError::new(FailureClass::Environment, error.to_string()))?;
    Ok(Outcome::default())
}

fn chain() -> ActionGraph {
    graph(&[
        ("a", "a", &[]),
        ("b", "b", &["a"]),
        ("c", "c", &["b"]),
        ("d", "d", &["c"]),
    ])
}

/// The artifacts of a build, in order.
fn trees(built: &Built) -> Vec<String> {
    let actions = built.report.actions.values();
    actions
        .map(|action| action.result.as_ref().unwrap().tree.to_string())
        .collect()
}

#[test]
fn a_disk_of_any_size_is_enough_or_told_to_be_full() {
    if !is_inside("a_disk_of_any_size_is_enough_or_told_to_be_full") {
        return;
    }
    let clean = trees(&Workshop::in_memory().build_with(&chain(), &all(&chain()), write_much));
    let workshop = Workshop::new();
    let disk = workshop.path("store");
    fs::create_dir(&disk).unwrap();
    let mut too_small = 0;
    for size in (1..).map(|steps| steps * STEP) {
        mount(&format!("size={size}"), &disk);
        let done = match build_on(&disk) {
            Ok(done) => done,
            Err(message) => {
                assert!(message.contains("No space left on device"), "{message}");
                Vec::new()
            }
        };
        let is_enough = done.len() == clean.len();
        mount("remount,size=8M", &disk);
        let built = workshop.build_with(&chain(), &all(&chain()), write_much);
        assert_eq!(trees(&built), clean, "{size}");
        let again: BTreeSet<&str> = built.started().into_iter().collect();
        assert!(
            done.iter().all(|name| !again.contains(name.as_str())),
            "{done:?} was lost"
        );
        assert!(workshop.store().verify_all(false).unwrap().damaged.is_empty(), "{size}");
        unmount(&disk);
        if is_enough {
            break;
        }
        too_small += 1;
    }
    eprintln!("{too_small} sizes were told to be too small");
    assert!(too_small >= 5);
}

/// Builds in the store `root`: the actions that were told to be done, or why there is none.
fn build_on(root: &Path) -> Result<Vec<String>, String> {
    let store = Store::open(root).map_err(|error| {
        assert!(error.to_string().contains("free some space there"), "{error}");
        error.to_string()
    })?;
    let fake = Fake::new(write_much);
    let (graph, executor) = (chain(), InProcessExecutor::new(&fake));
    let report = build(
        &graph,
        &all(&graph),
        &options(1, false),
        &store,
        &executor,
        &Cancel::new(),
        &|_| {},
    );
    let report = report.map_err(|error| error.to_string())?;
    let built = Built {
        report,
        events: Vec::new(),
    };
    for action in built.report.actions.values() {
        if let orchestrate_engine::ActionOutcome::Failed { error, class, .. } = &action.outcome {
            assert_eq!(*class, FailureClass::Environment, "{error}");
            assert!(error.contains("No space left on device"), "{error}");
        }
    }
    let actions = built.report.actions.values();
    let done: Vec<String> = actions
        .filter(|action| action.result.is_some())
        .map(|action| action.name.clone())
        .collect();
    if done.is_empty() {
        return Err("No space left on device".to_owned());
    }
    Ok(done)
}

#[test]
fn a_read_only_cache_is_read_by_whoever_only_asks() {
    if !is_inside("a_read_only_cache_is_read_by_whoever_only_asks") {
        return;
    }
    let workshop = Workshop::new();
    let disk = workshop.path("store");
    fs::create_dir(&disk).unwrap();
    mount("size=8M,mode=755", &disk);
    let target = [chain().find("d").unwrap()];
    let planned = |store: &Store| plan(&chain(), store, &target, "recipe").unwrap();
    for is_new in [true, false] {
        if !is_new {
            workshop.build_with(&chain(), &all(&chain()), write_much);
        }
        mount("remount,ro", &disk);
        let before = files_below(&disk);
        let store = Store::open_to_read(&disk).unwrap();
        let runs = store.runs().unwrap();
        assert_eq!(runs.len(), usize::from(!is_new));
        for run in &runs {
            let run = store.run(&run.id).unwrap().unwrap();
            assert_eq!((run.summary.state, run.actions.len()), (runs[0].state, 4));
        }
        assert_eq!(store.results(3).unwrap().len(), if is_new { 0 } else { 4 });
        assert_eq!(store.survey().unwrap().results.files, if is_new { 0 } else { 4 });
        assert!(store.held_leases().unwrap().is_empty());
        assert!(store.verify_all(false).unwrap().damaged.is_empty());
        assert_eq!(planned(&store).is_up_to_date(), !is_new);
        drop(store);
        assert_eq!(files_below(&disk), before);
        mount("remount,rw", &disk);
    }
    unmount(&disk);
}

#[test]
fn a_read_only_cache_is_told_with_a_way_out() {
    if !is_inside("a_read_only_cache_is_told_with_a_way_out") {
        return;
    }
    let workshop = Workshop::new();
    let disk = workshop.path("store");
    fs::create_dir(&disk).unwrap();
    mount("size=8M", &disk);
    for is_new in [true, false] {
        if !is_new {
            workshop.build_with(&chain(), &all(&chain()), write_much);
        }
        mount("remount,ro", &disk);
        let error = Store::open(&disk).unwrap_err().to_string();
        for part in [disk.to_str().unwrap(), "Read-only file system", "--cache DIR"] {
            assert!(error.contains(part), "{error}");
        }
        mount("remount,rw", &disk);
    }
    unmount(&disk);
}
