//! What matrix products round their operands to.

use crate::isa::Isa;

/// The precision of matrix products; everything else is f32 in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProductPrecision {
    /// Operands as they are.
    #[default]
    F32,
    /// Operands rounded to the nearest bf16, products summed in f32, two by two; the gradients' products too. The same bits
    /// on every processor, fast where it has AVX-512 with BF16. Fused ops alone do so: others compute in the type of their
    /// tensors.
    Bf16,
    /// The same, but summed 32 by 32, as AMX does, in the order of whose sums results have other last bits. The same bits on
    /// every processor, fast where it has AMX.
    Bf16Amx,
}

impl ProductPrecision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Bf16Amx];

    /// The form of bf16 that is fastest on this processor; `None` if it has instructions for neither.
    pub fn fastest_bf16() -> Option<Self> {
        [Self::Bf16Amx, Self::Bf16].into_iter().find(|form| !form.is_emulated())
    }

    /// Whether products in this precision run in plain arithmetic here, with the same bits but several times slower, because
    /// the processor has no instruction for them.
    pub fn is_emulated(self) -> bool {
        let needed = match self {
            Self::F32 => Isa::Portable,
            Self::Bf16 => Isa::Avx512Bf16,
            Self::Bf16Amx => Isa::Amx,
        };
        Isa::detect() < needed
    }
}
