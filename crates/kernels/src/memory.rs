//! The C allocator's thresholds.

/// Tells glibc to keep freed buffers of any size instead of handing them back to the system.
///
/// Every op of a training step allocates and frees buffers of megabytes. As it comes, glibc maps each afresh and the
/// kernel clears its pages, which can take as long as the arithmetic. Call it once, before the first large allocation, in
/// processes that train or infer; a process then keeps its peak memory until it ends. Does nothing where the allocator is
/// not glibc's.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: libc::c_int = 1 << 20;
        // 32 MiB is the largest threshold that glibc takes; without mappings, larger buffers are kept as well. What it
        // refuses leaves the process as it was, so the results are of no use.
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, 32 * MIB),
            (libc::M_MMAP_MAX, 0),
            (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
            (libc::M_TOP_PAD, 64 * MIB),
        ] {
            // SAFETY: `mallopt` takes plain integers and is safe to call at any time.
            unsafe { libc::mallopt(parameter, value) };
        }
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Bytes that glibc has obtained by mmap for single allocations.
    fn mapped() -> usize {
        // SAFETY: `mallinfo2` only reads the allocator's statistics.
        unsafe { libc::mallinfo2() }.hblkhd
    }

    #[test]
    fn large_buffers_are_not_mapped_any_more() {
        keep_freed_memory();
        let before = mapped();
        let buffer = std::hint::black_box(vec![1u8; 48 << 20]);
        assert!(mapped() < before + buffer.len(), "a buffer of 48 MiB was mapped");
    }
}
