//! AMX, whose registers are tiles of 16 rows of 64 bytes (Intel SDM, volume 1, chapter 18).
//!
//! Rust has no stable intrinsics for it: its instructions are written as assembly. Compilers use tiles for nothing that is not
//! written with them, so that between the blocks of a task their setting stays; what is in them does not leave a block.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::x86_64::__cpuid_count;

    /// Bits of EDX of leaf 7, of what this crate uses: BF16, TILE and INT8.
    const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;

    /// `ARCH_REQ_XCOMP_PERM` of the kernel's documentation of `arch_prctl`.
    const REQUEST: libc::c_int = 0x1023;

    /// The state component of the tiles' content.
    const TILE_DATA: libc::c_ulong = 18;

    pub(super) fn is_present() -> bool {
        let has_leaf = __cpuid_count(0, 0).eax >= 7;
        if !has_leaf || __cpuid_count(7, 0).edx & NEEDED != NEEDED {
            return false;
        }
        // SAFETY: the call takes two integers and touches no memory of this process; a kernel that does not know it refuses.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    }
}

/// Whether this processor has AMX with tiles of bf16 and of 8-bit integers, and the system lets this process use them: Linux
/// gives the registers to processes that ask, since they make every saved state of a thread larger by 8 KiB.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_present() -> bool {
    #[cfg(target_os = "linux")]
    return linux::is_present();
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(target_arch = "x86_64")]
pub(crate) use tiles::{ROWS, Tiles};

#[cfg(target_arch = "x86_64")]
mod tiles {
    use std::arch::asm;
    use std::marker::PhantomData;

    /// Rows of a tile.
    pub(crate) const ROWS: usize = 16;

    /// What `ldtilecfg` reads: all eight tiles in their full size.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    static FULL: Configuration = {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let mut tile = 0;
        while tile < 8 {
            configuration.row_bytes[tile] = 64;
            configuration.rows[tile] = ROWS as u8;
            tile += 1;
        }
        configuration
    };

    /// This thread's tiles, set up in their full size until this is dropped. Setting them up takes as long as a quarter of a
    /// visit of a product's tile: a task does it once.
    pub(crate) struct Tiles {
        of_this_thread: PhantomData<*const ()>,
    }

    impl Tiles {
        /// # Safety
        /// [`super::is_present`] has said so, and this thread has no other [`Tiles`]: the first that is dropped would take them
        /// from both.
        pub(crate) unsafe fn set_up() -> Self {
            // SAFETY: the instruction is there, by this function's contract, and reads the 64 bytes of a valid configuration.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const FULL, options(nostack, readonly, preserves_flags));
            }
            Self {
                of_this_thread: PhantomData,
            }
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: as this exists, the instruction is there. It takes no memory.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }
}
