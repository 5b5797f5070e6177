//! The names of precisions, as settings and keys have them.

use candle_core::Device;
use orchestrate_kernels::ProductPrecision;
use serde::{Deserialize, Serialize};

/// How a [`ProductPrecision`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "ProductPrecision", rename_all = "kebab-case")]
pub(crate) enum PrecisionName {
    F32,
    Bf16,
    Bf16Amx,
}

/// Whether settings leave it out: what was written before there was a choice keeps its key.
// Serde hands over a reference.
pub(crate) fn is_default(precision: &ProductPrecision) -> bool {
    *precision == ProductPrecision::default()
}

/// Says so where products in `precision` take long on `device`.
pub(crate) fn warn_of_emulation(precision: ProductPrecision, device: &Device) {
    if device.is_cpu() && precision.is_emulated() {
        let (name, missing) = match precision {
            ProductPrecision::Bf16Amx => ("bf16-amx", "AMX"),
            ProductPrecision::Bf16 | ProductPrecision::F32 => ("bf16", "avx512_bf16"),
        };
        tracing::warn!(
            "this processor has no {missing}: products in {name} give the same bits here, but take several times as long as in f32"
        );
    }
}
