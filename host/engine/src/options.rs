//! What a host is started with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use manifests::{DeltaWeights, DeviceChoice, Dtype, RoutingConfig, Version};
use modularbase_context::ContextOptions;
use modularbase_core::{Backend, CpuBackend, KvDtype, TensorBackend, WeightDtype};
use modularbase_loader::{Prober, TrustPolicy};
use modularbase_manager::ManagerOptions;
use pack_sdk::SlotRange;

use crate::EngineError;

/// Settings of a [`crate::Host`].
#[derive(Debug)]
pub struct HostOptions {
    /// A GGUF file or a Hugging Face folder.
    pub base: PathBuf,
    /// Its name, for operators.
    pub base_name: String,
    /// Version of the base, where its manifest states one.
    pub base_version: Option<Version>,
    /// The slot; `None` derives one.
    pub slot: Option<SlotRange>,
    /// Where to run.
    pub device: DeviceChoice,
    /// How to hold matrices; `None`: as the file stores them.
    pub dtype: Option<Dtype>,
    /// How packs' weights that are stored as deltas are held, where `dtype` leaves it open.
    pub delta: DeltaWeights,
    /// Threads of the CPU executor.
    pub threads: usize,
    /// The folder of packs and how it is looked after.
    pub packs: ManagerOptions,
    /// How long a request waits for memory, or for a pack that is just arriving.
    pub admission_wait: Duration,
    /// Which signatures packs need.
    pub trust: TrustPolicy,
    /// Device memory for everything, bytes; `None`: what the base needs and 512 MiB.
    pub budget: Option<u64>,
    /// The window that texts of sessions stay in; `None`: they are as long as the base's context at most.
    pub context: Option<ContextOptions>,
    /// How the router's scores become a mixture, where its own pack is not to say it.
    pub routing: RoutingConfig,
    /// Where copies of libraries and weights, fingerprints and cold blocks are kept.
    pub cache_dir: PathBuf,
    /// Makes the first contact with each library.
    pub prober: Prober,
}

/// The executor for a device, and the format that matrices are held in.
///
/// # Errors
/// A device that is not there, or a format that no executor multiplies with.
pub fn cpu_or_gpu(
    device: DeviceChoice,
    dtype: Option<Dtype>,
    threads: usize,
) -> Result<(Arc<dyn Backend>, WeightDtype), EngineError> {
    let weights = match dtype {
        None => WeightDtype::AsStored,
        Some(Dtype::F32) => WeightDtype::F32,
        Some(Dtype::F16) => WeightDtype::F16,
        Some(Dtype::Bf16) => WeightDtype::BF16,
        Some(Dtype::Q8_0) => WeightDtype::Q8_0,
        Some(Dtype::Q4_0) => WeightDtype::Q4_0,
        Some(Dtype::Q4_1) => WeightDtype::Q4_1,
        Some(other) => {
            let reason = "matrices can be held as f32, f16, bf16, q8_0, q4_0 or q4_1, or as the file stores them (auto)";
            return Err(EngineError::Option(format!("--dtype {other}: {reason}")));
        }
    };
    let backend: Arc<dyn Backend> = match device {
        DeviceChoice::Cpu => {
            // f32 is asked for when every digit counts; else half the memory and half the traffic.
            let kv = if weights == WeightDtype::F32 { KvDtype::F32 } else { KvDtype::F16 };
            Arc::new(CpuBackend::new(threads, kv))
        }
        DeviceChoice::Cuda(ordinal) => Arc::new(TensorBackend::cuda(ordinal as usize, threads)?),
    };
    Ok((backend, weights))
}
