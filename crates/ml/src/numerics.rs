//! The names of precisions, as settings and keys have them.

use orchestrate_kernels::ProductPrecision;
use serde::{Deserialize, Serialize};

/// How a [`ProductPrecision`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "ProductPrecision", rename_all = "lowercase")]
pub(crate) enum PrecisionName {
    F32,
    Bf16,
}

/// Whether settings leave it out: what was written before there was a choice keeps its key.
// Serde hands over a reference.
pub(crate) fn is_default(precision: &ProductPrecision) -> bool {
    *precision == ProductPrecision::default()
}
