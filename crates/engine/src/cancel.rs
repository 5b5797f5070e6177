//! A flag by which a build is told to end, at one of two levels. It only ever rises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const STOP: u8 = 1;
const NOW: u8 = 2;

/// Cheap to clone; all clones are the same flag. A signal handler's thread may raise it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicU8>);

impl Cancel {
    /// A flag that is not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks that nothing new be started; what runs may end.
    pub fn stop(&self) {
        self.0.fetch_max(STOP, Ordering::SeqCst);
    }

    /// Asks that what runs be ended at once, too.
    pub fn stop_now(&self) {
        self.0.fetch_max(NOW, Ordering::SeqCst);
    }

    /// Whether nothing new may be started.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= STOP
    }

    /// Whether what runs is to end at once.
    #[must_use]
    pub fn is_now(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= NOW
    }
}
