//! Ctrl-C and the request to end: the first stops a build in good order, the second at once.

use crate::output;
use orchestrate_engine::Cancel;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A flag that signals raise.
pub fn cancel_on_signals() -> Cancel {
    static SIGNALS: AtomicUsize = AtomicUsize::new(0);
    let cancel = Cancel::new();
    let raised = cancel.clone();
    let handler = move || {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) == 0 {
            output::note(
                "stopping: trainings keep a checkpoint, other work may end, nothing new starts (once more to stop at once)",
            );
            raised.stop();
        } else {
            raised.stop_now();
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("signals cannot be handled, an interrupt ends the program at once: {error}");
    }
    cancel
}
