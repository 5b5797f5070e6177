//! Run records: what each build did, and what `why` compares with.
//!
//! A record is a file of JSON lines, `runs/<number>-<process>.jsonl`: the run, each action as it starts and as it ends,
//! and the end. Invariants: lines are only ever appended, and before a build waits for anything they are
//! written, so that the record of a build that was killed tells what was
//! done until then; a line that cannot be read, such as a last one cut short, is passed over. That an action ran is made
//! to last when it is noted, since its result is a root by that. The names of records ascend in the order in which the
//! runs began, whatever the clock does meanwhile. A build holds its record locked as long as it lives, so that one
//! without an end whose lock is free is that of a build that was killed. Records of earlier versions, which say less, are
//! read all the same.

use crate::digest::Digest;
use crate::freshness::Reason;
use crate::key::ActionKey;
use crate::store::disk::{self, NewFile};
use crate::store::{RecordedName, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Records of one recipe and profile that are kept; older ones are removed, now and then.
const KEPT: usize = 100;
/// About one in so many builds looks for them, since that opens every record.
const BUILDS_A_LOOK: usize = 16;

/// Bytes of lines that are written at once.
const HELD_BACK: usize = 64 << 10;

/// What came of an action, as the record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedOutcome {
    /// Its result was known.
    Cached,
    /// It ran.
    Executed,
    /// It failed.
    Failed,
    /// It was not tried.
    Skipped,
}

impl RecordedOutcome {
    /// Whether there was a result.
    fn has_result(self) -> bool {
        match self {
            Self::Cached | Self::Executed => true,
            Self::Failed | Self::Skipped => false,
        }
    }
}

/// One action's line of a run record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// Its name.
    pub action: String,
    /// Its step.
    pub step: String,
    /// Its key, if it was known.
    pub key: Option<ActionKey>,
    /// Its artifact, if there is one.
    pub tree: Option<Digest>,
    /// What came of it.
    pub outcome: RecordedOutcome,
    /// Whether it was what the build was asked for, or is of the long kind that has a trajectory, rather than made on the way,
    /// where the record says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_target: Option<bool>,
    /// Why it ran, if it did.
    pub reason: Option<Reason>,
    /// How long it ran.
    pub seconds: f64,
    /// When it ended, in milliseconds since 1970, where the record says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_millis: Option<u64>,
    /// Why there is no result: what went wrong, or why it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The last lines that it logged, if it failed; those of a result are kept with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// That an action was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedAction {
    /// Its name.
    pub action: String,
    /// Its step.
    pub step: String,
    /// Its key.
    pub key: ActionKey,
    /// When, in milliseconds since 1970.
    pub started_millis: u64,
}

/// How many actions of a run came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunCounts {
    /// Those that ran.
    pub executed: usize,
    /// Those whose result was known.
    pub cached: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that were not tried.
    pub skipped: usize,
}

impl RunCounts {
    /// Counts one more.
    pub(crate) fn add(&mut self, outcome: RecordedOutcome) {
        match outcome {
            RecordedOutcome::Cached => self.cached += 1,
            RecordedOutcome::Executed => self.executed += 1,
            RecordedOutcome::Failed => self.failed += 1,
            RecordedOutcome::Skipped => self.skipped += 1,
        }
    }
}

/// Which variant of its recipe a run builds. Run records tell it; no key has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The profile, if one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What the command line laid over the recipe, as it was written, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// Of what the recipe says with all of these.
    pub digest: Digest,
}

/// One line of a record.
#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Line {
    Run {
        recipe: String,
        started_millis: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        variant: Option<Variant>,
    },
    Started(StartedAction),
    Action(ActionRecord),
    End {
        seconds: f64,
        cancelled: bool,
        #[serde(default)]
        counts: Option<RunCounts>,
    },
}

/// The record of a run that goes on.
pub(crate) struct RunRecord {
    file: NewFile,
    /// Whether the record's name was made to last.
    is_lasting: bool,
    /// Lines that are yet to be written.
    lines: Vec<u8>,
}

