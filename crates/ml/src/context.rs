//! Where and how work runs.

use crate::checkpoint::Interruption;
use crate::progress::Watch;
use candle_core::Device;

/// Where and how work runs.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The backend.
    pub device: &'a Device,
    /// Of every random stream.
    pub seed: u64,
    /// Who follows the progress.
    pub watch: Watch<'a>,
    /// How it may be interrupted.
    pub interruption: Interruption<'a>,
}
