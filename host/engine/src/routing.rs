//! Which packs a prompt wants: its intent feature, and the detectors of the packs that are registered.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use manifests::{MixtureChoice, PACK_MANIFEST_FILE, PackKind, PackManifest, Sha256};
use modularbase_core::{BaseCore, CoreError, Tokenizer};
use modularbase_loader::Generation;
use modularbase_manager::RegisteredPack;
use router::{Detector, MAX_KEY_BYTES, Routing, RoutingKey, RoutingPolicy, route};

use crate::{EngineError, Host};

/// Tokens of a text that are looked at: its last ones.
const MOST_TOKENS: usize = 512;

/// A message of fewer tokens that no pack wants is read once more with the one before it.
const SHORT_TOKENS: usize = 16;

/// The intent feature of a text, `[2 * hidden]`: the mean of `h_s` over all tokens but the first, whose hidden state
/// depends on little but its place, and the mean of the tokens' embeddings.
///
/// # Errors
/// No text, text that the tokenizer can't handle, a failing device.
pub fn intent_feature(core: &BaseCore, tokenizer: &Tokenizer, text: &str) -> Result<Vec<f32>, EngineError> {
    let ids = tokenizer.encode_prompt(text, false)?;
    feature_of(core, &ids)
}

fn feature_of(core: &BaseCore, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
    if ids.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    let ids = &ids[ids.len().saturating_sub(MOST_TOKENS.min(core.shape().max_position))..];
    let first = usize::from(ids.len() > 1);
    let mut feature = mean_row(&core.hidden_before_slot(ids)?.to_vec()?, core.shape().hidden_size, first);
    feature.extend(mean_row(&core.embeddings(ids)?.to_vec()?, core.shape().hidden_size, 0));
    match feature.iter().all(|value| value.is_finite()) {
        true => Ok(feature),
        false => Err(CoreError::Mismatch {
            what: "hidden states",
            expected: "finite numbers".into(),
            found: "others".into(),
        }
        .into()),
    }
}

fn mean_row(rows: &[f32], width: usize, first: usize) -> Vec<f32> {
    let count = (rows.len() / width - first) as f32;
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width).skip(first) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / count);
    }
    mean
}

/// The detectors of registered packs, by generation: each key is read once, and forgotten with its pack.
#[derive(Default)]
pub(crate) struct Detectors {
    /// Set once the packs that lay there when the host began were looked at, or were waited for long enough.
    begun: OnceLock<()>,
    known: Mutex<HashMap<Generation, Option<Arc<Detector>>>>,
}

impl Detectors {
    /// Names and detectors of those packs that have one. A key that can't be read leaves its pack to be asked for by
    /// name, and the log says why.
    fn of(&self, packs: &[RegisteredPack], base: Sha256, width: usize) -> Vec<(String, Arc<Detector>)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|generation, _| packs.iter().any(|pack| pack.generation == *generation));
        let mut found = Vec::new();
        for pack in packs.iter().filter(|pack| pack.kind == PackKind::Expert) {
            let detector =
                known.entry(pack.generation).or_insert_with(|| match read(&pack.folder, base, width) {
                    Ok(detector) => detector.map(Arc::new),
                    Err(reason) => {
                        tracing::warn!(pack = pack.name, reason, "its routing key is not used");
                        None
                    }
                });
            if let Some(detector) = detector {
                found.push((pack.name.clone(), Arc::clone(detector)));
            }
        }
        found
    }
}

/// The detector in a pack's routing key; `None` where it ships none.
fn read(folder: &Path, base: Sha256, width: usize) -> Result<Option<Detector>, String> {
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
    if key.facts.base != base || key.width() != width {
        return Err(format!("it was made on the base sha256:{}", key.facts.base));
    }
    Ok(key.detector)
}

impl Host {
    /// Chooses packs for the last of a user's messages, oldest first. A short message that no pack wants is understood
    /// from the one before it, so that "and the second one?" stays with the subject; a change of subject is followed.
    ///
    /// # Errors
    /// No message, text that the tokenizer can't handle, a failing device.
    pub fn route(&self, messages: &[&str]) -> Result<Routing, EngineError> {
        let Some((last, earlier)) = messages.split_last() else { return Err(EngineError::EmptyPrompt) };
        let ids = self.tokenizer().encode_prompt(last, false)?;
        let routing = self.route_tokens(&ids)?;
        match earlier.last() {
            Some(before) if routing.out_of_domain && ids.len() < SHORT_TOKENS => {
                let both = self.tokenizer().encode_prompt(&format!("{before}\n{last}"), false)?;
                self.route_tokens(&both)
            }
            _ => Ok(routing),
        }
    }

    fn route_tokens(&self, ids: &[u32]) -> Result<Routing, EngineError> {
        self.detectors().begun.get_or_init(|| {
            self.manager().wait_until_looked(self.admission_wait());
        });
        let packs = self.registered_when_looked();
        let feature = feature_of(self.core(), ids)?;
        let detectors = self.detectors().of(&packs, self.fingerprint(), self.core().shape().hidden_size);
        let logits = detectors
            .into_iter()
            .filter_map(|(name, detector)| Some((name, detector.logit(&feature)?)))
            .collect();
        let general = packs.iter().find(|pack| pack.kind == PackKind::General);
        Ok(route(logits, general.map(|pack| pack.name.as_str()), RoutingPolicy::default()))
    }

    /// The packs for a conversation: those asked for, or the router's choice where that is left to it.
    ///
    /// # Errors
    /// As [`Host::route`].
    pub fn choose(
        &self,
        choice: &MixtureChoice,
        messages: &[&str],
    ) -> Result<(MixtureChoice, Option<Routing>), EngineError> {
        if *choice != MixtureChoice::Auto || messages.is_empty() {
            return Ok((choice.clone(), None));
        }
        let routing = self.route(messages)?;
        let packs = routing
            .mixture
            .iter()
            .map(|share| Ok((share.pack.parse()?, share.weight)))
            .collect::<Result<Vec<_>, manifests::ValueError>>()
            .map_err(|error| EngineError::Option(error.message))?;
        let chosen = if packs.is_empty() { MixtureChoice::None } else { MixtureChoice::Packs(packs) };
        Ok((chosen, Some(routing)))
    }
}
