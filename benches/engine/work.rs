//! What one measured process of ours does. Those that time a part of themselves print its seconds.

use crate::Outcome;
use crate::graphs::{Shape, Touch, all, graph, graph_of_file};
use crate::race::say;
use orchestrate_engine::{
    BuildOptions, Cancel, Executor, InProcessExecutor, ProcessExecutor, Store, build, plan, run_worker,
};
use std::io::{BufReader, stdin, stdout};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// What runs at once: what ninja takes on two processors.
const SLOTS: usize = 4;
const RECIPE: &str = "bench";

/// Carries out the order on standard input.
pub fn worker() -> ExitCode {
    run_worker(&Touch, BufReader::new(stdin()), stdout())
}

/// Builds a tree of `count` actions in `store`; `executor` is `here`, or `workers` for processes, one at a time.
pub fn build_all(store: &str, count: &str, executor: &str) -> Outcome<()> {
    let store = Store::open(store.as_ref())?;
    let graph = graph(count.parse()?, Shape::Tree)?;
    let here = InProcessExecutor::new(&Touch);
    let workers = ProcessExecutor {
        program: std::env::current_exe()?,
        args: vec!["worker".into()],
        threads: NonZeroUsize::MIN,
        environment: vec![],
        memory: None,
    };
    let (executor, slots): (&dyn Executor, usize) = match executor {
        "here" => (&here, SLOTS),
        "workers" => (&workers, 1),
        other => return Err(format!("there is no executor `{other}`").into()),
    };
    let options = BuildOptions {
        recipe: RECIPE.to_owned(),
        variant: None,
        slots: NonZeroUsize::new(slots).unwrap_or(NonZeroUsize::MIN),
        keep_going: false,
        memory: None,
        checkpoint_every: None,
    };
    let report = build(
        &graph,
        &all(&graph),
        &options,
        &store,
        executor,
        &Cancel::new(),
        &|_| {},
    )?;
    if report.is_success() {
        Ok(())
    } else {
        Err("a trivial build failed".into())
    }
}

/// Plans `count` actions; prints the seconds that the plan alone took, and the most memory that was held in MiB.
pub fn plan_all(store: &str, count: &str, shape: &str) -> Outcome<()> {
    let store = Store::open(store.as_ref())?;
    let graph = graph(count.parse()?, Shape::of(shape)?)?;
    let targets = all(&graph);
    let started = Instant::now();
    let planned = plan(&graph, &store, &targets, RECIPE)?;
    let seconds = started.elapsed().as_secs_f64();
    let hits = planned
        .actions
        .iter()
        .filter(|action| matches!(action.decision, orchestrate_engine::Decision::Hit { .. }));
    say(&format!("{seconds} {} {}", peak_mebibytes()?, hits.count()));
    Ok(())
}

/// Plans an action that reads `file`; prints the seconds that it took.
pub fn plan_input(store: &str, file: &str) -> Outcome<()> {
    let store = Store::open(store.as_ref())?;
    let graph = graph_of_file(Path::new(file))?;
    let started = Instant::now();
    plan(&graph, &store, &all(&graph), RECIPE)?;
    say(&started.elapsed().as_secs_f64().to_string());
    Ok(())
}

/// Takes the files below `folder` into `store`.
pub fn publish(store: &str, folder: &str) -> Outcome<()> {
    Store::open(store.as_ref())?.publish(folder.as_ref())?;
    Ok(())
}

fn peak_mebibytes() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("this system tells no peak memory")?;
    Ok(kibibytes.parse::<f64>()? / 1024.0)
}
