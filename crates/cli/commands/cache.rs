//! `orchestrate cache`: how much the cache holds, whether it is whole, and what may go.

use super::{cache_ls, cache_rm};
use crate::arguments::{Cache, CacheArguments, CacheGc, CacheStat, CacheVerify};
use crate::exit::{ExitCode, Failure};
use crate::session::{open_store, require_utf8};
use crate::{output, table};
use orchestrate_engine::{GcOptions, Store, Survey, Tally};

/// Does what is asked for.
pub fn run(command: &Cache) -> Result<ExitCode, Failure> {
    match command {
        Cache::Stat(arguments) => stat(arguments),
        Cache::Verify(arguments) => verify(arguments),
        Cache::Gc(arguments) => gc(arguments),
        Cache::Ls(arguments) => cache_ls::run(arguments),
        Cache::Rm(arguments) => cache_rm::run(arguments),
    }
}

/// The store that is there. A new one is of no use to who asks what is in it: the name is probably mistaken.
///
/// # Errors
/// [`Failure::Usage`] if there is none, and the store's own.
pub fn open_existing(arguments: &CacheArguments) -> Result<Store, Failure> {
    require_existing(arguments)?;
    open_store(arguments)
}

/// The same to be read: nothing is changed there, so that it may be a cache that cannot be written.
///
/// # Errors
/// As [`open_existing`].
pub fn read_existing(arguments: &CacheArguments) -> Result<Store, Failure> {
    require_existing(arguments)?;
    require_utf8("--cache", &arguments.cache)?;
    Ok(Store::open_to_read(&arguments.cache)?)
}

fn require_existing(arguments: &CacheArguments) -> Result<(), Failure> {
    if arguments.cache.exists() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "there is no cache {}; name it with `--cache DIR`",
        arguments.cache.display()
    )))
}

fn stat(arguments: &CacheStat) -> Result<ExitCode, Failure> {
    let survey = read_existing(&arguments.cache)?.survey()?;
    for (name, tally) in sections(&survey) {
        output::line(&row(name, tally))?;
    }
    output::line(&row("in all", survey.total()))?;
    Ok(ExitCode::Done)
}

fn sections(survey: &Survey) -> [(&'static str, Tally); 8] {
    [
        ("blobs", survey.blobs),
        ("trees", survey.trees),
        ("results", survey.results),
        ("key documents", survey.documents),
        ("run records", survey.records),
        ("checkpoints", survey.checkpoints),
        ("stat cache", survey.stat),
        ("quarantine", survey.quarantine),
    ]
}

fn row(name: &str, tally: Tally) -> String {
    format!("{name:<13}  {:>7}  {:>7}", tally.files, bytes(tally.bytes))
}

fn verify(arguments: &CacheVerify) -> Result<ExitCode, Failure> {
    let store = if arguments.repair {
        open_existing(&arguments.cache)?
    } else {
        read_existing(&arguments.cache)?
    };
    let report = store.verify_all(arguments.repair)?;
    for damage in &report.damaged {
        output::line(&format!("damaged {}: {}", damage.what, damage.path.display()))?;
    }
    let checked = format!("{} files of {} read", report.checked.files, bytes(report.checked.bytes));
    let damaged = report.damaged.len();
    match (damaged, arguments.repair) {
        (0, _) => {
            output::line(&format!("{checked}: all whole"))?;
            Ok(ExitCode::Done)
        }
        (_, true) => {
            output::line(&format!(
                "{checked}: {damaged} damaged, put aside; the next build makes anew what it needs of them"
            ))?;
            Ok(ExitCode::Done)
        }
        (_, false) => {
            output::line(&format!("{checked}: {damaged} damaged; `--repair` puts them aside"))?;
            Ok(ExitCode::Corrupt)
        }
    }
}

fn gc(arguments: &CacheGc) -> Result<ExitCode, Failure> {
    let options = GcOptions {
        max_bytes: arguments.max_size,
        max_age: arguments.max_age,
        keep_last: arguments.keep_last,
        dry_run: arguments.dry_run,
    };
    let report = open_existing(&arguments.cache)?.gc(&options)?;
    let word = if arguments.dry_run { "would remove" } else { "removed" };
    let removed = report.removed;
    output::line(&format!(
        "{word} {}: {} results, {} trees, {} blobs, {} key documents, {} checkpoints, {} entries of the stat cache, {} \
         files in quarantine",
        bytes(removed.total().bytes),
        removed.results.files,
        removed.trees.files,
        removed.blobs.files,
        removed.documents.files,
        removed.checkpoints.files,
        removed.stat.files,
        removed.quarantine.files,
    ))?;
    let word = if arguments.dry_run { "would leave" } else { "left" };
    output::line(&format!(
        "{word} {}: {} results, of which the last {} runs of each recipe and lock files need {}",
        bytes(report.left.total().bytes),
        report.left.results.files,
        arguments.keep_last,
        report.roots,
    ))?;
    if report.bytes_over > 0 {
        output::note(&format!(
            "that is {} more than --max-size: what the last runs were asked for is never removed; a smaller --keep-last \
             needs less",
            bytes(report.bytes_over)
        ));
    }
    Ok(ExitCode::Done)
}

fn bytes(count: u64) -> String {
    table::bytes(count as f64)
}
