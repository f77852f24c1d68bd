//! What packs give on a host where nothing else happens.

use std::{collections::HashMap, sync::Arc};

use modularbase_core::{Advance, Expert, LogitRows, Mixture, Sampler, SamplingOptions, Sequence};
use modularbase_engine::{Host, MixturePart};

use super::collection::{Collection, VERSIONS, network};
use crate::{Base, Folders};

/// Packs whose answers are known on the default base, where computing them takes as long as the soak's own requests.
const SAMPLE: usize = 16;

/// A host that holds packs from its start to its end, and what they gave.
pub(crate) struct Reference {
    host: Host,
    _folders: Folders,
    experts: HashMap<String, Arc<Expert>>,
    base_alone: Arc<Expert>,
}

impl Reference {
    pub(crate) fn new(base: Base, collection: &Collection) -> Self {
        let known = match base {
            Base::Tiny => collection.len(),
            Base::Real => collection.len().min(SAMPLE),
        };
        let folders = Folders::for_base(base);
        let name = |pack: usize, version: usize| format!("known-{pack}-{version}");
        let all = || (0..known).flat_map(|pack| (0..VERSIONS).map(move |version| (pack, version)));
        for (pack, version) in all() {
            let (settings, seed) = network(base, pack, version);
            let fixture = folders.fixture("sized").named(&name(pack, version));
            fixture.settings(settings).seeded(seed).lay_out(folders.packs.path());
        }
        let host = folders
            .host_with(|options| {
                options.packs.watch = false;
                options.budget = Some(8 << 30);
            })
            .expect("a host");
        let expert = |choice: &str| {
            let turn = host.turn(&choice.parse().expect("a mixture")).expect("a pack");
            turn.mixture().parts()[0].0.clone()
        };
        let experts = all()
            .map(|(pack, version)| {
                (collection.made(pack, version).generation.clone(), expert(&name(pack, version)))
            })
            .collect();
        let base_alone = expert("none");
        Self { host, _folders: folders, experts, base_alone }
    }

    /// The likeliest tokens after a prompt, and the logits after the last of them but one; `None`: not known for this
    /// mixture.
    pub(crate) fn answer(
        &self,
        parts: &[MixturePart],
        prompt: &[u32],
        tokens: usize,
    ) -> Option<(Vec<u32>, Vec<f32>)> {
        let expert = |part: &MixturePart| {
            let expert = match part.generation.as_str() {
                "base" => &self.base_alone,
                generation => self.experts.get(generation)?,
            };
            Some((Arc::clone(expert), part.weight))
        };
        let parts = parts.iter().map(expert).collect::<Option<Vec<_>>>()?;
        let mut sequence = Sequence::new(self.host.core(), Mixture::new(parts).ok()?);
        let mut answer = Vec::new();
        let mut sampler = Sampler::new(SamplingOptions::greedy()).ok()?;
        let mut logits = advance(&self.host, &mut sequence, prompt)?;
        loop {
            let token = sampler.sample(&logits, &[]).ok()?;
            answer.push(token);
            if self.host.tokenizer().is_end(token) || answer.len() == tokens {
                return Some((answer, logits));
            }
            logits = advance(&self.host, &mut sequence, &[token])?;
        }
    }
}

/// Appends tokens and gives the logits of the last.
pub(crate) fn advance(host: &Host, sequence: &mut Sequence, tokens: &[u32]) -> Option<Vec<f32>> {
    let step = Advance { sequence, tokens, logits: LogitRows::Last };
    host.core().advance(&mut [step]).ok()?.remove(0)?.to_vec().ok()
}
