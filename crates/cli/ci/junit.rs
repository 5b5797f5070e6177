//! A build as a JUnit report: one test case a step, one a gate, and one an action that was run a second time.
//!
//! A step's time is what this build spent on its actions, in seconds: 0 if all were cached. A failed step is a failure,
//! with the error and the last lines of the log; what is wrong with the machine, the recipe or the command is an error.

use super::BuildView;
use crate::check;
use crate::exit::Failure;
use orchestrate_engine::{ActionOutcome, ActionReport, FailureClass, Reproduction};
use orchestrate_recipe::report::GateReport;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// Writes the report.
///
/// # Errors
/// [`Failure::File`].
pub fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    let written = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        report.serialize(&mut file).map_err(io::Error::other)?;
        file.flush()
    };
    written().map_err(Failure::file("write", path))
}

/// The report of a build that is over.
pub fn of_build(build: &BuildView<'_>) -> Report {
    let recipe = &build.session.recipe.name;
    let mut steps = TestSuite::new(format!("{recipe} steps"));
    for (step, actions) in by_step(build) {
        let mut case = TestCase::new(step, status(&actions));
        case.set_classname(format!("{recipe}.step"));
        case.set_time(time(actions.iter().map(|action| action.seconds).sum()));
        steps.add_test_case(case);
    }
    for (title, failure) in &build.failures {
        let mut case = TestCase::new(
            *title,
            non_success(NonSuccessKind::Error, title, &failure.to_string(), ""),
        );
        case.set_classname(format!("{recipe}.{title}"));
        steps.add_test_case(case);
    }
    steps.set_time(time(build.report.seconds));
    let mut report = Report::new(recipe.as_str());
    report.set_time(time(build.report.seconds));
    report.add_test_suite(steps);
    if !build.gates.is_empty() {
        let mut gates = TestSuite::new(format!("{recipe} gates"));
        gates.add_test_cases(build.gates.iter().map(|gate| gate_case(recipe, gate)));
        report.add_test_suite(gates);
    }
    if let Some(reproductions) = build.reproductions {
        let mut check = TestSuite::new(format!("{recipe} check"));
        for (id, reproduction) in reproductions {
            let name = &build.report.actions[id].name;
            let mut case = TestCase::new(name.as_str(), check_status(name, reproduction));
            case.set_classname(format!("{recipe}.check"));
            check.add_test_case(case);
        }
        report.add_test_suite(check);
    }
    report
}

/// The report of a build that came to nothing: one test case for each thing that is wrong.
pub fn of_failure(recipe: &Path, failure: &Failure) -> Report {
    let name = recipe.display().to_string();
    let mut suite = TestSuite::new(name.as_str());
    let mut add = |title: &str, kind: &str, message: &str, text: &str| {
        let mut case = TestCase::new(title, non_success(NonSuccessKind::Error, kind, message, text));
        case.set_classname(name.as_str());
        suite.add_test_case(case);
    };
    match failure {
        Failure::Recipe(errors) => {
            for finding in errors.findings() {
                add(finding.written_at(), "recipe", &finding.to_string(), finding.advice());
            }
        }
        other => add("build", "command", &other.to_string(), ""),
    }
    let mut report = Report::new(name.as_str());
    report.add_test_suite(suite);
    report
}

/// The actions of each step, steps in the order of their first action.
fn by_step<'a>(build: &BuildView<'a>) -> Vec<(&'a str, Vec<&'a ActionReport>)> {
    let mut steps: Vec<(&str, Vec<&ActionReport>)> = Vec::new();
    for action in build.report.actions.values() {
        match steps.iter_mut().find(|(step, _)| *step == action.step) {
            Some((_, actions)) => actions.push(action),
            None => steps.push((&action.step, vec![action])),
        }
    }
    steps
}

fn status(actions: &[&ActionReport]) -> TestCaseStatus {
    let mut skipped = None;
    for action in actions {
        match &action.outcome {
            ActionOutcome::Failed { error, class, log } => {
                let (kind, class) = kind_of(*class);
                return non_success(kind, class, &format!("{} failed: {error}", action.name), log);
            }
            ActionOutcome::Skipped { because } => {
                skipped.get_or_insert(because);
            }
            ActionOutcome::Cached | ActionOutcome::Executed => {}
        }
    }
    match skipped {
        None => TestCaseStatus::success(),
        Some(because) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(because.as_str());
            status
        }
    }
}

/// Whose fault a failure is.
fn kind_of(class: FailureClass) -> (NonSuccessKind, &'static str) {
    match class {
        FailureClass::Step => (NonSuccessKind::Failure, "step"),
        FailureClass::Input => (NonSuccessKind::Failure, "input"),
        FailureClass::Environment => (NonSuccessKind::Error, "environment"),
        FailureClass::Interrupted => (NonSuccessKind::Error, "interrupted"),
    }
}

fn check_status(name: &str, reproduction: &Reproduction) -> TestCaseStatus {
    let (kind, class) = match reproduction {
        Reproduction::Same => return TestCaseStatus::success(),
        Reproduction::Skipped => return TestCaseStatus::skipped(),
        Reproduction::Differs { .. } => (NonSuccessKind::Failure, "not reproducible"),
        Reproduction::Failed { class, .. } => kind_of(*class),
    };
    let told = check::problem(name, reproduction).map(|(title, text)| format!("{title}: {text}"));
    non_success(kind, class, &told.unwrap_or_default(), "")
}

fn gate_case(recipe: &str, gate: &GateReport) -> TestCase {
    let status = if gate.met {
        TestCaseStatus::success()
    } else {
        let message = format!("{}, found {}", gate.condition, gate.found);
        non_success(NonSuccessKind::Failure, "gate", &message, &gate.written_at)
    };
    let mut case = TestCase::new(gate.condition.as_str(), status);
    case.set_classname(format!("{recipe}.gate"));
    case
}

fn non_success(kind: NonSuccessKind, class: &str, message: &str, text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(class).set_message(message);
    if !text.is_empty() {
        status.set_description(text);
    }
    status
}

fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
