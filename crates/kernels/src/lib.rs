//! Fused kernels with their backward passes, as candle custom ops; int8 matrix products; the random generator.
//!
//! Operations take and return candle tensors. On the CPU in f32 each is one fused op with a backward pass of its own, and
//! in a build for CUDA most are, too (`cuda`); on any other device or type it is a composition of differentiable candle ops
//! with the same mathematics, written beside it as `reference`, which is also what the tests compare with.
//!
//! Invariants:
//! - **Same bits for any number of threads.** Work is split by shape, never by thread count, and partial sums are added in
//!   the order of the data.
//! - **Same bits for any vector width**: the elementary functions are our own polynomials, in which no multiplication is fused
//!   with an addition, and in matrix products and small convolutions each one is.
//! - Integer products are exact, so that they are equal on every instruction set.
//!
//! It does not know of models, training loops or files. It is the only crate with `unsafe`: intrinsics and assembly,
//! strided outputs that tasks share, the allocator's thresholds, asking the system for AMX's registers, and launches on CUDA.

mod activation;
mod adamw;
mod add_norm;
mod add_relu;
mod affine;
mod aligned;
mod amx;
mod attention;
mod average_pool;
mod batch_norm;
mod checkpoint;
mod codebook;
mod conv2d;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
mod direct_conv2d;
mod distillation;
mod dropout;
mod elementary;
mod embedding;
mod embedding_norm;
mod fake_quantize;
mod feed_forward;
mod gradients;
mod int8;
mod isa;
mod lanes;
mod layer_norm;
mod linear;
mod matrix;
mod max_pool2d;
mod memory;
mod packed_linear;
mod patches;
mod peak;
mod philox;
mod precision;
mod product;
mod random;
mod reduction;
mod row_gradient;
mod scale_channels;
mod self_attention;
mod sgd;
mod softmax;
mod storage;

#[cfg(test)]
mod empty_batches;
#[cfg(test)]
mod many_tasks;
#[cfg(test)]
mod odd_sizes;
#[cfg(test)]
mod testing;

pub use activation::{gelu, relu, tanh};
pub use adamw::{AdamWStep, MovingRows, adamw_step, adamw_step_of_rows};
pub use add_norm::add_norm;
pub use add_relu::add_relu;
pub use affine::Affine;
pub use attention::attention;
pub use average_pool::global_average_pool;
pub use batch_norm::{BatchStatistics, batch_norm, batch_norm_relu};
pub use checkpoint::checkpoint;
pub use codebook::Codebook;
pub use conv2d::conv2d;
pub use cross_entropy::cross_entropy;
pub use distillation::distillation_loss;
pub use dropout::{Dropout, dropout};
pub use embedding::embedding;
pub use embedding_norm::embedding_norm;
pub use fake_quantize::{
    ActivationQuantizer, fake_quantize_by_codebook, fake_quantize_per_channel, fake_quantize_per_tensor,
    quantize_per_channel, symmetric_scales,
};
pub use feed_forward::feed_forward;
pub use gradients::{Gradient, Gradients, gradients, squared_norm_of_all};
pub use int8::{Int8Conv2d, Int8Linear, PackedInt8, QuantizedActivations, int8_feed_forward, int8_gemm};
pub use isa::{Isa, with_isa};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use max_pool2d::max_pool2d;
pub use memory::keep_freed_memory;
pub use packed_linear::PackedLinear;
pub use peak::multiply_adds;
pub use precision::ProductPrecision;
pub use random::{RandomKey, RandomStream, fill_uniform_at};
pub use reduction::{all_finite, min_max, squared_norm};
pub use row_gradient::RowGradient;
pub use scale_channels::scale_channels;
pub use self_attention::{Projections, Queries, self_attention};
pub use sgd::{SgdStep, sgd_step};
pub use softmax::softmax_last_dim;

/// To be called once for a device that was just opened. On a GPU a tensor is then for the thread that made it alone.
pub fn prepare_device(device: &candle_core::Device) {
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = device {
        cuda::prepare_device(device);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}
