//! What the kernels' tests share: sample tensors, and the comparison of an op with its composition.

use crate::ActivationQuantizer;
use crate::dropout::Dropout;
use crate::gradients::gradients;
use crate::isa::{Isa, with_isa};
use crate::random::{RandomKey, RandomStream};
use candle_core::{DType, Device, Result, Tensor, Var};
use std::sync::LazyLock;

/// Widths that are no multiple of any vector.
pub(crate) const SIZES: [usize; 7] = [1, 3, 7, 17, 63, 65, 513];

/// The largest difference between a fused op and its composition in f64 at [`SIZES`], where a test has no other.
pub(crate) const TOLERANCE: f64 = 5e-6;

/// What is granted to an op on an accelerator, whose sums are in another order or of more roundings, where the CPU's kernel
/// is granted `tolerance`.
fn of_accelerator(tolerance: f64) -> f64 {
    (20.0 * tolerance).min(tolerance.max(1e-3))
}

/// The device besides the CPU that this build is for, if it is for one: then the machine must have it.
static ACCELERATOR: LazyLock<Option<Device>> = LazyLock::new(|| {
    let device = if cfg!(feature = "cuda") {
        Device::new_cuda(0)
    } else if cfg!(feature = "metal") {
        Device::new_metal(0)
    } else {
        return None;
    };
    Some(device.expect("tests of a build for an accelerator need one"))
});

/// The CPU, and the accelerator where there is one.
pub(crate) fn devices() -> impl Iterator<Item = &'static Device> {
    std::iter::once(&Device::Cpu).chain(ACCELERATOR.as_ref())
}

/// Those of [`devices`] on which ops are one op each, not composed.
pub(crate) fn devices_with_own_ops() -> impl Iterator<Item = &'static Device> {
    devices().filter(|device| !device.is_metal())
}

/// A quarter of the elements.
pub(crate) const DROPOUT: Dropout = Dropout {
    rate: 0.25,
    key: RandomKey {
        seed: 5,
        purpose: 6,
        step: 7,
    },
};

/// Normally distributed elements.
pub(crate) fn sample(dims: &[usize], seed: u64) -> Tensor {
    let mut stream = RandomStream::new(RandomKey {
        seed,
        purpose: 0,
        step: 0,
    });
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).expect("as many values as the shape has")
}

/// Whether gradients are compared with finite differences too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Differences {
    /// Central differences of the composition in f64.
    Central,
    /// Not for an op with steps or kinks.
    Skip,
}

/// A scalar that depends on every output with another weight.
fn weigh(y: &Tensor) -> Result<Tensor> {
    let weights = sample(&[y.elem_count()], 99).to_dtype(y.dtype())?.reshape(y.shape())?;
    (y * weights.to_device(y.device())?)?.sum_all()
}

/// The output and the gradients of all inputs.
fn run(
    inputs: &[&Tensor],
    dtype: DType,
    device: &Device,
    op: &dyn Fn(&[&Tensor]) -> Result<Tensor>,
) -> Result<(Tensor, Vec<Tensor>)> {
    let (y, gradients) = run_where_there_are_gradients(inputs, dtype, device, op)?;
    let gradients = gradients.into_iter().enumerate();
    let gradients = gradients.map(|(i, gradient)| gradient.unwrap_or_else(|| panic!("input {i} has no gradient")));
    Ok((y, gradients.collect()))
}

/// The output and the gradients of those inputs that have one.
fn run_where_there_are_gradients(
    inputs: &[&Tensor],
    dtype: DType,
    device: &Device,
    op: &dyn Fn(&[&Tensor]) -> Result<Tensor>,
) -> Result<(Tensor, Vec<Option<Tensor>>)> {
    let variables: Vec<Var> = inputs
        .iter()
        .map(|x| Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?))
        .collect::<Result<_>>()?;
    let tensors: Vec<&Tensor> = variables.iter().map(Var::as_tensor).collect();
    let y = op(&tensors)?;
    let mut gradients = gradients(&weigh(&y)?)?;
    let gradients = variables
        .iter()
        .map(|variable| gradients.take(variable.as_tensor()).map(|g| g.to_dense()).transpose())
        .collect::<Result<_>>()?;
    Ok((y, gradients))
}

/// The elements of a tensor of any device, row by row.
pub(crate) fn in_f64(t: &Tensor) -> Result<Vec<f64>> {
    t.to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1()
}

fn assert_close(got: &Tensor, expected: &Tensor, tolerance: f64, what: &str) -> Result<()> {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (in_f64(got)?, in_f64(expected)?);
    let size = expected.iter().fold(1.0f64, |size, v| size.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!(
            (g - e).abs() <= tolerance * size,
            "{what}: element {i} is {g}, expected {e}"
        );
    }
    Ok(())
}

