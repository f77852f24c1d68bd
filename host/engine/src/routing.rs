//! Which packs a prompt wants: its intent feature, by the router pack, and the detectors of the packs that are registered.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use manifests::{MixtureChoice, PACK_MANIFEST_FILE, PackKind, PackManifest, RoutingConfig, Sha256};
use modularbase_loader::{Generation, PackFolder, read_router};
use modularbase_manager::RegisteredPack;
use modularbase_residency::{Owner, Reservation};
use router::{
    Detector, MAX_KEY_BYTES, RouterWeights, Routing, RoutingKey, RoutingPolicy, SegmentLogits, ambiguous,
    cover, logits, route, with_evidence,
};

use crate::message::{PromptRows, parts, windows};
use crate::{Chosen, EngineError, Host};

/// A message of fewer tokens that no pack wants is read once more with the one before it.
const SHORT_TOKENS: usize = 16;

/// The router pack that chooses, and the detectors of packs by generation: each file is read once, and forgotten with its
/// pack.
#[derive(Default)]
pub(crate) struct Routers {
    /// Set once the packs that lay there when the host began were looked at, or were waited for long enough.
    begun: OnceLock<()>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    router: Option<ActiveRouter>,
    detectors: HashMap<Generation, Option<Arc<Detector>>>,
}

/// A router pack in use.
struct ActiveRouter {
    generation: Generation,
    weights: Arc<RouterWeights>,
    projection: Sha256,
    /// Its bytes and those of the detectors.
    memory: Reservation,
}

/// What a prompt is routed with.
struct Judges {
    weights: Arc<RouterWeights>,
    names: Vec<String>,
    detectors: Vec<Arc<Detector>>,
}

impl Judges {
    /// What the detectors say of some tokens of what was read, `(name, log-odds)`; `None` where hidden states are no finite
    /// numbers.
    fn logits(&self, rows: &PromptRows, tokens: Range<usize>, threads: usize) -> Option<Vec<(String, f64)>> {
        let (ids, hidden, embeddings) = rows.part(tokens);
        let feature = self.weights.feature(ids, hidden, embeddings)?;
        let logits = logits(&self.detectors, &feature, threads);
        Some(self.names.iter().zip(logits).filter_map(|(name, logit)| Some((name.clone(), logit?))).collect())
    }
}

impl Host {
    /// Chooses packs for the last of a user's messages, oldest first. A short message that no pack wants is understood
    /// from the one before it, so that "and the second one?" stays with the subject; a change of subject is followed.
    ///
    /// # Errors
    /// No message, text that the tokenizer can't handle, a failing device.
    pub fn route(&self, messages: &[&str]) -> Result<Routing, EngineError> {
        self.route_under(messages, self.routing_config())
    }

    /// As [`Host::route`], under another configuration than the host's.
    ///
    /// # Errors
    /// As [`Host::route`].
    pub fn route_under(&self, messages: &[&str], config: &RoutingConfig) -> Result<Routing, EngineError> {
        let Some((last, earlier)) = messages.split_last() else { return Err(EngineError::EmptyPrompt) };
        let ids = self.tokenizer().encode_prompt(last, false)?;
        let routing = self.route_tokens(&ids, config)?;
        match earlier.last() {
            Some(before) if routing.out_of_domain && ids.len() < SHORT_TOKENS => {
                let both = self.tokenizer().encode_prompt(&format!("{before}\n{last}"), false)?;
                self.route_tokens(&both, config)
            }
            _ => Ok(routing),
        }
    }

    fn route_tokens(&self, ids: &[u32], config: &RoutingConfig) -> Result<Routing, EngineError> {
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        self.routers().begun.get_or_init(|| {
            self.manager().wait_until_looked(self.admission_wait());
        });
        let packs = self.registered_when_looked();
        let general = packs.iter().find(|pack| pack.kind == PackKind::General);
        let general = general.map(|pack| pack.name.as_str());
        let (judges, policy) = match self.judges(&packs, config) {
            Ok(judges) => judges,
            Err(reason) => return Ok(Routing::without_packs(general, Vec::new(), reason)),
        };
        let target = policy.segment_tokens;
        let in_parts = target > 0 && ids.len() > 2 * target;
        let (mut whole, mut segments, mut last) = (None, Vec::new(), None);
        let windows = windows(ids.len());
        for window in if in_parts { &windows[..] } else { &windows[windows.len() - 1..] } {
            let rows = PromptRows::of_tokens(self.core(), &ids[window.clone()])?;
            whole = judges.logits(&rows, 0..rows.ids.len(), self.threads());
            let parts = if in_parts { parts(self.tokenizer(), &rows.ids, target) } else { Vec::new() };
            for (part, begins) in parts {
                if let Some(logits) = judges.logits(&rows, part.clone(), self.threads()) {
                    let (first, tokens) = (window.start + part.start, part.len());
                    segments.push(SegmentLogits { first, tokens, begins, logits });
                }
            }
            last = Some(rows);
        }
        let (Some(mut whole), Some(rows)) = (whole, last) else {
            let reason = "the prompt's hidden states are no finite numbers".to_owned();
            return Ok(Routing::without_packs(general, Vec::new(), reason));
        };
        let mut posterior = None;
        let candidates = if policy.posterior_ms > 0 { ambiguous(&whole, &policy) } else { Vec::new() };
        if !candidates.is_empty() {
            let limit = Duration::from_millis(policy.posterior_ms);
            let said = self.posterior(&rows, &candidates, limit)?;
            whole = with_evidence(&whole, &said, &policy);
            posterior = Some(said);
        }
        Ok(Routing { posterior, ..cover(whole, segments, general, &policy) })
    }

