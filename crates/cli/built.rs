//! A build that is over: what came of it, shown to people or told as events, and the code to end with.

use crate::arguments::Build;
use crate::check::{self, Reproductions};
use crate::ci::BuildView;
use crate::exit::{ExitCode, Failure};
use crate::exports::{Placing, exported_event, exported_line, left_event, left_line, put_exports};
use crate::locked::Locked;
use crate::session::Session;
use crate::{output, table};
use orchestrate_engine::{ActionOutcome, BuildReport, FailureClass, RunEvent, Store};
use orchestrate_recipe::report::{GateReport, StepReport, baseline_step, gate_reports, number, step_reports};
use serde_json::json;

/// A build that is over.
pub struct Built<'a> {
    pub session: &'a Session,
    pub report: BuildReport,
    pub steps: Vec<StepReport>,
    pub placing: Placing<'a>,
    pub gates: Vec<GateReport>,
    /// What came of running actions a second time, if that was asked for.
    pub reproductions: Option<Reproductions>,
    /// How what was made differs from what is locked, if it does.
    pub other_than_locked: Option<Failure>,
}

impl<'a> Built<'a> {
    /// What the build of `session` that gave `report` came to, held against `lock`. Nothing is put in place yet.
    pub fn new(session: &'a Session, report: BuildReport, lock: &Locked) -> Self {
        let steps = step_reports(&session.lowered, &report);
        Self {
            session,
            gates: gate_reports(&session.recipe, &steps),
            other_than_locked: lock.compare(&report).err(),
            report,
            steps,
            placing: Placing::default(),
            reproductions: None,
        }
    }

    /// Puts the exports in place, unless they are not what is locked, or a check that was asked for has not shown them to
    /// be reproducible: what an earlier build exported stays then.
    pub fn put_in_place(&mut self, arguments: &Build, store: &Store) {
        let doubt = if self.other_than_locked.is_some() {
            Some("what was made differs from the lock")
        } else if arguments.check {
            check::doubt(self.reproductions.as_ref())
        } else {
            None
        };
        self.placing = put_exports(arguments, self.session, store, &self.report, &self.steps, doubt);
    }

    /// What reports for CI are made of.
    pub fn view(&self) -> BuildView<'_> {
        BuildView {
            session: self.session,
            report: &self.report,
            steps: &self.steps,
            gates: &self.gates,
            left: &self.placing.left,
            reproductions: self.reproductions.as_ref(),
            failures: self.failures(),
        }
    }

    /// What went wrong beside the actions and gates, each under a title.
    pub fn failures(&self) -> Vec<(&'static str, &Failure)> {
        let exports = self.placing.failures.iter().map(|failure| ("export", failure));
        let lock = self.other_than_locked.iter().map(|failure| ("lock", failure));
        exports.chain(lock).collect()
    }

    /// The code to end with. Where several apply, the first counts: of an interruption, of a failed step, of a check, of the
    /// lock, of an export that cannot be put in place, of a gate.
    pub fn code(&self) -> ExitCode {
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
        if let Some(code) = self.reproductions.as_ref().and_then(check::code) {
            return code;
        }
        if let Some(failure) = self.other_than_locked.iter().chain(&self.placing.failures).next() {
            return failure.code();
        }
        if self.gates.iter().all(|gate| gate.met) {
            ExitCode::Done
        } else {
            ExitCode::GateNotMet
        }
    }

    /// Shows all for people; what failed goes to standard error, whoever reads standard output.
    pub fn show(&self) -> Result<(), Failure> {
        let told = self.show_figures();
        for action in self.report.actions.values() {
            if let ActionOutcome::Failed { error, .. } = &action.outcome {
                output::error(&format!("{} failed: {error}", action.name));
            }
        }
        told.and_then(|()| output::line(&table::summary(&self.report)))?;
        self.show_check()?;
        if self.report.cancelled {
            self.show_where_it_stopped();
        }
        Ok(())
    }

    /// What the second run of each action gave; what differs goes to standard error.
    fn show_check(&self) -> Result<(), Failure> {
        let Some(reproductions) = &self.reproductions else {
            return Ok(());
        };
        for (id, reproduction) in reproductions {
            if let Some((title, text)) = check::problem(&self.report.actions[id].name, reproduction) {
                output::error(&format!("{title}: {text}"));
            }
        }
        output::line(&check::summary(reproductions))
    }

    /// What was running when the build was told to stop, and how to go on.
    fn show_where_it_stopped(&self) {
        for action in self.report.actions.values().filter(|action| action.reason.is_some()) {
            if let ActionOutcome::Skipped { because } = &action.outcome {
                output::note(&format!("{}: {because}", action.name));
            }
        }
        output::note("interrupted; the same command goes on from here");
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
        for export in &self.placing.left {
            output::line(&left_line(export))?;
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
    pub fn print_events(&self, end: Option<RunEvent>) -> Result<(), Failure> {
        for export in &self.placing.exported {
            output::line(&exported_event(export))?;
        }
        for export in &self.placing.left {
            output::line(&left_event(export))?;
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
