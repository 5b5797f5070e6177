//! Who tells a build's events: as JSON lines, as plain lines, or as live bars on a terminal.

mod live;
mod plain;

use crate::arguments::Format;
use crate::output;
use live::Live;
use orchestrate_engine::RunEvent;
use plain::Plain;
use std::io::{self, IsTerminal};

/// One of the three.
pub enum Reporter {
    Json,
    Plain(Plain),
    Live(Live),
}

impl Reporter {
    /// The one for `format` and what standard error is.
    pub fn new(format: Format) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb") || std::env::var_os("CI").is_some();
        match format {
            Format::Json => Self::Json,
            Format::Human if io::stderr().is_terminal() && !dumb => Self::Live(Live::new()),
            Format::Human => Self::Plain(Plain::new()),
        }
    }

    /// Tells one event.
    pub fn event(&self, event: &RunEvent) {
        match self {
            // A reader that went away does not end the build.
            Self::Json => {
                let line = serde_json::to_string(event).expect("an event has string keys and finite numbers");
                let _ = output::line(&line);
            }
            Self::Plain(plain) => plain.event(event),
            Self::Live(live) => live.event(event),
        }
    }

    /// Takes away what is shown for the moment only.
    pub fn clear(&self) {
        match self {
            Self::Json | Self::Plain(_) => {}
            Self::Live(live) => live.clear(),
        }
    }
}

/// What the last values of a running action say: `loss 0.213, 93.8% right, 812 rows/s`.
fn values_text(values: &std::collections::BTreeMap<String, f64>) -> String {
    let mut parts = Vec::new();
    if let Some(loss) = values.get("loss") {
        parts.push(format!("loss {loss:.4}"));
    }
    if let Some(accuracy) = values.get("accuracy") {
        parts.push(format!("{:.1}% right", 100.0 * accuracy));
    }
    if let Some(speed) = values.get("rows_per_second") {
        parts.push(format!("{speed:.0} rows/s"));
    }
    parts.join(", ")
}

/// The line that an event leaves behind, if it does.
fn lasting_line(event: &RunEvent) -> Option<String> {
    match event {
        RunEvent::ActionStarted { action, reason, .. } => Some(format!("run     {action}: {reason}")),
        RunEvent::ActionFinished {
            action,
            seconds,
            metrics,
            measurements,
            ..
        } => {
            let accuracy = metrics.get("accuracy").map(|a| format!(", accuracy {:.2}%", 100.0 * a));
            let loss = metrics.get("final_loss").map(|l| format!(", loss {l:.4}"));
            let told = accuracy.or(loss).unwrap_or_default();
            let resumed = measurements.get("resumed_after_step");
            let resumed = resumed
                .map(|step| format!(", going on from step {step}"))
                .unwrap_or_default();
            Some(format!(
                "done    {action} in {}{told}{resumed}",
                crate::table::duration(*seconds)
            ))
        }
        // Its log was told line by line; what went wrong stands at the end, where it is not scrolled away.
        RunEvent::ActionFailed { action, .. } => Some(format!("failed  {action}")),
        RunEvent::ActionChecked {
            action,
            same,
            difference,
            error,
            seconds,
            ..
        } => {
            let word = match (same, difference, error) {
                (true, _, _) => "same   ",
                (false, Some(_), _) => "DIFFERS",
                (false, None, Some(_)) => "failed ",
                (false, None, None) => "stopped",
            };
            let told = difference.as_ref().or(error.as_ref());
            let told = told.map(|told| format!(": {told}")).unwrap_or_default();
            Some(format!("{word} {action} in {}{told}", crate::table::duration(*seconds)))
        }
        RunEvent::ActionWaiting { action, reason } => Some(format!("waits   {action}: {reason}")),
        RunEvent::Log { action, line } => Some(format!("log     {action}: {line}")),
        RunEvent::RunStarted { .. }
        | RunEvent::ActionProgress { .. }
        | RunEvent::ActionCached { .. }
        | RunEvent::ActionSkipped { .. }
        | RunEvent::RunFinished { .. } => None,
    }
}
