//! Typed reading of one table of the recipe, in which everything wrong is reported and nothing is lost.
//!
//! A reader asks for its keys one by one and gets what is there, if it is good. Whatever was never asked for is
//! unknown. Keys that have no meaning in the present case are asked for too, and refused: they are not unknown.
//!
//! Invariants: a fault is reported once, at the value; a section with a fault gives no result, so that nothing that
//! depends on it is judged. An unknown key alone does not spoil the result, since nothing follows from it.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Node, Table, Text, Value};
use crate::source::Place;
use crate::suggest::{closest, did_you_mean, listed, quoted, shortened};

/// A name that the recipe mentions, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub name: String,
    pub place: Place,
}

/// A table while it is read.
pub(crate) struct Section<'a, 'p> {
    /// As a reader would write its header: `[step.prune]`.
    title: String,
    /// For messages: "a prune step".
    what: &'static str,
    table: &'a Table,
    place: Place,
    asked: Vec<&'static str>,
    missing: Vec<(&'static str, String)>,
    sound: bool,
    problems: &'p mut Problems,
}

impl<'a, 'p> Section<'a, 'p> {
    pub fn new(title: String, what: &'static str, table: &'a Table, place: Place, problems: &'p mut Problems) -> Self {
        Self {
            title,
            what,
            table,
            place,
            asked: Vec::new(),
            missing: Vec::new(),
            sound: true,
            problems,
        }
    }

    /// Says what the section is, once that is known.
    pub fn turns_out_to_be(&mut self, what: &'static str) {
        self.what = what;
    }

    /// Where the section begins.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Where the value of `key` is written.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.table.get(key).map(|node| node.place)
    }

    /// Whether `key` is set, well or badly.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Whether there are keys that were not asked for: meant for one that was, they explain its absence.
    pub fn has_unknown(&self) -> bool {
        self.table.entries.keys().any(|key| !self.asked.contains(&key.as_str()))
    }

    /// Reports a fault, so that the section gives no result.
    pub fn fault(&mut self, problem: Problem) {
        self.sound = false;
        self.problems.push(problem);
    }

    /// Says that `key` must be there; `example` shows how to write it.
    pub fn require(&mut self, key: &'static str, example: &str) {
        if !self.has(key) {
            self.missing.push((key, format!("add `{key} = {example}`")));
        }
    }

    /// Refuses `key`, which has no meaning here because `why`.
    pub fn refuse(&mut self, key: &'static str, why: &str) {
        self.ask(key);
        let Some(entry) = self.table.entries.get(key) else {
            return;
        };
        let place = entry.key;
        self.fault(Problem::error(
            format!("{} has no meaning here: {why}", quoted(key)),
            place,
            "has no effect",
            format!("remove {}, or change what it depends on", quoted(key)),
        ));
    }

