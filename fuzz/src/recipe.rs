//! Recipes: parsed, laid over, checked and lowered, or refused with diagnostics that can be shown.

use orchestrate_recipe::{Lowered, Overrides, Recipe};
use std::path::Path;

pub fn read(bytes: &[u8], folder: &Path) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let path = crate::file(folder, "r.toml", parts.next().unwrap_or_default());
    let overrides = Overrides {
        set: parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect(),
        ..Overrides::default()
    };
    match Recipe::load(&path, &overrides) {
        Ok(loaded) => drop(Lowered::new(&loaded.recipe).expect("a checked recipe is a graph")),
        Err(errors) => {
            assert!(!errors.findings().is_empty());
            for finding in errors.findings() {
                assert!(finding.line() > 0 && !finding.advice().is_empty() && !finding.to_string().contains('\n'));
            }
        }
    }
}
