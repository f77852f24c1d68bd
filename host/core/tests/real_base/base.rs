//! The default base from the cache, as `modularbase base fetch` puts it there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use modularbase_core::{Backend, BaseCore, BaseFile, CpuBackend, KvDtype, TensorBackend, WeightDtype};
use pack_sdk::SlotRange;

pub const SLOT: SlotRange = SlotRange { start: 18, end: 24 };

/// Path of the default base's file.
pub fn path() -> PathBuf {
    let manifest = manifests::builtin_base(manifests::DEFAULT_BASE).unwrap().unwrap();
    let name = manifest.file.unwrap().name;
    let path = name.in_folder(&manifests::folders::bases_folder().unwrap());
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which fetches it", path.display());
    path
}

pub fn load(backend: Arc<dyn Backend>, dtype: WeightDtype) -> BaseCore {
    let file = BaseFile::open(path()).unwrap();
    BaseCore::load(&file, SLOT, backend, dtype, &mut |_, _| {}).unwrap()
}

/// On the project's own kernels with two threads; f32 keeps its caches in f32 too.
pub fn on_cpu(dtype: WeightDtype) -> BaseCore {
    let kv = if dtype == WeightDtype::F32 { KvDtype::F32 } else { KvDtype::F16 };
    load(Arc::new(CpuBackend::new(2, kv)), dtype)
}

/// On candle tensors on the CPU.
pub fn on_tensors(dtype: WeightDtype) -> BaseCore {
    load(Arc::new(TensorBackend::cpu()), dtype)
}

/// The base that looks for pass keys: small, and quick on candle tensors too.
pub fn passkey_file() -> BaseFile {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/passkey-base");
    BaseFile::open(folder).unwrap()
}

pub fn passkey_on(backend: Arc<dyn Backend>) -> BaseCore {
    let slot = SlotRange { start: 2, end: 4 };
    BaseCore::load(&passkey_file(), slot, backend, WeightDtype::AsStored, &mut |_, _| {}).unwrap()
}

/// Executors that run on candle tensors: on the CPU and, in a build with CUDA, on the first GPU.
pub fn tensor_backends() -> Vec<Arc<dyn Backend>> {
    vec![
        Arc::new(TensorBackend::cpu()),
        #[cfg(feature = "cuda")]
        Arc::new(TensorBackend::cuda(0, 2).unwrap()),
    ]
}

/// On candle tensors on the first GPU.
#[cfg(feature = "cuda")]
pub fn on_cuda(dtype: WeightDtype) -> BaseCore {
    load(Arc::new(TensorBackend::cuda(0, 2).unwrap()), dtype)
}
