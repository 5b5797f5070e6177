//! Plain lines, for logs: no colour, no cursor movements, a line of progress now and then.

use super::{lasting_line, values_text};
use crate::output;
use orchestrate_engine::RunEvent;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A running action is told of no more often than this.
const INTERVAL: Duration = Duration::from_secs(10);

/// When each running action was last told of.
pub struct Plain {
    told: Mutex<HashMap<String, Instant>>,
}

impl Plain {
    pub fn new() -> Self {
        Self {
            told: Mutex::new(HashMap::new()),
        }
    }

    pub fn event(&self, event: &RunEvent) {
        if let Some(line) = lasting_line(event) {
            output::note(&line);
        }
        let mut told = self.told.lock().expect("nothing panics while the times are locked");
        match event {
            RunEvent::ActionStarted { action, .. } => {
                told.insert(action.clone(), Instant::now());
            }
            RunEvent::ActionProgress {
                action,
                done,
                total,
                values,
            } => {
                let last = told.entry(action.clone()).or_insert_with(Instant::now);
                if last.elapsed() >= INTERVAL {
                    *last = Instant::now();
                    output::note(&format!("at      {action}: {done} of {total}, {}", values_text(values)));
                }
            }
            RunEvent::ActionFinished { action, .. }
            | RunEvent::ActionFailed { action, .. }
            | RunEvent::ActionChecked { action, .. } => {
                told.remove(action);
            }
            RunEvent::RunStarted { .. }
            | RunEvent::ActionWaiting { .. }
            | RunEvent::Log { .. }
            | RunEvent::ActionCached { .. }
            | RunEvent::ActionSkipped { .. }
            | RunEvent::RunFinished { .. } => {}
        }
    }
}
