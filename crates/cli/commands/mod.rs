//! One command a file.

pub mod bench;
pub mod build;
pub mod cache;
pub mod evaluate;
pub mod graph;
pub mod init;
pub mod plan;
pub mod predict;
pub mod why;
pub mod worker;
