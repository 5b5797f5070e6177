//! Exports in their places: `OUT/RECIPE/STEP` with the model's files, what was measured, and where they came from.
//!
//! Invariants: one build at a time puts files into a folder, whatever cache it uses, for it locks the folder meanwhile;
//! a file appears whole; an export that cannot be put in place keeps neither the others from theirs nor the report; nothing
//! is changed where there is a doubt about what was made.

use crate::arguments::Build;
use crate::exit::Failure;
use crate::session::Session;
use orchestrate_engine::{BuildReport, EngineError, Store, StoreError};
use orchestrate_recipe::LoweredStep;
use orchestrate_recipe::report::{Origin, StepReport, StepState, baseline_step, metrics_json, provenance_json};
use serde_json::{Value, json};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Written beside the files of a model: where they came from.
const PROVENANCE: &str = "provenance.json";
/// How names of files begin that are not in their places yet.
const PARTIAL: &str = ".orchestrate-writing-";

/// An exported model in its place.
pub struct Exported<'a> {
    pub step: &'a str,
    pub folder: PathBuf,
    /// What stood there before, if it was of another profile, `--set` or recipe.
    pub replaces: Option<String>,
}

/// An exported model that was not put in its place, where all is as it was.
pub struct Left<'a> {
    pub step: &'a str,
    pub folder: PathBuf,
    pub because: &'static str,
}

/// What came of all exports.
#[derive(Default)]
pub struct Placing<'a> {
    pub exported: Vec<Exported<'a>>,
    pub left: Vec<Left<'a>>,
    /// Each a [`Failure::Export`].
    pub failures: Vec<Failure>,
    /// Whether a blob was found damaged, and set aside: another build makes it anew.
    pub found_damage: bool,
}

/// Puts every export that is complete in its place; none if there is a `doubt` about what was made.
pub fn put_exports<'a>(
    arguments: &Build,
    session: &'a Session,
    store: &Store,
    report: &BuildReport,
    steps: &[StepReport],
    doubt: Option<&'static str>,
) -> Placing<'a> {
    let baseline = baseline_step(&session.recipe).and_then(|name| steps.iter().find(|step| step.name == name));
    let origin = Origin {
        recipe: &session.recipe,
        profile: arguments.recipe.profile.as_deref(),
        set: &arguments.recipe.set,
    };
    let mut placing = Placing::default();
    for step in session.lowered.steps.iter().filter(|step| step.kind == "export") {
        let complete = |s: &&StepReport| s.name == step.name && matches!(s.state, StepState::Ran | StepState::Cached);
        let Some(figures) = steps.iter().find(complete) else {
            continue;
        };
        let folder = arguments.out.join(&session.recipe.name).join(&step.name);
        if let Some(because) = doubt {
            placing.left.push(Left {
                step: &step.name,
                folder,
                because,
            });
            continue;
        }
        let documents = Documents {
            recipe: &session.text,
            provenance: provenance_json(&origin, &session.lowered, report, step),
            metrics: metrics_json(figures, baseline),
        };
        match put_export(&folder, store, report, step, &documents) {
            Ok(replaces) => placing.exported.push(Exported {
                step: &step.name,
                folder,
                replaces,
            }),
            Err(failure) => {
                placing.found_damage |= is_damage(&failure);
                placing.failures.push(Failure::Export {
                    step: step.name.clone(),
                    problem: problem(&failure, store),
                    code: failure.code(),
                    folder,
                });
            }
        }
    }
    placing
}

/// What is written beside a model.
struct Documents<'a> {
    recipe: &'a str,
    provenance: Value,
    metrics: Value,
}

/// Puts one in place; returns what it replaces.
fn put_export(
    folder: &Path,
    store: &Store,
    report: &BuildReport,
    step: &LoweredStep,
    documents: &Documents,
) -> Result<Option<String>, Failure> {
    let result = report.actions[&step.model]
        .result
        .as_ref()
        .expect("a complete step has a result");
    std::fs::create_dir_all(folder).map_err(Failure::file("make the folder", folder))?;
    let lock = lock(folder);
    if lock.is_some() {
        sweep(folder);
    }
    let replaces = replaced(folder, &documents.provenance);
    store.materialize(&result.tree, folder)?;
    write_whole(folder, "recipe.toml", documents.recipe)?;
    write_whole(folder, PROVENANCE, &pretty(&documents.provenance))?;
    write_whole(folder, "metrics.json", &pretty(&documents.metrics))?;
    Ok(replaces)
}

