//! One command a file.

pub mod bench;
pub mod build;
pub mod cache;
pub mod completions;
pub mod evaluate;
pub mod graph;
pub mod init;
pub mod man;
pub mod plan;
pub mod predict;
pub mod schema;
pub mod why;
pub mod worker;
