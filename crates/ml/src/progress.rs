//! How long work tells that it is still alive. Who listens, and how often it is shown, is the caller's business.

/// A moment of a long piece of work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps or batches done.
    pub done: usize,
    /// Of how many.
    pub total: usize,
    /// Mean loss of the last steps, in training.
    pub loss: Option<f64>,
    /// Share of the rows of the last steps that were predicted right before they were learnt from, in training.
    pub accuracy: Option<f64>,
    /// Rows handled a second since the work began.
    pub rows_per_second: Option<f64>,
}

/// Called after each step.
pub type Watch<'a> = &'a dyn Fn(&Progress);
