//! Settings of a device.

use candle_core::{
    CudaDevice, CudaStorage, Device, Result,
    cuda_backend::{CudaStorageSlice, cudarc::driver::sys},
};

use crate::OpError;

/// Keeps freed memory in the device's pool, instead of giving it back whenever the device is waited for, and leaves out
/// the events that order several streams, of which there is one here.
pub(crate) fn prepare(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else {
        return Err(OpError::Backend { op: "prepare_device", found: "a device that is not CUDA" }.into());
    };
    let stream = device.cuda_stream();
    let mut pool: sys::CUmemoryPool = std::ptr::null_mut();
    let mut keep = u64::MAX;
    // SAFETY: the device is that of a live context, `pool` and `keep` are written and read during the calls only, and the
    // attribute takes a u64.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, stream.context().cu_device())
            .result()
            .map_err(candle_core::Error::wrap)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast())
            .result()
            .map_err(candle_core::Error::wrap)?;
    }
    // SAFETY: this crate and candle work on the device's one stream, so nothing needs the events for its order.
    unsafe { device.disable_event_tracking() };
    Ok(())
}

/// A storage to leave in the place of one that is moved away.
pub(crate) fn smallest_storage(device: &CudaDevice) -> Result<CudaStorage> {
    // SAFETY: nobody reads it: the tensor that it is left in is dropped.
    let slice = unsafe { device.alloc::<u8>(1)? };
    Ok(CudaStorage { slice: CudaStorageSlice::U8(slice), device: device.clone() })
}
