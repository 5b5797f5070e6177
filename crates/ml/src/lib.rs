//! Data, models, training, distillation, pruning, quantization, evaluation and export. Knows nothing of scheduling or
//! caching: it turns files and settings into files and figures.

pub mod data;
