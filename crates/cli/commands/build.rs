//! `orchestrate build`: brings a recipe up to date, puts its exports in place, and holds its gates against the result.

use crate::arguments::{Build, Format};
use crate::built::Built;
use crate::ci::CiReports;
use crate::exit::{ExitCode, Failure};
use crate::interrupt::cancel_on_signals;
use crate::locked::Locked;
use crate::machine;
use crate::quantity::Cap;
use crate::reporter::Reporter;
use crate::session::{Session, open_store, require_utf8};
use crate::{output, table};
use orchestrate_engine::{ActionId, BuildOptions, Cancel, ProcessExecutor, RunEvent, Store, build, reproduce};
use orchestrate_recipe::describe_difference;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Mutex;

/// Builds, and tells the continuous-integration services that are to know.
pub fn run(arguments: &Build) -> Result<ExitCode, Failure> {
    let reports = CiReports::new(arguments);
    carry_out(arguments, &reports).inspect_err(|failure| {
        if let Err(unwritten) = reports.of_failure(failure) {
            unwritten.show();
        }
    })
}

fn carry_out(arguments: &Build, reports: &CiReports<'_>) -> Result<ExitCode, Failure> {
    require_utf8("--out", &arguments.out)?;
    let session = Session::open(&arguments.recipe)?;
    session.require_steps(&arguments.steps)?;
    session.require_device()?;
    let mut store = open_store(&arguments.cache)?;
    let lock = Locked::read(arguments, &session, &store)?;
    let cancel = cancel_on_signals();
    let reporter = Reporter::new(arguments.format);
    // The last event of a build is told last, behind those of the gates and exports.
    let end = Mutex::new(None);
    let sink = |event: RunEvent| match event {
        RunEvent::RunFinished { .. } => *end.lock().expect("no reporter panics") = Some(event),
        event => reporter.event(&event),
    };
    let built = bring_up_to_date(arguments, &session, &lock, &store, &cancel, &sink)?;
    reporter.clear();
    let told = match arguments.format {
        Format::Human => built.show(),
        Format::Json => built.print_events(end.into_inner().expect("no reporter panics")),
    };
    built.failures().iter().for_each(|(_, failure)| failure.show());
    if built.report.executed > 0 && !built.report.cancelled {
        keep_below(arguments.cache_size, &mut store);
    }
    let reported = reports.of_build(&built.view());
    let mut code = built.code();
    for failure in [told, reported].into_iter().filter_map(Result::err) {
        // A reader that went away hears what came of the build from the exit code all the same.
        if !matches!(failure, Failure::OutputClosed) {
            failure.show();
            if code == ExitCode::Done {
                code = failure.code();
            }
        }
    }
    Ok(code)
}

/// Builds, compares with the lock, checks, and then puts the exports in place. What is found damaged only when it is copied
/// is made anew, once.
fn bring_up_to_date<'a>(
    arguments: &Build,
    session: &'a Session,
    lock: &Locked,
    store: &Store,
    cancel: &Cancel,
    sink: &(dyn Fn(RunEvent) + Sync),
) -> Result<Built<'a>, Failure> {
    let slots = arguments.jobs.unwrap_or_else(machine::jobs);
    let memory = match arguments.memory {
        None => machine::memory(),
        Some(Cap::Bytes(bytes)) => Some(bytes),
        Some(Cap::None) => None,
    };
    let executor = executor(slots, memory)?;
    let options = BuildOptions {
        recipe: session.recipe.name.clone(),
        variant: Some(session.variant.clone()),
        slots,
        keep_going: arguments.keep_going,
        memory,
        checkpoint_every: arguments.checkpoint_every.0,
    };
    let graph = &session.lowered.graph;
    let mut targets = session.lowered.targets(&arguments.steps);
    let chosen = chosen_actions(session, &arguments.steps, &targets);
    if arguments.check {
        // What runs a second time reads the bytes of its inputs, which may have been collected.
        let inputs = chosen.iter().flat_map(|id| graph.dependencies(*id));
        let all: BTreeSet<ActionId> = targets.iter().chain(&chosen).copied().chain(inputs).collect();
        targets = all.into_iter().collect();
    }
    let once = || -> Result<Built<'a>, Failure> {
        let report = build(graph, &targets, &options, store, &executor, cancel, sink)?;
        Ok(Built::new(session, report, lock))
    };
    let mut built = once()?;
    if arguments.check && built.report.is_success() {
        let reproductions = reproduce(
            graph,
            &built.report,
            &chosen,
            &options,
            store,
            &executor,
            cancel,
            sink,
            &describe_difference,
        )?;
        built.reproductions = Some(reproductions);
    }
    built.put_in_place(arguments, store);
    if built.placing.found_damage {
        let reproductions = built.reproductions.take();
        built = once()?;
        built.reproductions = reproductions;
        built.put_in_place(arguments, store);
    }
    Ok(built)
}

/// The actions of the steps `names`; all of the build if there are none.
fn chosen_actions(session: &Session, names: &[String], targets: &[ActionId]) -> Vec<ActionId> {
    if names.is_empty() {
        return session.lowered.graph.ancestors_of(targets).into_iter().collect();
    }
    let steps = names.iter().filter_map(|name| session.lowered.step(name));
    steps.flat_map(|step| step.actions.iter().copied()).collect()
}

/// Removes the oldest results of a cache that has grown too large. Whatever comes of it, the build stands.
fn keep_below(cap: Cap, store: &mut Store) {
    let Cap::Bytes(max_bytes) = cap else { return };
    let size = |bytes: u64| table::bytes(bytes as f64);
    match store.keep_below(max_bytes) {
        Ok(None) => {}
        Ok(Some(report)) => {
            let (removed, left) = (report.removed.total().bytes, report.left.total().bytes);
            let over = if report.bytes_over > 0 {
                "; the rest is what the last runs were asked for"
            } else {
                ""
            };
            output::note(&format!(
                "cache: removed {}, {} left, at most {} wanted (--cache-size){over}",
                size(removed),
                size(left),
                size(max_bytes)
            ));
        }
        Err(error) => output::note(&format!("warning: the cache could not be kept small: {error}")),
    }
}

/// Workers of this very program that share the threads.
fn executor(slots: NonZeroUsize, memory: Option<u64>) -> Result<ProcessExecutor, Failure> {
    Ok(ProcessExecutor {
        program: std::env::current_exe().map_err(Failure::file("find", "this program"))?,
        args: vec!["worker".into()],
        threads: NonZeroUsize::new(machine::threads().get() / slots).unwrap_or(NonZeroUsize::MIN),
        // candle's own pool spins while it waits, beside the kernels' threads: the little it does is faster without it.
        environment: vec![("CANDLE_NUM_THREADS".into(), "1".into())],
        memory,
    })
}
