//! Prints the least time of each hot op, forward and backward, in milliseconds: `cargo run --release --example op_times
//! -p orchestrate-kernels`. An argument keeps the rows whose name contains it.
//!
//! Backward includes what candle adds: a buffer of zeros and an addition for each gradient. It compares with nothing.

use candle_core::{DType, Device, Result, Tensor, Var};
use orchestrate_kernels::{
    ActivationQuantizer, AdamWStep, Codebook, Dropout, Int8Linear, Isa, PackedInt8, PackedLinear, ProductPrecision,
    RandomKey, RandomStream, adamw_step, attention, conv2d, cross_entropy, dropout, embedding,
    fake_quantize_by_codebook, fake_quantize_per_channel, gelu, int8_gemm, keep_freed_memory, layer_norm, linear,
    max_pool2d, softmax_last_dim, squared_norm, symmetric_scales, with_isa,
};
use std::io::Write;
use std::time::Instant;

const RUNS: usize = 15;

const PRECISIONS: [(&str, ProductPrecision); 3] = [
    ("f32", ProductPrecision::F32),
    ("bf16", ProductPrecision::Bf16),
    ("bf16-amx", ProductPrecision::Bf16Amx),
];

fn normal(dims: &[usize]) -> Result<Tensor> {
    let mut stream = RandomStream::new(RandomKey {
        seed: 1,
        purpose: 0,
        step: 0,
    });
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}

fn variable(dims: &[usize]) -> Result<Var> {
    Var::from_tensor(&normal(dims)?)
}

/// The least milliseconds of [`RUNS`] runs.
fn least(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}

struct Report {
    filter: String,
}

