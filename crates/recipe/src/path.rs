//! Paths in a recipe: what they start from, and whether something that can be read is there.

use crate::diagnostic::Problem;
use crate::section::Section;
use crate::suggest::escaped;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What relative paths start from.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Paths of the recipe.
    pub recipe: PathBuf,
    /// Paths of the command line.
    pub current: PathBuf,
    /// Whether files are looked for: not for the profiles that were not chosen.
    pub look: bool,
}

/// What a path is to lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    File,
    Folder,
}

/// The path at `role`, if there is a file that can be read.
pub(crate) fn file(section: &mut Section, role: &'static str, folders: &Folders) -> Option<PathBuf> {
    path(section, role, folders, Sort::File)
}

/// The path at `role`, if there is a folder that can be read.
pub(crate) fn folder(section: &mut Section, role: &'static str, folders: &Folders) -> Option<PathBuf> {
    path(section, role, folders, Sort::Folder)
}

fn path(section: &mut Section, role: &'static str, folders: &Folders, sort: Sort) -> Option<PathBuf> {
    let (text, place) = section.text(role)?;
    let (folder, of) = if text.begins_in.is_command_line() {
        (&folders.current, "the current folder")
    } else {
        (&folders.recipe, "the recipe's folder")
    };
    let path = folder.join(&text.value);
    if !folders.look {
        return Some(path);
    }
    let Some(trouble) = trouble_with(&path, sort) else {
        return Some(path);
    };
    let relative = if Path::new(&text.value).is_relative() {
        format!("; the path is relative to {of}")
    } else {
        String::new()
    };
    let noun = match sort {
        Sort::File => "file",
        Sort::Folder => "folder",
    };
    section.fault(Problem::error(
        format!("`{}` {trouble}", escaped(&path.display().to_string())),
        place,
        format!("the {noun} for `{role}`"),
        format!("correct the path here, by a variable or with `--set`{relative}"),
    ));
    None
}

/// Why `path` is not what it is to be, or cannot be read.
fn trouble_with(path: &Path, sort: Sort) -> Option<String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    match (std::fs::metadata(path), sort) {
        (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        (Err(error), _) => Some(unreadable(error)),
        // A pipe would block until someone writes to it.
        (Ok(about), Sort::File) if !about.is_file() => Some("is not a file".to_owned()),
        (Ok(about), Sort::Folder) if !about.is_dir() => Some("is not a folder".to_owned()),
        (Ok(_), Sort::File) => File::open(path).err().map(unreadable),
        (Ok(_), Sort::Folder) => std::fs::read_dir(path).err().map(unreadable),
    }
}