/// Compares the fused `op` in f32 with `reference` in f64, outputs and every gradient, and the gradients of `reference`
/// with finite differences; where there is an accelerator, `op` there as well. `tolerance` is relative to the largest
/// element, or absolute below 1.
pub(crate) fn check(
    inputs: &[&Tensor],
    op: impl Fn(&[&Tensor]) -> Result<Tensor>,
    reference: impl Fn(&[&Tensor]) -> Result<Tensor>,
    differences: Differences,
    tolerance: f64,
) -> Result<()> {
    let (expected, expected_gradients) = run(inputs, DType::F64, &Device::Cpu, &reference)?;
    let accelerator = ACCELERATOR.as_ref().map(|device| (device, of_accelerator(tolerance)));
    for (device, tolerance) in [(&Device::Cpu, tolerance)].into_iter().chain(accelerator) {
        let (y, gradients) = run(inputs, DType::F32, device, &op)?;
        assert_close(&y, &expected, tolerance, &format!("output on {device:?}"))?;
        for (i, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
            let what = format!("gradient of input {i} on {device:?}");
            assert_close(gradient, expected, tolerance, &what)?;
        }
    }
    for (i, expected) in expected_gradients.iter().enumerate() {
        if differences == Differences::Central {
            check_differences(inputs, &reference, i, expected)?;
        }
    }
    Ok(())
}

/// Moves up to 24 elements of an input by ± 1e-6, which leaves about 1e-9 of truncation and rounding.
fn check_differences(
    inputs: &[&Tensor],
    op: &dyn Fn(&[&Tensor]) -> Result<Tensor>,
    moved: usize,
    gradient: &Tensor,
) -> Result<()> {
    const STEP: f64 = 1e-6;
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<_>>()?;
    let values = inputs[moved].flatten_all()?.to_vec1::<f64>()?;
    let gradient = gradient.flatten_all()?.to_vec1::<f64>()?;
    for i in (0..values.len()).step_by(values.len().div_ceil(24).max(1)) {
        let at = |change: f64| -> Result<f64> {
            let mut values = values.clone();
            values[i] += change;
            let x = Tensor::from_vec(values, inputs[moved].shape(), &Device::Cpu)?;
            let mut arguments: Vec<&Tensor> = inputs.iter().collect();
            arguments[moved] = &x;
            weigh(&op(&arguments)?)?.to_scalar::<f64>()
        };
        let slope = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
        let bound = 1e-6 * gradient[i].abs().max(1.0);
        assert!(
            (slope - gradient[i]).abs() <= bound,
            "input {moved}, element {i}: {slope} is not {}",
            gradient[i]
        );
    }
    Ok(())
}

/// The output's shape over an empty batch, whose backward pass must give zeros to every input. An input of no elements may
/// go without, for candle's sums of such tensors are their first term. On the CPU: on CUDA some of candle's own ops cannot do
/// with nothing.
pub(crate) fn empty_batch(inputs: &[&Tensor], op: impl Fn(&[&Tensor]) -> Result<Tensor>) -> Result<Vec<usize>> {
    let (y, gradients) = run_where_there_are_gradients(inputs, DType::F32, &Device::Cpu, &op)?;
    for (i, (gradient, input)) in gradients.iter().zip(inputs).enumerate() {
        let Some(gradient) = gradient else {
            assert_eq!(input.elem_count(), 0, "input {i} has no gradient");
            continue;
        };
        assert_eq!(gradient.dims(), input.dims(), "gradient of input {i}");
        let values = gradient.flatten_all()?.to_vec1::<f32>()?;
        assert!(values.iter().all(|v| *v == 0.0), "gradient of input {i}");
    }
    Ok(y.dims().to_vec())
}

/// The u8 that stands for `x`: the definition of quantized activations, one number at a time.
pub(crate) fn quantized(x: f32, quantizer: ActivationQuantizer) -> u8 {
    let q = (x / quantizer.scale).round_ties_even() + f32::from(quantizer.zero_point);
    q.clamp(0.0, 255.0) as u8
}

/// The bits of every element.
pub(crate) fn bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.flatten_all()?
        .to_vec1::<f32>()?
        .into_iter()
        .map(f32::to_bits)
        .collect())
}

/// Asserts that output and gradients have the same bits with 1, 2 and 3 threads and on every instruction set.
pub(crate) fn same_bits_everywhere(inputs: &[&Tensor], op: impl Fn(&[&Tensor]) -> Result<Tensor> + Sync) -> Result<()> {
    same_everywhere(|| {
        let (y, gradients) = run(inputs, DType::F32, &Device::Cpu, &op)?;
        std::iter::once(&y)
            .chain(&gradients)
            .map(bits)
            .collect::<Result<Vec<_>>>()
    })
}

/// Asserts that what is computed is the same with 1, 2 and 3 threads and on every instruction set.
pub(crate) fn same_everywhere<T: PartialEq + Send>(compute: impl Fn() -> Result<T> + Sync) -> Result<()> {
    let expected = compute()?;
    for threads in 1..=3 {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool can be started");
        assert!(pool.install(&compute)? == expected, "other bits with {threads} threads");
    }
    for isa in Isa::available() {
        assert!(with_isa(isa, &compute)? == expected, "other bits on {isa:?}");
    }
    Ok(())
}
