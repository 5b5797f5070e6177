//! Our side of `benches/peers`: writes the models and batches that both sides load, and runs them on request.
//!
//! `peer_bench prepare FOLDER CASE` writes a case. `peer_bench serve FOLDER CASE PRECISION` answers lines of standard input
//! with lines of JSON: first, unasked, the numbers that a peer must agree with; to `run N M` the milliseconds of N runs after M
//! that do not count; to `peak` the process's peak memory in MiB. It runs on the device that the environment variable
//! `PEER_DEVICE` names, as recipes do, else on the CPU. `peer_bench rates` prints two rates in f32 on all threads, in GFLOP/s: that of
//! multiply-adds in registers, which nothing can be above, and that of the matrix product.
//!
//! It compares nothing itself.

mod cases;
mod prepare;
mod side;

use candle_core::{DType, Device, Tensor};
use cases::Case;
use orchestrate_kernels::{ProductPrecision, linear, multiply_adds};
use orchestrate_ml::device::{DeviceChoice, on_pool, prepare_process};
use side::{Precision, Side};
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

/// Whatever went wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    prepare_process();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["prepare", folder, case] => prepare::prepare(&Case::named(case)?, Path::new(folder)),
        ["serve", folder, case, precision] => {
            let (case, precision) = (Case::named(case)?, Precision::named(precision)?);
            let device = std::env::var("PEER_DEVICE").unwrap_or_else(|_| DeviceChoice::Cpu.name().into());
            let device: DeviceChoice = device.parse()?;
            on_pool(|| serve(&Side::open(case, precision, Path::new(folder), device.open()?)?))
        }
        ["rates"] => on_pool(|| answer(&[peak_rate(), product_rate()?])),
        _ => Err("prepare FOLDER CASE, serve FOLDER CASE PRECISION, or rates".into()),
    }
}

fn serve(side: &Side) -> Result<(), Failure> {
    answer(&side.check()?)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["run", count, before] => answer(&side.run(count.parse()?, before.parse()?)?)?,
            ["peak"] => answer(&[peak_mebibytes()?])?,
            _ => return Err(format!("{line:?} is neither `run N M` nor `peak`").into()),
        }
    }
    Ok(())
}

fn answer(numbers: &[f64]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, numbers)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn peak_mebibytes() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kibibytes.ok_or("the system tells no peak memory")?.parse::<f64>()? / 1024.0)
}

/// The best of some loops of multiply-adds in registers, on all threads at once.
fn peak_rate() -> f64 {
    const ROUNDS: usize = 2_000_000;
    let mut best: f64 = 0.0;
    for _ in 0..10 {
        let started = Instant::now();
        let operations: usize = rayon::broadcast(|_| multiply_adds(ROUNDS)).into_iter().sum();
        best = best.max(operations as f64 / started.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// The best of some products of the size that training has, in GFLOP/s.
fn product_rate() -> Result<f64, Failure> {
    const ROWS: usize = 2048;
    const INNER: usize = 512;
    let x = Tensor::ones((ROWS, INNER), DType::F32, &Device::Cpu)?;
    let weight = Tensor::ones((ROWS, INNER), DType::F32, &Device::Cpu)?;
    let mut best = f64::INFINITY;
    for _ in 0..30 {
        let started = Instant::now();
        linear(&x, &weight, None, ProductPrecision::F32)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * (ROWS * ROWS * INNER) as f64 / best / 1e9)
}
