//! Products of u8 activations with i8 weights in exact i32 arithmetic, and the layers made of them.
//!
//! Invariant: every instruction set gives the same integers, since none of the kernels saturates, and therefore the same
//! f32 results, since the epilogue is elementwise.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod conv2d;
mod feed_forward;
mod linear;
mod packed;
mod portable;
mod product;

pub use conv2d::Int8Conv2d;
pub use feed_forward::int8_feed_forward;
pub use linear::{Int8Linear, QuantizedActivations};
pub use packed::PackedInt8;
pub use product::int8_gemm;
