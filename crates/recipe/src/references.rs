//! References to data sets and models: do they exist, and is each of them used?

use crate::check::Declared;
use crate::diagnostic::{Problem, Problems};
use crate::flow::Parts;
use crate::section::Named;
use crate::steps::Draft;
use crate::suggest::{did_you_mean, listed, quoted};

/// Reports the references of all steps to data sets and models that are not there.
pub(crate) fn check(parts: &Parts, problems: &mut Problems) {
    for draft in parts.steps.iter().filter_map(|step| step.value.as_ref()) {
        if let Some(named) = draft.data() {
            require(named, &parts.data, "data set", problems);
        }
        if let Some(named) = draft.model() {
            require(named, &parts.models, "model", problems);
        }
    }
}

fn require<T>(named: &Named, declared: &[Declared<T>], noun: &str, problems: &mut Problems) {
    if declared.iter().any(|one| one.name.name == named.name) {
        return;
    }
    let key = if noun == "model" { "model" } else { "data" };
    let there_are = if declared.is_empty() {
        format!("declare it as `[{key}.NAME]`")
    } else {
        format!("known {noun}s: {}", listed(names(declared)))
    };
    problems.push(Problem::error(
        format!("there is no {noun} {}", quoted(&named.name)),
        named.place,
        format!("no such {noun}"),
        format!("{}{there_are}", did_you_mean(&named.name, names(declared))),
    ));
}

/// Warns of data sets and models that no step uses. Of a recipe with faulty steps nothing is said: they may use them.
pub(crate) fn report_unused(parts: &Parts, problems: &mut Problems) {
    if parts.steps.iter().any(|step| step.value.is_none()) {
        return;
    }
    let drafts = || parts.steps.iter().filter_map(|step| step.value.as_ref());
    warn(&parts.data, "data set", problems, |name| {
        drafts().filter_map(Draft::data).any(|used| used.name == name)
    });
    warn(&parts.models, "model", problems, |name| {
        drafts().filter_map(Draft::model).any(|used| used.name == name)
    });
}

fn warn<T>(declared: &[Declared<T>], noun: &str, problems: &mut Problems, is_used: impl Fn(&str) -> bool) {
    for one in declared.iter().filter(|one| !is_used(&one.name.name)) {
        problems.push(Problem::warning(
            format!("no step uses the {noun} {}", quoted(&one.name.name)),
            one.name.place,
            "not used",
            "remove it, or name it in a step",
        ));
    }
}

/// The names of what was declared.
pub(crate) fn names<T>(declared: &[Declared<T>]) -> Vec<&str> {
    declared.iter().map(|one| one.name.name.as_str()).collect()
}
