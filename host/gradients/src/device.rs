//! Settings of a device for training, and its memory.

use candle_core::{Device, Result};

use crate::OpError;

/// Makes ready a device that is trained on: on CUDA freed memory stays in the process's pool, and the bookkeeping for
/// several streams is left out. Call it once, before the first tensor, and use the device from one stream.
///
/// # Errors
/// Those of the driver.
pub fn prepare_device(device: &Device) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => crate::cuda::prepare(device),
        _ => Ok(()),
    }
}

/// What a GPU's driver says of the memory that this process allocates from it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolBytes {
    /// Given out now, once everything that the device was told to do is done.
    pub used: usize,
    /// The most that was ever given out at once.
    pub most_used: usize,
}

/// The driver's figures for a CUDA device's memory. It waits for the device. What the driver keeps for itself (the context,
/// kernels, memory that was freed and stays in the pool) is not in them.
///
/// # Errors
/// A device that is not CUDA, a build without it, and those of the driver.
pub fn pool_bytes(device: &Device) -> Result<PoolBytes> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let (used, most_used) = crate::cuda::pool_bytes(device)?;
            Ok(PoolBytes { used, most_used })
        }
        _ => Err(OpError::Backend { op: "pool_bytes", found: "a device that is not CUDA" }.into()),
    }
}
