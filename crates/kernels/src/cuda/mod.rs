//! Ops on CUDA that candle has not, or only as chains of small ones: on a GPU a chain costs a launch for each link forward, and
//! about three backward.
//!
//! The kernels take f32 and are compiled at their first use by NVIDIA's run-time compiler, which candle links to. They
//! compute what the compositions beside the CPU's ops do. Their sums have an order that depends on shapes alone; candle's
//! own ops on CUDA promise none.
//!
//! Invariant: a tensor stays on the thread that made it. Each thread has a stream of its own, in which what it launches runs in
//! order; candle does not keep the streams apart.

mod attention;
mod block;
mod elementwise;
mod embedding;
mod images;
mod layer_norm;
mod linear;
mod optimizer;
mod product;
mod quantize;
mod transformer;

pub(crate) use attention::attention;
pub(crate) use elementwise::{dropout, gelu};
pub(crate) use embedding::embedding;
pub(crate) use images::{batch_norm, max_pool2d};
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::linear;
pub(crate) use optimizer::{adamw_step, squared_norm_of_all};
pub(crate) use quantize::{fake_quantize_per_channel, fake_quantize_per_tensor, min_max, symmetric_scales};
pub(crate) use transformer::{add_norm, embedding_norm, feed_forward, self_attention};

use crate::dropout::Dropout;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DeviceRepr, LaunchConfig};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{Device, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::OnceLock;

/// Threads of a warp.
const WARP: u32 = 32;

/// Threads of a block of an elementwise kernel.
const BLOCK: u32 = 256;

/// To be called once for a device before there are tensors on it: each of them has two events less, which were to keep threads
/// apart.
pub(crate) fn prepare_device(device: &CudaDevice) {
    // SAFETY: nothing is to be kept apart, for a tensor stays on the thread that made it.
    unsafe { device.disable_event_tracking() }
}

/// The kernels, compiled.
fn compiled() -> Result<&'static str> {
    static COMPILED: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| match compile_ptx(include_str!("kernels.cu")) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(error) => Err(format!("{error:?}")),
    });
    match compiled {
        Ok(ptx) => Ok(ptx),
        Err(error) => bail!("the CUDA kernels do not compile: {error}"),
    }
}

/// Launches a kernel of `kernels.cu`: a device, its name, a configuration, its arguments in order.
///
/// # Safety
/// The arguments are those that the kernel takes, and its threads keep to the buffers that they are given.
macro_rules! launch {
    ($device:expr, $name:literal, $config:expr, $($argument:expr),+ $(,)?) => {{
        use candle_core::cuda_backend::WrapErr;
        use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
        let config = $config;
        let kernel = $device.get_or_load_custom_func($name, "orchestrate", $crate::cuda::compiled()?)?;
        let mut launch = kernel.builder();
        $(launch.arg($argument);)+
        launch.launch(config).w()?;
    }};
}
use launch;

/// Blocks of a grid.
fn blocks(count: u64) -> Result<u32> {
    match i32::try_from(count) {
        Ok(count) => Ok(count as u32),
        Err(_) => bail!("a CUDA kernel over {count} blocks"),
    }
}

/// A thread for each of `count` elements.
fn threads(count: u64) -> Result<LaunchConfig> {
    Ok(LaunchConfig {
        grid_dim: (blocks(count.div_ceil(BLOCK.into()))?, 1, 1),
        block_dim: (BLOCK, 1, 1),
        shared_mem_bytes: 0,
    })
}

/// A block for each of `rows` rows of `width`.
fn rows(rows: u64, width: u32) -> Result<LaunchConfig> {
    Ok(LaunchConfig {
        grid_dim: (blocks(rows)?, 1, 1),
        block_dim: (width.next_multiple_of(WARP).clamp(WARP, BLOCK), 1, 1),
        shared_mem_bytes: 0,
    })
}

/// Number of elements of a row as kernels take it.
fn width_of(width: usize) -> Result<u32> {
    match u32::try_from(width) {
        Ok(width) => Ok(width),
        Err(_) => bail!("a CUDA kernel over rows of {width}"),
    }
}

/// The elements of a storage, in order.
fn view<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, f32>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<f32>()?.slice(start..end)),
        None => bail!(
            "a CUDA kernel was given a tensor that is not contiguous: {:?}",
            layout.shape()
        ),
    }
}

/// Where a tensor that is alive for as long as the kernel takes begins; 0 for none, which kernels take as a null pointer.
fn address(tensor: Option<&Tensor>) -> Result<u64> {
    let Some(tensor) = tensor else {
        return Ok(0);
    };
    let (storage, layout) = tensor.storage_and_layout();
    let stream = device_of(tensor)?.cuda_stream();
    let (address, _) = view(storage_of(&storage)?, layout)?.device_ptr(&stream);
    Ok(address)
}

/// A buffer that a kernel has to fill before anything reads it.
fn buffer(device: &CudaDevice, count: usize) -> Result<CudaSlice<f32>> {
    // SAFETY: all that one thread launches runs in one stream, in order: whoever calls this launches the kernel that writes
    // every element before the buffer is handed on.
    unsafe { device.alloc::<f32>(count) }
}

/// What an op's forward pass gives.
fn output(values: CudaSlice<f32>, device: &CudaDevice, shape: impl Into<Shape>) -> (CudaStorage, Shape) {
    (CudaStorage::wrap_cuda_slice(values, device.clone()), shape.into())
}

/// What all ops here say of tensors on the CPU.
fn elsewhere<T>() -> Result<T> {
    bail!("a CUDA kernel was given a tensor of another device")
}

/// The forward pass on the CPU of an op of so many inputs, which there is not.
macro_rules! not_on_cpu {
    (1) => {
        $crate::cuda::not_on_cpu!(_);
    };
    (2) => {
        $crate::cuda::not_on_cpu!(_, _);
    };
    (3) => {
        $crate::cuda::not_on_cpu!(_, _, _);
    };
    ($($input:tt),+) => {
        fn cpu_fwd(
            &self,
            $($input: &candle_core::CpuStorage, _: &Layout,)+
        ) -> Result<(candle_core::CpuStorage, Shape)> {
            $crate::cuda::elsewhere()
        }
    };
}
use not_on_cpu;

fn device_of(tensor: &Tensor) -> Result<&CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device),
        Device::Cpu | Device::Metal(_) => elsewhere(),
    }
}

fn storage_of(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        Storage::Cpu(_) | Storage::Metal(_) => elsewhere(),
    }
}

/// A dropout as kernels take it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Dropping {
    seed: [u32; 2],
    purpose: u32,
    step: [u32; 2],
    threshold: u32,
    scale: f32,
}

// SAFETY: numbers of 32 bits each without padding, in the order of `Dropout` in `kernels.cu`.
unsafe impl DeviceRepr for Dropping {}

impl Dropping {
    /// Nothing is dropped.
    const NOTHING: Self = Self {
        seed: [0; 2],
        purpose: 0,
        step: [0; 2],
        threshold: 0,
        scale: 1.0,
    };
}

impl From<Dropout> for Dropping {
    fn from(dropout: Dropout) -> Self {
        let key = dropout.key;
        Self {
            seed: [key.seed as u32, (key.seed >> 32) as u32],
            purpose: key.purpose,
            step: [key.step as u32, (key.step >> 32) as u32],
            threshold: dropout.threshold(),
            scale: dropout.scale(),
        }
    }
}
