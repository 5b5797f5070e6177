//! What a build tells a continuous-integration service: a JUnit report, and GitHub's annotations and step summary.
//!
//! Both are written however the build ends, also if the recipe is wrong: what comes later in a workflow finds them. They
//! say what the other reporters say, and decide nothing.

mod github;
mod junit;

use crate::arguments::{Build, Ci};
use crate::check::Reproductions;
use crate::exit::Failure;
use crate::exports::Left;
use crate::session::Session;
use github::GitHub;
use orchestrate_engine::BuildReport;
use orchestrate_recipe::report::{GateReport, StepReport};
use std::path::Path;

/// What was asked for.
pub struct CiReports<'a> {
    junit: Option<&'a Path>,
    github: Option<GitHub<'a>>,
    recipe: &'a Path,
}

/// A build that is over.
pub struct BuildView<'a> {
    pub session: &'a Session,
    pub report: &'a BuildReport,
    pub steps: &'a [StepReport],
    pub gates: &'a [GateReport],
    /// Exports that were left as they were.
    pub left: &'a [Left<'a>],
    /// What came of running actions a second time, if that was asked for.
    pub reproductions: Option<&'a Reproductions>,
    /// What went wrong beside the actions and gates, each under a title.
    pub failures: Vec<(&'static str, &'a Failure)>,
}

impl<'a> CiReports<'a> {
    /// Those that the command line asks for.
    pub fn new(arguments: &'a Build) -> Self {
        let recipe = arguments.recipe.recipe.as_path();
        Self {
            junit: arguments.junit.as_deref(),
            github: arguments.ci.map(|Ci::Github| GitHub::new(recipe)),
            recipe,
        }
    }

    /// Tells of a build that is over.
    ///
    /// # Errors
    /// [`Failure::File`] if a report cannot be written.
    pub fn of_build(&self, build: &BuildView<'_>) -> Result<(), Failure> {
        if let Some(github) = &self.github {
            github.of_build(build)?;
        }
        match self.junit {
            Some(path) => junit::write(path, &junit::of_build(build)),
            None => Ok(()),
        }
    }

    /// Tells of a build that came to nothing.
    ///
    /// # Errors
    /// [`Failure::File`] if a report cannot be written.
    pub fn of_failure(&self, failure: &Failure) -> Result<(), Failure> {
        if let Some(github) = &self.github {
            github.of_failure(failure)?;
        }
        match self.junit {
            Some(path) => junit::write(path, &junit::of_failure(self.recipe, failure)),
            None => Ok(()),
        }
    }
}
