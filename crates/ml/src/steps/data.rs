//! Data sets as artifacts, and what training reads of them.

use super::Figures;
use crate::artifact::{Files, ModelArtifact};
use crate::data::prepared::files_for_training;
use crate::data::{DataSpec, prepare};
use crate::error::{Error, Result};
use std::path::Path;

/// Makes or reads a data set and turns it into numbers: as the model in `like` reads them, if it is given. `files` are
/// external, by role.
///
/// # Errors
/// [`Error::Data`], or if the model cannot be read.
pub fn prepare_data(spec: &DataSpec, files: &Files, like: Option<&Files>, out: &Path) -> Result<Figures> {
    let like = like.map(|files| ModelArtifact::open(files)?.task()).transpose()?;
    let data = prepare(spec, files, like.as_ref())?;
    data.write(out)?;
    let count = |n: usize| n as f64;
    Ok(Figures::of_metrics([
        ("train_rows", count(data.train.rows())),
        ("test_rows", count(data.test.rows())),
        ("classes", count(data.labels().len())),
    ]))
}

/// Copies what training reads of a prepared data set, so that a change of the test rows alone does not reach it.
///
/// # Errors
/// [`Error::Io`].
pub fn training_rows(data: &Files, out: &Path) -> Result<Figures> {
    for (name, path) in files_for_training(data) {
        std::fs::copy(path, out.join(name)).map_err(Error::io("copy", path))?;
    }
    Ok(Figures::default())
}
