//! `orchestrate completions`: a script that teaches a shell the command line.

use crate::arguments::{Arguments, Completions};
use crate::exit::{ExitCode, Failure};
use crate::output;

/// Prints the script.
pub fn run(arguments: &Completions) -> Result<ExitCode, Failure> {
    let mut command = Arguments::public_command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "orchestrate", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::Done)
}