impl Report {
    fn line(&self, name: &str, cells: &str) -> Result<()> {
        writeln!(std::io::stdout(), "{name:<44} {cells}").map_err(Into::into)
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Times `op`, and the backward pass from a gradient of ones.
    fn op(&self, name: &str, op: impl Fn() -> Result<Tensor>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let forward = least(|| op().map(drop))?;
        let y = op()?;
        let backward = least(|| y.backward().map(drop))?;
        self.line(name, &format!("{forward:8.3} / {backward:8.3}"))
    }

    fn once(&self, name: &str, run: impl FnMut() -> Result<()>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let time = least(run)?;
        self.line(name, &format!("{time:8.3}"))
    }
}

fn float_ops(report: &Report) -> Result<()> {
    let (big, rows) = (variable(&[2048, 2048])?, variable(&[2048, 512])?);
    report.op("gelu 2048x2048", || gelu(&big))?;
    let scores = variable(&[32, 8, 64, 64])?;
    report.op("softmax 32x8x64x64", || softmax_last_dim(&scores))?;
    let (gain, shift) = (variable(&[512])?, variable(&[512])?);
    report.op("layer_norm 2048x512", || layer_norm(&rows, &gain, &shift, 1e-12))?;
    let (weight, bias) = (variable(&[2048, 512])?, variable(&[2048])?);
    let wide = variable(&[512, 2048])?;
    for (name, precision) in PRECISIONS {
        report.op(&format!("linear 2048x512 to 2048, bias, {name}"), || {
            linear(&rows, &weight, Some(&bias), precision)
        })?;
        report.op(&format!("linear 2048x512 to 2048, no bias, {name}"), || {
            linear(&rows, &weight, None, precision)
        })?;
        report.op(&format!("linear 2048x2048 to 512, no bias, {name}"), || {
            linear(&big, &wide, None, precision)
        })?;
    }
    with_isa(Isa::Avx2.min(Isa::detect()), || {
        report.op("linear 2048x512 to 2048, no bias, bf16 emulated", || {
            linear(&rows, &weight, None, ProductPrecision::Bf16)
        })
    })?;
    let table = variable(&[30522, 512])?;
    let ids = Tensor::from_iter((0..2048u32).map(|i| i * 7919 % 30522), &Device::Cpu)?;
    report.op("embedding 30522x512, 2048 ids", || embedding(&table, &ids))?;
    let qkv = [
        variable(&[32, 64, 512])?,
        variable(&[32, 64, 512])?,
        variable(&[32, 64, 512])?,
    ];
    let site = Dropout {
        rate: 0.1,
        key: RandomKey {
            seed: 1,
            purpose: 1,
            step: 1,
        },
    };
    for (name, precision) in PRECISIONS {
        report.op(&format!("attention b32 s64 h8x64, {name}"), || {
            attention(&qkv[0], &qkv[1], &qkv[2], None, 8, None, precision)
        })?;
        report.op(&format!("attention b32 s64 h8x64, dropout, {name}"), || {
            attention(&qkv[0], &qkv[1], &qkv[2], None, 8, Some(site), precision)
        })?;
    }
    report.op("dropout 2048x512", || dropout(&rows, site))?;
    let scales = symmetric_scales(&weight, 8)?;
    report.op("fake_quantize_per_channel 2048x512", || {
        fake_quantize_per_channel(&weight, &scales, 8)
    })?;
    let codebook = Codebook::fit(&weight, &scales, 4)?;
    report.op("fake_quantize_by_codebook 2048x512, 4 bits", || {
        fake_quantize_by_codebook(&weight, &scales, &codebook)
    })?;
    let labels = Tensor::from_iter((0..2048u32).map(|i| i % 512), &Device::Cpu)?;
    report.op("cross_entropy 2048x512", || cross_entropy(&rows, &labels, 0.0))?;
    let (images, kernel) = (variable(&[64, 16, 32, 32])?, variable(&[16, 16, 3, 3])?);
    for (name, precision) in PRECISIONS {
        report.op(&format!("conv2d 16 to 16 3x3, 64x16x32x32, {name}"), || {
            conv2d(&images, &kernel, None, 1, 1, precision)
        })?;
    }
    for (inputs, outputs, side) in [(1, 20, 28), (20, 50, 12)] {
        let (images, kernel) = (
            variable(&[64, inputs, side, side])?,
            variable(&[outputs, inputs, 5, 5])?,
        );
        report.op(
            &format!("conv2d {inputs} to {outputs} 5x5, 64x{inputs}x{side}x{side}"),
            || conv2d(&images, &kernel, None, 1, 0, ProductPrecision::F32),
        )?;
    }
    let images = normal(&[64, 16, 32, 32])?;
    for stride in [1, 2] {
        let kernel = variable(&[32, 16, 1, 1])?;
        report.op(&format!("conv2d 16 to 32 1x1 by {stride}, 64x16x32x32"), || {
            conv2d(&images, &kernel, None, stride, 0, ProductPrecision::F32)
        })?;
    }
    report.op("max_pool2d 2, 64x16x32x32", || max_pool2d(&images, 2, 2))
}

fn updates(report: &Report) -> Result<()> {
    let (p, g) = (variable(&[30522, 512])?, normal(&[30522, 512])?);
    let (m, v) = (p.zeros_like()?, p.zeros_like()?);
    let cfg = AdamWStep {
        lr: 1e-3,
        gradient_factor: 1.0,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 10,
    };
    report.once("adamw_step 30522x512", || adamw_step(&p, &g, &m, &v, None, &cfg))?;
    report.once("squared_norm 30522x512", || squared_norm(&g).map(drop))
}

fn integer_ops(report: &Report) -> Result<()> {
    for (m, n, k) in [
        (1, 512, 512),
        (64, 512, 512),
        (64, 2048, 512),
        (64, 512, 2048),
        (2048, 2048, 512),
    ] {
        let weights: Vec<i8> = (0..n * k).map(|i| (i * 37 % 255) as u8 as i8).collect();
        let packed = PackedInt8::pack(&weights, n, k)?;
        let (bytes, mut out) = (vec![77u8; m * k], vec![0; m * n]);
        let name = format!("int8_gemm {m}x{k} to {n}");
        if report.wants(&name) {
            let time = least(|| {
                int8_gemm(&bytes, m, &packed, &mut out);
                Ok(())
            })?;
            let rate = 2.0 * (m * n * k) as f64 / time / 1e6;
            report.line(&name, &format!("{time:8.4}   {rate:8.0} GOP/s"))?;
        }
        let input = ActivationQuantizer {
            scale: 0.03,
            zero_point: 128,
        };
        let layer = Int8Linear::new(packed, vec![0.01; n], None, input);
        let x = normal(&[m, k])?;
        report.once(&format!("Int8Linear {m}x{k} to {n}"), || layer.forward(&x).map(drop))?;
        let weight = Tensor::zeros((n, k), DType::F32, &Device::Cpu)?;
        report.once(&format!("linear f32 {m}x{k} to {n}"), || {
            linear(&x, &weight, None, ProductPrecision::F32).map(drop)
        })?;
        let layer = PackedLinear::new(&weight, &Tensor::zeros(n, DType::F32, &Device::Cpu)?)?;
        report.once(&format!("PackedLinear f32 {m}x{k} to {n}"), || {
            layer.forward(&x, ProductPrecision::F32).map(drop)
        })?;
    }
    Ok(())
}

/// Layers of pruned models have any width: the time of each beside that of a width which fits registers and panels.
fn pruned_widths(report: &Report) -> Result<()> {
    const WHOLE: usize = 256;
    const WIDTHS: [usize; 9] = [WHOLE, 249, 250, 255, 257, 264, 272, 300, 384];
    let forward = |m: usize, n: usize, k: usize| -> Result<[f64; 2]> {
        let weights: Vec<i8> = (0..n * k).map(|i| (i * 37 % 255) as u8 as i8).collect();
        let input = ActivationQuantizer {
            scale: 0.03,
            zero_point: 128,
        };
        let integers = Int8Linear::new(PackedInt8::pack(&weights, n, k)?, vec![0.01; n], None, input);
        let (weight, bias) = (normal(&[n, k])?, normal(&[n])?);
        let floats = PackedLinear::new(&weight, &bias)?;
        let x = normal(&[m, k])?;
        Ok([
            least(|| integers.forward(&x).map(drop))?,
            least(|| floats.forward(&x, ProductPrecision::F32).map(drop))?,
        ])
    };
    for m in [1, 64] {
        for (what, widths) in [
            ("outputs", WIDTHS.map(|n| (n, 512))),
            ("inputs", WIDTHS.map(|k| (512, k))),
        ] {
            let mut whole = [0.0; 2];
            for (width, (n, k)) in WIDTHS.into_iter().zip(widths) {
                let name = format!("pruned to {width} {what}, {m} rows, int8 / f32");
                if !report.wants(&name) {
                    continue;
                }
                let times = forward(m, n, k)?;
                if width == WHOLE {
                    whole = times;
                }
                let work = width as f64 / WHOLE as f64;
                let [int8, f32] = [0, 1].map(|i| times[i] / whole[i] / work);
                let [a, b] = times;
                report.line(
                    &name,
                    &format!("{a:8.4} / {b:8.4}   for the same work {int8:.2} / {f32:.2}"),
                )?;
            }
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    keep_freed_memory();
    let report = Report {
        filter: std::env::args().nth(1).unwrap_or_default(),
    };
    report.line("op", "least ms, forward / backward")?;
    float_ops(&report)?;
    updates(&report)?;
    integer_ops(&report)?;
    pruned_widths(&report)
}
