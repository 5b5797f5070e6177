//! `orchestrate fetch`: the files of a pretrained model from a hub into a folder that a recipe can name.
//!
//! The folder appears whole or not at all. Until then its files are in one beside it, which the same command goes on with as
//! long as the model's commit is the same, and which one command at a time is at.

use crate::arguments::Fetch;
use crate::exit::{ExitCode, Failure};
use crate::hub::{Hub, HubError, Remote};
use crate::output;
use crate::table;
use indicatif::{ProgressBar, ProgressStyle};
use orchestrate_recipe::{ModelError, check_config, check_folder};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// A file of a model, and the most bytes that it can have.
#[derive(Clone, Copy)]
struct Wanted {
    name: &'static str,
    most: u64,
}

impl Wanted {
    const fn new(name: &'static str, most: u64) -> Self {
        Self { name, most }
    }
}

const CONFIG: Wanted = Wanted::new("config.json", 1 << 20);
const WEIGHTS: Wanted = Wanted::new("model.safetensors", 1 << 40);
const TOKENIZER: Wanted = Wanted::new("tokenizer.json", 1 << 26);
const VOCABULARY: Wanted = Wanted::new("vocab.txt", 1 << 26);
const TOKENIZER_CONFIG: Wanted = Wanted::new("tokenizer_config.json", 1 << 20);

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
    let hub = Hub::new(&arguments.endpoint, arguments.token.as_deref())?;
    let source = Source::find(&hub, model, revision)?;
    let parts = Parts::of(&folder, &source.commit)?;
    parts.fetch(&source, CONFIG)?;
    parts.check(check_config(&parts.path(CONFIG)), model)?;
    parts.fetch(&source, WEIGHTS)?;
    if !parts.fetch_if_there(&source, TOKENIZER)? {
        if parts.fetch_if_there(&source, VOCABULARY)? {
            parts.fetch_if_there(&source, TOKENIZER_CONFIG)?;
        } else {
            output::note("it has neither tokenizer.json nor vocab.txt: its data need one that is known to be its own");
        }
    }
    parts.check(check_folder(&parts.folder), model)?;
    parts.become_folder(&folder)?;
    let place = fs::canonicalize(&folder).unwrap_or(folder);
    output::note(&format!(
        "fetched {model} at {} into {}",
        source.commit,
        place.display()
    ));
    output::note(&format!(
        "now, in a recipe: `pretrained = \"{}\"` of a model, and its data's `tokenizer`",
        place.display()
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

/// A model at one commit, whatever becomes of its branch meanwhile.
struct Source<'a> {
    hub: &'a Hub,
    model: &'a str,
    commit: String,
}

impl<'a> Source<'a> {
    /// Asks which commit `revision` is.
    fn find(hub: &'a Hub, model: &'a str, revision: &str) -> Result<Self, Failure> {
        let found = hub
            .find(model, revision, CONFIG.name)?
            .ok_or_else(|| HubError::Absent {
                what: format!("{} of {model} at {revision}", CONFIG.name),
                advice: "are the name and the revision right?".to_owned(),
            })?;
        let is_commit = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        let commit = found.commit.or_else(|| is_commit.then(|| revision.to_owned()));
        let commit = commit.ok_or_else(|| {
            HubError::Address("the hub does not say which commit that is: give one with --revision".to_owned())
        })?;
        Ok(Self { hub, model, commit })
    }

    fn file(&self, wanted: Wanted) -> Result<Option<Remote>, Failure> {
        let Some(found) = self.hub.find(self.model, &self.commit, wanted.name)? else {
            return Ok(None);
        };
        match &found.commit {
            Some(commit) if *commit != self.commit => Err(Failure::Hub(HubError::Damaged {
                what: format!("{} of {}", wanted.name, self.model),
                detail: format!("the hub gives it of commit {commit}, not of {}", self.commit),
            })),
            _ => Ok(Some(found)),
        }
    }
}

/// The folder in which files are until all are there.
struct Parts {
    folder: PathBuf,
    /// Held while this is at it.
    _lock: File,
}

const LOCK: &str = "lock";
const COMMIT: &str = "commit";

impl Parts {
    /// Beside `folder`, so that it can be renamed to that; what is in it of another commit is thrown away.
    fn of(folder: &Path, commit: &str) -> Result<Self, Failure> {
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Failure::Usage(format!("{} names no new folder", folder.display())))?;
        let parts = folder.with_file_name(format!(".{name}.part"));
        fs::create_dir_all(&parts).map_err(Failure::file("create", &parts))?;
        let lock_path = parts.join(LOCK);
        let lock = File::create(&lock_path).map_err(Failure::file("create", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::Usage(format!(
                "another fetch into {} is under way: wait for it",
                folder.display()
            )),
            TryLockError::Error(error) => Failure::file("lock", &lock_path)(error),
        })?;
        let mark = parts.join(COMMIT);
        if fs::read_to_string(&mark).ok().as_deref() != Some(commit) {
            for wanted in [CONFIG, WEIGHTS, TOKENIZER, VOCABULARY, TOKENIZER_CONFIG] {
                remove(&parts.join(wanted.name))?;
            }
            fs::write(&mark, commit).map_err(Failure::file("write", &mark))?;
        }
        Ok(Self {
            folder: parts,
            _lock: lock,
        })
    }

    fn path(&self, wanted: Wanted) -> PathBuf {
        self.folder.join(wanted.name)
    }

    fn fetch(&self, source: &Source, wanted: Wanted) -> Result<(), Failure> {
        if self.fetch_if_there(source, wanted)? {
            return Ok(());
        }
        Err(Failure::Hub(HubError::Absent {
            what: format!("{} of {}", wanted.name, source.model),
            advice: "models that have only pytorch_model.bin can be written anew in Python, with `save_pretrained`"
                .to_owned(),
        }))
    }

    /// Fetches one file, with a bar where a terminal shows it; gives whether the model has it.
    fn fetch_if_there(&self, source: &Source, wanted: Wanted) -> Result<bool, Failure> {
        let Some(remote) = source.file(wanted)? else {
            return Ok(false);
        };
        let bar = ProgressBar::new(remote.size.unwrap_or(0)).with_prefix(wanted.name);
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes} of {total_bytes}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let fetched = source
            .hub
            .fetch(&remote, &self.path(wanted), wanted.most, &mut |bytes| {
                bar.set_position(bytes)
            });
        let bytes = bar.position();
        bar.finish_and_clear();
        fetched?;
        output::note(&format!("{}: {}", wanted.name, table::bytes(bytes as f64)));
        Ok(true)
    }

    /// What cannot be started from is of no use, and goes.
    fn check(&self, checked: Result<(), ModelError>, model: &str) -> Result<(), Failure> {
        let Err(error) = checked else { return Ok(()) };
        // The error that there is says more than one of this.
        let _ = fs::remove_dir_all(&self.folder);
        let place = format!("{}/", self.folder.display());
        Err(Failure::Usage(format!(
            "{model} cannot be started from: {}",
            error.to_string().replace(&place, "its ")
        )))
    }

    /// Gives it its name. What only a fetch needs goes after that: without the lock in its place, another would begin there.
    fn become_folder(&self, folder: &Path) -> Result<(), Failure> {
        fs::rename(&self.folder, folder).map_err(Failure::file("create", folder))?;
        [COMMIT, LOCK].iter().try_for_each(|name| remove(&folder.join(name)))
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("remove", path)(error)),
        _ => Ok(()),
    }
}
