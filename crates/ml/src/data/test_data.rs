//! Finds the real data sets that some tests read where they are at hand.

use std::path::PathBuf;

/// The file or folder `name` of the shared test data; says so and gives `None` where it is absent.
///
/// Looked for where `ORCHESTRATE_TEST_DATA` says, or else in `shared/data` beside the repository.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("ORCHESTRATE_TEST_DATA")
        .map_or_else(beside, PathBuf::from)
        .join(name);
    if !path.exists() {
        eprintln!("skipped: no {name} in the test data; ORCHESTRATE_TEST_DATA names its folder");
        return None;
    }
    Some(path)
}
