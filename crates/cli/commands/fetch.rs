//! `orchestrate fetch`: the files of a pretrained model from a hub into a folder that a recipe can name.
//!
//! The folder appears whole or not at all. Until then its files are in one beside it, whose name has the commit in it, so that
//! the same command goes on with them.

use crate::arguments::Fetch;
use crate::exit::{ExitCode, Failure};
use crate::hub::{Hub, HubError, Remote};
use crate::output;
use crate::table;
use indicatif::{ProgressBar, ProgressStyle};
use orchestrate_recipe::{check_config, check_folder};
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// The first of these that there is says how texts are cut.
const VOCABULARIES: [&[&str]; 2] = [&["tokenizer.json"], &["vocab.txt", "tokenizer_config.json"]];

/// Fetches the model.
pub fn run(arguments: &Fetch) -> Result<ExitCode, Failure> {
    let model = checked(&arguments.model)?;
    let revision = checked_revision(&arguments.revision)?;
    let name = model.rsplit('/').next().unwrap_or(model);
    let folder = arguments
        .folder
        .clone()
        .unwrap_or_else(|| Path::new("models").join(name));
    if folder.exists() {
        return Err(Failure::Usage(format!(
            "{} is there already: remove it, or name another folder",
            folder.display()
        )));
    }
    let hub = Hub::new(&arguments.endpoint, arguments.token.clone())?;
    let config = needed(&hub, model, revision, CONFIG)?;
    // All files are of the commit that the first one is of, whatever becomes of the branch meanwhile.
    let commit = config.commit.clone().unwrap_or_else(|| revision.to_owned());
    let parts = parts_folder(&folder, &commit)?;
    std::fs::create_dir_all(&parts).map_err(Failure::file("create", &parts))?;
    fetch(&hub, &config, &parts.join(CONFIG))?;
    check_config(&parts.join(CONFIG))?;
    fetch(&hub, &needed(&hub, model, &commit, WEIGHTS)?, &parts.join(WEIGHTS))?;
    for file in vocabulary(&hub, model, &commit)? {
        fetch(&hub, &file.1, &parts.join(file.0))?;
    }
    check_folder(&parts)?;
    std::fs::rename(&parts, &folder).map_err(Failure::file("create", &folder))?;
    let place = folder.display();
    output::note(&format!("fetched {model} at {commit} into {place}"));
    output::note(&format!(
        "now, in a recipe: `pretrained = \"{place}\"` of a model, and its data's `tokenizer`"
    ));
    Ok(ExitCode::Done)
}

/// The model's name, if it is one: it becomes part of an address.
fn checked(model: &str) -> Result<&str, Failure> {
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain);
    let parts: Vec<&str> = model.split('/').collect();
    if (1..=2).contains(&parts.len()) && parts.iter().all(|part| is_name(part)) {
        return Ok(model);
    }
    Err(Failure::Usage(format!(
        "`{model}` is no name of a model on a hub: it is like google-bert/bert-base-uncased"
    )))
}

fn checked_revision(revision: &str) -> Result<&str, Failure> {
    if !revision.is_empty() && !revision.starts_with('.') && revision.bytes().all(is_plain) {
        return Ok(revision);
    }
    Err(Failure::Usage(format!(
        "`{revision}` is no revision: a branch, a tag or a commit, without `/`"
    )))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Where files are until all are there: beside `folder`, so that it can be renamed.
fn parts_folder(folder: &Path, commit: &str) -> Result<PathBuf, Failure> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Failure::Usage(format!("{} names no new folder", folder.display())))?;
    Ok(folder.with_file_name(format!(".{name}.{commit}.part")))
}

fn needed(hub: &Hub, model: &str, revision: &str, file: &str) -> Result<Remote, Failure> {
    let found = hub.find(model, revision, file)?;
    let absent = || HubError::Absent {
        what: format!("{file} of {model} at {revision}"),
        advice: match file {
            WEIGHTS => "models that have only pytorch_model.bin can be written anew in Python, with `save_pretrained`"
                .to_owned(),
            _ => "is the name right? A model that is private needs HF_TOKEN".to_owned(),
        },
    };
    Ok(found.ok_or_else(absent)?)
}

/// The files that say how texts are cut, of the first sort that there is.
fn vocabulary(hub: &Hub, model: &str, commit: &str) -> Result<Vec<(&'static str, Remote)>, Failure> {
    for names in VOCABULARIES {
        let mut files = Vec::new();
        for name in names {
            files.extend(hub.find(model, commit, name)?.map(|remote| (*name, remote)));
        }
        if files.first().is_some_and(|(name, _)| *name == names[0]) {
            return Ok(files);
        }
    }
    output::note("the model has neither tokenizer.json nor vocab.txt: its data need one that is known to be its own");
    Ok(Vec::new())
}

/// Fetches one file, with a bar where a terminal shows it.
fn fetch(hub: &Hub, remote: &Remote, path: &Path) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bar = ProgressBar::new(remote.size.unwrap_or(0)).with_prefix(name.clone());
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes} of {total_bytes}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let fetched = hub.fetch(remote, path, &mut |bytes| bar.set_position(bytes));
    let bytes = bar.position();
    bar.finish_and_clear();
    fetched?;
    output::note(&format!("{name}: {}", table::bytes(bytes as f64)));
    Ok(())
}
