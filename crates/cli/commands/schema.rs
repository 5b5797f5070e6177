//! `orchestrate schema`: the JSON schema of recipes, for editors.

use crate::exit::{ExitCode, Failure};
use crate::output;
use orchestrate_recipe::schema;

/// Prints the schema.
pub fn run() -> Result<ExitCode, Failure> {
    output::line(schema::text().trim_end())?;
    Ok(ExitCode::Done)
}
