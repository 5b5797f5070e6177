//! `orchestrate build`: brings a recipe up to date, puts its exports in place, and holds its gates against the result.

use crate::arguments::{Build, Format};
use crate::ci::{BuildView, CiReports};
use crate::exit::{ExitCode, Failure};
use crate::exports::{Placing, exported_event, exported_line, put_exports};
use crate::interrupt::cancel_on_signals;
use crate::reporter::Reporter;
use crate::session::{Session, open_store, require_utf8};
use crate::{output, table};
use orchestrate_engine::{
    ActionOutcome, BuildOptions, BuildReport, Cancel, FailureClass, ProcessExecutor, RunEvent, Store, build,
};
use orchestrate_recipe::report::{GateReport, StepReport, baseline_step, gate_reports, number, step_reports};
use serde_json::json;
use std::num::NonZeroUsize;
use std::sync::Mutex;

/// Threads that an action gets where there are enough: more than a few are of little use to one training.
const THREADS_A_JOB: usize = 4;

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
    let store = open_store(&arguments.cache)?;
    let cancel = cancel_on_signals();
    let reporter = Reporter::new(arguments.format);
    // The last event of a build is told last, behind those of the gates and exports.
    let end = Mutex::new(None);
    let sink = |event: RunEvent| match event {
        RunEvent::RunFinished { .. } => *end.lock().expect("no reporter panics") = Some(event),
        event => reporter.event(&event),
    };
    let built = bring_up_to_date(arguments, &session, &store, &cancel, &sink)?;
    reporter.clear();
    let told = match arguments.format {
        Format::Human => built.show(),
        Format::Json => built.print_events(end.into_inner().expect("no reporter panics")),
    };
    built.placing.failures.iter().for_each(Failure::show);
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

/// A build that is over.
struct Built<'a> {
    session: &'a Session,
    report: BuildReport,
    steps: Vec<StepReport>,
    placing: Placing<'a>,
    gates: Vec<GateReport>,
}

/// Builds and puts the exports in place. A blob that is found damaged only when it is copied is made anew, once.
fn bring_up_to_date<'a>(
    arguments: &Build,
    session: &'a Session,
    store: &Store,
    cancel: &Cancel,
    sink: &(dyn Fn(RunEvent) + Sync),
) -> Result<Built<'a>, Failure> {
    let slots = arguments.jobs.unwrap_or_else(default_jobs);
    let executor = executor(slots)?;
    let options = BuildOptions {
        recipe: session.recipe.name.clone(),
        slots,
        keep_going: arguments.keep_going,
    };
    let targets = session.lowered.targets(&arguments.steps);
    let once = || -> Result<Built<'a>, Failure> {
        let report = build(
            &session.lowered.graph,
            &targets,
            &options,
            store,
            &executor,
            cancel,
            sink,
        )?;
        let steps = step_reports(&session.lowered, &report);
        Ok(Built {
            session,
            placing: put_exports(arguments, session, store, &report, &steps),
            gates: gate_reports(&session.recipe, &steps),
            report,
            steps,
        })
    };
    let built = once()?;
    if built.placing.found_damage { once() } else { Ok(built) }
}

/// Workers of this very program that share the threads.
fn executor(slots: NonZeroUsize) -> Result<ProcessExecutor, Failure> {
    Ok(ProcessExecutor {
        program: std::env::current_exe().map_err(Failure::file("find", "this program"))?,
        args: vec!["worker".into()],
        threads: NonZeroUsize::new(available_threads().get() / slots).unwrap_or(NonZeroUsize::MIN),
        // candle's own pool spins while it waits, beside the kernels' threads: the little it does is faster without it.
        environment: vec![("CANDLE_NUM_THREADS".into(), "1".into())],
    })
}

/// The threads that `RAYON_NUM_THREADS` grants, or else the machine's.
fn available_threads() -> NonZeroUsize {
    let granted = std::env::var("RAYON_NUM_THREADS").ok();
    granted
        .and_then(|text| text.trim().parse().ok())
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

fn default_jobs() -> NonZeroUsize {
    NonZeroUsize::new(available_threads().get() / THREADS_A_JOB).unwrap_or(NonZeroUsize::MIN)
}

impl Built<'_> {
    fn view(&self) -> BuildView<'_> {
        BuildView {
            session: self.session,
            report: &self.report,
            steps: &self.steps,
            gates: &self.gates,
            failures: &self.placing.failures,
        }
    }

    /// The code to end with.
    fn code(&self) -> ExitCode {
        if self.report.cancelled {
            return ExitCode::Interrupted;
        }
        if let Some(id) = self.report.first_failure {
            return match self.report.actions[&id].outcome {
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
        if let Some(failure) = self.placing.failures.first() {
            return failure.code();
        }
        if self.gates.iter().all(|gate| gate.met) {
            ExitCode::Done
        } else {
            ExitCode::GateNotMet
        }
    }

    /// Shows all for people; what failed goes to standard error, whoever reads standard output.
    fn show(&self) -> Result<(), Failure> {
        let told = self.show_figures();
        for action in self.report.actions.values() {
            if let ActionOutcome::Failed { error, .. } = &action.outcome {
                output::error(&format!("{} failed: {error}", action.name));
            }
        }
        told.and_then(|()| output::line(&table::summary(&self.report)))
    }

    fn show_figures(&self) -> Result<(), Failure> {
        if self.report.executed + self.report.failed + self.report.skipped > 0 {
            output::line("")?;
        }
        table::steps(&self.steps, baseline_step(&self.session.recipe))
            .iter()
            .try_for_each(|row| output::line(row))?;
        output::line("")?;
        for step in &self.steps {
            if step.figures.contains_key("predictions_changed") {
                output::line(&table::agreement(step))?;
            }
        }
        for export in &self.placing.exported {
            output::line(&exported_line(export))?;
        }
        for gate in &self.gates {
            let word = if gate.met { "met" } else { "NOT MET" };
            output::line(&format!(
                "gate {word}: {}, found {} ({})",
                gate.condition, gate.found, gate.written_at
            ))?;
        }
        Ok(())
    }

    /// Prints the events of exports and gates, and `end` behind them.
    fn print_events(&self, end: Option<RunEvent>) -> Result<(), Failure> {
        for export in &self.placing.exported {
            output::line(&exported_event(export))?;
        }
        for gate in &self.gates {
            output::line(&gate_event(gate))?;
        }
        match end {
            None => Ok(()),
            Some(event) => {
                output::line(&serde_json::to_string(&event).expect("an event has string keys and finite numbers"))
            }
        }
    }
}

fn gate_event(gate: &GateReport) -> String {
    json!({
        "event": "gate",
        "step": gate.step,
        "metric": gate.metric,
        "bound": gate.bound,
        "limit": number(gate.limit),
        "value": gate.value.map(number),
        "condition": gate.condition,
        "found": gate.found,
        "met": gate.met,
        "written_at": gate.written_at,
    })
    .to_string()
}