impl RunRecord {
    /// Begins the record of a run of `variant` of `recipe`, and removes the oldest ones of that recipe and profile, now and
    /// then.
    pub(crate) fn start(store: &Store, recipe: &str, variant: Option<&Variant>) -> Result<Self, StoreError> {
        store.require_writable()?;
        let folder = runs_folder(store);
        let records = list_records(&folder)?;
        remove_oldest(&records, &(recipe.to_owned(), profile_of(variant)))?;
        let millis = now_millis();
        let newest = records.last().map_or(0, |newest| newest.number);
        let mut number = millis.max(newest.saturating_add(1));
        loop {
            let path = folder.join(format!("{number}-{}.jsonl", std::process::id()));
            match NewFile::create(&path) {
                Ok(file) => {
                    file.lock().map_err(StoreError::io("lock", &path))?;
                    let mut record = Self {
                        file,
                        is_lasting: false,
                        lines: Vec::new(),
                    };
                    record.append(&Line::Run {
                        recipe: recipe.to_owned(),
                        started_millis: millis,
                        variant: variant.cloned(),
                    });
                    record.flush()?;
                    return Ok(record);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = number.saturating_add(1),
                Err(error) => return Err(StoreError::io("make", &path)(error)),
            }
        }
    }

    /// Notes that an action was begun.
    pub(crate) fn note_start(&mut self, action: &str, step: &str, key: ActionKey) {
        self.append(&Line::Started(StartedAction {
            action: action.to_owned(),
            step: step.to_owned(),
            key,
            started_millis: now_millis(),
        }));
    }

    /// Notes what came of an action just now. A later note of the same action counts.
    pub(crate) fn note(&mut self, action: ActionRecord) -> Result<(), StoreError> {
        let has_run = action.outcome == RecordedOutcome::Executed;
        self.append(&Line::Action(ActionRecord {
            ended_millis: Some(now_millis()),
            ..action
        }));
        if has_run {
            return self.sync();
        }
        if self.lines.len() > HELD_BACK {
            self.flush()?;
        }
        Ok(())
    }

    /// Notes the end of the run.
    pub(crate) fn end(&mut self, seconds: f64, cancelled: bool, counts: RunCounts) -> Result<(), StoreError> {
        self.append(&Line::End {
            seconds,
            cancelled,
            counts: Some(counts),
        });
        self.flush()
    }

    /// Writes what was noted.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        let written = self.file.write_all(&self.lines);
        self.lines.clear();
        written.map_err(StoreError::io("write", self.file.path()))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        let synced = self.file.sync();
        synced.map_err(StoreError::io("sync", self.file.path()))?;
        if !self.is_lasting {
            let folder = self.file.path().parent().expect("a record lies in a folder");
            disk::sync_folder(folder).map_err(StoreError::io("sync", folder))?;
            self.is_lasting = true;
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) {
        serde_json::to_writer(&mut self.lines, line).expect("a record's line is plain JSON");
        self.lines.push(b'\n');
    }
}

/// What earlier runs of a recipe recorded. Records are read from the newest on, each once, as far back as is asked for.
pub(crate) struct History {
    recipe: String,
    /// Oldest first.
    unread: Vec<PathBuf>,
    found: HashMap<String, ActionRecord>,
}

impl History {
    /// The runs of `recipe` recorded so far.
    pub(crate) fn open(store: &Store, recipe: &str) -> Result<Self, StoreError> {
        let records = list_records(&runs_folder(store))?;
        Ok(Self {
            recipe: recipe.to_owned(),
            unread: records.into_iter().map(|record| record.path).collect(),
            found: HashMap::new(),
        })
    }

    /// The last record of `action` with a result.
    pub(crate) fn last(&mut self, action: &str) -> Result<Option<&ActionRecord>, StoreError> {
        while !self.found.contains_key(action)
            && let Some(path) = self.unread.pop()
        {
            self.read(&path)?;
        }
        Ok(self.found.get(action))
    }

    fn read(&mut self, path: &Path) -> Result<(), StoreError> {
        let Some(mut lines) = lines_of(path)? else {
            return Ok(());
        };
        if source_of(&mut lines).is_none_or(|(recipe, _)| recipe != self.recipe) {
            return Ok(());
        }
        let mut of_this_run = HashMap::new();
        for line in lines {
            match serde_json::from_slice(&line.map_err(StoreError::io("read", path))?) {
                Ok(Line::Action(record)) if record.outcome.has_result() => {
                    of_this_run.insert(record.action.clone(), record);
                }
                Ok(Line::Run { .. } | Line::Started(_) | Line::Action(_) | Line::End { .. }) | Err(_) => {}
            }
        }
        for (action, record) in of_this_run {
            self.found.entry(action).or_insert(record);
        }
        Ok(())
    }
}

impl Store {
    /// The last record of `action` in runs of `recipe` in which it had a result.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn last_record_of(&self, recipe: &str, action: &str) -> Result<Option<ActionRecord>, StoreError> {
        History::open(self, recipe)?.last(action).map(|record| record.cloned())
    }
}

/// The keys that run records name.
#[derive(Debug, Default)]
pub(crate) struct RecordedKeys {
    /// Those with a result in the last runs of each recipe and profile.
    pub(crate) recent: HashSet<ActionKey>,
    /// Those of them that were made on the way to what was asked for, in all of these runs.
    pub(crate) on_the_way: HashSet<ActionKey>,
    /// All.
    pub(crate) all: HashSet<ActionKey>,
}

