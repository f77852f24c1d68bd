//! Settings of a device.

use candle_core::{
    CudaDevice, CudaStorage, Device, Result,
    backend::BackendDevice,
    cuda_backend::{CudaStorageSlice, cudarc::driver::sys},
};

use crate::OpError;

/// Keeps freed memory in the device's pool, instead of giving it back whenever the device is waited for, and leaves out
/// the events that order several streams, of which there is one here.
pub(crate) fn prepare(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else {
        return Err(OpError::Backend { op: "prepare_device", found: "a device that is not CUDA" }.into());
    };
    let pool = default_pool(device)?;
    let mut keep = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is that of a live context, `keep` is read during the call only, and the attribute takes a u64.
    unsafe {
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut keep).cast())
            .result()
            .map_err(candle_core::Error::wrap)?;
    }
    // SAFETY: this crate and candle work on the device's one stream, so nothing needs the events for its order.
    unsafe { device.disable_event_tracking() };
    Ok(())
}

/// Bytes that the driver has given out of the pool that candle allocates from: now, and at most since the process began.
pub(crate) fn pool_bytes(device: &CudaDevice) -> Result<(usize, usize)> {
    // What was freed counts as used until the stream has come to it.
    device.synchronize()?;
    let pool = default_pool(device)?;
    let read = |attribute| {
        let mut bytes = 0_u64;
        // SAFETY: the pool is that of a live context, `bytes` is written during the call only, and both attributes are u64.
        unsafe { sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast()) }
            .result()
            .map_err(candle_core::Error::wrap)?;
        Ok::<usize, candle_core::Error>(bytes as usize)
    };
    use sys::CUmemPool_attribute::{CU_MEMPOOL_ATTR_USED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_HIGH};
    Ok((read(CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?, read(CU_MEMPOOL_ATTR_USED_MEM_HIGH)?))
}

fn default_pool(device: &CudaDevice) -> Result<sys::CUmemoryPool> {
    let mut pool: sys::CUmemoryPool = std::ptr::null_mut();
    // SAFETY: the device is that of a live context, and `pool` is written during the call only.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, device.cuda_stream().context().cu_device()) }
        .result()
        .map_err(candle_core::Error::wrap)?;
    Ok(pool)
}

/// A storage to leave in the place of one that is moved away.
pub(crate) fn smallest_storage(device: &CudaDevice) -> Result<CudaStorage> {
    // SAFETY: nobody reads it: the tensor that it is left in is dropped.
    let slice = unsafe { device.alloc::<u8>(1)? };
    Ok(CudaStorage { slice: CudaStorageSlice::U8(slice), device: device.clone() })
}
