//! The parts of a recipe of which there are many: tables under names that the user chose, and lists of tables.
//!
//! Invariant: a name is safe as a part of a path.

use crate::diagnostic::Problem;
use crate::node::{Entry, Node, Table};
use crate::section::{Named, Section};
use crate::shape::Shape;
use crate::source::Place;
use crate::suggest::quoted;

/// More data sets, models, steps or gates than this are refused.
const MOST: usize = 1000;

/// A table under a name, and where it begins; without the table if there is something wrong with it.
pub(crate) type NamedTable<'a> = (Named, Option<(&'a Table, Place)>);

/// Whether `name` can name a recipe, a step and so on.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

impl<'a> Section<'a, '_> {
    /// The tables under `key` in the order of the text. A faulty one is there by its name, so that references to it are
    /// not called wrong too.
    pub fn tables(&mut self, key: &'static str, noun: &str) -> Vec<NamedTable<'a>> {
        let Some((tables, place)) = self.table_of_shape(key, Shape::Tables) else {
            return Vec::new();
        };
        if self.are_too_many(key, tables.entries.len(), place) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (name, entry) in &tables.entries {
            let problem = problem_of(name, entry, key, noun);
            let table = match problem {
                None => entry.node.value.table().map(|table| (table, entry.node.place)),
                Some(problem) => {
                    self.fault(problem);
                    None
                }
            };
            let name = Named {
                name: name.clone(),
                place: entry.key,
            };
            found.push((name, table));
        }
        found.sort_by_key(|(name, _)| name.place);
        found
    }

    /// The tables in the list at `key`: `[[key]]`.
    pub fn records(&mut self, key: &'static str) -> Vec<(&'a Table, Place)> {
        let wanted = format!("a list of tables, each under `[[{key}]]`");
        let take = |node: &'a Node| Some((node.value.list()?, node.place));
        let Some((nodes, place)) = self.read(key, Shape::Records, &wanted, take) else {
            return Vec::new();
        };
        if self.are_too_many(key, nodes.len(), place) {
            return Vec::new();
        }
        let mut tables = Vec::new();
        for node in nodes {
            match node.value.table() {
                Some(table) => tables.push((table, node.place)),
                None => self.reject(key, &wanted, node),
            }
        }
        tables
    }

    fn are_too_many(&mut self, key: &str, count: usize, place: Place) -> bool {
        if count > MOST {
            self.fault(Problem::error(
                format!("{count} of `{key}`"),
                place,
                "too many",
                format!("a recipe has at most {MOST}: make several recipes of it"),
            ));
        }
        count > MOST
    }
}

/// What is wrong with a table and its name.
fn problem_of(name: &str, entry: &Entry, key: &str, noun: &str) -> Option<Problem> {
    if !is_name(name) {
        let message = format!("{} cannot be the name of a {noun}", quoted(name));
        let help = "use 1 to 64 letters, digits, `_` and `-`";
        return Some(Problem::error(message, entry.key, "not a name", help));
    }
    if entry.node.value.table().is_some() {
        return None;
    }
    let message = format!(
        "{} must be a table, found {}",
        quoted(name),
        entry.node.value.described()
    );
    let help = format!("write the {noun} as `[{key}.{name}]` with its keys below");
    Some(Problem::error(message, entry.node.place, "not a table", help))
}
