//! `[variables]`: strings that stand for `${name}` in the strings of data sets and models.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Node, Table, Text, Value};
use crate::source::Place;
use crate::suggest::{did_you_mean, listed, quoted};
use std::collections::{BTreeMap, BTreeSet};

/// Longer results are refused: no path is so long, and a few variables could fill the memory.
const LONGEST: usize = 4096;

/// The variables of a recipe, and which of them were used.
pub(crate) struct Variables {
    /// `None` for one that is faulty.
    values: BTreeMap<String, (Place, Option<Text>)>,
    used: BTreeSet<String>,
}

impl Variables {
    /// Reads `[variables]`.
    pub fn read(table: Option<&Table>, problems: &mut Problems) -> Self {
        let entries = table.into_iter().flat_map(|table| &table.entries);
        let values = entries.map(|(name, entry)| {
            let text = entry.node.value.text();
            let fault = match text {
                None => Some(("a string", entry.node.value.described())),
                Some(text) if text.value.contains("${") => Some(("plain text", "another variable in it".to_owned())),
                Some(_) => None,
            };
            let sound = fault.is_none();
            if let Some((wanted, found)) = fault {
                problems.push(Problem::error(
                    format!("the variable {} must be {wanted}, found {found}", quoted(name)),
                    entry.node.place,
                    format!("not {wanted}"),
                    "set it to a string in quotes; on the command line: `--set 'variables.NAME=\"value\"'`",
                ));
            }
            (name.clone(), (entry.key, text.filter(|_| sound).cloned()))
        });
        Self {
            values: values.collect(),
            used: BTreeSet::new(),
        }
    }

    /// Puts the variables into every string of `node`.
    pub fn expand(&mut self, node: &mut Node, problems: &mut Problems) {
        let place = node.place;
        match &mut node.value {
            Value::Text(text) if text.value.contains("${") => {
                node.value = match self.expanded(text, place, problems) {
                    Some(text) => Value::Text(text),
                    None => Value::Refused,
                };
            }
            Value::List(nodes) => nodes.iter_mut().for_each(|node| self.expand(node, problems)),
            Value::Table(table) => {
                for entry in table.entries.values_mut() {
                    self.expand(&mut entry.node, problems);
                }
            }
            Value::Text(_) | Value::Whole(_) | Value::Real(_) | Value::Flag(_) | Value::Date | Value::Refused => {}
        }
    }

    fn expanded(&mut self, text: &Text, place: Place, problems: &mut Problems) -> Option<Text> {
        let mut result = Text {
            value: String::new(),
            begins_in: text.begins_in,
        };
        let mut rest = text.value.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else {
                problems.push(Problem::error(
                    "`${` without `}`",
                    place,
                    "never closed",
                    "write `${name}`",
                ));
                return None;
            };
            append(&mut result, before, text.begins_in);
            let value = self.value(name, place, problems)?;
            append(&mut result, &value.value, value.begins_in);
            rest = behind;
            if result.value.len() > LONGEST {
                break;
            }
        }
        append(&mut result, rest, text.begins_in);
        if result.value.len() > LONGEST {
            problems.push(Problem::error(
                format!("more than {LONGEST} bytes with its variables"),
                place,
                "too long",
                "shorten it",
            ));
            return None;
        }
        Some(result)
    }

    fn value(&mut self, name: &str, place: Place, problems: &mut Problems) -> Option<Text> {
        self.used.insert(name.to_owned());
        if let Some((_, text)) = self.values.get(name) {
            return text.clone();
        }
        let names = || self.values.keys().map(String::as_str);
        problems.push(Problem::error(
            format!("there is no variable {}", quoted(name)),
            place,
            "uses it",
            format!(
                "{}set it under `[variables]` or with `--set variables.NAME=VALUE`; known variables: {}",
                did_you_mean(name, names()),
                listed(names())
            ),
        ));
        None
    }

    /// Warns of the variables that no string uses.
    pub fn report_unused(&self, problems: &mut Problems) {
        for (name, (place, _)) in self.values.iter().filter(|(name, _)| !self.used.contains(*name)) {
            let used = self.used.iter().map(String::as_str);
            problems.push(Problem::warning(
                format!("nothing uses the variable {}", quoted(name)),
                *place,
                "not used",
                format!(
                    "{}write `${{{name}}}` in a string of a data set, or remove it",
                    did_you_mean(name, used)
                ),
            ));
        }
    }
}

fn append(result: &mut Text, piece: &str, begins_in: crate::source::SourceId) {
    if result.value.is_empty() && !piece.is_empty() {
        result.begins_in = begins_in;
    }
    result.value.push_str(piece);
}
