//! The host: one base, one budget, the packs of a folder.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use manifests::{RoutingConfig, Sha256};
use modularbase_context::{ColdStore, ContextOptions};
use modularbase_core::{
    BaseCore, BaseFile, Context, CoreError, Expert, Mixture, Sequence, Tokenizer, WINDOW_VERSION, WindowShape,
};
use modularbase_loader::{BaseContext, FileCache, LoadContext};
use modularbase_manager::{HostStatus, PackManager, PackState, Totals};
use modularbase_residency::{ByteLedger, Owner, Reservation};
use pack_sdk::SlotRange;

use crate::{
    EngineError, HostOptions, MemoryReport, PackMemory, context_report, cpu_or_gpu,
    parked_caches::{ParkedCaches, ParkingPlace},
    placement::Placement,
    routing::Routers,
    step_watch::{Step, StepWatch},
    working_memory::{Work, Working, WorkingMemory},
};

/// What the budget leaves beside the base where nothing is said, bytes.
const DEFAULT_ROOM: u64 = 512 << 20;

/// A step that takes longer than this makes no progress; the longest real one, 512 rows on a slow machine, takes seconds.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// A base that serves with the packs of a folder.
pub struct Host {
    manager: PackManager<Placement>,
    core: Arc<BaseCore>,
    tokenizer: Tokenizer,
    base: String,
    fingerprint: Sha256,
    device: String,
    ledger: ByteLedger,
    admission_wait: Duration,
    context: Option<ContextOptions>,
    cache_dir: PathBuf,
    /// The base's own layers, for answers without any pack.
    base_alone: Arc<Expert>,
    parked: Arc<ParkedCaches>,
    routers: Routers,
    routing: RoutingConfig,
    threads: usize,
    steps: StepWatch,
    working: WorkingMemory,
    started: Instant,
    requests: AtomicU64,
    tokens: AtomicU64,
    /// Of the base and its plans; given back when the host goes.
    _memory: [Reservation; 2],
}