    /// The value of `key` by `take`, which gives nothing for what is not `wanted`.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        take: impl FnOnce(&'a Node) -> Option<T>,
    ) -> Option<T> {
        self.ask(key);
        let node = self.table.get(key)?;
        let taken = take(node);
        if taken.is_none() {
            self.reject(key, wanted, node);
        }
        taken
    }

    /// Reports that `node`, at `key`, is not `wanted`.
    pub(crate) fn reject(&mut self, key: &str, wanted: &str, node: &Node) {
        self.sound = false;
        if matches!(node.value, Value::Refused) {
            return;
        }
        let text = node.value.text().map(|text| text.value.as_str());
        let unquoted = text.filter(|text| wanted.contains("number") && text.parse::<f64>().is_ok());
        let help = match unquoted {
            Some(number) => format!("write it without quotes: `{key} = {}`", shortened(number)),
            None => format!("set `{key}` to {wanted}"),
        };
        self.problems.push(Problem::error(
            format!("`{key}` must be {wanted}, found {}", node.value.described()),
            node.place,
            format!("not {wanted}"),
            help,
        ));
    }

    fn ask(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    /// Counts `key` among those there are, where another one stands for it.
    pub fn mention(&mut self, key: &'static str) {
        self.ask(key);
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&mut self, key: &'static str, least: usize, most: usize) -> Option<usize> {
        let wanted = format!("a whole number from {least} to {most}");
        self.read(key, &wanted, |node| whole_in(node, least, most))
    }

    /// A whole number that can only be `only`, because `why`.
    pub fn fixed(&mut self, key: &'static str, only: usize, why: &str) {
        self.read(key, &format!("{only}, {why}"), |node| whole_in(node, only, only));
    }

    /// A whole number of 64 bits.
    pub fn seed(&mut self, key: &'static str) -> Option<u64> {
        let wanted = "a whole number from 0 to 18446744073709551615";
        self.read(key, wanted, |node| u64::try_from(node.value.whole()?).ok())
    }

    /// A finite number that is `good`, which `wanted` says in words.
    pub fn real(&mut self, key: &'static str, wanted: &str, good: impl Fn(f64) -> bool) -> Option<f64> {
        self.read(key, wanted, |node| node.value.real().filter(|value| good(*value)))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", |node| node.value.flag())
    }

    /// A string that is not empty, with the place of its value.
    pub fn text(&mut self, key: &'static str) -> Option<(&'a Text, Place)> {
        self.read(key, "a string that is not empty", |node| {
            node.value
                .text()
                .filter(|text| !text.value.is_empty())
                .map(|text| (text, node.place))
        })
    }

    /// A string that must be there and names something else in the recipe.
    pub fn needed_reference(&mut self, key: &'static str, noun: &str) -> Option<Named> {
        if !self.has(key) {
            let advice = format!("add `{key} = \"NAME\"` with the name of a {noun}");
            self.missing.push((key, advice));
        }
        self.reference(key, noun)
    }

    /// A string that names something else in the recipe.
    pub fn reference(&mut self, key: &'static str, noun: &str) -> Option<Named> {
        let wanted = format!("the name of a {noun}, in quotes");
        self.read(key, &wanted, |node| {
            node.value.text().map(|text| Named {
                name: text.value.clone(),
                place: node.place,
            })
        })
    }

    /// One of a few strings, each standing for a value.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let (text, place) = self.read(key, &format!("one of {}", listed(names())), |node| {
            node.value.text().map(|text| (&text.value, node.place))
        })?;
        let found = choices.iter().find(|(name, _)| name == text);
        if found.is_none() {
            self.fault(Problem::error(
                format!("`{key}` cannot be {}", quoted(text)),
                place,
                "unknown value",
                format!("{}it is one of {}", did_you_mean(text, names()), listed(names())),
            ));
        }
        found.map(|(_, value)| *value)
    }

    /// A list of at least one, whose elements `take` understands; a bad element is reported where it is.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        each: &str,
        take: impl Fn(&Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let nodes = self.read(key, wanted, |node| node.value.list().filter(|nodes| !nodes.is_empty()))?;
        let mut taken = Vec::new();
        for node in nodes {
            match take(node) {
                Some(value) => taken.push(value),
                None => self.reject(key, &format!("a list in which each is {each}"), node),
            }
        }
        (taken.len() == nodes.len()).then_some(taken)
    }

    /// The table at `key`.
    pub fn table(&mut self, key: &'static str) -> Option<(&'a Table, Place)> {
        self.read(key, "a table", |node| {
            node.value.table().map(|table| (table, node.place))
        })
    }

    /// Ends the reading of a section that does not say what it is: its other keys cannot be judged.
    pub fn given_up<T>(self) -> Option<T> {
        self.report_missing(&[]);
        None
    }

    /// Ends the reading: reports what is missing and unknown, and gives `result` if all was well.
    pub fn done<T>(self, result: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut mistaken = Vec::new();
        for (key, entry) in &self.table.entries {
            if self.asked.contains(&key.as_str()) || self.problems.is_full() {
                continue;
            }
            let meant = closest(key, self.asked.iter().copied());
            mistaken.extend(meant);
            self.problems.push(Problem::error(
                format!("{} is not a key of {}", quoted(key), self.what),
                entry.key,
                "unknown key",
                format!(
                    "{}{} has {}",
                    did_you_mean(key, self.asked.iter().copied()),
                    self.what,
                    listed(self.asked.iter().copied())
                ),
            ));
        }
        let complete = self.missing.is_empty();
        let sound = self.sound;
        self.report_missing(&mistaken);
        if sound && complete { result() } else { None }
    }

    /// Reports the keys that are missing and were not just `mistaken` for others.
    fn report_missing(self, mistaken: &[&str]) {
        for (key, advice) in self.missing {
            if mistaken.contains(&key) {
                continue;
            }
            self.problems.push(Problem::error(
                format!("`{}` needs `{key}`", self.title),
                self.place,
                format!("no `{key}` here"),
                advice,
            ));
        }
    }
}

/// A whole number within limits.
pub(crate) fn whole_in(node: &Node, least: usize, most: usize) -> Option<usize> {
    usize::try_from(node.value.whole()?)
        .ok()
        .filter(|whole| (least..=most).contains(whole))
}
