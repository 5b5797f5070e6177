//! A build that is killed at any moment loses nothing, leaves no process behind, and the next one ends as if nothing had been.

use crate::workspace::Workspace;
use std::process::Stdio;
use std::time::{Duration, Instant};

const KILLS: u32 = 20;

#[test]
fn killed_twenty_times_it_ends_in_the_same_digests() {
    let undisturbed = Workspace::new();
    let started = Instant::now();
    let expected = undisturbed.build(&[]);
    let whole = started.elapsed();

    let disturbed = Workspace::new();
    let mut killed = 0;
    for i in 0..KILLS {
        // Moments spread over the time that a whole build takes, in no order: multiples of the golden ratio.
        let moment = whole.mul_f64((f64::from(i) * 0.618_034).fract());
        // What is done is kept, so that a build soon has little left to be killed in: every fifth time it starts anew.
        if i % 5 == 0 {
            let _ = std::fs::remove_dir_all(disturbed.path("cache"));
        }
        let mut build = disturbed
            .command(&["build", "recipe.toml", "--format", "json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(moment.min(Duration::from_secs(20)));
        if build.try_wait().unwrap().is_none() {
            build.kill().unwrap();
            killed += 1;
        }
        build.wait().unwrap();
    }
    assert!(
        killed >= KILLS / 4,
        "only {killed} of {KILLS} builds were still running"
    );
    assert_eq!(disturbed.build(&[]).trees(), expected.trees());
    assert!(disturbed.export("out/small/export") == undisturbed.export("out/small/export"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_build_leaves_no_worker() {
    let workspace = Workspace::new();
    workspace.edit("epochs = 2", "epochs = 5000");
    let mut build = workspace
        .command(&["build", "recipe.toml"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let worker = wait_for(|| children_of(build.id()).first().copied());
    build.kill().unwrap();
    build.wait().unwrap();
    wait_for(|| (!is_running(worker)).then_some(()));
}

/// Ctrl-C reaches the build alone; the second ends what runs.
#[cfg(target_os = "linux")]
#[test]
fn two_interrupts_end_a_build_at_once_and_keep_what_is_done() {
    let workspace = Workspace::new();
    workspace.edit("epochs = 2", "epochs = 5000");
    let build = workspace
        .command(&["build", "recipe.toml", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = build.id().to_string();
    let worker = wait_for(|| children_of(build.id()).first().copied());
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        assert!(
            std::process::Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
    }
    let output = build.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("\"cancelled\":true"), "{told}");
    wait_for(|| (!is_running(worker)).then_some(()));
    workspace.edit("epochs = 5000", "epochs = 1");
    assert!(
        !workspace.build(&["teacher"]).ran().contains(&"data:texts"),
        "the data set was kept"
    );
}

#[cfg(target_os = "linux")]
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "it did not happen within 30 seconds"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
fn children_of(process: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A process that ended but was not reaped does not run.
#[cfg(target_os = "linux")]
fn is_running(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status
        .rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
