//! Where and in which numbers training computes.

use candle_core::{DType, Device, DeviceLocation};
use manifests::DeviceChoice;

use crate::TrainError;

/// A device and the dtype of the values that flow on it. Master weights, moments and losses are f32 everywhere.
#[derive(Debug, Clone)]
pub struct Compute {
    /// Where tensors lie.
    pub device: Device,
    /// Of activations and of the weights in a product.
    pub dtype: DType,
}

impl Compute {
    /// f32 on the CPU, bf16 on a GPU.
    ///
    /// # Errors
    /// A device that this build or machine does not have.
    pub fn on(choice: DeviceChoice) -> Result<Self, TrainError> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            DeviceChoice::Cuda(_) if !cfg!(feature = "cuda") => Err(TrainError::Device {
                device: choice.to_string(),
                reason: "this build has no CUDA support; build with `--features cuda` or use --device cpu"
                    .into(),
            }),
            DeviceChoice::Cuda(ordinal) => {
                let device = Device::new_cuda(ordinal as usize).and_then(|device| {
                    modularbase_gradients::prepare_device(&device)?;
                    Ok(device)
                });
                let failed = |error: candle_core::Error| TrainError::Device {
                    device: choice.to_string(),
                    reason: error.to_string(),
                };
                Ok(Self { device: device.map_err(failed)?, dtype: DType::BF16 })
            }
        }
    }

    /// The device as `--device` names it.
    pub fn device_name(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => DeviceChoice::Cpu.to_string(),
            DeviceLocation::Cuda { gpu_id } => DeviceChoice::Cuda(gpu_id as u32).to_string(),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// The same device in f32: slower on a GPU, and without the rounding of bf16.
    #[must_use]
    pub fn in_f32(self) -> Self {
        Self { dtype: DType::F32, ..self }
    }

    /// The CPU, in f32.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32 }
    }
}

/// How the rows of a call lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
}

impl Batch {
    /// Rows in all.
    pub fn rows(self) -> usize {
        self.sequences * self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_the_name_that_it_is_asked_for_by() {
        assert_eq!(Compute::cpu().device_name(), "cpu");
        assert_eq!(DeviceChoice::Cuda(1).to_string(), "cuda:1");
    }
}
