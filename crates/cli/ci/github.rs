//! GitHub Actions: workflow commands that mark lines of the recipe, and the step summary.
//!
//! Commands go to standard error, which the runner reads as it does standard output, so that standard output stays what
//! `--format` says. The summary is appended to the file that `GITHUB_STEP_SUMMARY` names.

use super::BuildView;
use crate::check;
use crate::exit::Failure;
use crate::exports::left_line;
use crate::{output, table};
use orchestrate_engine::{ActionOutcome, ActionReport, BuildReport};
use orchestrate_recipe::report::baseline_step;
use orchestrate_recipe::{Finding, RecipeErrors};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The variable that names the summary's file.
const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// Tells GitHub.
pub struct GitHub<'a> {
    recipe: &'a Path,
    summary: Option<PathBuf>,
}

/// How serious a mark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
}

impl<'a> GitHub<'a> {
    /// For a build of the recipe in that file. Says so if there is nowhere to put a summary.
    pub fn new(recipe: &'a Path) -> Self {
        let summary = std::env::var_os(SUMMARY).filter(|path| !path.is_empty());
        if summary.is_none() {
            output::note(&format!(
                "{SUMMARY} is not set: no step summary is written; it is there in steps of GitHub Actions"
            ));
        }
        Self {
            recipe,
            summary: summary.map(PathBuf::from),
        }
    }

    /// Tells of a build that is over.
    ///
    /// # Errors
    /// [`Failure::File`] if the summary cannot be written.
    pub fn of_build(&self, build: &BuildView<'_>) -> Result<(), Failure> {
        for warning in &build.session.warnings {
            self.mark_finding(Level::Warning, warning);
        }
        for action in build.report.actions.values() {
            if let ActionOutcome::Failed { error, .. } = &action.outcome {
                let title = format!("{} failed", action.name);
                self.mark(Level::Error, place_of(action, build), &title, error);
            }
        }
        for (id, reproduction) in build.reproductions.into_iter().flatten() {
            let action = &build.report.actions[id];
            if let Some((title, text)) = check::problem(&action.name, reproduction) {
                self.mark(Level::Error, place_of(action, build), &title, text);
            }
        }
        for (title, failure) in &build.failures {
            self.mark(Level::Error, "", title, &failure.to_string());
        }
        for gate in build.gates.iter().filter(|gate| !gate.met) {
            let text = format!("{}, found {}", gate.condition, gate.found);
            self.mark(Level::Error, &gate.written_at, "gate not met", &text);
        }
        self.append(&summary(build))
    }

    /// Tells of a build that came to nothing.
    ///
    /// # Errors
    /// [`Failure::File`] if the summary cannot be written.
    pub fn of_failure(&self, failure: &Failure) -> Result<(), Failure> {
        match failure {
            Failure::Recipe(errors) => errors
                .findings()
                .iter()
                .for_each(|finding| self.mark_finding(Level::Error, finding)),
            other => self.mark(Level::Error, "", "orchestrate", &other.to_string()),
        }
        let mut text = format!("## orchestrate: {}\n\n", self.recipe.display());
        match failure {
            Failure::Recipe(errors) => text.push_str(&listed(errors)),
            other => text.push_str(&fenced(&other.to_string())),
        }
        self.append(&text)
    }

    fn mark_finding(&self, level: Level, finding: &Finding) {
        let text = match finding.advice() {
            "" => finding.to_string(),
            advice => format!("{finding}\n{advice}"),
        };
        self.mark(level, finding.written_at(), "recipe", &text);
    }

    /// Marks a place of the recipe; `written_at` is `file:line` if it is in the file.
    fn mark(&self, level: Level, written_at: &str, title: &str, text: &str) {
        let file = self.recipe.display().to_string();
        let line: Option<usize> = written_at
            .strip_prefix(&file)
            .and_then(|rest| rest.strip_prefix(':')?.parse().ok());
        output::note(&command(level, &file, line, title, text));
    }

    fn append(&self, text: &str) -> Result<(), Failure> {
        let Some(path) = &self.summary else { return Ok(()) };
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(Failure::file("write", path))
    }
}

