//! Typed reading of one table of the recipe, in which everything wrong is reported and nothing is lost.
//!
//! A reader asks for its keys one by one and gets what is there, if it is good. Whatever was never asked for is
//! unknown. Keys that have no meaning in the present case are asked for too, and refused: they are not unknown.
//!
//! To ask is also to say what the key takes: the JSON schema is made of what readers ask for, by a [`Record`].
//!
//! Invariants: a fault is reported once, at the value; a section with a fault gives no result, so that nothing that
//! depends on it is judged. An unknown key alone does not spoil the result, since nothing follows from it.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Node, Table, Text, Value};
use crate::shape::{Interval, Shape};
use crate::source::Place;
use crate::suggest::{closest, did_you_mean, listed, quoted, shortened};

/// A name that the recipe mentions, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub name: String,
    pub place: Place,
}

/// What a reader asked a section for.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Each key with what it takes; without that if it was only refused.
    pub asked: Vec<(&'static str, Option<Shape>)>,
    /// The keys that it could not do without.
    pub missing: Vec<&'static str>,
}

/// A table while it is read.
pub(crate) struct Section<'a, 'p> {
    /// As a reader would write its header: `[step.prune]`.
    title: String,
    /// For messages: "a prune step".
    what: &'static str,
    table: &'a Table,
    place: Place,
    asked: Vec<(&'static str, Option<Shape>)>,
    missing: Vec<(&'static str, String)>,
    record: Option<&'p mut Record>,
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
            record: None,
            sound: true,
            problems,
        }
    }

