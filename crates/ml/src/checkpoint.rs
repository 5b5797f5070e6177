//! Checkpoints of a training: all of its state after some step, from which it goes on to the same bits.
//!
//! A checkpoint is a safetensors file named `OWNER.STEP.TRAIL.CONTENT`. The *trail* is the digest of what set each step
//! so far apart from the others, learning rate and all, so that a training finds whatever has the same past, be it meant
//! to become longer or shorter; what all its steps share is told apart by the folder. The *content* is the digest of the
//! file, and a file that is not what its name says is removed.
//!
//! Invariants: a checkpoint appears under its name whole or not at all; the one before is removed after that. Whatever
//! goes wrong here costs work that is done again, and never the training.

mod state;

pub(crate) use state::{History, State};

use crate::course::{Course, Moment};
use crate::error::{Error, Result};
use crate::quantize::observer::Ranges;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The owner of checkpoints from which longer trainings go on: they outlive their training.
const SHARED: &str = "shared.";

/// Where and how often a training writes checkpoints.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoints<'a> {
    /// The folder of all trainings whose steps differ in nothing but what the trail tells.
    pub folder: &'a Path,
    /// A folder on the same file system, in which files are made.
    pub scratch: &'a Path,
    /// How the names of those begin that this training alone needs.
    pub owner: &'a str,
    /// How often.
    pub every: Duration,
}

/// How a training may be interrupted.
#[derive(Clone, Copy)]
pub struct Interruption<'a> {
    /// Without checkpoints a training cannot be stopped.
    pub checkpoints: Option<Checkpoints<'a>>,
    /// Whether it is to stop.
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl Interruption<'_> {
    /// Never.
    pub const NONE: Self = Self {
        checkpoints: None,
        is_stopped: &|| false,
    };
}

/// The digest of a training's steps so far.
#[derive(Default)]
struct Trail(blake3::Hasher);

impl Trail {
    fn add(&mut self, moment: &Moment) {
        let ranges = match moment.ranges {
            Ranges::Calibrate => 0,
            Ranges::Track => 1,
            Ranges::Fixed => 2,
        };
        self.0.update(&moment.learning_rate.to_le_bytes()).update(&[ranges]);
    }

    fn digest(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// A checkpoint as its name tells it.
struct Found {
    path: PathBuf,
    step: usize,
    trail: String,
    content: String,
    is_ours: bool,
}

impl Found {
    /// Brings `state` to what it holds, if its file is what the name says.
    fn read(&self, state: &mut State) -> Result<()> {
        if digest_of(&self.path)? != self.content {
            return Err(Error::Corrupt {
                path: self.path.clone(),
                expected: "checkpoint",
                detail: "it is not what its name says".into(),
            });
        }
        state.read(&self.path, self.step)
    }
}

/// Writes the checkpoints of one training, and finds the one to go on from.
pub(crate) struct Keeper<'a> {
    interruption: Interruption<'a>,
    course: &'a Course,
    trail: Trail,
    last: Instant,
    /// The checkpoint that the next one replaces.
    former: Option<PathBuf>,
}

impl<'a> Keeper<'a> {
    pub fn new(interruption: Interruption<'a>, course: &'a Course) -> Self {
        Self {
            interruption,
            course,
            trail: Trail::default(),
            last: Instant::now(),
            former: None,
        }
    }

    /// Brings `state` to the last checkpoint that has the same past, and tells after how many steps that was.
    pub fn resume(&mut self, state: &mut State) -> usize {
        let Some(checkpoints) = self.interruption.checkpoints else {
            return 0;
        };
        let total = self.course.total;
        let mut found = found_in(&checkpoints);
        found.retain(|found| found.step <= total);
        let trails = self.trails(found.iter().map(|found| found.step).collect());
        found.retain(|found| trails[&found.step] == found.trail);
        found.sort_by_key(|found| found.step);
        while let Some(found) = found.pop() {
            match found.read(state) {
                Ok(()) => {
                    (0..found.step).for_each(|step| self.trail.add(&self.course.moment(step)));
                    self.former = found.is_ours.then_some(found.path);
                    return found.step;
                }
                Err(error) => {
                    tracing::warn!("a checkpoint is of no use and is removed: {error}");
                    remove(&found.path);
                }
            }
        }
        0
    }

    /// The trail after each of `steps`.
    fn trails(&self, steps: BTreeSet<usize>) -> BTreeMap<usize, String> {
        let (mut trail, mut at, mut trails) = (Trail::default(), 0, BTreeMap::new());
        for step in steps {
            (at..step).for_each(|step| trail.add(&self.course.moment(step)));
            at = step;
            trails.insert(step, trail.digest());
        }
        trails
    }

    /// Called after step `step`; writes what is due.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the training is to stop and can go on from here.
    pub fn after(&mut self, step: usize, state: &State) -> Result<()> {
        let Some(checkpoints) = self.interruption.checkpoints else {
            return Ok(());
        };
        self.trail.add(&self.course.moment(step));
        let (done, total) = (step + 1, self.course.total);
        if done == self.course.shared()
            && let Err(error) = self.write(&checkpoints, SHARED, done, state)
        {
            tracing::warn!("a longer training will start anew: {error}");
        }
        if done == total {
            return Ok(());
        }
        let is_stopped = (self.interruption.is_stopped)();
        if is_stopped || self.last.elapsed() >= checkpoints.every {
            match self.write(&checkpoints, checkpoints.owner, done, state) {
                Ok(path) => {
                    if let Some(former) = self.former.replace(path) {
                        remove(&former);
                    }
                }
                Err(error) if is_stopped => return Err(error),
                Err(error) => tracing::warn!("no checkpoint was kept after step {done}: {error}"),
            }
            self.last = Instant::now();
        }
        if is_stopped {
            return Err(Error::Stopped { done, total });
        }
        Ok(())
    }

    fn write(&self, checkpoints: &Checkpoints, owner: &str, done: usize, state: &State) -> Result<PathBuf> {
        let scratch = checkpoints.scratch.join("checkpoint");
        state.write(&scratch)?;
        let content = digest_of(&scratch)?;
        let name = format!("{owner}{done}.{}.{content}", self.trail.digest());
        let path = checkpoints.folder.join(name);
        let named = fs::create_dir_all(checkpoints.folder)
            .and_then(|()| fs::rename(&scratch, &path))
            .and_then(|()| File::open(checkpoints.folder)?.sync_all());
        named.map_err(Error::io("write", &path))?;
        Ok(path)
    }
}

/// The checkpoints in the folder; what has another name is none.
fn found_in(checkpoints: &Checkpoints) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(checkpoints.folder) else {
        return Vec::new();
    };
    let parse = |path: PathBuf| -> Option<Found> {
        let name = path.file_name()?.to_str()?;
        let [content, trail, step] = {
            let mut parts = name.rsplitn(4, '.');
            [parts.next()?, parts.next()?, parts.next()?]
        };
        Some(Found {
            step: step.parse().ok().filter(|step| *step > 0)?,
            trail: trail.to_owned(),
            content: content.to_owned(),
            is_ours: name.starts_with(checkpoints.owner),
            path,
        })
    };
    entries.flatten().filter_map(|entry| parse(entry.path())).collect()
}

fn digest_of(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    // Read rather than mapped: a mapped file that is cut off meanwhile would end the process.
    let hashed = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    hashed.map_err(Error::io("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("the checkpoint {} cannot be removed: {error}", path.display());
    }
}
