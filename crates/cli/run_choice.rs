//! Which recorded run or recipe a user means.

use crate::exit::Failure;
use orchestrate_engine::RunSummary;
use orchestrate_recipe::{Overrides, Recipe};
use std::path::Path;
use std::str::FromStr;

/// A run, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunChoice {
    /// `last`, or `last~N`: so many before the last.
    Back(usize),
    /// An id, or how it begins.
    Beginning(String),
}

/// A text that names no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write the id of a run, or its first digits, as `orchestrate runs` shows them, or `last` or `last~N`")]
pub struct NoRunChoice;

impl FromStr for RunChoice {
    type Err = NoRunChoice;

    fn from_str(text: &str) -> Result<Self, NoRunChoice> {
        let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (text, text.strip_prefix("last~")) {
            ("last", _) => Ok(Self::Back(0)),
            (_, Some(number)) => number.parse().map(Self::Back).map_err(|_| NoRunChoice),
            _ if is_id => Ok(Self::Beginning(text.to_ascii_lowercase())),
            _ => Err(NoRunChoice),
        }
    }
}

impl RunChoice {
    /// The run that is meant, of `runs`, oldest first.
    ///
    /// # Errors
    /// [`Failure::Usage`] if there is none, or several.
    pub fn choose<'a>(&self, runs: &'a [RunSummary]) -> Result<&'a RunSummary, Failure> {
        match self {
            Self::Back(number) => {
                runs.iter().rev().nth(*number).ok_or_else(|| {
                    Failure::Usage(format!("there is no run `last~{number}`: {} are recorded", runs.len()))
                })
            }
            Self::Beginning(text) => {
                let begins = |run: &&RunSummary| run.id.to_string().starts_with(text);
                let found: Vec<&RunSummary> = runs.iter().filter(begins).collect();
                match found.as_slice() {
                    [run] => Ok(run),
                    [] => Err(Failure::Usage(format!(
                        "there is no run `{text}`; `orchestrate runs` lists them"
                    ))),
                    several => {
                        let ids: Vec<String> = several.iter().map(|run| run.id.short()).collect();
                        Err(Failure::Usage(format!(
                            "`{text}` begins the ids of several runs: {}",
                            ids.join(", ")
                        )))
                    }
                }
            }
        }
    }
}

/// The name of the recipe that `text` is the file or the name of.
///
/// # Errors
/// What is wrong with the recipe in that file.
pub fn recipe_name(text: &str) -> Result<String, Failure> {
    let path = Path::new(text);
    if path.exists() || path.extension().is_some_and(|extension| extension == "toml") {
        Ok(Recipe::load(path, &Overrides::default())?.recipe.name)
    } else {
        Ok(text.to_owned())
    }
}

/// Those of `runs` that are of the recipe whose file or name is given; all if none is.
///
/// # Errors
/// [`Failure::Usage`] if there are none, with the recipes that have some, and those of [`recipe_name`].
pub fn runs_of(recipe: Option<&str>, mut runs: Vec<RunSummary>) -> Result<Vec<RunSummary>, Failure> {
    let Some(text) = recipe else { return Ok(runs) };
    let name = recipe_name(text)?;
    if runs.iter().all(|run| run.recipe != name) {
        let mut known: Vec<&str> = runs.iter().map(|run| run.recipe.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        let known = if known.is_empty() { "none" } else { &known.join(", ") };
        return Err(Failure::Usage(format!(
            "no run of a recipe `{name}` is recorded in this cache; recipes with runs: {known}"
        )));
    }
    runs.retain(|run| run.recipe == name);
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_by_their_place_or_their_id() {
        let read = |text: &str| text.parse::<RunChoice>();
        assert_eq!(read("last"), Ok(RunChoice::Back(0)));
        assert_eq!(read("last~12"), Ok(RunChoice::Back(12)));
        assert_eq!(read("3F2a"), Ok(RunChoice::Beginning("3f2a".into())));
        for text in ["", "last~", "last~-1", "last-1", "first", "0x3f"] {
            assert_eq!(read(text), Err(NoRunChoice), "{text}");
        }
    }
}
