//! The schema as a JSON document, made of what was surveyed.
//!
//! A section of several sorts is written twice over, because editors complete and explain keys by `properties` alone: all
//! keys of all sorts as `properties`, and the exact sections as branches of `if` and `else` on the key that says the sort.
//! Profiles change sections whose sort stands elsewhere: there, all keys of all sorts are known and none is required.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::reference::Reference;
use super::survey::{Part, Survey, survey};
use crate::shape::{Interval, Shape};

/// What names of recipes, data sets, models, steps and profiles look like; see [`crate::named::is_name`].
const NAME: &str = "^[A-Za-z0-9_-]{1,64}$";
/// The sorts of steps whose training goes on from a trained model.
const FINETUNING: [&str; 2] = ["prune", "quantize"];

/// The schema of a whole recipe.
pub(super) fn root(reference: &Reference) -> Value {
    let mut definitions = Map::new();
    definitions.insert("recipe".to_owned(), section(reference, Part::Header, None));
    definitions.insert("gate".to_owned(), section(reference, Part::Gate, None));
    for part in [Part::Data, Part::Model, Part::Step] {
        let name = noun(part);
        for sort in part.sorts() {
            definitions.insert(definition(part, sort), section(reference, part, Some(sort)));
        }
        definitions.insert(name.to_owned(), of_any_sort(reference, part));
        definitions.insert(format!("profile.{name}"), changes(reference, part));
    }
    let keys = survey(Part::Root, None).keys;
    let profile: Map<String, Value> = keys
        .keys()
        .filter(|key| **key != "profile")
        .map(|key| (key.to_string(), top_level(reference, key, "profile.")))
        .collect();
    definitions.insert("profile".to_owned(), object(profile));
    let mut schema = object(
        keys.keys()
            .map(|key| (key.to_string(), top_level(reference, key, "")))
            .collect(),
    );
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("recipe of orchestrate");
    schema["description"] = json!(reference.introduction("Recipes"));
    schema["definitions"] = Value::Object(definitions);
    schema
}

/// The schema of a top-level key; within a profile, `prefix` leads to sections that are changed.
fn top_level(reference: &Reference, key: &str, prefix: &str) -> Value {
    let (heading, mut schema) = match key {
        "recipe" => return to("recipe"),
        "gate" => ("`[[gate]]`", json!({"type": "array", "items": to("gate")})),
        "variables" => (
            "`[variables]`",
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
        ),
        "data" | "model" | "step" => {
            let heading = match key {
                "data" => "`[data.NAME]`",
                "model" => "`[model.NAME]`",
                _ => "`[step.NAME]`",
            };
            (heading, named(&format!("{prefix}{key}")))
        }
        "profile" => ("`[profile.NAME]`", named("profile")),
        other => unreachable!("`{other}` is new at the top of a recipe: say here what it holds"),
    };
    schema["description"] = json!(reference.introduction(heading));
    schema
}

fn noun(part: Part) -> &'static str {
    match part {
        Part::Root => "root",
        Part::Header => "recipe",
        Part::Data => "data",
        Part::Model => "model",
        Part::Step => "step",
        Part::Gate => "gate",
    }
}

fn definition(part: Part, sort: &str) -> String {
    format!("{}.{}", noun(part), sort.replace(':', "."))
}

fn to(definition: &str) -> Value {
    json!({"$ref": format!("#/definitions/{definition}")})
}

/// A table of tables, each `definition`, under names of the user's.
fn named(definition: &str) -> Value {
    json!({"type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": to(definition)})
}

fn object(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// A section of one sort.
fn section(reference: &Reference, part: Part, sort: Option<&'static str>) -> Value {
    let Survey {
        keys,
        required,
        required_unless,
    } = survey(part, sort);
    let properties = keys.iter().map(|(key, shape)| {
        let is_tag = part.tag() == Some(key);
        let mut schema = property(reference, part, sort, key, shape);
        if let Some(sort) = sort.filter(|_| is_tag) {
            schema = json!({"const": sort, "description": schema["description"]});
        }
        (key.to_string(), schema)
    });
    let mut schema = object(properties.collect());
    schema["title"] = json!(title(part, sort));
    let heading = sort.map_or_else(|| heading_of(part).to_owned(), |sort| format!("`{sort}`"));
    schema["description"] = json!(reference.introduction(&heading));
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let choices: Vec<Value> = choices(required_unless).map(|ways| json!({"anyOf": ways})).collect();
    match choices.as_slice() {
        [] => {}
        [one] => schema["anyOf"] = one["anyOf"].clone(),
        several => schema["allOf"] = json!(several),
    }
    schema
}

/// The ways to give what cannot be left out: all the keys that the same others stand in for, or one of these.
fn choices(required_unless: BTreeMap<&'static str, BTreeSet<&'static str>>) -> impl Iterator<Item = Vec<Value>> {
    let mut keys_of: BTreeMap<BTreeSet<&str>, Vec<&str>> = BTreeMap::new();
    for (key, instead) in required_unless {
        keys_of.entry(instead).or_default().push(key);
    }
    keys_of.into_iter().map(|(instead, keys)| {
        let others = instead.into_iter().map(|key| json!({"required": [key]}));
        std::iter::once(json!({"required": keys})).chain(others).collect()
    })
}

fn title(part: Part, sort: Option<&str>) -> String {
    match (part, sort) {
        (Part::Data, Some(sort)) => format!("data set of {sort}"),
        (Part::Gate, _) => "gate".to_owned(),
        (_, Some(sort)) => format!("{sort} {}", noun(part)),
        (_, None) => noun(part).to_owned(),
    }
}

fn heading_of(part: Part) -> &'static str {
    match part {
        Part::Root => "Recipes",
        Part::Header => "`[recipe]`",
        Part::Data => "`[data.NAME]`",
        Part::Model => "`[model.NAME]`",
        Part::Step => "`[step.NAME]`",
        Part::Gate => "`[[gate]]`",
    }
}

