//! From the settings to a loaded base, and from the engine's errors to exit codes and advice.

use std::sync::Arc;
use std::time::Instant;

use manifests::{ContextSettings, MixtureChoice, OperatorWishes, Sampling};
use modularbase_context::{ContextError, ContextOptions, KvBits, Levels};
use modularbase_core::{ChatMessage, CoreError, SamplingError, SamplingOptions};
use modularbase_engine::{AnswerLimits, EngineError, Host, HostOptions, MixtureChange, OmittedPack, Turn};
use modularbase_loader::{ProbeLimits, Prober, TrustPolicy};
use modularbase_manager::{LeaseFailure, ManagerOptions};
use pack_sdk::SlotRange;

use crate::arguments::AnswerOptions;
use crate::base::ChosenBase;
use crate::failure::{Exit, Failure};
use crate::settings::{Settings, cache_folder, sampling};
use crate::terminal::{notice, step_bar};

/// A base that is loaded, with what its manifest says of sampling.
pub(crate) struct Model {
    pub(crate) host: Arc<Host>,
    pub(crate) name: String,
    pub(crate) sampling: Sampling,
    /// From the start of the process to a base that can answer, ms.
    pub(crate) load_ms: f64,
}

/// Loads the base of the settings and reads the packs folder.
pub(crate) fn load(settings: &Settings, started: Instant) -> anyhow::Result<Model> {
    let base = ChosenBase::find(&settings.host.base)?;
    base.require()?;
    let options = HostOptions {
        base: base.path.clone(),
        base_name: base.name.clone(),
        base_version: None,
        slot: slot(&base, settings),
        device: settings.host.device,
        dtype: settings.host.dtype,
        delta: settings.host.packs.delta,
        threads: settings.host.threads,
        packs: packs_options(settings),
        admission_wait: settings.host.packs.admission_wait,
        trust: trust_policy(settings),
        budget: settings.host.budget.map(|budget| budget.bytes()),
        context: context_options(&settings.host.context),
        routing: settings.host.routing.clone(),
        cache_dir: cache_folder()?,
        prober: Prober::this_program(ProbeLimits::default()),
    };
    let bar = step_bar(&format!("Loading {}", base.name), 0);
    let host = Host::open(options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let host = Arc::new(host.map_err(explain)?);
    let manifest = base.manifest.as_ref();
    if let Some(expected) = manifest.and_then(|manifest| manifest.base.fingerprint)
        && expected != host.fingerprint()
    {
        let message = format!(
            "the base `{}` has the fingerprint sha256:{}, its manifest says sha256:{expected}",
            base.name,
            host.fingerprint()
        );
        return Err(Failure::new(Exit::BaseMissing, message).into());
    }
    Ok(Model {
        host,
        name: base.name,
        sampling: base.manifest.map(|manifest| manifest.sampling).unwrap_or_default(),
        load_ms: started.elapsed().as_secs_f64() * 1e3,
    })
}

/// How the packs folder is looked after. What operators wished of its packs adds to the configuration.
fn packs_options(settings: &Settings) -> ManagerOptions {
    let packs = &settings.host.packs;
    let wishes = match settings.host.packs_dir.as_deref().map(OperatorWishes::read) {
        Some(Ok(wishes)) => wishes,
        Some(Err(error)) => {
            notice(&format!("note: {error}; what operators wished of packs is not known"));
            OperatorWishes::default()
        }
        None => OperatorWishes::default(),
    };
    let mut priorities = packs.priorities.clone();
    priorities.extend(wishes.priorities);
    ManagerOptions {
        packs_dir: settings.host.packs_dir.clone(),
        watch: true,
        rescan: packs.rescan,
        settle: packs.settle,
        keep: packs.keep.iter().chain(&wishes.keep).map(ToString::to_string).collect(),
        priorities: priorities.into_iter().map(|(name, priority)| (name.to_string(), priority)).collect(),
        cache_limit: packs.cache_limit.bytes(),
    }
}

/// The window that texts stay in, where they do.
fn context_options(settings: &ContextSettings) -> Option<ContextOptions> {
    let &ContextSettings { enabled, hot_tokens, block_tokens, bits, sinks, retrieved_blocks, ram, .. } =
        settings;
    enabled.then(|| ContextOptions {
        hot_tokens: hot_tokens as usize,
        block_tokens: block_tokens as usize,
        // The configuration knows no other numbers of bits.
        bits: KvBits::from_count(bits as usize).unwrap_or(KvBits::B8),
        sinks: sinks as usize,
        retrieved_blocks: retrieved_blocks as usize,
        levels: Levels { critical: settings.critical_percent, redundant: settings.redundant_percent },
        ram_bytes: ram.bytes(),
        ..ContextOptions::default()
    })
}

/// Whose packs are let in.
fn trust_policy(settings: &Settings) -> TrustPolicy {
    let trust = &settings.host.trust;
    TrustPolicy::new(trust.policy, trust.keys.clone())
}

/// The slot that holds: the command line's, else the manifest's; `None` where it is derived.
pub(crate) fn slot(base: &ChosenBase, settings: &Settings) -> Option<SlotRange> {
    let given = base.manifest.as_ref().and_then(|manifest| manifest.base.slot);
    let slot = settings.slot.or(given)?;
    Some(SlotRange { start: slot.start() as usize, end: slot.end() as usize })
}

impl Model {
    /// The packs of the settings' mixture, held until this is dropped.
    pub(crate) fn turn(&self, settings: &Settings) -> anyhow::Result<Turn> {
        self.turn_of(&settings.host.mixture)
    }

    /// The packs of a mixture, held until this is dropped.
    pub(crate) fn turn_of(&self, choice: &MixtureChoice) -> anyhow::Result<Turn> {
        let turn = self.host.turn(choice).map_err(explain)?;
        warn_of_omitted(turn.omitted());
        Ok(turn)
    }

    /// How answers are drawn. Where no seed is said, each call gives another one.
    pub(crate) fn sampling(
        &self,
        said: &AnswerOptions,
        settings: &Settings,
    ) -> anyhow::Result<SamplingOptions> {
        let resolved = sampling(said, &settings.host, self.sampling)?;
        Ok(SamplingOptions {
            temperature: resolved.temperature as f32,
            top_k: resolved.top_k as usize,
            top_p: resolved.top_p as f32,
            min_p: resolved.min_p as f32,
            repetition_penalty: resolved.repetition_penalty as f32,
            seed: resolved.seed.unwrap_or_else(fresh_seed),
            ..SamplingOptions::default()
        })
    }

    /// Where answers end.
    pub(crate) fn limits(&self, said: &AnswerOptions, settings: &Settings) -> anyhow::Result<AnswerLimits> {
        let max_tokens = sampling(said, &settings.host, self.sampling)?.max_tokens as usize;
        Ok(AnswerLimits { max_tokens, stop: said.stop.clone() })
    }

    /// The tokens of a conversation up to where the answer begins. Without a chat template the messages are joined,
    /// which `warn` says.
    pub(crate) fn chat_tokens(&self, messages: &[ChatMessage], warn: bool) -> anyhow::Result<Vec<u32>> {
        let tokenizer = self.host.tokenizer();
        let rendered = tokenizer.render_chat(messages, true).map_err(|error| explain(error.into()))?;
        let tokens = if rendered.from_template {
            tokenizer.encode(&rendered.text, true)
        } else {
            if warn {
                notice(
                    "note: this base has no chat template; the text is continued as it is (as with --raw)",
                );
            }
            tokenizer.encode_prompt(&rendered.text, false)
        };
        tokens.map_err(|error| explain(error.into()))
    }
}

/// Says which packs an answer goes without.
pub(crate) fn warn_of_omitted(omitted: &[OmittedPack]) {
    for OmittedPack { pack, reason } in omitted {
        notice(&format!("note: answered without `{pack}`: {reason}"));
    }
}

/// Says where other packs went on with an answer.
pub(crate) fn tell_changes(changes: &[MixtureChange]) {
    for MixtureChange { token, mixture, reason } in changes {
        let packs: Vec<String> =
            mixture.iter().map(|part| format!("{} {:.2}", part.pack, part.weight)).collect();
        notice(&format!("note: from token {token} on answered by {}: {reason}", packs.join(", ")));
    }
}

/// A number that differs from call to call and from process to process.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// An engine's error with the exit code and the advice that go with it.
pub(crate) fn explain(error: EngineError) -> anyhow::Error {
    let message = error.to_string();
    let failure = match &error {
        EngineError::BaseFile(_) | EngineError::Core(CoreError::BaseFile(_)) => {
            Failure::new(Exit::BaseMissing, "the base can't be loaded").help(
                "its file is damaged or of a kind that is not supported; `modularbase base fetch --verify` checks the default base",
            )
        }
        EngineError::Selection(_) => Failure::usage(message)
            .help("`modularbase packs list` shows what is there; --packs-dir chooses another folder"),
        EngineError::Pack(LeaseFailure::Unknown { .. }) => Failure::usage(message)
            .help("`modularbase packs list` shows what is there; --packs-dir chooses another folder"),
        EngineError::Pack(LeaseFailure::Quarantined { .. } | LeaseFailure::NotRoutable { .. }) => {
            Failure::new(Exit::BadPack, message).help("`modularbase packs verify DIR` checks every part of it")
        }
        EngineError::Kept(error) => match &**error {
            ContextError::Name { .. } => Failure::usage(message),
            ContextError::InUse { .. } | ContextError::OtherSettings(_) => {
                Failure::usage(message).help("`modularbase sessions list` shows what is kept")
            }
            _ => Failure::new(Exit::Failed, message),
        },
        EngineError::EmptyPrompt => Failure::usage(message),
        EngineError::Core(CoreError::ContextLength { .. })
        | EngineError::Option(_)
        | EngineError::Sampling(SamplingError::Option { .. }) => Failure::usage(message),
        EngineError::Core(CoreError::Device { .. }) => Failure::usage(message),
        _ => Failure::new(Exit::Failed, message),
    };
    anyhow::Error::new(error).context(failure)
}
