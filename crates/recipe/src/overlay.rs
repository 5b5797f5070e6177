//! Overrides: a profile or the command line's `--set` laid over the file's tree.
//!
//! Tables are merged key by key; anything else, a list too, replaces what was there. Data sets, models and steps can
//! only be changed, not added: a misspelt name would else make a new one.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Node, Table, Value};
use crate::parse;
use crate::source::{Place, SourceId};
use crate::suggest::{did_you_mean, listed, quoted};
use std::collections::BTreeMap;

/// The top-level tables whose keys are names that the user chose.
const NAMED: [(&str, &str); 3] = [("data", "data set"), ("model", "model"), ("step", "step")];
/// Parts of the longest key that `--set` can mean.
const MOST_PARTS: usize = 4;

/// `base` with `over` laid over it.
pub(crate) fn apply(base: &mut Table, over: &Table, problems: &mut Problems) {
    for (key, entry) in &over.entries {
        if key == "profile" {
            problems.push(Problem::error(
                "a profile cannot be changed by a profile or from the command line",
                entry.key,
                "not here",
                "set the key itself, without `profile.NAME.` before it",
            ));
            continue;
        }
        match (NAMED.iter().find(|(name, _)| name == key), &entry.node.value) {
            (Some((_, noun)), Value::Table(over)) => {
                let known = known_only(base.table(key), over, noun, problems);
                merge_entry(base, key, entry.key, entry.node.place, known);
            }
            (Some(_) | None, _) => merge_key(base, key, entry),
        }
    }
}

/// The part of `over` whose names `base` has.
fn known_only(base: Option<&Table>, over: &Table, noun: &str, problems: &mut Problems) -> Table {
    let names: Vec<&str> = base
        .into_iter()
        .flat_map(|table| table.entries.keys())
        .map(String::as_str)
        .collect();
    let mut known = Table::default();
    for (name, entry) in &over.entries {
        if names.contains(&name.as_str()) {
            known.entries.insert(name.clone(), entry.clone());
            continue;
        }
        problems.push(Problem::error(
            format!("there is no {noun} {} to override", quoted(name)),
            entry.key,
            format!("no such {noun}"),
            format!(
                "{}known {noun}s: {}",
                did_you_mean(name, names.clone()),
                listed(names.clone())
            ),
        ));
    }
    known
}

fn merge_entry(base: &mut Table, key: &str, key_place: Place, place: Place, over: Table) {
    if over.entries.is_empty() {
        return;
    }
    let node = Node {
        value: Value::Table(over),
        place,
    };
    merge_key(base, key, &Entry { key: key_place, node });
}

fn merge_key(base: &mut Table, key: &str, over: &Entry) {
    let Some(entry) = base.entries.get_mut(key) else {
        base.entries.insert(key.to_owned(), over.clone());
        return;
    };
    if let (Value::Table(into), Value::Table(from)) = (&mut entry.node.value, &over.node.value) {
        for (key, over) in &from.entries {
            merge_key(into, key, over);
        }
    } else {
        *entry = over.clone();
    }
}

/// The tree of `path.to.key=value`.
pub(crate) fn of_argument(text: &str, source: SourceId, problems: &mut Problems) -> Option<Table> {
    let malformed = |label: &str| {
        let whole = Place::new(source, 0..text.len());
        Problem::error(
            "--set takes a key and its value",
            whole,
            label,
            "write it as `--set step.prune.target=0.6`; strings need no quotes",
        )
    };
    let Some((path, value)) = text.split_once('=') else {
        problems.push(malformed("there is no `=`"));
        return None;
    };
    let mut keys = Vec::new();
    let mut start = 0;
    for part in path.split('.') {
        let trimmed = part.trim();
        let begin = start + (part.len() - part.trim_start().len());
        keys.push((trimmed, Place::new(source, begin..begin + trimmed.len())));
        start += part.len() + 1;
    }
    if keys.iter().any(|(key, _)| key.is_empty()) || keys.len() > MOST_PARTS {
        problems.push(malformed("not a key of a recipe"));
        return None;
    }
    let begin = path.len() + 1 + (value.len() - value.trim_start().len());
    let node = parse::argument(text, begin..begin + value.trim().len(), source);
    let (first, rest) = keys.split_first().expect("splitting gives at least one part");
    Some(table_of(*first, rest, node))
}

/// The tree of `--device NAME`.
pub(crate) fn of_device(name: &str, source: SourceId) -> Table {
    let place = Place::new(source, 0..name.len());
    table_of(("recipe", place), &[("device", place)], Node::of_text(name, place))
}

/// A table with nothing but `leaf`, at `key` and `rest` one inside the other.
fn table_of(key: (&str, Place), rest: &[(&str, Place)], leaf: Node) -> Table {
    let (name, place) = key;
    let node = match rest.split_first() {
        None => leaf,
        Some((next, rest)) => Node {
            value: Value::Table(table_of(*next, rest, leaf)),
            place: next.1,
        },
    };
    let entry = Entry { key: place, node };
    Table {
        entries: BTreeMap::from([(name.to_owned(), entry)]),
    }
}
