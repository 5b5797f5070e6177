//! One command a file.

pub mod bench;
pub mod build;
pub mod cache;
mod cache_ls;
mod cache_rm;
pub mod completions;
pub mod diff;
pub mod evaluate;
pub mod fetch;
pub mod graph;
pub mod init;
pub mod lock;
pub mod log;
pub mod man;
pub mod plan;
pub mod predict;
pub mod runs;
pub mod schema;
pub mod status;
pub mod why;
pub mod worker;
