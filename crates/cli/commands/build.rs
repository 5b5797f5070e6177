//! `orchestrate build`: brings a recipe up to date, puts its exports in place, and holds its gates against the result.

use crate::arguments::{Build, Format};
use crate::exit::{ExitCode, Failure};
use crate::interrupt::cancel_on_signals;
use crate::reporter::Reporter;
use crate::session::Session;
use crate::{output, table};
use orchestrate_engine::{
    ActionOutcome, BuildOptions, BuildReport, EngineError, FailureClass, ProcessExecutor, RunEvent, Store, StoreError,
    build,
};
use orchestrate_recipe::LoweredStep;
use orchestrate_recipe::report::{
    GateReport, Origin, StepReport, StepState, baseline_step, gate_reports, metrics_json, provenance_json, step_reports,
};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Threads that an action gets where there are enough: more than a few are of little use to one training.
const THREADS_A_JOB: usize = 4;

/// Builds.
pub fn run(arguments: &Build) -> Result<ExitCode, Failure> {
    let session = Session::open(&arguments.recipe)?;
    session.require_steps(&arguments.steps)?;
    session.require_device()?;
    let store = Store::open(&arguments.cache.cache)?;
    let slots = arguments.jobs.unwrap_or_else(default_jobs);
    let executor = ProcessExecutor {
        program: std::env::current_exe().map_err(Failure::file("find", "this program"))?,
        args: vec!["worker".into()],
        threads: NonZeroUsize::new(available_threads().get() / slots).unwrap_or(NonZeroUsize::MIN),
        // candle's own pool spins while it waits, beside the kernels' threads: what little it does is faster without it.
        environment: vec![("CANDLE_NUM_THREADS".into(), "1".into())],
    };
    let options = BuildOptions {
        recipe: session.recipe.name.clone(),
        slots,
        keep_going: arguments.keep_going,
    };
    let cancel = cancel_on_signals();
    let reporter = Reporter::new(arguments.format);
    // The last event of a build is told last, behind those of the gates and exports.
    let end = Mutex::new(None);
    let sink = |event: RunEvent| match event {
        RunEvent::RunFinished { .. } => *end.lock().expect("no reporter panics") = Some(event),
        event => reporter.event(&event),
    };
    let targets = session.lowered.targets(&arguments.steps);
    let bring_up_to_date = || {
        build(
            &session.lowered.graph,
            &targets,
            &options,
            &store,
            &executor,
            &cancel,
            &sink,
        )
    };
    let mut report = bring_up_to_date()?;
    let mut steps = step_reports(&session.lowered, &report);
    let exports = match put_exports(arguments, &session, &store, &report, &steps) {
        // A blob was found damaged only now that it was read, and has been set aside: it is made anew, once.
        Err(Failure::Engine(EngineError::Store(StoreError::NotWhole { .. }))) => {
            report = bring_up_to_date()?;
            steps = step_reports(&session.lowered, &report);
            put_exports(arguments, &session, &store, &report, &steps)?
        }
        exports => exports?,
    };
    reporter.clear();
    let gates = gate_reports(&session.recipe, &steps);
    match arguments.format {
        Format::Human => show(&session, &report, &steps, &exports, &gates)?,
        Format::Json => {
            exports.iter().try_for_each(|e| {
                output::line(&json!({"event": "exported", "step": e.step, "folder": e.folder}).to_string())
            })?;
            gates.iter().try_for_each(|gate| output::line(&gate_event(gate)))?;
            if let Some(event) = end.into_inner().expect("no reporter panics") {
                output::line(&serde_json::to_string(&event).expect("an event has string keys and finite numbers"))?;
            }
        }
    }
    Ok(code(&report, &gates))
}

fn available_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn default_jobs() -> NonZeroUsize {
    NonZeroUsize::new(available_threads().get() / THREADS_A_JOB).unwrap_or(NonZeroUsize::MIN)
}

