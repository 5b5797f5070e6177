//! `orchestrate cache ls`: the results in the cache, the newest last.

use super::cache::read_existing;
use crate::arguments::{CacheLs, Format};
use crate::clock::{age, rfc3339};
use crate::columns::{Align, columns};
use crate::exit::{ExitCode, Failure};
use crate::run_choice::recipe_name;
use crate::{output, table};
use orchestrate_engine::{GcOptions, ListedResult, RecordedName};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints them.
pub fn run(arguments: &CacheLs) -> Result<ExitCode, Failure> {
    let recipe = arguments.recipe.as_deref().map(recipe_name).transpose()?;
    let keep_last = GcOptions::default().keep_last;
    let mut results = read_existing(&arguments.cache)?.results(keep_last)?;
    if let Some(recipe) = &recipe {
        results.retain(|result| result.names.iter().any(|name| name.recipe == *recipe));
    }
    // The name in the recipe that is asked for, otherwise the newest.
    let name_of = |result: &ListedResult| -> Option<RecordedName> {
        let is_asked_for = |name: &&RecordedName| recipe.as_ref().is_none_or(|recipe| name.recipe == *recipe);
        result.names.iter().find(is_asked_for).cloned()
    };
    match arguments.format {
        Format::Human => show(&results, name_of, keep_last),
        Format::Json => results
            .iter()
            .try_for_each(|result| output::line(&object(result, name_of(result)))),
    }?;
    Ok(ExitCode::Done)
}

fn show(
    results: &[ListedResult],
    name_of: impl Fn(&ListedResult) -> Option<RecordedName>,
    keep_last: usize,
) -> Result<(), Failure> {
    let header = [
        "recipe", "step", "action", "kind", "key", "bytes", "own", "age", "needed",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    let now = SystemTime::now();
    for result in results {
        let (recipe, step, action) = match name_of(result) {
            Some(name) => (name.recipe, name.step, name.action),
            None => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let old = now.duration_since(result.made).unwrap_or_default();
        rows.push([
            recipe,
            step,
            action,
            result.kind.name.clone(),
            result.key.short(),
            result
                .bytes
                .map_or_else(|| "?".to_owned(), |bytes| table::bytes(bytes as f64)),
            table::bytes(result.own_bytes as f64),
            age(old.as_secs_f64()),
            if result.is_root { "yes" } else { "no" }.to_owned(),
        ]);
    }
    use Align::{Left, Right};
    for line in columns([Left, Left, Left, Left, Left, Right, Right, Right, Left], &rows) {
        output::line(&line)?;
    }
    output::note(&format!(
        "{} results; bytes: of the artifact's files, which results may share; own: what only this result holds, and \
         would go with it; needed: by one of the last {keep_last} runs of a recipe and profile or by a lock file, so that `cache gc` \
         keeps it",
        results.len()
    ));
    Ok(())
}

fn object(result: &ListedResult, name: Option<RecordedName>) -> String {
    let made = result.made.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "key": result.key,
        "kind": result.kind.name,
        "kind_version": result.kind.version,
        "recipe": name.as_ref().map(|name| &name.recipe),
        "step": name.as_ref().map(|name| &name.step),
        "action": name.as_ref().map(|name| &name.action),
        "tree": result.tree,
        "bytes": result.bytes,
        "own_bytes": result.own_bytes,
        "made": rfc3339(u64::try_from(made.as_millis()).unwrap_or(u64::MAX)),
        "needed": result.is_root,
    })
    .to_string()
}
