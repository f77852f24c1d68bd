//! The host: one base, one budget, the packs of a folder.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use manifests::{Dtype, MixtureChoice, Sha256};
use modularbase_core::{
    BaseCore, BaseFile, Expert, Mixture, Sequence, StoredDtype, StoredTensor, Tokenizer, WeightDtype,
};
use modularbase_loader::{
    BaseContext, FileCache, LoadContext, LoadStage, LoadedPack, QuarantineReason, WeightView, open_pack,
    resident_bytes,
};
use modularbase_residency::{ByteLedger, Owner, Reservation};
use pack_sdk::SlotRange;
use router::{Candidate, Selection, select};

use crate::{
    EngineError, HostOptions, PackEntry, PackState, cpu_or_gpu,
    pack_catalog::{ResidentPack, scan},
};

/// What the budget leaves beside the base where nothing is said, bytes.
const DEFAULT_ROOM: u64 = 512 << 20;

/// A base that serves with the packs of a folder.
pub struct Host {
    core: BaseCore,
    tokenizer: Tokenizer,
    fingerprint: Sha256,
    device: String,
    ledger: ByteLedger,
    loading: LoadContext,
    dtype: WeightDtype,
    packs: Mutex<Vec<PackEntry>>,
    /// The base's own layers, for answers without any pack.
    base_alone: Arc<Expert>,
    /// Given back when the host goes.
    _base: Reservation,
}

/// Who holds how much device memory, bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemoryReport {
    /// The limit for everything below.
    pub budget_bytes: u64,
    /// Weights of the base.
    pub base_bytes: u64,
    /// Caches of all sessions.
    pub kv_bytes: u64,
    /// Packs on the device.
    pub packs: Vec<PackMemory>,
}

/// Device memory of one pack.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PackMemory {
    /// Its name.
    pub pack: String,
    /// Its own weights, bytes; those it shares with the base count there.
    pub resident_bytes: u64,
}

impl Host {
    /// Loads a base and reads the packs folder. `progress(done, total)` is told the base's tensors placed so far.
    ///
    /// # Errors
    /// A base that can't be read, does not fit the budget, or a device that is not there. A bad pack is no error: it
    /// is quarantined.
    pub fn open(options: HostOptions, progress: &mut dyn FnMut(usize, usize)) -> Result<Self, EngineError> {
        let file = BaseFile::open(&options.base)?;
        let (backend, dtype) = cpu_or_gpu(options.device, options.dtype, options.threads)?;
        let device = backend.device();
        let tokenizer = Tokenizer::of_base(&file)?;
        let fingerprint = fingerprint(&file, &options.cache_dir)?;
        let slot = options.slot.unwrap_or_else(|| derived_slot(file.shape().num_layers));

        let needed = BaseCore::needed_bytes(&file, &*backend, dtype)? as u64;
        let ledger = ByteLedger::new(options.budget.unwrap_or(needed + DEFAULT_ROOM));
        let base = ledger.reserve(Owner::Base, needed)?;
        let core = BaseCore::load(&file, slot, backend, dtype, progress)?;

        let context =
            BaseContext { fingerprint, version: options.base_version, shape: core.shape().clone(), slot };
        let packs = options.packs_dir.as_deref().map(scan).transpose()?.unwrap_or_default();
        for entry in &packs {
            if let PackState::Quarantined(reason) = &entry.state {
                tracing::warn!(pack = entry.name, %reason, "quarantined");
            }
        }
        Ok(Self {
            base_alone: core.own_slot_layers()?.into(),
            tokenizer,
            fingerprint,
            device,
            ledger,
            loading: LoadContext::new(
                FileCache::new(options.cache_dir.join("packs")),
                context,
                options.prober,
            ),
            dtype,
            packs: Mutex::new(packs),
            core,
            _base: base,
        })
    }

    /// The base on its device.
    pub fn core(&self) -> &BaseCore {
        &self.core
    }

