//! `orchestrate init`: a commented recipe to start from.

use crate::arguments::Init;
use crate::exit::{ExitCode, Failure};
use crate::output;
use std::fs::OpenOptions;
use std::io::Write;

const TEMPLATE: &str = include_str!("../templates/recipe.toml");

/// Writes the recipe; an existing file is left alone.
pub fn run(arguments: &Init) -> Result<ExitCode, Failure> {
    let path = &arguments.path;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(Failure::file("create", path))?;
    file.write_all(TEMPLATE.as_bytes())
        .map_err(Failure::file("write", path))?;
    output::note(&format!(
        "wrote {}; now: orchestrate build {}",
        path.display(),
        path.display()
    ));
    Ok(ExitCode::Done)
}