    /// As [`Host::route`], for tokens that are read already. `None`: there is no router, or nothing to look at.
    pub(crate) fn route_rows(&self, rows: &PromptRows, config: &RoutingConfig) -> Option<Routing> {
        let packs = self.manager().registered();
        let general = packs.iter().find(|pack| pack.kind == PackKind::General);
        let (judges, policy) = self.judges(&packs, config).ok()?;
        let logits = judges.logits(rows, 0..rows.ids.len(), self.threads())?;
        Some(route(logits, general.map(|pack| pack.name.as_str()), &policy))
    }

    /// The router and the detectors that are registered now; a reason in words where there is no router.
    fn judges(
        &self,
        packs: &[RegisteredPack],
        config: &RoutingConfig,
    ) -> Result<(Judges, RoutingPolicy), String> {
        let mut known = self.routers().known.lock().unwrap_or_else(PoisonError::into_inner);
        known.detectors.retain(|generation, _| packs.iter().any(|pack| pack.generation == *generation));
        self.choose_router(&mut known, packs)?;
        let Known { router: Some(router), detectors } = &mut *known else {
            return Err("no router pack is in use".to_owned());
        };
        let policy = policy(config, router.weights.facts.policy.clone());
        let experts = packs.iter().filter(|pack| pack.kind == PackKind::Expert);
        let mut judges =
            Judges { weights: Arc::clone(&router.weights), names: Vec::new(), detectors: Vec::new() };
        for pack in experts {
            let detector = detectors.entry(pack.generation).or_insert_with(|| {
                read(&pack.folder, self, router, policy.most_of_general)
                    .unwrap_or_else(|reason| {
                        tracing::warn!(pack = pack.name, reason, "its routing key is not used");
                        None
                    })
                    .map(Arc::new)
            });
            if let Some(detector) = detector {
                judges.names.push(pack.name.clone());
                judges.detectors.push(Arc::clone(detector));
            }
        }
        let bytes: usize = judges.detectors.iter().map(|detector| detector.bytes()).sum();
        let bytes = (router.weights.bytes() + bytes) as u64;
        if router.memory.bytes() != bytes {
            router.memory.resize(bytes).map_err(|error| format!("the routing keys don't fit: {error}"))?;
        }
        Ok((judges, policy))
    }

    /// Takes the registered router pack into use, the first by name; detectors are judged anew by another one.
    fn choose_router(&self, known: &mut Known, packs: &[RegisteredPack]) -> Result<(), String> {
        let mut routers = packs.iter().filter(|pack| pack.kind == PackKind::Router);
        let Some(pack) = routers.next() else {
            *known = Known::default();
            return Err("no router pack is registered: packs answer only where they are asked for by name; \
                        put a pack of kind `router` into the packs folder"
                .to_owned());
        };
        if known.router.as_ref().is_some_and(|router| router.generation == pack.generation) {
            return Ok(());
        }
        for other in routers {
            tracing::warn!(
                router = pack.name,
                other = other.name,
                "two router packs: the first by name chooses"
            );
        }
        *known = Known::default();
        let weights = PackFolder::read(&pack.folder)
            .map_err(|error| error.to_string())
            .and_then(|folder| read_router(&folder).map_err(|error| error.to_string()));
        let weights =
            weights.map_err(|error| format!("the router pack `{}` can't be used: {error}", pack.name))?;
        let memory = self
            .reserve(Owner::Pack(pack.generation.to_hex()), weights.bytes() as u64)
            .map_err(|error| format!("the router pack `{}` can't be used: {error}", pack.name))?;
        tracing::info!(router = pack.name, generation = %pack.generation, "chooses packs from now on");
        known.router = Some(ActiveRouter {
            generation: pack.generation,
            projection: weights.projection(),
            weights: Arc::new(weights),
            memory,
        });
        Ok(())
    }

    /// The packs for a conversation: those asked for, or the router's choice where that is left to it.
    ///
    /// # Errors
    /// As [`Host::route`].
    pub fn choose(&self, choice: &MixtureChoice, messages: &[&str]) -> Result<Chosen, EngineError> {
        if *choice != MixtureChoice::Auto || messages.is_empty() {
            return Ok(choice.clone().into());
        }
        Chosen::by_router(self.route(messages)?)
    }