/// Locks a folder until what is returned is dropped; waits for other builds. File systems that lock no folders do
/// without: builds with one cache still take turns with the model's files.
fn lock(folder: &Path) -> Option<File> {
    let locked = File::open(folder).and_then(|handle| handle.lock().map(|()| handle));
    locked
        .inspect_err(|error| tracing::debug!(folder = %folder.display(), %error, "the folder cannot be locked"))
        .ok()
}

/// Removes what killed builds left of their writing; only under the lock, for it could be a living one's.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::debug!(file = %entry.path().display(), %error, "what a killed build left cannot be removed");
        }
    }
}

/// The origin of the export in `folder`, if it is another than `new` tells.
fn replaced(folder: &Path, new: &Value) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(PROVENANCE)).ok()?;
    let old: Value = serde_json::from_str(&text).ok()?;
    let is_same = ["recipe", "profile", "set"].iter().all(|key| old[key] == new[key]);
    (!is_same).then(|| origin_in_words(&old))
}

/// `small with --profile smoke --set step.prune.target=0.6`.
fn origin_in_words(provenance: &Value) -> String {
    let recipe = provenance["recipe"].as_str().unwrap_or("another recipe");
    let profile = provenance["profile"].as_str().map(|name| format!(" --profile {name}"));
    let set = provenance["set"].as_array().into_iter().flatten();
    let set = set.filter_map(Value::as_str).map(|set| format!(" --set {set}"));
    let options: String = profile.into_iter().chain(set).collect();
    if options.is_empty() {
        format!("{recipe} without --profile and --set")
    } else {
        format!("{recipe} with{options}")
    }
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Writes a file beside its place, under a name that nobody else has, and moves it there.
fn write_whole(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let written = || -> io::Result<()> {
        let mut beside = tempfile::Builder::new()
            .prefix(PARTIAL)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        beside.write_all(text.as_bytes())?;
        beside.persist(&path)?;
        Ok(())
    };
    written().map_err(Failure::file("write", &path))
}

fn is_damage(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Engine(EngineError::Store(StoreError::NotWhole { .. }))
    )
}

/// What stood in the way and what to do; the engine's own advice is about its store.
fn problem(failure: &Failure, store: &Store) -> String {
    match failure {
        Failure::Engine(EngineError::Store(StoreError::InTheWay { path })) => format!(
            "{} is not what an earlier build wrote there; move it away or choose another folder with `--out DIR`",
            path.display()
        ),
        Failure::Engine(EngineError::Store(StoreError::Io {
            operation,
            path,
            source,
        })) if !path.starts_with(store.root()) => not_done(operation, path, source),
        Failure::File { action, path, source } => not_done(action, path, source),
        other => other.to_string(),
    }
}

fn not_done(operation: &str, path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there, or ",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "make it writable, or ",
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            "move what is there away, or "
        }
        _ => "",
    };
    format!(
        "cannot {operation} {}: {error}; {advice}choose another folder with `--out DIR`",
        path.display()
    )
}

/// The event of an export in its place.
pub fn exported_event(export: &Exported) -> String {
    json!({
        "event": "exported",
        "step": export.step,
        "folder": export.folder.display().to_string(),
        "replaces": export.replaces,
    })
    .to_string()
}

/// The same for people.
pub fn exported_line(export: &Exported) -> String {
    let replaces = export.replaces.as_ref();
    let replaces = replaces.map_or_else(String::new, |what| format!(" (replaces the export of {what})"));
    format!("{}: in {}{replaces}", export.step, export.folder.display())
}

/// The event of an export that was left as it was.
pub fn left_event(export: &Left) -> String {
    json!({
        "event": "export_left",
        "step": export.step,
        "folder": export.folder.display().to_string(),
        "because": export.because,
    })
    .to_string()
}

/// The same for people.
pub fn left_line(export: &Left) -> String {
    format!(
        "{}: {} is left as it was: {}",
        export.step,
        export.folder.display(),
        export.because
    )
}
