//! Layers shared by the models. Each looks up its weights by path while it is built and takes the precision that it
//! finds there, so that one model description serves training, quantization-aware training and integer inference.

mod batch_norm;
mod conv;
mod conv_norm;
mod embedding;
mod feed_forward;
mod layer_norm;
mod linear;
mod self_attention;
mod simulation;

pub use batch_norm::BatchNorm;
pub use conv::{Conv2d, ConvShape};
pub use conv_norm::{ConvNorm, fold_norms};
pub use embedding::Embedding;
pub use feed_forward::FeedForward;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use self_attention::SelfAttention;