/// A section of any sort, each checked as what it says it is.
fn of_any_sort(reference: &Reference, part: Part) -> Value {
    let tag = part.tag().expect("a part of several sorts says which");
    let branch = |otherwise: Option<Value>, sort: &&'static str| {
        let mut branch = json!({
            "if": {"properties": {tag: {"const": sort}}, "required": [tag]},
            "then": to(&definition(part, sort)),
        });
        if let Some(otherwise) = otherwise {
            branch["else"] = otherwise;
        }
        Some(branch)
    };
    let mut schema = changes(reference, part);
    let branches = part.sorts().iter().rev().fold(None, branch);
    if let (Value::Object(schema), Some(Value::Object(branches))) = (&mut schema, branches) {
        schema.extend(branches);
    }
    schema["required"] = json!([tag]);
    schema
}

/// All keys that a section may have, whatever its sort, none of them required.
fn changes(reference: &Reference, part: Part) -> Value {
    let mut found: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    for sort in part.sorts() {
        for (key, shape) in survey(part, Some(sort)).keys {
            let schema = property(reference, part, Some(sort), key, &shape);
            let known = found.entry(key).or_default();
            if !known.contains(&schema) {
                known.push(schema);
            }
        }
    }
    let properties = found.into_iter().map(|(key, mut schemas)| {
        let schema = match schemas.len() {
            1 => schemas.remove(0),
            _ => json!({"anyOf": schemas}),
        };
        (key.to_owned(), schema)
    });
    let mut schema = object(properties.collect());
    schema["title"] = json!(title(part, None));
    schema["description"] = json!(reference.introduction(heading_of(part)));
    schema
}

fn property(reference: &Reference, part: Part, sort: Option<&str>, key: &str, shape: &Shape) -> Value {
    let mut headings = vec![heading_of(part).to_owned()];
    headings.extend(sort.map(|sort| format!("`{sort}`")));
    if part == Part::Step {
        headings.push("Training".to_owned());
    }
    // The key that says the sort stands above the sorts; all others are the sort's own.
    headings.rotate_left(usize::from(part.tag().is_some() && part.tag() != Some(key)));
    let is_finetuning = sort.is_some_and(|sort| FINETUNING.contains(&sort));
    let mut schema = of_shape(shape);
    if part == Part::Data && matches!(shape, Shape::Choice(_)) {
        schema = json!({"anyOf": [schema, {"type": "string", "pattern": r"\$\{"}]});
    }
    schema["title"] = json!(key);
    if let Some(about) = reference.key(key, &headings, is_finetuning) {
        schema["description"] = json!(about.description);
        if let Some(default) = about.default {
            schema["default"] = default;
        }
    }
    schema
}

fn of_shape(shape: &Shape) -> Value {
    match shape {
        Shape::Whole { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Real(interval) => of_interval(interval),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Text => json!({"type": "string", "minLength": 1}),
        Shape::Name => json!({"type": "string", "pattern": NAME}),
        Shape::Choice(words) => json!({"enum": words}),
        Shape::List { each, least, most } => {
            json!({"type": "array", "items": of_shape(each), "minItems": least, "maxItems": most})
        }
        Shape::Table | Shape::Tables => json!({"type": "object"}),
        Shape::Records => json!({"type": "array", "items": {"type": "object"}}),
    }
}

fn of_interval(interval: &Interval) -> Value {
    let mut schema = json!({"type": "number"});
    match interval.least {
        Bound::Included(least) => schema["minimum"] = json!(least),
        Bound::Excluded(least) => schema["exclusiveMinimum"] = json!(least),
        Bound::Unbounded => {}
    }
    match interval.most {
        Bound::Included(most) => schema["maximum"] = json!(most),
        Bound::Excluded(most) => schema["exclusiveMaximum"] = json!(most),
        Bound::Unbounded => {}
    }
    schema
}
