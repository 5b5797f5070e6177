//! A build that is over: what came of it, shown to people or told as events, and the code to end with.

use crate::ci::BuildView;
use crate::exit::{ExitCode, Failure};
use crate::exports::{Placing, exported_event, exported_line};
use crate::session::Session;
use crate::{output, table};
use orchestrate_engine::{ActionId, ActionOutcome, BuildReport, FailureClass, Reproduction, RunEvent};
use orchestrate_recipe::report::{GateReport, StepReport, baseline_step, number};
use serde_json::json;
use std::collections::BTreeMap;

/// A build that is over.
pub struct Built<'a> {
    pub session: &'a Session,
    pub report: BuildReport,
    pub steps: Vec<StepReport>,
    pub placing: Placing<'a>,
    pub gates: Vec<GateReport>,
    /// What came of running actions a second time, if that was asked for.
    pub reproductions: Option<BTreeMap<ActionId, Reproduction>>,
    /// How what was made differs from what is locked, if it does.
    pub other_than_locked: Option<Failure>,
}

impl Built<'_> {
    /// What reports for CI are made of.
    pub fn view(&self) -> BuildView<'_> {
        BuildView {
            session: self.session,
            report: &self.report,
            steps: &self.steps,
            gates: &self.gates,
            failures: self.failures(),
        }
    }

    /// What went wrong beside the actions and gates, each under a title.
    pub fn failures(&self) -> Vec<(&'static str, &Failure)> {
        let exports = self.placing.failures.iter().map(|failure| ("export", failure));
        let lock = self.other_than_locked.iter().map(|failure| ("lock", failure));
        exports.chain(lock).collect()
    }

    /// The code to end with.
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
        if let Some(failure) = self.placing.failures.first() {
            return failure.code();
        }
        if let Some(code) = self.code_of_check() {
            return code;
        }
        if !self.gates.iter().all(|gate| gate.met) {
            return ExitCode::GateNotMet;
        }
        self.other_than_locked.as_ref().map_or(ExitCode::Done, Failure::code)
    }

    /// The code of a check that did not go well.
    fn code_of_check(&self) -> Option<ExitCode> {
        let mut worst = None;
        for reproduction in self
            .reproductions
            .iter()
            .flatten()
            .map(|(_, reproduction)| reproduction)
        {
            worst = match reproduction {
                Reproduction::Differs { .. } => return Some(ExitCode::NotReproducible),
                Reproduction::Failed {
                    class: FailureClass::Environment,
                    ..
                } => Some(ExitCode::Environment),
                Reproduction::Failed { .. } => Some(ExitCode::StepFailed),
                Reproduction::Skipped => Some(ExitCode::Interrupted),
                Reproduction::Same => worst,
            };
        }
        worst
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
        let name = |id: &ActionId| self.report.actions[id].name.as_str();
        let (mut same, mut skipped) = (0, 0);
        for (id, reproduction) in reproductions {
            match reproduction {
                Reproduction::Same => same += 1,
                Reproduction::Differs { difference } => {
                    output::error(&format!("{} is not reproducible: {difference}", name(id)));
                }
                Reproduction::Failed { error, .. } => {
                    output::error(&format!("{} failed when it ran a second time: {error}", name(id)));
                }
                Reproduction::Skipped => skipped += 1,
            }
        }
        let skipped = if skipped > 0 {
            format!(", {skipped} not run")
        } else {
            String::new()
        };
        output::line(&format!(
            "check: {same} of {} actions gave the same bytes and metrics a second time{skipped}",
            reproductions.len()
        ))
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
