//! Which instruction set the kernels run with, chosen at run time, and the macro that compiles a loop once for each.
//!
//! Every set gives the same bits: no kernel lets the compiler reorder or fuse floating-point operations that are not fused by
//! their definition, and what an instruction does in another order is another [`crate::ProductPrecision`], emulated elsewhere.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// An instruction set that kernels are compiled for, in rising order: a processor that has one has those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the target triple guarantees.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 as above, with VNNI.
    Avx512Vnni,
    /// AVX-512 as above, with BF16.
    Avx512Bf16,
    /// All of these, and AMX with tiles of bf16 and of 8-bit integers, whose registers the system lets this process use.
    Amx,
}

/// The set that [`with_isa`] asks for: 0 for none, else its place in [`Isa::ALL`] plus one.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// Held while a set is forced, so that two tests do not overrule each other.
static FORCING: Mutex<()> = Mutex::new(());

impl Isa {
    const ALL: [Self; 6] = [
        Self::Portable,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// The best set of this processor.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(detect_once)
    }

    /// Every set of this processor, the portable one first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::detect())
    }

    /// The set to run with now. Never above [`Isa::detect`]: the `unsafe` calls of kernels rest on that.
    pub(crate) fn current() -> Self {
        match FORCED.load(Ordering::Relaxed) {
            0 => Self::detect(),
            place => Self::ALL[usize::from(place) - 1],
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn detect_once() -> Isa {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        avx512,
        is_x86_feature_detected!("avx512vnni"),
        is_x86_feature_detected!("avx512bf16"),
    ) {
        (false, _, _, _) => Isa::Portable,
        (true, false, _, _) => Isa::Avx2,
        (true, true, false, _) => Isa::Avx512,
        (true, true, true, false) => Isa::Avx512Vnni,
        (true, true, true, true) if crate::amx::is_present() => Isa::Amx,
        (true, true, true, true) => Isa::Avx512Bf16,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect_once() -> Isa {
    Isa::Portable
}

/// Runs `f` with every kernel of the process held to `isa`, for tests and measurements. Calls wait for each other; do not
/// nest them.
///
/// # Panics
/// If this processor does not have `isa`.
pub fn with_isa<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            FORCED.store(0, Ordering::Relaxed);
        }
    }
    assert!(isa <= Isa::detect(), "this processor has no {isa:?}");
    let _forcing = FORCING.lock().unwrap_or_else(PoisonError::into_inner);
    let _release = Release;
    FORCED.store(isa as u8 + 1, Ordering::Relaxed);
    f()
}

/// Compiles each function once for every instruction set and calls the one of [`Isa::current`]. The body must be loops
/// over slices that the compiler vectorizes; what it calls must be `#[inline(always)]`.
macro_rules! multiversion {
    ($(
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn portable($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $output)? { portable($($argument),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $output)? { portable($($argument),*) }

            #[cfg(target_arch = "x86_64")]
            {
                let isa = $crate::isa::Isa::current();
                if isa >= $crate::isa::Isa::Avx512 {
                    // SAFETY: `Isa::current` names only sets that this processor has.
                    return unsafe { avx512($($argument),*) };
                }
                if isa >= $crate::isa::Isa::Avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    )+};
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forced_set_is_current_until_the_end() {
        let inside = with_isa(Isa::Portable, Isa::current);
        assert_eq!(inside, Isa::Portable);
        let panicked = std::panic::catch_unwind(|| with_isa(Isa::Portable, || panic!("on purpose")));
        assert!(panicked.is_err());
        let _forcing = FORCING.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(Isa::current(), Isa::detect());
    }

    #[test]
    fn portable_is_always_available() {
        assert_eq!(Isa::available().next(), Some(Isa::Portable));
        assert_eq!(Isa::available().last(), Some(Isa::detect()));
    }
}