fn code(report: &BuildReport, gates: &[GateReport]) -> ExitCode {
    if report.cancelled {
        return ExitCode::Interrupted;
    }
    if let Some(id) = report.first_failure {
        return match report.actions[&id].outcome {
            ActionOutcome::Failed {
                class: FailureClass::Environment,
                ..
            } => ExitCode::Environment,
            ActionOutcome::Failed { .. }
            | ActionOutcome::Cached
            | ActionOutcome::Executed
            | ActionOutcome::Skipped { .. } => ExitCode::StepFailed,
        };
    }
    if gates.iter().all(|gate| gate.met) {
        ExitCode::Done
    } else {
        ExitCode::GateNotMet
    }
}

/// An exported model in its place.
struct Exported<'a> {
    step: &'a str,
    folder: PathBuf,
}

/// Puts the files of every export that is complete into `out/RECIPE/STEP`, with what was measured and where they came from.
fn put_exports<'a>(
    arguments: &Build,
    session: &'a Session,
    store: &Store,
    report: &BuildReport,
    steps: &[StepReport],
) -> Result<Vec<Exported<'a>>, Failure> {
    let baseline = baseline_step(&session.recipe).and_then(|name| steps.iter().find(|step| step.name == name));
    let mut exported = Vec::new();
    for step in session.lowered.steps.iter().filter(|step| step.kind == "export") {
        let complete = |s: &&StepReport| s.name == step.name && matches!(s.state, StepState::Ran | StepState::Cached);
        let Some(figures) = steps.iter().find(complete) else {
            continue;
        };
        let folder = arguments.out.join(&session.recipe.name).join(&step.name);
        put_export(
            &folder,
            arguments,
            session,
            store,
            report,
            step,
            &metrics_json(figures, baseline),
        )?;
        exported.push(Exported {
            step: &step.name,
            folder,
        });
    }
    Ok(exported)
}

fn put_export(
    folder: &Path,
    arguments: &Build,
    session: &Session,
    store: &Store,
    report: &BuildReport,
    step: &LoweredStep,
    metrics: &Value,
) -> Result<(), Failure> {
    let result = report.actions[&step.model]
        .result
        .as_ref()
        .expect("a complete step has a result");
    store.materialize(&result.tree, folder)?;
    let origin = Origin {
        recipe: &session.recipe,
        profile: arguments.recipe.profile.as_deref(),
        set: &arguments.recipe.set,
    };
    let provenance = provenance_json(&origin, &session.lowered, report, step);
    write_whole(&folder.join("recipe.toml"), &session.text)?;
    write_whole(&folder.join("provenance.json"), &pretty(&provenance))?;
    write_whole(&folder.join("metrics.json"), &pretty(metrics))
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Writes a file beside its place and moves it there, so that it is never seen half written.
fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".partial");
    std::fs::write(&beside, text).map_err(Failure::file("write", path))?;
    std::fs::rename(&beside, path).map_err(Failure::file("write", path))
}

fn gate_event(gate: &GateReport) -> String {
    json!({
        "event": "gate",
        "condition": gate.condition,
        "found": gate.found,
        "met": gate.met,
        "written_at": gate.written_at,
    })
    .to_string()
}

fn show(
    session: &Session,
    report: &BuildReport,
    steps: &[StepReport],
    exports: &[Exported],
    gates: &[GateReport],
) -> Result<(), Failure> {
    if report.executed + report.failed + report.skipped > 0 {
        output::line("")?;
    }
    table::steps(steps, baseline_step(&session.recipe))
        .iter()
        .try_for_each(|row| output::line(row))?;
    output::line("")?;
    for step in steps
        .iter()
        .filter(|step| step.figures.contains_key("predictions_changed"))
    {
        output::line(&table::agreement(step))?;
    }
    for export in exports {
        output::line(&format!("{}: in {}", export.step, export.folder.display()))?;
    }
    for gate in gates {
        let word = if gate.met { "met" } else { "NOT MET" };
        output::line(&format!(
            "gate {word}: {}, found {} ({})",
            gate.condition, gate.found, gate.written_at
        ))?;
    }
    for action in report.actions.values() {
        if let ActionOutcome::Failed { error, .. } = &action.outcome {
            output::error(&format!("{} failed: {error}", action.name));
        }
    }
    output::line(&table::summary(report))
}
