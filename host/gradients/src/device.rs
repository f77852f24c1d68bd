//! Settings of a device for training.

use candle_core::{Device, Result};

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
