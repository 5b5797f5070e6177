//! From a recipe's file and the command line to a checked recipe.
//!
//! A recipe is checked as it stands and once with each of its profiles, whichever was chosen: a profile that has gone
//! stale is found when it is written, not when it is needed. The command line's `--set` is laid over all of them. Files
//! are only looked for in the variant that was chosen.

use crate::check::{Surroundings, check};
use crate::diagnostic::{Finding, Problem, Problems, RecipeErrors};
use crate::named::is_name;
use crate::node::Table;
use crate::path::Folders;
use crate::recipe::Recipe;
use crate::source::{Place, Sources};
use crate::suggest::{did_you_mean, listed, quoted};
use crate::{overlay, parse};
use orchestrate_engine::{Digest, Variant};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// More profiles than this are refused: each costs a check.
const MOST_PROFILES: usize = 64;

/// What the command line changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--profile NAME`.
    pub profile: Option<String>,
    /// Each `--set path.to.key=value`; of equal paths the last counts.
    pub set: Vec<String>,
    /// `--device NAME`.
    pub device: Option<String>,
    /// What relative paths of the command line, the recipe's too, start from; empty for the process's current folder.
    pub current_folder: PathBuf,
}

impl Overrides {
    /// The variant of a recipe that is chosen by these, if what it says has the digest `digest`.
    fn variant(&self, digest: Digest) -> Variant {
        let device = self.device.iter().map(|name| format!("recipe.device={name}"));
        Variant {
            profile: self.profile.clone(),
            overrides: self.set.iter().cloned().chain(device).collect(),
            digest,
        }
    }
}

/// A recipe with what was said of it.
#[derive(Debug)]
pub struct Loaded {
    /// The checked recipe.
    pub recipe: Recipe,
    /// What looks like an oversight but does not stand in the way.
    pub warnings: Vec<Finding>,
    /// The text of the file, for provenance.
    pub text: String,
    /// Which variant of the recipe was chosen, for run records.
    pub variant: Variant,
    /// Where each step of the file is written, to show: `recipes/bert-small.toml:42`.
    pub step_places: BTreeMap<String, String>,
}

impl Recipe {
    /// Reads, completes and checks the recipe in the file `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, RecipeErrors> {
        let name = path.display().to_string();
        let whole = overrides.current_folder.join(path);
        let text = read(&whole, &name)?;
        let surroundings = Surroundings {
            stem: whole.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            folders: Folders {
                recipe: whole.parent().unwrap_or(Path::new("")).to_owned(),
                current: overrides.current_folder.clone(),
                look: true,
            },
        };
        let mut sources = Sources::of_file(&name, &text);
        let mut problems = Problems::default();
        let variants = variants(&text, overrides, &mut sources, &mut problems);
        let step_places = variants
            .iter()
            .flat_map(|variants| step_places(&variants.file, &sources));
        let step_places = step_places.collect();
        let chosen = variants.and_then(|variants| check_all(&variants, surroundings, &sources, &mut problems));
        let findings = |problems: Problems| problems.into_findings(&sources);
        match chosen {
            Some((recipe, digest)) if !problems.has_errors() => Ok(Loaded {
                recipe,
                warnings: findings(problems),
                text,
                variant: overrides.variant(digest),
                step_places,
            }),
            // Warnings of a faulty recipe may be consequences of its faults.
            Some(_) | None => Err(RecipeErrors::new(&name, findings(problems.without_warnings()))),
        }
    }
}

/// The recipe's text, or why it cannot be one.
fn read(path: &Path, name: &str) -> Result<String, RecipeErrors> {
    let refuse = |finding| RecipeErrors::new(name, vec![finding]);
    let plain = |message: String, help: &str| refuse(Finding::without_text(message, help.to_owned(), name));
    let about = std::fs::metadata(path).map_err(|error| {
        let help = "give the path of a recipe, such as `recipes/bert-small.toml`; `orchestrate init` writes one";
        plain(format!("cannot read {name}: {error}"), help)
    })?;
    if !about.is_file() {
        return Err(plain(
            format!("{name} is not a file"),
            "give the path of a recipe, a TOML file",
        ));
    }
    let largest = parse::LARGEST_FILE;
    if about.len() > largest as u64 {
        let message = format!("{name} has {} bytes; a recipe has at most {largest}", about.len());
        return Err(plain(
            message,
            "is this the right file? Data belong in files of their own",
        ));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| plain(format!("cannot read {name}: {error}"), "see that the file can be read"))?;
    String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let mut problems = Problems::default();
        problems.push(Problem::error(
            "not UTF-8",
            Place::in_file(start..start + '\u{fffd}'.len_utf8()),
            "not a character",
            "save the file as UTF-8",
        ));
        RecipeErrors::new(name, problems.into_findings(&Sources::of_file(name, &text)))
    })
}