/// Where the step of `action` is written; nothing for a data set.
fn place_of<'b>(action: &ActionReport, build: &BuildView<'b>) -> &'b str {
    let place = build.session.step_places.get(&action.step);
    place.map_or("", String::as_str)
}

/// A workflow command, its text escaped as the runner reads it.
fn command(level: Level, file: &str, line: Option<usize>, title: &str, text: &str) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let name = match level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    let line = line.map_or_else(String::new, |line| format!(",line={line}"));
    format!(
        "::{name} file={}{line},title={}::{}",
        property(file),
        property(title),
        data(text)
    )
}

fn summary(build: &BuildView<'_>) -> String {
    let mut text = format!(
        "## orchestrate: {}\n\n{}\n\n",
        build.session.recipe.name,
        table::summary(build.report)
    );
    let baseline = baseline_step(&build.session.recipe);
    text.push_str(&figures(table::cells(build.steps, baseline), baseline));
    for step in build.steps {
        if step.figures.contains_key("predictions_changed") {
            let _ = writeln!(text, "{}\n", table::agreement(step));
        }
    }
    for gate in build.gates {
        let word = if gate.met { "met" } else { "**not met**" };
        let _ = writeln!(
            text,
            "- gate {word}: {}, found {} (`{}`)",
            gate.condition, gate.found, gate.written_at
        );
    }
    if let Some(reproductions) = build.reproductions {
        let _ = writeln!(text, "- {}", check::summary(reproductions));
    }
    for export in build.left {
        let _ = writeln!(text, "- {}", left_line(export));
    }
    for action in build.report.actions.values() {
        if let ActionOutcome::Failed { error, log, .. } = &action.outcome {
            let told = if log.is_empty() {
                error.clone()
            } else {
                format!("{error}\n\n{log}")
            };
            let _ = write!(text, "\n### {} failed\n\n{}", action.name, fenced(&told));
        }
    }
    for (id, reproduction) in build.reproductions.into_iter().flatten() {
        if let Some((title, told)) = check::problem(&build.report.actions[id].name, reproduction) {
            let _ = write!(text, "\n### {title}\n\n{}", fenced(told));
        }
    }
    for (_, failure) in &build.failures {
        let _ = write!(text, "\n{}", fenced(&failure.to_string()));
    }
    text.push_str(&digests(build.report));
    text
}

/// The table behind a build, in Markdown.
fn figures(rows: Vec<[String; 11]>, baseline: Option<&str>) -> String {
    let mut text = format!("| {} |\n|---|{}---|\n", table::HEADER.join(" | "), "---:|".repeat(9));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    if let Some(baseline) = baseline {
        let _ = writeln!(text, "\npoints, smaller and faster are against {baseline}.");
    }
    text.push('\n');
    text
}

/// The digest of every artifact, folded away.
fn digests(report: &BuildReport) -> String {
    let mut text =
        String::from("\n<details><summary>Digests</summary>\n\n| action | key | artifact |\n|---|---|---|\n");
    for action in report.actions.values() {
        if let Some(result) = &action.result {
            let _ = writeln!(text, "| {} | `{}` | `{}` |", action.name, result.key, result.tree);
        }
    }
    text.push_str("\n</details>\n\n");
    text
}

fn listed(errors: &RecipeErrors) -> String {
    let mut text = format!("{errors}:\n\n");
    for finding in errors.findings() {
        let _ = writeln!(text, "- `{}`: {finding}", finding.written_at());
    }
    text.push('\n');
    text
}

/// A block of code that nothing in `text` ends.
fn fenced(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}text\n{}\n{fence}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_escaped() {
        assert_eq!(
            command(Level::Error, "a,b:c.toml", Some(7), "100%", "one: 5 %, two\nthree"),
            "::error file=a%2Cb%3Ac.toml,line=7,title=100%25::one: 5 %25, two%0Athree"
        );
        assert_eq!(
            command(Level::Warning, "r.toml", None, "t", "x"),
            "::warning file=r.toml,title=t::x"
        );
    }

    #[test]
    fn no_text_ends_its_fence() {
        assert_eq!(fenced("a\n```\nb\n"), "````text\na\n```\nb\n````\n");
    }
}