    /// The base's tokenizer and chat template.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Hash over the base's config, tokenizer and weights.
    pub fn fingerprint(&self) -> Sha256 {
        self.fingerprint
    }

    /// Name of the device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The ledger of device memory.
    pub fn ledger(&self) -> &ByteLedger {
        &self.ledger
    }

    /// What loading a pack needs to know of this host.
    pub fn load_context(&self) -> &LoadContext {
        &self.loading
    }

    /// Every pack of the folder with its state.
    pub fn packs(&self) -> Vec<PackEntry> {
        self.entries().clone()
    }

    /// Who holds the device memory.
    pub fn memory(&self) -> MemoryReport {
        let resident = |entry: &PackEntry| match &entry.state {
            PackState::Resident(pack) => {
                Some(PackMemory { pack: entry.name.clone(), resident_bytes: pack.resident_bytes() as u64 })
            }
            _ => None,
        };
        MemoryReport {
            budget_bytes: self.ledger.budget(),
            base_bytes: self.ledger.held_by(&Owner::Base),
            kv_bytes: self.ledger.held_by(&Owner::Kv),
            packs: self.entries().iter().filter_map(resident).collect(),
        }
    }

    /// Sets memory aside for a sequence of `tokens` tokens.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn reserve_kv(&self, mixture: &Mixture, tokens: usize) -> Result<Reservation, EngineError> {
        let bytes = Sequence::bytes_for(&self.core, mixture, tokens) as u64;
        Ok(self.ledger.reserve(Owner::Kv, bytes)?)
    }

    /// The mixture for a choice; packs that are not on the device yet are loaded.
    ///
    /// # Errors
    /// An unknown or quarantined pack, or not enough memory.
    pub fn mixture(&self, choice: &MixtureChoice) -> Result<Mixture, EngineError> {
        let selection = {
            let entries = self.entries();
            let usable = |entry: &&PackEntry| {
                // A quarantined pack may be named, so that the answer can say what is wrong with it.
                !(entry.is_general() && matches!(entry.state, PackState::Quarantined(_)))
                    || *choice != MixtureChoice::Auto
            };
            let candidates: Vec<Candidate<'_>> = entries
                .iter()
                .filter(usable)
                .map(|entry| Candidate { name: &entry.name, general: entry.is_general() })
                .collect();
            select(choice, &candidates)?
        };
        let Selection::Packs(packs) = selection else {
            return Ok(Mixture::single(Arc::clone(&self.base_alone)));
        };
        let parts = packs
            .iter()
            .map(|(name, weight)| Ok((self.resident(name)?, *weight as f32)))
            .collect::<Result<_, EngineError>>()?;
        Ok(Mixture::new(parts)?)
    }

    /// A pack on the device, loaded if need be. A pack that fails is quarantined.
    fn resident(&self, name: &str) -> Result<Arc<Expert>, EngineError> {
        let mut entries = self.entries();
        let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) else {
            return Err(router::SelectionError::UnknownPack {
                name: name.to_owned(),
                registered: Vec::new(),
            }
            .into());
        };
        match &entry.state {
            PackState::Resident(pack) => return Ok(Arc::clone(&pack.expert)),
            PackState::Quarantined(reason) => {
                return Err(EngineError::Quarantined { name: name.to_owned(), reason: reason.to_string() });
            }
            PackState::Registered => {}
        }
        let started = std::time::Instant::now();
        match self.load(entry) {
            Ok(pack) => {
                tracing::info!(pack = name, bytes = pack.resident_bytes(), elapsed = ?started.elapsed(), "loaded");
                let expert = Arc::clone(&pack.expert);
                entry.state = PackState::Resident(Arc::new(pack));
                Ok(expert)
            }
            // Memory that is not there now is no fault of the pack.
            Err(error @ EngineError::Budget(_)) => Err(error),
            Err(error) => {
                tracing::warn!(pack = name, %error, "quarantined");
                let stage = match &error {
                    EngineError::Load(error) => error.failure.stage(),
                    _ => LoadStage::Weights,
                };
                let reason = match &error {
                    EngineError::Load(error) => error.failure.to_string(),
                    error => error.to_string(),
                };
                entry.state = PackState::Quarantined(QuarantineReason { stage, reason });
                Err(error)
            }
        }
    }

    fn load(&self, entry: &PackEntry) -> Result<ResidentPack, EngineError> {
        let loaded = open_pack(&entry.path, &self.loading)?;
        let generation = loaded.generation.to_hex();
        let stored = stored_weights(&loaded);
        let dtype = |name: &str| stored.get(name).map(|weight| StoredDtype::from(weight.dtype));
        let needed = self.core.expert_bytes(&loaded.graph, &dtype)? as u64;
        self.declaration_holds(&loaded, needed)?;
        let reservation = self.ledger.reserve(Owner::Pack(generation.clone()), needed)?;
        let expert = self.place(&loaded, &stored, &generation)?;
        Ok(ResidentPack { expert: expert.into(), _reservation: reservation })
    }

    /// Puts a checked pack's weights on the device.
    fn place(
        &self,
        loaded: &LoadedPack,
        stored: &HashMap<&str, WeightView<'_>>,
        generation: &str,
    ) -> Result<Expert, EngineError> {
        let own = |name: &str| {
            let weight = stored.get(name)?;
            Some(StoredTensor {
                name: name.to_owned(),
                shape: weight.shape.to_vec(),
                dtype: weight.dtype.into(),
                bytes: Cow::Borrowed(weight.bytes),
            })
        };
        Ok(self.core.compile_expert(loaded.manifest.pack.name.as_str(), generation, &loaded.graph, &own)?)
    }

    /// Compares what the manifest declares for the way this host holds weights with what they will take: up to a
    /// twentieth apart, and beyond that only by the rows that the device pads.
    fn declaration_holds(&self, loaded: &LoadedPack, needed: u64) -> Result<(), EngineError> {
        let dtype = match (self.dtype, &loaded.weights) {
            (WeightDtype::AsStored, Some(weights)) => weights.dtype(),
            (WeightDtype::AsStored, None) => return Ok(()),
            (WeightDtype::F32, _) => Dtype::F32,
            (WeightDtype::F16, _) => Dtype::F16,
            (WeightDtype::BF16, _) => Dtype::Bf16,
            (WeightDtype::Q8_0, _) => Dtype::Q8_0,
            (WeightDtype::Q4_0, _) => Dtype::Q4_0,
            (WeightDtype::Q4_1, _) => Dtype::Q4_1,
        };
        let Some(&declared) = loaded.manifest.memory.resident_bytes.get(&dtype) else { return Ok(()) };
        let padding =
            needed.saturating_sub(resident_bytes(loaded.graph.graph(), &loaded.owned_weights, dtype));
        if needed.abs_diff(declared) > declared.max(needed) / 20 + padding {
            let name = loaded.manifest.pack.name.to_string();
            return Err(EngineError::DeclaredBytes { name, declared, needed });
        }
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<PackEntry>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprint(file: &BaseFile, cache_dir: &std::path::Path) -> Result<Sha256, EngineError> {
    let text = file.cached_fingerprint(cache_dir)?;
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    hex.parse().map_err(|error: manifests::ValueError| EngineError::Option(error.message))
}

/// The weights of a pack's own file by name.
fn stored_weights(loaded: &LoadedPack) -> HashMap<&str, WeightView<'_>> {
    let weights = loaded.weights.iter().flat_map(|file| file.weights());
    weights.map(|weight| (weight.name, weight)).collect()
}

/// The slot of a base that no manifest describes: the layers from 3/5 to 4/5 of its depth, where the default base has
/// its own (layers 18 to 24 of 30).
pub fn derived_slot(layers: usize) -> SlotRange {
    let start = (layers * 3 / 5).min(layers.saturating_sub(1));
    SlotRange { start, end: (layers * 4 / 5).max(start + 1) }
}
