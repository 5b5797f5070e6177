//! What matrix products round their operands to.

/// The precision of matrix products; everything else is f32 in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProductPrecision {
    /// Operands as they are.
    #[default]
    F32,
    /// Operands rounded to the nearest bf16, products summed in f32; the gradients' products too. The same bits on every
    /// processor. Fused ops alone do so: others compute in the type of their tensors.
    Bf16,
}
