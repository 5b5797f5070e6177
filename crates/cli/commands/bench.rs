//! `orchestrate bench DIR…`: latency percentiles at batch 1, bytes on disk and memory, models taken in turn so that a
//! machine's moods fall on all alike. Memory is that of a process that runs one model alone: of several, each has this
//! program started for it.

use crate::arguments::{Bench, Format};
use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::table::{bytes, count};
use orchestrate_recipe::{Latency, Predictor, open_device};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Turns that each model gets; the medians of the turns are pooled by taking their median.
const TURNS: usize = 5;

struct Measured {
    name: String,
    latency: Latency,
    file_bytes: u64,
    parameters: usize,
    /// Most memory that a process gained which opened and ran only this model.
    memory_bytes: Option<u64>,
    float_operations: Vec<&'static str>,
}

/// Measures the models.
pub fn run(arguments: &Bench) -> Result<ExitCode, Failure> {
    let budget = Duration::try_from_secs_f64(arguments.seconds / TURNS as f64)
        .map_err(|_| Failure::Usage(format!("--seconds {}: a number above 0", arguments.seconds)))?;
    let device = open_device(&arguments.device)?;
    let before = memory("VmRSS:");
    let mut opened = Vec::new();
    for folder in &arguments.models {
        let predictor = Predictor::open(folder, &device)?;
        predictor.bench(arguments.tokens, Duration::from_millis(1))?;
        opened.push((folder, predictor, Vec::new()));
    }
    let is_alone = opened.len() == 1;
    let mut memories: Vec<Option<u64>> = Vec::new();
    if !is_alone {
        memories.extend(arguments.models.iter().map(|folder| memory_alone(folder, arguments)));
    }
    for _ in 0..TURNS {
        for (_, predictor, turns) in &mut opened {
            turns.push(predictor.bench(arguments.tokens, budget)?);
        }
    }
    if is_alone {
        let peak = memory("VmHWM:").zip(before);
        memories.push(peak.map(|(peak, before)| peak.saturating_sub(before)));
    }
    let mut measured = Vec::new();
    for ((folder, predictor, turns), memory_bytes) in opened.into_iter().zip(memories) {
        measured.push(Measured {
            name: folder.display().to_string(),
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

/// What this program tells of its memory when it runs one model alone.
fn memory_alone(folder: &Path, arguments: &Bench) -> Option<u64> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args([
        "bench",
        "--format",
        "json",
        "--seconds",
        "0.05",
        "--device",
        &arguments.device,
    ]);
    if let Some(tokens) = arguments.tokens {
        command.args(["--tokens", &tokens.to_string()]);
    }
    let output = command
        .arg("--")
        .arg(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .inspect_err(|error| tracing::warn!(%error, "memory cannot be measured: this program cannot be started"))
        .ok()?;
    let line: Value = serde_json::from_slice(&output.stdout).ok()?;
    line["memory_bytes"].as_u64()
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
    let mut floats: Vec<&str> = Vec::new();
    for operation in measured.iter().flat_map(|m| &m.float_operations) {
        if !floats.contains(operation) {
            floats.push(operation);
        }
    }
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

/// Memory of this process, where the system tells it: `VmRSS:` what it holds now, `VmHWM:` the most that it held.
fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|text| text.strip_prefix(line))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}