/// The keys that the records in `store` name; recent are those of the last `keep_last` runs of each recipe and
/// profile, of which runs without any result, such as those that failed at once, are none. A run whose record does not
/// tell a profile, as those of earlier versions, is one without.
pub(crate) fn recorded_keys(store: &Store, keep_last: usize) -> Result<RecordedKeys, StoreError> {
    let mut keys = RecordedKeys::default();
    let mut runs: HashMap<Option<Source>, usize> = HashMap::new();
    let mut targets: HashSet<ActionKey> = HashSet::new();
    for RecordFile { path, .. } in list_records(&runs_folder(store))?.iter().rev() {
        let Some(mut lines) = lines_of(path)? else { continue };
        let source = source_of(&mut lines);
        let mut with_result = Vec::new();
        for line in lines {
            match serde_json::from_slice(&line.map_err(StoreError::io("read", path))?) {
                Ok(Line::Action(ActionRecord {
                    key: Some(key),
                    outcome,
                    is_target,
                    ..
                })) => {
                    keys.all.insert(key);
                    with_result.extend(outcome.has_result().then_some((key, is_target.unwrap_or(true))));
                }
                Ok(Line::Run { .. } | Line::Started(_) | Line::Action(_) | Line::End { .. }) | Err(_) => {}
            }
        }
        let earlier = runs.entry(source).or_default();
        if *earlier < keep_last && !with_result.is_empty() {
            *earlier += 1;
            for (key, is_target) in with_result {
                keys.recent.insert(key);
                targets.extend(is_target.then_some(key));
            }
        }
    }
    keys.on_the_way = keys.recent.difference(&targets).copied().collect();
    Ok(keys)
}

/// What the keys with a result were called by the recorded runs, the newest first; one name a recipe.
pub(crate) fn recorded_names(store: &Store) -> Result<HashMap<ActionKey, Vec<RecordedName>>, StoreError> {
    let mut names: HashMap<ActionKey, Vec<RecordedName>> = HashMap::new();
    for RecordFile { path, .. } in list_records(&runs_folder(store))?.iter().rev() {
        let Some(mut lines) = lines_of(path)? else { continue };
        let Some((recipe, _)) = source_of(&mut lines) else {
            continue;
        };
        for line in lines {
            let Ok(Line::Action(record)) = serde_json::from_slice(&line.map_err(StoreError::io("read", path))?) else {
                continue;
            };
            if let Some(key) = record.key.filter(|_| record.outcome.has_result()) {
                let known = names.entry(key).or_default();
                if known.iter().all(|name| name.recipe != recipe) {
                    known.push(RecordedName {
                        recipe: recipe.clone(),
                        step: record.step,
                        action: record.action,
                    });
                }
            }
        }
    }
    Ok(names)
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn runs_folder(store: &Store) -> PathBuf {
    store.root().join("runs")
}

/// A record's file. They sort by age, the oldest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordFile {
    /// The time at which the run began in milliseconds, or more if the clock was set back since the run before.
    number: u64,
    process: u32,
    pub(crate) path: PathBuf,
}

/// The records in `folder`, oldest first.
pub(crate) fn list_records(folder: &Path) -> Result<Vec<RecordFile>, StoreError> {
    let mut records = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jsonl"));
        let parts = name.and_then(|name| name.split_once('-'));
        if let Some((Ok(number), Ok(process))) = parts.map(|(a, b)| (a.parse(), b.parse())) {
            records.push(RecordFile { number, process, path });
        }
    }
    records.sort();
    Ok(records)
}

/// Removes those of `records` of `source` that are too many, one more being about to be made.
fn remove_oldest(records: &[RecordFile], source: &Source) -> Result<(), StoreError> {
    if records.len() < KEPT || !records.len().is_multiple_of(BUILDS_A_LOOK) {
        return Ok(());
    }
    let mut kept = 1;
    for RecordFile { path, .. } in records.iter().rev() {
        let Some(mut lines) = lines_of(path)? else { continue };
        if source_of(&mut lines).as_ref() != Some(source) {
            continue;
        }
        kept += 1;
        if kept > KEPT {
            match disk::remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done.map_err(StoreError::io("remove", path))?,
            }
        }
    }
    Ok(())
}

/// The lines of a record, or nothing if another build just removed it.
pub(crate) fn lines_of(path: &Path) -> Result<Option<io::Split<BufReader<File>>>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file).split(b'\n'))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// A recipe's name, and a profile of it.
type Source = (String, Option<String>);

fn profile_of(variant: Option<&Variant>) -> Option<String> {
    variant.and_then(|variant| variant.profile.clone())
}

/// The recipe and profile that the first line names.
fn source_of(lines: &mut io::Split<BufReader<File>>) -> Option<Source> {
    match serde_json::from_slice(&lines.next()?.ok()?) {
        Ok(Line::Run { recipe, variant, .. }) => Some((recipe, profile_of(variant.as_ref()))),
        Ok(Line::Started(_) | Line::Action(_) | Line::End { .. }) | Err(_) => None,
    }
}
