//! Why a build or a plan could not go on at all. A failed action is no such error: it is part of the report.

use crate::graph::GraphError;
use crate::store::StoreError;
use std::path::PathBuf;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An external input that cannot be read.
    #[error("input `{role}` of action `{action}`: cannot read {path}: {source}", path = path.display())]
    InputFile {
        /// The action.
        action: String,
        /// The input's role.
        role: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
