//! From a tree to a recipe: the sections are read one after the other, then their references are looked up.
//!
//! Everything is checked that can be without running anything. What depends on a faulty part is not judged.

use crate::diagnostic::{Problem, Problems};
use crate::flow::{self, Parts};
use crate::gate;
use crate::header::{self, Header};
use crate::model::Model;
use crate::named::NamedTable;
use crate::node::Table;
use crate::path::Folders;
use crate::recipe::{Data, Gate, Recipe, Step};
use crate::section::{Named, Section};
use crate::source::{Place, Sources};
use crate::steps::Draft;
use crate::variables::Variables;
use crate::{data, graph, model, references};
use orchestrate_ml::device::DeviceChoice;
use std::collections::BTreeMap;

/// What the file system says of a recipe.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The file's name without its extension.
    pub stem: String,
    pub folders: Folders,
}

/// Something that was declared under a name; `None` if it is faulty.
#[derive(Debug)]
pub(crate) struct Declared<T> {
    pub name: Named,
    pub value: Option<T>,
}

/// The recipe in `tree`, if nothing in it is wrong.
pub(crate) fn check(
    mut tree: Table,
    surroundings: &Surroundings,
    sources: &Sources,
    problems: &mut Problems,
) -> Option<Recipe> {
    expand_variables(&mut tree, problems);
    let root = Section::new("recipe".to_owned(), "a recipe", &tree, Place::top(), problems);
    let sections = Sections::of(root);
    let header = header_of(&sections, problems);
    let data = read_all(sections.data, "data", "a data set", problems, |section| {
        data::read(section, &surroundings.folders)
    });
    let models = read_all(sections.models, "model", "a model", problems, |section| {
        model::read(section, &surroundings.folders)
    });
    let device = header
        .as_ref()
        .map_or(DeviceChoice::Cpu, |header| header.device.resolve());
    let steps = read_all(sections.steps, "step", "a step", problems, |section| {
        Draft::read(section, device)
    });
    let gates: Vec<gate::Draft> = sections
        .gates
        .into_iter()
        .filter_map(|(table, place)| gate::read(Section::new("[[gate]]".to_owned(), "a gate", table, place, problems)))
        .collect();
    let parts = Parts { data, models, steps };
    references::check(&parts, problems);
    let order = graph::order(&parts, problems);
    let step_data = flow::follow(&parts, &order, problems);
    let gates = gate::look_up(gates, &parts, header.as_ref(), sources, problems);
    references::report_unused(&parts, problems);
    if problems.has_errors() {
        return None;
    }
    Some(assemble(header?, parts, &order, step_data, gates, &surroundings.stem))
}

/// The tables that a recipe consists of.
pub(crate) struct Sections<'a> {
    header: Option<(&'a Table, Place)>,
    data: Vec<NamedTable<'a>>,
    models: Vec<NamedTable<'a>>,
    steps: Vec<NamedTable<'a>>,
    gates: Vec<(&'a Table, Place)>,
}

impl<'a> Sections<'a> {
    pub fn of(mut root: Section<'a, '_>) -> Self {
        let header = root.table("recipe");
        root.table("variables");
        let data = root.tables("data", "data set");
        let models = root.tables("model", "model");
        let steps = root.tables("step", "step");
        let gates = root.records("gate");
        root.table("profile");
        if steps.is_empty() && !root.has("step") && !root.has_unknown() {
            root.fault(Problem::error(
                "a recipe without steps",
                Place::top(),
                "nothing to do",
                "add a step: `[step.NAME]` with `kind = \"train\"`, `data` and `model`",
            ));
        }
        root.done(|| Some(()));
        Self {
            header,
            data,
            models,
            steps,
            gates,
        }
    }
}

fn expand_variables(tree: &mut Table, problems: &mut Problems) {
    let mut variables = Variables::read(tree.table("variables"), problems);
    for key in ["data", "model"] {
        if let Some(entry) = tree.entries.get_mut(key) {
            variables.expand(&mut entry.node, problems);
        }
    }
    variables.report_unused(problems);
}

fn header_of(sections: &Sections, problems: &mut Problems) -> Option<Header> {
    let none = Table::default();
    let (table, place) = sections.header.unwrap_or((&none, Place::top()));
    header::read(Section::new(
        "[recipe]".to_owned(),
        "`[recipe]`",
        table,
        place,
        problems,
    ))
}

fn read_all<T>(
    tables: Vec<NamedTable>,
    key: &str,
    what: &'static str,
    problems: &mut Problems,
    read: impl Fn(Section) -> Option<T>,
) -> Vec<Declared<T>> {
    tables
        .into_iter()
        .map(|(name, table)| {
            let title = format!("[{key}.{}]", name.name);
            let value = table.and_then(|(table, place)| read(Section::new(title, what, table, place, problems)));
            Declared { name, value }
        })
        .collect()
}

/// The recipe of parts that are all well.
fn assemble(
    header: Header,
    parts: Parts,
    order: &[usize],
    mut step_data: BTreeMap<usize, String>,
    gates: Vec<Gate>,
    stem: &str,
) -> Recipe {
    let data: BTreeMap<String, Data> = by_name(parts.data);
    let models: BTreeMap<String, Model> = by_name(parts.models);
    let mut drafts: Vec<Option<(Named, Draft)>> = parts
        .steps
        .into_iter()
        .map(|step| Some((step.name, step.value?)))
        .collect();
    let steps = order.iter().filter_map(|index| {
        let (name, draft) = drafts[*index].take()?;
        let kind = draft.finish(step_data.remove(index)?, &models);
        Some(Step { name: name.name, kind })
    });
    Recipe {
        steps: steps.collect(),
        name: header.name.unwrap_or_else(|| header::name_of_file(stem)),
        seed: header.seed,
        device: header.device,
        latency_seconds: header.latency_seconds,
        data,
        gates,
    }
}

fn by_name<T>(declared: Vec<Declared<T>>) -> BTreeMap<String, T> {
    declared
        .into_iter()
        .filter_map(|one| Some((one.name.name, one.value?)))
        .collect()
}
