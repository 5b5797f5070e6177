//! The JSON schema of recipes, for editors: `docs/recipe.schema.json`.
//!
//! It is not written by hand. Keys, types, bounds, words and what is required come from the readers themselves, which are
//! run over sample sections and say what they ask for ([`survey`]); descriptions and defaults come from the tables of
//! docs/recipe.md ([`reference`]). A new key is therefore in the schema as soon as its reader asks for it and its row
//! stands in the reference. Tests hold the committed file, the defaults and the reference to what the readers do.
//!
//! Invariant: what the readers accept, the schema accepts. The converse does not hold: what depends on several keys, on
//! other sections or on files is for the readers alone.

mod document;
mod reference;
mod survey;

use serde_json::Value;

/// The schema, as JSON Schema of draft 7: the newest one that TOML editors read.
#[must_use]
pub fn schema() -> Value {
    document::root(&reference::Reference::read())
}

/// The schema as it is committed.
#[must_use]
pub fn text() -> String {
    let json = serde_json::to_string_pretty(&schema()).expect("a tree of JSON values can be written");
    json + "\n"
}