    /// Brings the packs that the router nearly chose to the device, beside serving: into memory that is free, whatever
    /// is there stays.
    pub(crate) fn bring_nearest(&self, chosen: &Chosen) {
        let nearest: Vec<&str> = chosen.nearest().collect();
        self.manager().prefetch(&nearest);
    }
}

/// The detector in a pack's routing key; `None` where it ships none.
fn read(
    folder: &Path,
    host: &Host,
    router: &ActiveRouter,
    most_of_general: f64,
) -> Result<Option<Detector>, String> {
    let manifest = PackManifest::read(&folder.join(PACK_MANIFEST_FILE)).map_err(|error| error.to_string())?;
    let Some(record) = manifest.routing_key else { return Ok(None) };
    if record.size > MAX_KEY_BYTES as u64 {
        return Err(format!("it has {} bytes, at most {MAX_KEY_BYTES} are read", record.size));
    }
    let bytes = std::fs::read(folder.join(record.file.as_str())).map_err(|error| error.to_string())?;
    if Sha256::of_bytes(&bytes) != record.sha256 {
        return Err("its hash is not the one that the manifest says".into());
    }
    let key = RoutingKey::from_bytes(&bytes).map_err(|error| error.to_string())?;
    if key.facts.base != host.fingerprint() || key.width() != host.core().shape().hidden_size {
        return Err(format!("it was made on the base sha256:{}", key.facts.base));
    }
    usable_detector(key, &router.weights, router.projection, most_of_general)
}

/// A key's detector, if a router may use it: trained on its features, and no thief of general prompts.
///
/// # Errors
/// Why it may not, in words.
pub fn usable_detector(
    key: RoutingKey,
    router: &RouterWeights,
    projection: Sha256,
    most_of_general: f64,
) -> Result<Option<Detector>, String> {
    let Some(detector) = key.detector else { return Ok(None) };
    if key.facts.router != Some(projection) {
        let found = key.facts.router.map_or("none".to_owned(), |found| found.to_string());
        return Err(format!(
            "its detector was trained with the router {found}, this one is {projection}: train it anew \
             (`modularbase train router --add`)"
        ));
    }
    let share = detector.share_of_general(router);
    if share > most_of_general {
        return Err(format!(
            "its detector takes {:.1} % of general prompts, at most {:.1} % are let through \
             (routing.most_of_general): train it with more prompts that don't want the pack",
            share * 100.0,
            most_of_general * 100.0
        ));
    }
    Ok(Some(detector))
}

/// What the host's configuration says, else what was measured with the router.
pub fn policy(config: &RoutingConfig, measured: RoutingPolicy) -> RoutingPolicy {
    let table = |table: &std::collections::BTreeMap<manifests::PackName, f64>| {
        table.iter().map(|(name, value)| (name.to_string(), *value)).collect::<Vec<_>>()
    };
    let mut policy = RoutingPolicy {
        threshold: config.threshold.unwrap_or(measured.threshold),
        top_k: config.top_k.map_or(measured.top_k, |top_k| top_k as usize),
        beside: config.beside.unwrap_or(measured.beside),
        sure: config.sure.unwrap_or(measured.sure),
        strategy: config.strategy.unwrap_or(measured.strategy),
        sharpness: config.sharpness.unwrap_or(measured.sharpness),
        assistants: config.assistants.unwrap_or(measured.assistants),
        temperature: config.temperature.unwrap_or(measured.temperature),
        least_general: config.least_general.unwrap_or(measured.least_general),
        most_of_general: config.most_of_general.unwrap_or(measured.most_of_general),
        prefetch: config.prefetch.unwrap_or(measured.prefetch),
        posterior_ms: config.posterior_ms.unwrap_or(measured.posterior_ms),
        ambiguous: config.ambiguous.unwrap_or(measured.ambiguous),
        segment_tokens: config.segment_tokens.map_or(measured.segment_tokens, |tokens| tokens as usize),
        segment_share: config.segment_share.unwrap_or(measured.segment_share),
        segment_top_k: config.segment_top_k.map_or(measured.segment_top_k, |top_k| top_k as usize),
        ..measured
    };
    policy.priors.extend(table(&config.priors));
    policy.caps.extend(table(&config.caps));
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_what_the_router_leaves_open_and_the_router_the_rest() {
        let measured = RoutingPolicy {
            sure: 0.7,
            caps: [("law".to_owned(), 0.5), ("code".to_owned(), 0.9)].into(),
            ..RoutingPolicy::default()
        };
        let config = RoutingConfig {
            top_k: Some(3),
            caps: [("law".parse().unwrap(), 0.2)].into(),
            ..RoutingConfig::default()
        };
        let policy = policy(&config, measured);
        assert_eq!((policy.top_k, policy.sure), (3, 0.7));
        assert_eq!(policy.caps, [("law".to_owned(), 0.2), ("code".to_owned(), 0.9)].into());
    }
}
