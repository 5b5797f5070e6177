//! Choice of candle backend. The only file that asks which backends were compiled in.

use crate::error::{Error, Result};
use candle_core::Device;
use orchestrate_kernels::{ProductPrecision, prepare_device};
use std::str::FromStr;

/// A device as recipes and the command line name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU: reproducible bit for bit.
    Cpu,
    /// The first CUDA device.
    Cuda,
    /// The first Metal device.
    Metal,
    /// CUDA if compiled in and present, else Metal, else CPU.
    Auto,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "metal" => Ok(Self::Metal),
            "auto" => Ok(Self::Auto),
            other => Err(Error::Device {
                device: other.into(),
                reason: "use cpu, cuda, metal or auto".into(),
            }),
        }
    }
}

impl DeviceChoice {
    /// The concrete choice: `Auto` looked up on this machine.
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if cfg!(feature = "cuda") && Device::new_cuda(0).is_ok() => Self::Cuda,
            Self::Auto if cfg!(feature = "metal") && Device::new_metal(0).is_ok() => Self::Metal,
            Self::Auto => Self::Cpu,
            Self::Cpu | Self::Cuda | Self::Metal => self,
        }
    }

    /// The name used in recipes and keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Auto => "auto",
        }
    }

    /// Opens the device. On a GPU a tensor is for the thread that made it alone: what is loaded, trained and run is so on one.
    ///
    /// # Errors
    /// [`Error::Device`] if it was not compiled in or is not present.
    pub fn open(self) -> Result<Device> {
        let explain = |feature: &str, compiled: bool, error: candle_core::Error| Error::Device {
            device: feature.into(),
            reason: if compiled {
                format!("{error}; choose `device = \"cpu\"` or run on a machine that has one")
            } else {
                format!(
                    "this binary was built without it: build with `--features {feature}`, or choose `device = \"cpu\"`"
                )
            },
        };
        match self.resolve() {
            Self::Cpu | Self::Auto => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0).map_err(|e| explain("cuda", cfg!(feature = "cuda"), e)),
            Self::Metal => Device::new_metal(0).map_err(|e| explain("metal", cfg!(feature = "metal"), e)),
        }
        .inspect(prepare_device)
    }

    /// The choice that gave the numerics class `class`; the CPU for work that rounds nothing.
    pub fn of_numerics(class: &str) -> Self {
        match class.split('-').next() {
            Some("cuda") => Self::Cuda,
            Some("metal") => Self::Metal,
            _ => Self::Cpu,
        }
    }

    /// The numerics class: results are promised equal, bit for bit, only within one class.
    ///
    /// On the CPU it names the precision and the architecture, on which alone the promise is tested: vector instructions and
    /// threads make no difference. On a GPU it names the backend, which makes no promise at all; Metal has f32 only.
    pub fn numerics(self, precision: ProductPrecision) -> String {
        let architecture = std::env::consts::ARCH;
        match (self.resolve(), precision) {
            (Self::Cpu | Self::Auto, ProductPrecision::F32) => format!("cpu-f32-{architecture}"),
            (Self::Cpu | Self::Auto, ProductPrecision::Bf16) => format!("cpu-bf16-{architecture}"),
            (Self::Cpu | Self::Auto, ProductPrecision::Bf16Amx) => format!("cpu-bf16-amx-{architecture}"),
            (Self::Cuda, ProductPrecision::F32) => "cuda-f32".into(),
            (Self::Cuda, ProductPrecision::Bf16 | ProductPrecision::Bf16Amx) => "cuda-bf16".into(),
            (Self::Metal, _) => "metal-f32".into(),
        }
    }
}

/// Runs `work` on a thread of the kernels' pool, and returns what it returns.
///
/// Work that starts outside of the pool hands every small operation over to it and waits: for a small model that takes
/// longer than the operations themselves.
pub fn on_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let mut result = None;
    rayon::scope(|_| result = Some(work()));
    result.expect("a scope ends when its work has")
}

/// To be called once at the start of a process that trains or runs models.
pub fn prepare_process() {
    orchestrate_kernels::keep_freed_memory();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numerics_class_leads_back_to_its_device() {
        for precision in ProductPrecision::ALL {
            for device in [DeviceChoice::Cpu, DeviceChoice::Cuda, DeviceChoice::Metal] {
                assert_eq!(DeviceChoice::of_numerics(&device.numerics(precision)), device);
            }
        }
        assert_eq!(DeviceChoice::of_numerics("exact"), DeviceChoice::Cpu);
    }

    #[test]
    fn an_absent_backend_says_how_to_get_it() {
        if cfg!(feature = "cuda") {
            return;
        }
        let error = DeviceChoice::Cuda.open().expect_err("not compiled in").to_string();
        assert!(error.contains("--features cuda"), "{error}");
        assert!("tpu".parse::<DeviceChoice>().is_err());
    }
}
