//! What loading needs to know of the host.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use manifests::{PackManifest, Sha256};
use pack_abi::AbiNote;
use pack_sdk::config_json;

use crate::{
    base_fit::BaseContext,
    elf::ElfInspection,
    file_cache::FileCache,
    pack_index::{ContextKey, PackIndex, ProbeKey},
    probe::Prober,
    trust::TrustPolicy,
};

/// Rises when this crate judges packs differently, so that verdicts of an earlier version are found out anew.
const VERDICTS_VERSION: u32 = 1;

/// Inspections kept; some kilobytes each.
const MAX_INSPECTED: usize = 64;

/// What loading needs to know of the host.
#[derive(Debug)]
pub struct LoadContext {
    /// Where copies of libraries and weights are kept, and the index of known packs.
    pub cache: FileCache,
    /// The base that serves.
    pub base: BaseContext,
    /// Makes the first contact with each library.
    pub prober: Prober,
    /// Whose packs are let in.
    pub trust: TrustPolicy,
    index: OnceLock<PackIndex>,
    /// What the files of libraries tell, by content: packs often differ in their weights alone.
    inspected: Mutex<HashMap<Sha256, Arc<ElfInspection>>>,
}

impl LoadContext {
    /// A context for `base`, with copies in `cache` and `prober` for the first contact, that lets unsigned packs in.
    pub fn new(cache: FileCache, base: BaseContext, prober: Prober) -> Self {
        let trust = TrustPolicy::default();
        Self { cache, base, prober, trust, index: OnceLock::new(), inspected: Mutex::default() }
    }

    /// The same with another policy of trust.
    #[must_use]
    pub fn with_trust(self, trust: TrustPolicy) -> Self {
        // What was known under the other policy is another index's.
        Self { trust, index: OnceLock::new(), ..self }
    }

    /// The JSON text that a pack's `build` gets.
    pub fn config_for(&self, manifest: &PackManifest) -> String {
        config_json(&self.base.shape, self.base.slot, &manifest.config_json())
    }

    /// What the first contact with a pack's library depends on.
    pub fn probe_key(&self, manifest: &PackManifest) -> ProbeKey {
        let library = manifest.library.as_ref().map(|library| library.sha256.to_string());
        let text = format!("{}\0{}", library.unwrap_or_default(), self.config_for(manifest));
        ProbeKey(Sha256::of_bytes(text.as_bytes()))
    }

    /// What the file of a library with that content tells; `inspect` finds it out at the first time.
    pub(crate) fn inspected<E>(
        &self,
        library: &Sha256,
        inspect: impl FnOnce() -> Result<ElfInspection, E>,
    ) -> Result<Arc<ElfInspection>, E> {
        let lock = || self.inspected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(library) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(inspect()?);
        let mut inspected = lock();
        if inspected.len() >= MAX_INSPECTED {
            inspected.clear();
        }
        inspected.insert(*library, Arc::clone(&found));
        Ok(found)
    }

    /// What is known of packs from earlier, for this context. It is read from the cache folder at the first call.
    pub fn index(&self) -> &PackIndex {
        self.index.get_or_init(|| PackIndex::open(self.cache.folder(), self.key()))
    }

    /// Everything beside a pack's own files that a verdict on it depends on: base, trust, ABI, and how this crate
    /// judges.
    pub fn key(&self) -> ContextKey {
        let base = &self.base;
        let version = base.version.as_ref().map(ToString::to_string).unwrap_or_default();
        let note = AbiNote::current();
        let keys = self.trust.keys().iter();
        let keys: Vec<String> = keys.map(|(name, key)| format!("{name}={}", key.as_str())).collect();
        let parts = [
            VERDICTS_VERSION.to_string(),
            format!("{} {}", note.abi_major, note.opset),
            base.fingerprint.to_string(),
            version,
            config_json(&base.shape, base.slot, &serde_json::Value::Null),
            self.trust.mode().to_string(),
            keys.join("\0"),
        ];
        ContextKey(Sha256::of_bytes(parts.join("\0").as_bytes()))
    }
}
