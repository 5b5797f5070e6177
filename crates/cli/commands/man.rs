//! `orchestrate man`: the command line as manual pages.

use crate::arguments::{Arguments, Man};
use crate::exit::{ExitCode, Failure};
use crate::output;
use std::path::Path;

/// Prints the main page, or writes all pages into a folder.
pub fn run(arguments: &Man) -> Result<ExitCode, Failure> {
    let command = Arguments::public_command();
    match &arguments.folder {
        Some(folder) => write_all(command, folder)?,
        None => output::line(rendered(command, Path::new("standard output"))?.trim_end())?,
    }
    Ok(ExitCode::Done)
}

/// One page a command, `orchestrate-build.1` and so on.
fn write_all(mut command: clap::Command, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(Failure::file("create", folder))?;
    command.build();
    write_tree(&command, folder)
}

fn write_tree(command: &clap::Command, folder: &Path) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    let page = rendered(command.clone(), &path)?;
    std::fs::write(&path, page).map_err(Failure::file("write", &path))?;
    let below = command.get_subcommands().filter(|command| command.get_name() != "help");
    below.into_iter().try_for_each(|command| write_tree(command, folder))
}

fn rendered(command: clap::Command, path: &Path) -> Result<String, Failure> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command);
    man.render(&mut page).map_err(Failure::file("write", path))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
