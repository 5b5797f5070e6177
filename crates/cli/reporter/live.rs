//! Bars on a terminal: one a running action, with loss, speed and the time left; finished actions scroll away above.

use super::{lasting_line, values_text};
use crate::output;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use orchestrate_engine::RunEvent;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// The bars by action.
pub struct Live {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Live {
    pub fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            bars: Mutex::new(HashMap::new()),
        }
    }

    pub fn event(&self, event: &RunEvent) {
        let mut bars = self.bars.lock().expect("nothing panics while the bars are locked");
        match event {
            RunEvent::ActionStarted { action, .. } => {
                let bar = self.all.add(ProgressBar::new_spinner()).with_style(waiting_style());
                bar.set_prefix(action.clone());
                bar.enable_steady_tick(Duration::from_millis(200));
                bars.insert(action.clone(), bar);
            }
            RunEvent::ActionProgress {
                action,
                done,
                total,
                values,
            } => {
                if let Some(bar) = bars.get(action) {
                    if bar.length() != Some(*total) {
                        bar.set_style(counting_style());
                        bar.set_length(*total);
                        bar.reset_eta();
                    }
                    bar.set_position(*done);
                    bar.set_message(values_text(values));
                }
                return;
            }
            RunEvent::ActionFinished { action, .. }
            | RunEvent::ActionFailed { action, .. }
            | RunEvent::ActionChecked { action, .. } => {
                if let Some(bar) = bars.remove(action) {
                    bar.finish_and_clear();
                }
            }
            RunEvent::RunStarted { .. }
            | RunEvent::ActionWaiting { .. }
            | RunEvent::Log { .. }
            | RunEvent::ActionCached { .. }
            | RunEvent::ActionSkipped { .. }
            | RunEvent::RunFinished { .. } => {}
        }
        if let Some(line) = lasting_line(event) {
            // A terminal that is gone ends the build by its own signal.
            let _ = self.all.println(line);
        }
    }

    pub fn clear(&self) {
        let _ = self.all.clear();
    }
}

fn waiting_style() -> ProgressStyle {
    style(if output::colours_errors() {
        "{spinner:.cyan} {prefix} {elapsed}"
    } else {
        "{spinner} {prefix} {elapsed}"
    })
}

fn counting_style() -> ProgressStyle {
    let bar = if output::colours_errors() {
        "{bar:24.cyan}"
    } else {
        "{bar:24}"
    };
    style(&format!(
        "{{spinner}} {{prefix}} {bar} {{pos}}/{{len}} {{msg}}, {{eta}} left"
    ))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates above are well-formed")
        .progress_chars("━╸─")
}