    /// The same, where `record` learns what was asked for once the reading ends.
    pub fn recorded(self, record: &'p mut Record) -> Self {
        Self {
            record: Some(record),
            ..self
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
        self.table.entries.keys().any(|key| !self.knows(key))
    }

    /// Reports a fault, so that the section gives no result.
    pub fn fault(&mut self, problem: Problem) {
        self.sound = false;
        self.problems.push(problem);
    }

    /// Adds a warning, which leaves the section as sound as it is.
    pub fn warn(&mut self, warning: Problem) {
        self.problems.push(warning);
    }

    /// Says that `key` must be there; `example` shows how to write it.
    pub fn require(&mut self, key: &'static str, example: &str) {
        if !self.has(key) {
            self.missing.push((key, format!("add `{key} = {example}`")));
        }
    }

    /// Refuses `key`, which has no meaning here because `why`.
    pub fn refuse(&mut self, key: &'static str, why: &str) {
        self.ask(key, None);
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

    /// The value of `key`, which is of `shape`, by `take`, which gives nothing for what is not `wanted`.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        shape: Shape,
        wanted: &str,
        take: impl FnOnce(&'a Node) -> Option<T>,
    ) -> Option<T> {
        self.ask(key, Some(shape));
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

    fn ask(&mut self, key: &'static str, shape: Option<Shape>) {
        if shape.is_some() || !self.knows(key) {
            self.asked.retain(|(asked, _)| *asked != key);
            self.asked.push((key, shape));
        }
    }

    fn knows(&self, key: &str) -> bool {
        self.known().any(|known| known == key)
    }

    /// The keys that were asked for.
    fn known(&self) -> impl Iterator<Item = &'static str> {
        self.asked.iter().map(|(key, _)| *key)
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&mut self, key: &'static str, least: usize, most: usize) -> Option<usize> {
        let wanted = format!("a whole number from {least} to {most}");
        self.read(key, whole_shape(least, most), &wanted, |node| {
            whole_in(node, least, most)
        })
    }

    /// A whole number that can only be `only`, because `why`.
    pub fn fixed(&mut self, key: &'static str, only: usize, why: &str) {
        let wanted = format!("{only}, {why}");
        self.read(key, whole_shape(only, only), &wanted, |node| whole_in(node, only, only));
    }

    /// A whole number of 64 bits.
    pub fn seed(&mut self, key: &'static str) -> Option<u64> {
        let shape = Shape::Whole {
            least: 0,
            most: u64::MAX,
        };
        let wanted = format!("a whole number from 0 to {}", u64::MAX);
        self.read(key, shape, &wanted, |node| u64::try_from(node.value.whole()?).ok())
    }

    /// A finite number within `interval`.
    pub fn real(&mut self, key: &'static str, interval: Interval) -> Option<f64> {
        self.real_called(key, interval, &interval.to_string())
    }

    /// A finite number within `interval`, which `wanted` says in words.
    pub fn real_called(&mut self, key: &'static str, interval: Interval, wanted: &str) -> Option<f64> {
        self.read(key, Shape::Real(interval), wanted, |node| real_in(node, interval))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, Shape::Flag, "true or false", |node| node.value.flag())
    }

    /// A string that is not empty, with the place of its value.
    pub fn text(&mut self, key: &'static str) -> Option<(&'a Text, Place)> {
        self.text_of_shape(key, Shape::Text)
    }

    /// The same for a string that the reader holds to `shape`.
    pub fn text_of_shape(&mut self, key: &'static str, shape: Shape) -> Option<(&'a Text, Place)> {
        self.read(key, shape, "a string that is not empty", |node| {
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
        self.read(key, Shape::Name, &wanted, |node| {
            node.value.text().map(|text| Named {
                name: text.value.clone(),
                place: node.place,
            })
        })
    }

    /// One of a few strings, each standing for a value.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let shape = Shape::Choice(names().collect());
        let (text, place) = self.read(key, shape, &format!("one of {}", listed(names())), |node| {
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

    /// A list of whole numbers: as many as `counts` says, each within `bounds`, all inclusive. `what` says it in words.
    pub fn wholes(
        &mut self,
        key: &'static str,
        what: &str,
        counts: (usize, usize),
        (least, most): (usize, usize),
    ) -> Option<Vec<usize>> {
        let each = format!("a whole number from {least} to {most}");
        self.list(key, what, counts, (whole_shape(least, most), &each), |node| {
            whole_in(node, least, most)
        })
    }

    /// A list of at least one number and at most `most`, each within `interval`. `what` says it in words.
    pub fn reals(&mut self, key: &'static str, what: &str, most: usize, interval: Interval) -> Option<Vec<f64>> {
        let each = interval.to_string();
        self.list(key, what, (1, most), (Shape::Real(interval), &each), |node| {
            real_in(node, interval)
        })
    }

    /// A list of strings, none of them empty: as many as `counts` says, inclusive. `what` says it in words.
    pub fn texts(&mut self, key: &'static str, what: &str, counts: (usize, usize)) -> Option<Vec<String>> {
        self.list(key, what, counts, (Shape::Text, "a string that is not empty"), |node| {
            let text = node.value.text().map(|text| &text.value);
            text.filter(|text| !text.is_empty()).cloned()
        })
    }

    /// A list of elements of a shape that `each` says in words, and that `take` understands; a bad element is reported
    /// where it is.
    fn list<T>(
        &mut self,
        key: &'static str,
        what: &str,
        (least, most): (usize, usize),
        (shape, each): (Shape, &str),
        take: impl Fn(&Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let shape = Shape::List {
            each: Box::new(shape),
            least,
            most,
        };
        let nodes = self.read(key, shape, what, |node| {
            node.value.list().filter(|nodes| (least..=most).contains(&nodes.len()))
        })?;
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
        self.table_of_shape(key, Shape::Table)
    }

    /// The table at `key`, which is of `shape`.
    pub(crate) fn table_of_shape(&mut self, key: &'static str, shape: Shape) -> Option<(&'a Table, Place)> {
        self.read(key, shape, "a table", |node| {
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
            if self.knows(key) || self.problems.is_full() {
                continue;
            }
            let meant = closest(key, self.known());
            mistaken.extend(meant);
            self.problems.push(Problem::error(
                format!("{} is not a key of {}", quoted(key), self.what),
                entry.key,
                "unknown key",
                format!(
                    "{}{} has {}",
                    did_you_mean(key, self.known()),
                    self.what,
                    listed(self.known())
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
        if let Some(record) = self.record {
            record.asked = self.asked;
            record.missing = self.missing.iter().map(|(key, _)| *key).collect();
        }
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

fn whole_shape(least: usize, most: usize) -> Shape {
    Shape::Whole {
        least: least as u64,
        most: most as u64,
    }
}

fn real_in(node: &Node, interval: Interval) -> Option<f64> {
    node.value.real().filter(|value| interval.contains(*value))
}

fn whole_in(node: &Node, least: usize, most: usize) -> Option<usize> {
    usize::try_from(node.value.whole()?)
        .ok()
        .filter(|whole| (least..=most).contains(whole))
}