/// The file's tree and what may be laid over it.
struct Variants {
    file: Table,
    profiles: Vec<(String, Table)>,
    chosen: Option<String>,
    command_line: Vec<Table>,
}

fn variants(text: &str, overrides: &Overrides, sources: &mut Sources, problems: &mut Problems) -> Option<Variants> {
    let file = parse::document(text, Place::top().source, problems);
    let mut command_line = Vec::new();
    for argument in &overrides.set {
        let source = sources.add("--set", argument);
        command_line.extend(overlay::of_argument(argument, source, problems));
    }
    if let Some(device) = &overrides.device {
        let source = sources.add("--device", device);
        command_line.push(overlay::of_device(device, source));
    }
    let file = file?;
    let profiles = profiles(&file, problems);
    if let Some(name) = &overrides.profile {
        let source = sources.add("--profile", name);
        if !profiles.iter().any(|(profile, _)| profile == name) {
            let place = Place::new(source, 0..name.len());
            let names: Vec<&str> = profiles.iter().map(|(name, _)| name.as_str()).collect();
            problems.push(unknown_profile(name, place, &names));
        }
    }
    Some(Variants {
        file,
        profiles,
        chosen: overrides.profile.clone(),
        command_line,
    })
}

/// The steps of the file by name, and where they are written.
fn step_places(file: &Table, sources: &Sources) -> BTreeMap<String, String> {
    let steps = file.table("step").into_iter().flat_map(|table| &table.entries);
    steps
        .map(|(name, entry)| (name.clone(), sources.written_at(entry.key)))
        .collect()
}

/// The profiles that are tables, in the order of the text.
fn profiles(file: &Table, problems: &mut Problems) -> Vec<(String, Table)> {
    let mut found = Vec::new();
    for (name, entry) in file.table("profile").into_iter().flat_map(|table| &table.entries) {
        match entry.node.value.table() {
            Some(table) if is_name(name) && found.len() < MOST_PROFILES => found.push((entry.key, name, table)),
            Some(_) if is_name(name) => problems.push(Problem::error(
                format!("more than {MOST_PROFILES} profiles"),
                entry.key,
                "too many",
                "remove those that nobody uses",
            )),
            Some(_) => problems.push(Problem::error(
                format!("{} cannot be the name of a profile", quoted(name)),
                entry.key,
                "not a name",
                "use 1 to 64 letters, digits, `_` and `-`",
            )),
            None => problems.push(Problem::error(
                format!(
                    "{} must be a table, found {}",
                    quoted(name),
                    entry.node.value.described()
                ),
                entry.node.place,
                "not a table",
                "write a profile as `[profile.NAME]`, with keys such as `step.prune.rounds = 1`",
            )),
        }
    }
    found.sort_by_key(|(place, _, _)| *place);
    found
        .into_iter()
        .map(|(_, name, table)| (name.clone(), table.clone()))
        .collect()
}

fn unknown_profile(name: &str, place: Place, names: &[&str]) -> Problem {
    let help = if names.is_empty() {
        "the recipe has no profiles: add `[profile.NAME]`, or leave `--profile` out".to_owned()
    } else {
        format!(
            "{}known profiles: {}",
            did_you_mean(name, names.iter().copied()),
            listed(names.iter().copied())
        )
    };
    let message = format!("there is no profile {}", quoted(name));
    Problem::error(message, place, "no such profile", help)
}

/// The digest of what a recipe says, profiles aside: neither its order and comments nor where it is written count.
fn digest_of(tree: &Table) -> Digest {
    let mut said = tree.to_json();
    said.remove("profile");
    Digest::of_bytes(serde_json::Value::from(said).to_string().as_bytes())
}

/// The chosen variant and the digest of what it says, if all of them are well.
fn check_all(
    variants: &Variants,
    surroundings: Surroundings,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<(Recipe, Digest)> {
    let profiles = variants
        .profiles
        .iter()
        .map(|(name, table)| (Some(name.as_str()), Some(table)));
    let mut chosen_recipe = None;
    for (name, profile) in std::iter::once((None, None)).chain(profiles) {
        let chosen = name == variants.chosen.as_deref();
        let mut around = surroundings.clone();
        around.folders.look = chosen;
        let mut found = Problems::default();
        let mut tree = variants.file.clone();
        for over in profile.into_iter().chain(&variants.command_line) {
            overlay::apply(&mut tree, over, &mut found);
        }
        let digest = chosen.then(|| digest_of(&tree));
        let recipe = check(tree, &around, sources, &mut found);
        if chosen {
            chosen_recipe = recipe.zip(digest);
        } else {
            found = found.without_warnings();
        }
        problems.absorb(found, |problem| match name {
            None => problem,
            Some(name) => problem.prefixed(&format!("in profile {}: ", quoted(name))),
        });
    }
    chosen_recipe
}
