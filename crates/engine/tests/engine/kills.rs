//! Kills: builds with worker processes that are killed at random moments, and a holder of a lease that is killed.

use crate::contention::{beside, diamond};
use crate::fixture::{Fake, Workshop, all, concatenate, files_below, options};
use orchestrate_engine::{Cancel, InProcessExecutor, RunEvent, build};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How many builds are killed while they run.
const KILLS: u32 = 200;

#[test]
fn two_hundred_kills_at_random_moments_change_nothing() {
    let (workshop, clean) = (Workshop::in_memory(), Workshop::in_memory());
    let mut undisturbed = [0, 1, 2, 3, 4].map(|round| {
        let started = Instant::now();
        assert!(
            beside(&workshop, "processes", 1_000_000 + round)
                .wait()
                .unwrap()
                .success()
        );
        started.elapsed()
    });
    undisturbed.sort_unstable();
    let whole = undisturbed[2];
    let (mut killed, mut round) = (0, 0);
    while killed < KILLS {
        assert!(round < 5 * KILLS, "only {killed} of {round} builds were still running");
        let mut child = beside(&workshop, "processes", round);
        // Moments spread over the time that a build takes, in no order: multiples of the golden ratio.
        std::thread::sleep(whole.mul_f64((f64::from(round) * 0.618_034).fract()));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let (ours, theirs) = (workshop.build(&diamond(round)), clean.build(&diamond(round)));
        assert!(ours.report.is_success(), "{:?}", ours.report);
        for (id, report) in &ours.report.actions {
            let (ours, theirs) = (report.result.as_ref(), theirs.report.actions[id].result.as_ref());
            assert_eq!(ours.map(|it| (it.key, it.tree)), theirs.map(|it| (it.key, it.tree)));
        }
        assert_eq!(
            workshop.text_of(&ours, "end"),
            format!("e(l({round}))(r({round}))"),
            "of verified bytes"
        );
        round += 1;
    }
    eprintln!("{killed} of {round} builds were still running, of {whole:?} each");
    assert!(workshop.store().verify_all(false).unwrap().damaged.is_empty());
    let left: Vec<_> = files_below(&workshop.path("store/tmp")).into_iter().collect();
    assert_eq!(left, [workshop.path("store/tmp/gate")]);
}

#[test]
fn a_holder_that_is_killed_is_replaced_within_a_second() {
    let workshop = Workshop::new();
    let mut holder = beside(&workshop, "forever", 0);
    let lease = workshop.path("store/leases");
    let is_held = || lease.is_dir() && !files_below(&lease).is_empty();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_held() {
        assert!(Instant::now() < deadline, "the holder takes no lease");
        std::thread::yield_now();
    }
    let (graph, fake, store) = (diamond(0), Fake::new(concatenate), workshop.store());
    let killed_at: Mutex<Option<Instant>> = Mutex::new(None);
    let events = Mutex::new(BTreeMap::new());
    let holder = Mutex::new(&mut holder);
    let sink = |event| match event {
        RunEvent::ActionWaiting { .. } => {
            holder.lock().unwrap().kill().unwrap();
            *killed_at.lock().unwrap() = Some(Instant::now());
        }
        RunEvent::ActionStarted { action, .. } => {
            events.lock().unwrap().insert(action, Instant::now());
        }
        _ => {}
    };
    let executor = InProcessExecutor::new(&fake);
    let report = build(
        &graph,
        &all(&graph),
        &options(1, false),
        &store,
        &executor,
        &Cancel::new(),
        &sink,
    );
    assert!(report.unwrap().is_success());
    holder.into_inner().unwrap().wait().unwrap();
    let killed_at = killed_at
        .into_inner()
        .unwrap()
        .expect("the build waited for the holder");
    let waited = events.into_inner().unwrap()["top"] - killed_at;
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}
