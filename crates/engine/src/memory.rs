//! Memory in words: what is too much of it, and what to do then.

/// How to need less.
pub(crate) const NEED_LESS: &str = "lower batch_size, max_length or the number of rows, raise gradient_accumulation, use a \
                                    smaller model, or run less at once with a lower `--jobs`";

/// Bytes of memory as people read them: `512 MiB`, `1.5 GiB`.
#[must_use]
pub fn memory_in_words(bytes: u64) -> String {
    let bytes = bytes as f64;
    let [kib, mib, gib] = [10, 20, 30].map(|shift| f64::from(1 << shift));
    if bytes < kib {
        format!("{bytes} B")
    } else if bytes < mib {
        format!("{:.0} KiB", bytes / kib)
    } else if bytes < gib {
        format!("{:.0} MiB", bytes / mib)
    } else {
        format!("{:.1} GiB", bytes / gib)
    }
}

/// An action that was not started because it is expected to need `needed` bytes of `there_is`.
pub(crate) fn too_large(needed: u64, there_is: u64) -> String {
    format!(
        "it was not started: it is expected to need up to {} of memory, and there are {}; lower batch_size, max_length or the \
         number of rows, raise gradient_accumulation, or use a smaller model; `--memory SIZE` sets how much there is, and with \
         `--memory none` it is tried",
        memory_in_words(needed),
        memory_in_words(there_is)
    )
}

/// A worker that the system killed without a word, which it does when memory runs out.
pub(crate) fn killed(peak: Option<u64>, there_is: Option<u64>) -> String {
    let held = peak.map_or_else(|| "an unknown amount".to_owned(), memory_in_words);
    let of = there_is.map_or_else(String::new, |bytes| format!(" of {}", memory_in_words(bytes)));
    format!(
        "the worker was killed (signal 9), as the system does when memory runs out: it was last seen to hold {held}{of}; if \
         that was it, {NEED_LESS}"
    )
}
