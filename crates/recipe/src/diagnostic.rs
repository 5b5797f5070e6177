//! What is wrong with a recipe, collected while it is read and shown all at once, in the order of the text.

use crate::source::{Place, Sources};
use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};
use std::fmt;
use std::sync::Arc;

/// After so many findings of one check the rest is not looked for.
const MOST: usize = 100;

/// One thing that is wrong or odd, before it is tied to its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub severity: Severity,
    pub message: String,
    pub help: String,
    /// The first is where it is.
    labels: Vec<(Place, String)>,
}

impl Problem {
    /// An error at `place`; `label` stands under the underlined text.
    pub fn error(message: impl Into<String>, place: Place, label: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: help.into(),
            labels: vec![(place, label.into())],
        }
    }

    /// The same, but nothing stops for it.
    pub fn warning(
        message: impl Into<String>,
        place: Place,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, place, label, help)
        }
    }

    /// Underlines another place too.
    pub fn and(mut self, place: Place, label: impl Into<String>) -> Self {
        self.labels.push((place, label.into()));
        self
    }

    /// Says `prefix` before the message.
    pub fn prefixed(mut self, prefix: &str) -> Self {
        self.message.insert_str(0, prefix);
        self
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.labels[0].0
    }

    fn into_finding(self, sources: &Sources) -> Finding {
        let place = self.place();
        let (here, elsewhere): (Vec<_>, Vec<_>) = self
            .labels
            .into_iter()
            .partition(|(other, _)| other.source == place.source);
        let mut help = self.help;
        for (other, label) in elsewhere {
            help.push_str(&format!(" ({label}: {})", sources.written_at(other)));
        }
        let spans = here
            .into_iter()
            .map(|(at, label)| LabeledSpan::new(Some(label), at.start, at.end - at.start));
        Finding {
            severity: self.severity,
            message: self.message,
            help,
            labels: spans.collect(),
            text: Some(Arc::clone(sources.get(place.source))),
            line: sources.line(place),
            written_at: sources.written_at(place),
        }
    }
}

/// The findings of one check.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.list.push(problem);
        }
    }

    /// Whether further findings are dropped.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MOST
    }

    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Takes what `other` has and `self` has not, after `change`.
    pub fn absorb(&mut self, other: Self, change: impl Fn(Problem) -> Problem) {
        let new: Vec<Problem> = other
            .list
            .into_iter()
            .filter(|new| {
                !self
                    .list
                    .iter()
                    .any(|old| old.message == new.message && old.place() == new.place())
            })
            .collect();
        for problem in new {
            self.push(change(problem));
        }
    }

    /// Drops all warnings.
    pub fn without_warnings(mut self) -> Self {
        self.list.retain(|problem| problem.severity == Severity::Error);
        self
    }

    /// What was found, in the order of the text.
    pub fn into_findings(mut self, sources: &Sources) -> Vec<Finding> {
        self.list.sort_by_key(Problem::place);
        self.list.into_iter().map(|p| p.into_finding(sources)).collect()
    }
}

/// One thing that is wrong or odd, with the text it is about. Its `Display` is the message alone.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Finding {
    severity: Severity,
    message: String,
    help: String,
    labels: Vec<LabeledSpan>,
    text: Option<Arc<NamedSource<String>>>,
    line: usize,
    written_at: String,
}

impl Finding {
    /// A finding about a file that has no text to show.
    pub(crate) fn without_text(message: String, help: String, file: &str) -> Self {
        Self {
            severity: Severity::Error,
            message,
            help,
            labels: Vec::new(),
            text: None,
            line: 1,
            written_at: file.to_owned(),
        }
    }

    /// Its line in the text, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// `file:line`, or the argument of the command line.
    pub fn written_at(&self) -> &str {
        &self.written_at
    }

    /// What to do about it.
    pub fn advice(&self) -> &str {
        &self.help
    }
}

impl Diagnostic for Finding {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(&self.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.text.as_deref().map(|text| text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = _>>)
    }
}

/// Everything that is wrong with a recipe: at least one error, in the order of the text. As a [`Diagnostic`], each
/// finding is a related one.
#[derive(Debug, thiserror::Error)]
#[error("{} error{} in {file}", findings.len(), if findings.len() == 1 { "" } else { "s" })]
pub struct RecipeErrors {
    file: String,
    findings: Vec<Finding>,
}

impl RecipeErrors {
    pub(crate) fn new(file: &str, findings: Vec<Finding>) -> Self {
        Self {
            file: file.to_owned(),
            findings,
        }
    }

    /// The errors.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl Diagnostic for RecipeErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.findings.iter().map(|finding| finding as &dyn Diagnostic)))
    }
}
