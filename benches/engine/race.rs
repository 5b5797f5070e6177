//! Timing processes in turn, so that a machine that others use disturbs all alike.

use crate::Outcome;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is timed: a process, made anew for each run. What is done before it is not timed.
pub struct Racer<'a> {
    before: Box<dyn Fn() -> Outcome<()> + 'a>,
    command: Box<dyn Fn() -> Command + 'a>,
}

impl<'a> Racer<'a> {
    /// One that needs nothing done before.
    pub fn new(command: impl Fn() -> Command + 'a) -> Self {
        Self {
            before: Box::new(|| Ok(())),
            command: Box::new(command),
        }
    }

    /// The same, with something done before each run.
    pub fn after(self, before: impl Fn() -> Outcome<()> + 'a) -> Self {
        Self {
            before: Box::new(before),
            ..self
        }
    }

    /// The seconds from the process's start to its exit.
    pub fn time(&self) -> Outcome<f64> {
        (self.before)()?;
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
        let seconds = started.elapsed().as_secs_f64();
        if status.success() {
            Ok(seconds)
        } else {
            Err(format!("{command:?} failed: {status}").into())
        }
    }
}

/// The medians of `rounds` runs of each racer, which take turns; the first round warms up and does not count.
pub fn race(racers: &[&Racer<'_>], rounds: usize) -> Outcome<Vec<f64>> {
    let mut times = vec![Vec::new(); racers.len()];
    for round in 0..=rounds {
        for (racer, times) in racers.iter().zip(&mut times) {
            let seconds = racer.time()?;
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// The middle one of `values`, the lower of two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// The numbers that a process of ours prints.
pub fn numbers(mut command: Command) -> Outcome<Vec<f64>> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// Prints a line.
pub fn say(line: &str) {
    // Whoever closed standard output does not want to know.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
