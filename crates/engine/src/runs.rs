//! Recorded runs, read back: which there are, what came of each, and whether it still goes on.
//!
//! Invariants: a run's id follows from the name of its record, so that it never changes; to list runs, no more of a
//! record is read than its first line and its end, unless it has no end. Which run a user means by a few characters is
//! for others to find out.

use crate::digest::Digest;
use crate::record::{ActionRecord, Line, RunCounts, StartedAction, Variant, lines_of, list_records, runs_folder};
use crate::store::{Store, StoreError, is_locked};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// A record's last line is no longer than this.
const END_BYTES: u64 = 1024;

/// Names a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Digest);

impl RunId {
    fn of(record: &Path) -> Self {
        let name = record.file_stem().unwrap_or_default();
        Self(Digest::of_bytes(name.as_encoded_bytes()))
    }

    /// The first ten hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RunState {
    /// Its process is at it.
    Running,
    /// It came to its end.
    Ended {
        /// How long it took.
        seconds: f64,
        /// Whether it was told to stop.
        cancelled: bool,
    },
    /// Its process is gone and left no word.
    Lost,
}

/// A run in brief.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// The recipe's name.
    pub recipe: String,
    /// Which variant of it was built, where the record says so.
    pub variant: Option<Variant>,
    /// The process that built.
    pub process: u32,
    /// When it began, in milliseconds since 1970.
    pub started_millis: u64,
    /// How far it came.
    pub state: RunState,
    /// What came of its actions, as far as it is recorded.
    pub counts: RunCounts,
}

/// A run in full.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedRun {
    /// In brief.
    pub summary: RunSummary,
    /// What came of each action, in the order in which they first ended.
    pub actions: Vec<ActionRecord>,
    /// Those that were begun and have not ended, in the order in which they were begun.
    pub unfinished: Vec<StartedAction>,
}

impl RecordedRun {
    /// What came of the action of that name.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<&ActionRecord> {
        self.actions.iter().find(|action| action.action == name)
    }
}

impl Store {
    /// All recorded runs, oldest first. Records that do not say which recipe they are of are passed over.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        let mut runs = Vec::new();
        for record in list_records(&runs_folder(self))? {
            runs.extend(summary(&record.path)?);
        }
        Ok(runs)
    }

    /// The run of that id, if its record is there.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn run(&self, id: &RunId) -> Result<Option<RecordedRun>, StoreError> {
        let records = list_records(&runs_folder(self))?;
        match records.iter().find(|record| RunId::of(&record.path) == *id) {
            Some(record) => read(&record.path),
            None => Ok(None),
        }
    }
}

/// The run of a record in brief.
fn summary(path: &Path) -> Result<Option<RunSummary>, StoreError> {
    let Some(end) = end_of(path)? else {
        return Ok(read(path)?.map(|run| run.summary));
    };
    let Some(mut lines) = lines_of(path)? else {
        return Ok(None);
    };
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let Ok(Line::Run {
        recipe,
        started_millis,
        variant,
    }) = serde_json::from_slice(&first)
    else {
        return Ok(None);
    };
    let (state, counts) = end;
    Ok(Some(RunSummary {
        id: RunId::of(path),
        recipe,
        variant,
        process: process_of(path),
        started_millis,
        state,
        counts,
    }))
}

/// What the last line of a record says, if it is the end and says all.
fn end_of(path: &Path) -> Result<Option<(RunState, RunCounts)>, StoreError> {
    let tail = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = match tail() {
        Ok(tail) => tail,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let last = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    Ok(match serde_json::from_slice(last.unwrap_or_default()) {
        Ok(Line::End {
            seconds,
            cancelled,
            counts: Some(counts),
        }) => Some((RunState::Ended { seconds, cancelled }, counts)),
        Ok(Line::End { counts: None, .. } | Line::Run { .. } | Line::Started(_) | Line::Action(_)) | Err(_) => None,
    })
}

/// The run of a record in full.
fn read(path: &Path) -> Result<Option<RecordedRun>, StoreError> {
    // Looked at first: a build that ends while its record is read has then said so.
    let is_alive = is_locked(path)?;
    let Some(lines) = lines_of(path)? else {
        return Ok(None);
    };
    let mut begun = None;
    let mut end = None;
    let mut actions: Vec<ActionRecord> = Vec::new();
    let mut place_of: HashMap<String, usize> = HashMap::new();
    let mut unfinished: Vec<StartedAction> = Vec::new();
    for line in lines {
        match serde_json::from_slice(&line.map_err(StoreError::io("read", path))?) {
            Ok(Line::Run {
                recipe,
                started_millis,
                variant,
            }) => begun = Some((recipe, started_millis, variant)),
            Ok(Line::Started(started)) => unfinished.push(started),
            Ok(Line::Action(action)) => {
                unfinished.retain(|started| started.action != action.action);
                match place_of.get(&action.action) {
                    Some(place) => actions[*place] = action,
                    None => {
                        place_of.insert(action.action.clone(), actions.len());
                        actions.push(action);
                    }
                }
            }
            Ok(Line::End { seconds, cancelled, .. }) => end = Some(RunState::Ended { seconds, cancelled }),
            Err(_) => {}
        }
    }
    let mut counts = RunCounts::default();
    for action in &actions {
        counts.add(action.outcome);
    }
    Ok(begun.map(|(recipe, started_millis, variant)| RecordedRun {
        summary: RunSummary {
            id: RunId::of(path),
            recipe,
            variant,
            process: process_of(path),
            started_millis,
            state: end.unwrap_or(if is_alive { RunState::Running } else { RunState::Lost }),
            counts,
        },
        actions,
        unfinished,
    }))
}

/// The process in a record's name.
fn process_of(path: &Path) -> u32 {
    let name = path.file_stem().and_then(|name| name.to_str());
    let process = name.and_then(|name| name.split_once('-')?.1.parse().ok());
    process.expect("a listed record's name has a process")
}
