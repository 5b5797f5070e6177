//! `orchestrate bench DIR…`: latency percentiles at batch 1, bytes on disk and memory, models taken in turn so that a
//! machine's moods fall on all alike.

use crate::arguments::{Bench, Format};
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::table::{bytes, count};
use orchestrate_recipe::{Latency, Predictor, open_device};
use serde_json::json;
use std::time::Duration;

/// Turns that each model gets; the medians of the turns are pooled by taking their median.
const TURNS: usize = 5;

struct Measured {
    name: String,
    latency: Latency,
    file_bytes: u64,
    parameters: usize,
    /// Memory that the process gained by opening and running the model.
    memory_bytes: Option<u64>,
    float_operations: Vec<&'static str>,
}

/// Measures the models.
pub fn run(arguments: &Bench) -> Result<ExitCode, Failure> {
    let budget = Duration::try_from_secs_f64(arguments.seconds / TURNS as f64)
        .map_err(|_| Failure::Usage(format!("--seconds {}: a number above 0", arguments.seconds)))?;
    let device = open_device(&arguments.device)?;
    let mut opened = Vec::new();
    for folder in &arguments.models {
        let before = resident_bytes();
        let predictor = Predictor::open(folder, &device)?;
        predictor.bench(arguments.tokens, Duration::from_millis(1))?;
        let gained = resident_bytes()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));
        opened.push((folder.display().to_string(), predictor, gained, Vec::new()));
    }
    for _ in 0..TURNS {
        for (_, predictor, _, turns) in &mut opened {
            turns.push(predictor.bench(arguments.tokens, budget)?);
        }
    }
    let mut measured = Vec::new();
    for (name, predictor, memory_bytes, turns) in opened {
        measured.push(Measured {
            name,
            latency: middle(turns),
            file_bytes: predictor.artifact().weights_bytes()?,
            parameters: predictor.parameters(),
            memory_bytes,
            float_operations: predictor.artifact().config.architecture.float_operations().to_vec(),
        });
    }
    match arguments.format {
        Format::Human => human(&measured)?,
        Format::Json => measured.iter().try_for_each(json_line)?,
    }
    Ok(ExitCode::Done)
}

/// The turn of the middle median.
fn middle(mut turns: Vec<Latency>) -> Latency {
    turns.sort_by(|a, b| a.p50.total_cmp(&b.p50));
    turns[turns.len() / 2]
}

fn human(measured: &[Measured]) -> Result<(), Failure> {
    let width = measured
        .iter()
        .map(|m| m.name.len())
        .max()
        .unwrap_or(0)
        .max("model".len());
    output::line(&format!(
        "{:width$}  {:>9}  {:>9}  {:>9}  {:>8}  {:>8}  {:>8}  {:>6}",
        "model", "p50 ms", "p90 ms", "p99 ms", "bytes", "params", "memory", "faster"
    ))?;
    for m in measured {
        output::line(&format!(
            "{:width$}  {:>9.3}  {:>9.3}  {:>9.3}  {:>8}  {:>8}  {:>8}  {:>6}",
            m.name,
            m.latency.p50,
            m.latency.p90,
            m.latency.p99,
            bytes(m.file_bytes as f64),
            count(m.parameters as f64),
            m.memory_bytes.map_or("?".to_owned(), |b| bytes(b as f64)),
            format!("{:.1}x", measured[0].latency.p50 / m.latency.p50),
        ))?;
    }
    let mut floats: Vec<&str> = measured
        .iter()
        .flat_map(|m| m.float_operations.iter().copied())
        .collect();
    floats.dedup();
    output::line(&format!("in f32 whatever the weights are: {}", floats.join(", ")))
}

fn json_line(m: &Measured) -> Result<(), Failure> {
    output::line(
        &json!({
            "model": m.name,
            "latency_ms_p50": m.latency.p50,
            "latency_ms_p90": m.latency.p90,
            "latency_ms_p99": m.latency.p99,
            "latency_runs": m.latency.runs,
            "file_bytes": m.file_bytes,
            "parameters": m.parameters,
            "memory_bytes": m.memory_bytes,
            "float_operations": m.float_operations,
        })
        .to_string(),
    )
}

/// Memory that this process holds now, where the system tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}
