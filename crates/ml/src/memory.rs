//! How much memory each kind of step is expected to hold at most on the CPU: told from its settings, before it takes any.
//!
//! An estimate adds up what the code keeps at its fullest moment, for rows of the greatest length. Buffers come and go, so
//! that none of this is exact: the integration test `memory` holds it to measured peaks.

use crate::models::Architecture;
use crate::optimizer::OptimizerKind;
use crate::quantize::CALIBRATION_BATCH;
use crate::training::Training;

/// The program with its threads.
const BASE: u64 = 16 << 20;
/// Of one number.
const FLOAT: u64 = 4;

/// What a step works on.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The model, at its widest.
    pub architecture: &'a Architecture,
    /// Its classes.
    pub classes: usize,
    /// Tokens of the longest row; 1 for images.
    pub tokens: usize,
    /// No more rows are trained on.
    pub rows: usize,
    /// Of the rows that are read, as they lie in memory.
    pub data_bytes: u64,
}

impl Load<'_> {
    /// Training it: its weights, their gradients, what the optimizer keeps of each, and the activations of a batch, or of a
    /// part of it. `is_simulated` if it is trained quantization-aware, for which what is rounded is copied.
    pub fn training(&self, settings: &Training, is_simulated: bool) -> u64 {
        let moments = match settings.optimizer {
            OptimizerKind::Adamw => 2,
            OptimizerKind::Sgd => u64::from(settings.momentum > 0.0),
        };
        let is_in_parts = settings.gradient_accumulation > 1;
        let copies = 2 + moments + u64::from(is_in_parts) + u64::from(is_simulated);
        let kept = self.architecture.activations(self.tokens);
        let parts: u64 = if settings.gradient_checkpointing && kept.parts.len() > 1 {
            // One part is run twice: once to go on from, and once more for its gradients.
            kept.part_input * kept.parts.len() as u64 + 2 * kept.parts.iter().max().unwrap_or(&0)
        } else {
            kept.parts.iter().sum()
        };
        let mut activations = kept.outside + parts;
        if is_simulated {
            activations = simulated(activations);
        }
        let batch = settings.batch_size.min(self.rows);
        let rows = batch.div_ceil(settings.gradient_accumulation.max(1)) as u64;
        self.held(copies, rows.saturating_mul(activations + kept.working))
    }

    /// Calibrating it: its weights as they are read, rounded and written, and what a batch keeps.
    pub fn calibration(&self) -> u64 {
        let kept = self.architecture.activations(self.tokens);
        let activations = kept.outside + kept.parts.iter().sum::<u64>() + kept.working;
        let rows = CALIBRATION_BATCH.min(self.rows) as u64;
        self.held(4, rows.saturating_mul(activations))
    }

    /// Running it on `rows` rows at a time: its weights, once more as they are laid out for products, and what one part
    /// holds. Of a model without parts that is taken to be half.
    pub fn inference(&self, rows: usize) -> u64 {
        let kept = self.architecture.activations(self.tokens);
        let part = kept.parts.into_iter().max().unwrap_or(kept.outside / 2);
        self.held(2, (rows as u64).saturating_mul(part))
    }

    /// Pruning it: read, sorted and written.
    pub fn pruning(&self) -> u64 {
        self.held(4, 0)
    }

    /// Reading it, and writing it in another form.
    pub fn conversion(&self) -> u64 {
        self.held(2, 0)
    }

    fn held(&self, copies_of_weights: u64, activations: u64) -> u64 {
        let weights = self.architecture.parameters(self.classes);
        let numbers = (copies_of_weights * weights).saturating_add(activations);
        let work = FLOAT.saturating_mul(numbers).max(self.data_bytes);
        work.saturating_add(BASE + self.data_bytes)
    }
}

/// Activations and the rounded copies of some.
fn simulated(activations: u64) -> u64 {
    7 * activations / 4
}

/// Preparing rows that take `bytes` when they are prepared: as they are read, as they are encoded, and as they are written.
pub fn preparation(bytes: u64) -> u64 {
    bytes.saturating_mul(3).saturating_add(BASE)
}