impl Host {
    /// Loads a base and begins to look after the packs folder. `progress(done, total)` is told the base's tensors placed
    /// so far.
    ///
    /// # Errors
    /// A base that can't be read, does not fit the budget, or a device that is not there. A bad pack is no error: it
    /// is quarantined.
    pub fn open(options: HostOptions, progress: &mut dyn FnMut(usize, usize)) -> Result<Self, EngineError> {
        let started = Instant::now();
        let file = BaseFile::open(&options.base)?;
        let (backend, dtype) = cpu_or_gpu(options.device, options.dtype, options.threads)?;
        let device = backend.device();
        let tokenizer = Tokenizer::of_base(&file)?;
        let fingerprint = fingerprint(&file, &options.cache_dir)?;
        let slot = options.slot.unwrap_or_else(|| derived_slot(file.shape().num_layers));

        let needed = BaseCore::needed_bytes(&file, &*backend, dtype)? as u64;
        let ledger = ByteLedger::new(options.budget.unwrap_or(needed + DEFAULT_ROOM));
        let base = ledger.reserve(Owner::Base, needed)?;
        let core = Arc::new(BaseCore::load(&file, slot, backend, dtype, progress)?);
        if let Some(context) = &options.context {
            context_report::check(context, &core)?;
        }
        let base_alone = Arc::new(core.own_slot_layers()?);
        let plans = (core.plan_bytes() + base_alone.plan_bytes()) as u64;
        let plans = ledger.reserve(Owner::Plan, plans)?;

        let context =
            BaseContext { fingerprint, version: options.base_version, shape: core.shape().clone(), slot };
        let cache = FileCache::new(options.cache_dir.join("packs"));
        let loading = LoadContext::new(cache, context, options.prober).with_trust(options.trust);
        let parked = Arc::new(ParkedCaches::default());
        let placement = Placement {
            core: Arc::clone(&core),
            base: file.without_tokenizer(),
            dtype,
            delta: options.delta,
            threads: options.threads,
            parked: Arc::clone(&parked),
        };
        let working = WorkingMemory::new(ledger.reserve(Owner::Scratch, 0)?);
        Ok(Self {
            manager: PackManager::start(options.packs, loading, ledger.clone(), placement)?,
            base_alone,
            tokenizer,
            base: options.base_name,
            fingerprint,
            device,
            ledger,
            admission_wait: options.admission_wait,
            context: options.context,
            cache_dir: options.cache_dir,
            core,
            parked,
            routers: Routers::default(),
            routing: options.routing,
            threads: options.threads,
            steps: StepWatch::default(),
            working,
            started,
            requests: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            _memory: [base, plans],
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
        self.manager.load_context()
    }

    /// The packs.
    pub fn manager(&self) -> &PackManager<impl modularbase_manager::PlacePacks<Resident = Arc<Expert>>> {
        &self.manager
    }

    /// Changes the limit of device memory. Idle packs are evicted until it holds; what requests use stays until they
    /// end.
    pub fn set_budget(&self, bytes: u64) {
        self.manager.residency().set_budget(bytes);
    }

    /// Who holds the device memory.
    pub fn memory(&self) -> MemoryReport {
        let packs = self.manager.reports().into_iter().filter(|pack| {
            matches!(pack.state, PackState::Resident | PackState::Leased | PackState::Draining)
        });
        let packs =
            packs.map(|pack| PackMemory { pack: pack.name, resident_bytes: pack.resident_bytes }).collect();
        MemoryReport::of(&self.ledger, packs)
    }

    /// What an operator sees.
    pub fn status(&self) -> HostStatus {
        let packs = self.manager.reports();
        let owner = |owner: &Owner| match owner {
            Owner::Base => "base".to_owned(),
            Owner::Kv => "kv".to_owned(),
            Owner::Plan => "plan".to_owned(),
            Owner::Scratch => "scratch".to_owned(),
            Owner::Pack(generation) => {
                let pack = packs.iter().find(|pack| pack.generation.as_ref() == Some(generation));
                format!("pack {}", pack.map_or(generation, |pack| &pack.name))
            }
        };
        let mut held_bytes = BTreeMap::new();
        for (holder, bytes) in self.ledger.holders() {
            *held_bytes.entry(owner(&holder)).or_insert(0) += bytes;
        }
        HostStatus {
            pid: std::process::id(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            base: self.base.clone(),
            device: self.device.clone(),
            packs_dir: self.manager.packs_dir().map(Into::into),
            budget_bytes: self.ledger.budget(),
            held_bytes,
            totals: Totals {
                requests: self.requests.load(Ordering::Relaxed),
                tokens: self.tokens.load(Ordering::Relaxed),
                ..self.manager.totals()
            },
            unhealthy: self.unhealthy(STEP_LIMIT),
            packs,
        }
    }

    /// What makes no progress: a step of the model that has been running for longer than `limit`. `None`: all is well.
    pub fn unhealthy(&self, limit: Duration) -> Option<String> {
        let running = self.steps.oldest().filter(|running| *running > limit)?;
        Some(format!("a step of the model has been running for {} s", running.as_secs_f32().round()))
    }

    /// Sets memory aside for a sequence of `tokens` tokens.
    ///
    /// # Errors
    /// Not enough memory, also without the packs that no request uses.
    pub fn reserve_kv(&self, mixture: &Mixture, tokens: usize) -> Result<Reservation, EngineError> {
        self.reserve(Owner::Kv, Sequence::bytes_for(&self.core, mixture, tokens) as u64)
    }

    /// What the KV of a text depends on beside its tokens, its window and its packs, in words: kept texts are opened by
    /// hosts of the same only.
    pub fn kv_identity(&self) -> String {
        let slot = self.core.slot();
        let (fingerprint, dtype) = (self.fingerprint, self.core.dtype());
        format!("{fingerprint} slot {}..{} {dtype:?} windows {WINDOW_VERSION}", slot.start, slot.end)
    }

    /// The window that texts stay in; `None`: they are as long as the base's context at most.
    pub fn context_options(&self) -> Option<&ContextOptions> {
        self.context.as_ref()
    }

    /// The window of texts whose first `first` tokens always stay: they are its sinks, where these are fewer, as far as the
    /// window has room. `None` where texts stay in no window.
    pub(crate) fn options_keeping(&self, first: usize) -> Result<Option<ContextOptions>, EngineError> {
        let Some(mut options) = self.context.clone() else { return Ok(None) };
        let limit = self.core.shape().max_position;
        let free = limit - WindowShape::new(&options, limit)?.attended();
        let block = options.block_tokens;
        let room = options.hot_tokens.min(options.sinks + free) / block * block;
        options.sinks = options.sinks.max(first.next_multiple_of(block).min(room));
        Ok(Some(options))
    }

    /// An empty detached sequence, in a window with a store of its own where the host's texts stay in one; its first
    /// `first` tokens always stay then.
    pub(crate) fn new_sequence(&self, first: usize) -> Result<Sequence, EngineError> {
        let Some(options) = self.options_keeping(first)? else { return Ok(Sequence::detached(&self.core)) };
        let store = ColdStore::temporary(&self.cache_dir, &self.fingerprint.to_string(), &options);
        self.sequence_with(&options, Arc::new(store.map_err(CoreError::from)?))
    }

    /// An empty detached sequence in a window whose cold blocks go to `store`.
    pub(crate) fn sequence_with(
        &self,
        options: &ContextOptions,
        store: Arc<ColdStore>,
    ) -> Result<Sequence, EngineError> {
        let shape = WindowShape::new(options, self.core.shape().max_position)?;
        Ok(Sequence::within(&self.core, Context::new(shape, store)))
    }

    /// Bytes that a sequence takes with this mixture at `tokens` tokens, at most, its cold blocks in memory included.
    pub(crate) fn sequence_bytes(&self, sequence: &Sequence, mixture: &Mixture, tokens: usize) -> u64 {
        let context = sequence.context();
        let cold = match (context, &self.context) {
            (Some(context), Some(options)) => context_report::cold_bytes(context, options, tokens),
            _ => 0,
        };
        cold + Sequence::bytes_within(&self.core, mixture, tokens, context) as u64
    }

    pub(crate) fn reserve(&self, owner: Owner, bytes: u64) -> Result<Reservation, EngineError> {
        let until = Instant::now() + self.admission_wait;
        Ok(self.manager.residency().reserve_beside(owner, bytes, until)?)
    }

    pub(crate) fn grow(&self, memory: &mut Reservation, bytes: u64) -> Result<(), EngineError> {
        self.grow_until(memory, bytes, Instant::now() + self.admission_wait)
    }

    pub(crate) fn grow_until(
        &self,
        memory: &mut Reservation,
        bytes: u64,
        until: Instant,
    ) -> Result<(), EngineError> {
        Ok(self.manager.residency().grow(memory, bytes, until)?)
    }

    /// Sets aside what the steps of a request work in.
    pub(crate) fn begin_work(&self, mixture: &Mixture, work: Work) -> Result<Working<'_>, EngineError> {
        self.begin_work_until(mixture, work, Instant::now() + self.admission_wait)
    }

    pub(crate) fn begin_work_until(
        &self,
        mixture: &Mixture,
        work: Work,
        until: Instant,
    ) -> Result<Working<'_>, EngineError> {
        let residency = self.manager.residency();
        let reserve = |bytes| residency.reserve_beside(Owner::Scratch, bytes, until);
        Ok(self.working.begin(&self.core, mixture, work, reserve)?)
    }

    pub(crate) fn base_alone(&self) -> Arc<Expert> {
        Arc::clone(&self.base_alone)
    }

    pub(crate) fn admission_wait(&self) -> Duration {
        self.admission_wait
    }

    pub(crate) fn routers(&self) -> &Routers {
        &self.routers
    }

    pub(crate) fn routing_config(&self) -> &RoutingConfig {
        &self.routing
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) fn parking_place(&self) -> ParkingPlace {
        self.parked.place()
    }

    pub(crate) fn begin_step(&self) -> Step<'_> {
        self.steps.begin()
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_token(&self) {
        self.tokens.fetch_add(1, Ordering::Relaxed);
    }
}

fn fingerprint(file: &BaseFile, cache_dir: &std::path::Path) -> Result<Sha256, EngineError> {
    let text = file.cached_fingerprint(cache_dir)?;
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    hex.parse().map_err(|error: manifests::ValueError| EngineError::Option(error.message))
}

/// The slot of a base that no manifest describes: the layers from 3/5 to 4/5 of its depth, where the default base has
/// its own (layers 18 to 24 of 30).
pub fn derived_slot(layers: usize) -> SlotRange {
    let start = (layers * 3 / 5).min(layers.saturating_sub(1));
    SlotRange { start, end: (layers * 4 / 5).max(start + 1) }
}
