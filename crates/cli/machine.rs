//! What the machine has to give to a build.

use std::num::NonZeroUsize;
use sysinfo::System;

/// Threads that an action gets where there are enough: more than a few are of little use to one training.
const THREADS_A_JOB: usize = 4;

/// The threads that `RAYON_NUM_THREADS` grants, or else the machine's.
pub fn threads() -> NonZeroUsize {
    let granted = std::env::var("RAYON_NUM_THREADS").ok();
    granted
        .and_then(|text| text.trim().parse().ok())
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

/// How many actions run at once.
pub fn jobs() -> NonZeroUsize {
    NonZeroUsize::new(threads().get() / THREADS_A_JOB).unwrap_or(NonZeroUsize::MIN)
}

/// Bytes that a build may hold: nine tenths of the machine's memory, or of a container's limit; nothing where the system
/// does not tell.
pub fn memory() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let total = Some(system.total_memory()).filter(|bytes| *bytes > 0)?;
    let limit = system.cgroup_limits().map(|limits| limits.total_memory);
    let total = limit.filter(|bytes| *bytes > 0).map_or(total, |limit| limit.min(total));
    Some(total / 10 * 9)
}
