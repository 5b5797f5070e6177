//! Garbage collection: what no recent run and no lock file names goes, and what was remembered of inputs long ago.
//!
//! Roots are the results that the last runs of each recipe and profile named, and those that registered lock files name,
//! with their trees and blobs. Invariants:
//! - Roots are never removed, and neither is what they refer to: but where the size is limited, the bytes of those that
//!   were made on the way to what the last runs were asked for, trainings aside, go if there is no other way.
//! - Nobody else has the store open meanwhile, so that no build loses what it is about to refer to; what a dead build
//!   left without a result is garbage.
//! - Results go before trees and trees before blobs, each made to last before the next: a crash in between leaves
//!   garbage, and no result lacks bytes but those whose bytes were to go.
//! - Where the size is limited, bytes go before results: a result without bytes is of use for as long as nothing that
//!   runs reads them.

use super::aside::Asides;
use super::holdings::{Held, Holdings, remove_file};
use super::inventory::Named;
use super::survey::tally;
use super::{Store, StoreError, Survey};
use crate::record::recorded_keys;
use std::time::{Duration, SystemTime};

/// How long damaged files are kept for whoever wants to look at them, and checkpoints for whoever goes on from them.
const ASIDE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the digest of an input is remembered: what is read less often than this is read again.
const STAT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What is to be collected. Without a size or an age, all that is no root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcOptions {
    /// Removes the bytes of the oldest results, and then the results, until the store holds no more bytes than this.
    pub max_bytes: Option<u64>,
    /// Removes the results that were made longer ago.
    pub max_age: Option<Duration>,
    /// How many runs of each recipe and profile name roots. Runs without any result do not count.
    pub keep_last: usize,
    /// Only tells what would be removed.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_age: None,
            keep_last: 3,
            dry_run: false,
        }
    }
}

/// What was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcReport {
    /// How many of the results that are left are roots.
    pub roots: usize,
    /// What was removed, or would be.
    pub removed: Survey,
    /// What is left, or would be.
    pub left: Survey,
    /// By how many bytes that is more than was asked for: what is left are roots, with the bytes of what the last runs
    /// were asked for, records and what was put aside.
    pub bytes_over: u64,
}

impl Store {
    /// Removes garbage. (That this store is borrowed alone keeps builds of this process out.)
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process, or another [`Store`] of this one, has the folder open;
    /// [`StoreError::Io`].
    pub fn gc(&mut self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let (_, occupancy) = self.to_write()?;
        occupancy.alone(&self.root, || self.collect(options))
    }

    /// Removes the bytes of the oldest results, and then the results, until the store holds at most `max_bytes`, roots
    /// aside: what a build does at its end.
    /// Nothing is done, and nothing waited for, if that is so already or someone else has the folder open.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn keep_below(&mut self, max_bytes: u64) -> Result<Option<GcReport>, StoreError> {
        if self.survey()?.total().bytes <= max_bytes {
            return Ok(None);
        }
        let options = GcOptions {
            max_bytes: Some(max_bytes),
            ..GcOptions::default()
        };
        match self.gc(&options) {
            Ok(report) => Ok(Some(report)),
            Err(StoreError::InUse { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn collect(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let recorded = recorded_keys(self, options.keep_last)?;
        let registered = self.registered()?;
        let now = SystemTime::now();
        let before = self.survey()?;
        let damaged = Asides::split(self.unnamed("quarantine")?, now, ASIDE)?;
        let age = options.max_age.map_or(ASIDE, |max| max.min(ASIDE));
        let mut checkpoints = Asides::split(self.checkpoints()?, now, age)?;
        let forgotten = self.forgotten(now)?;
        let mut holdings = Holdings::read(self, &recorded.all)?;
        let others = before.records.bytes + damaged.kept_bytes() + before.stat.bytes - tally(&forgotten).bytes;
        if let Some(max) = options.max_bytes {
            // What a training would do again goes before what was done.
            checkpoints.shrink(max.saturating_sub(holdings.bytes + others));
        }
        let others = others + checkpoints.kept_bytes();
        let is_root = |result: &Held| recorded.recent.contains(&result.key) || registered.keys.contains(&result.key);
        let (roots, rest) = oldest_first(&holdings.results, is_root);
        for at in &rest {
            let age = now.duration_since(holdings.results[*at].file.modified);
            let is_garbage = match options.max_age {
                Some(max) => age.unwrap_or_default() > max,
                None => options.max_bytes.is_none(),
            };
            if is_garbage {
                holdings.drop_result(*at);
            }
        }
        if let Some(max) = options.max_bytes {
            let is_on_the_way = |at: &usize| recorded.on_the_way.contains(&holdings.results[*at].key);
            let on_the_way: Vec<usize> = roots.iter().copied().filter(is_on_the_way).collect();
            holdings.shrink(max.saturating_sub(others), &rest, &on_the_way);
        }
        let roots = roots.len();
        let garbage = holdings.garbage();
        let removed = Survey {
            checkpoints: checkpoints.garbage(),
            quarantine: damaged.garbage(),
            stat: tally(&forgotten),
            ..garbage.survey()
        };
        if !options.dry_run {
            garbage.remove()?;
            self.remove_leases()?;
            damaged.remove()?;
            checkpoints.remove()?;
            let mut entries = forgotten.iter().chain(&registered.lapsed);
            entries.try_for_each(|entry| remove_file(&entry.path))?;
        }
        let left = before.without(&removed);
        let bytes_over = options
            .max_bytes
            .map_or(0, |max| left.total().bytes.saturating_sub(max));
        Ok(GcReport {
            roots,
            removed,
            left,
            bytes_over,
        })
    }

    /// The entries of the stat cache that were made too long ago.
    fn forgotten(&self, now: SystemTime) -> Result<Vec<Named>, StoreError> {
        let mut entries = self.named("stat")?;
        entries.retain(|entry| now.duration_since(entry.modified).unwrap_or_default() > STAT);
        Ok(entries)
    }

    /// Removes the files of leases whose holders died: no one else is here to hold one.
    fn remove_leases(&self) -> Result<(), StoreError> {
        let leases = self.unnamed("leases")?;
        leases.iter().try_for_each(|(path, _)| remove_file(path))
    }
}

/// The positions of those of `results` that are roots, and of the others.
fn oldest_first(results: &[Held], is_root: impl Fn(&Held) -> bool) -> (Vec<usize>, Vec<usize>) {
    let mut positions: Vec<usize> = (0..results.len()).collect();
    positions.sort_by_key(|at| (results[*at].file.modified, results[*at].file.digest));
    positions.into_iter().partition(|at| is_root(&results[*at]))
}
