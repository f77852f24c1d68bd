//! What a sequence keeps behind the slot: the caches of one mixture, in use or put aside.

use sha2::{Digest, Sha256};

use crate::{BaseCore, KvCache, Mixture, MixtureKey, context::Context};

/// The caches of a mixture in force.
pub(crate) struct BehindSlot {
    pub(crate) mixture: Mixture,
    /// One cache for each part of the mixture.
    pub(crate) experts: Vec<KvCache>,
    pub(crate) fusion: KvCache,
}

impl BehindSlot {
    pub(crate) fn new(core: &BaseCore, mixture: Mixture, context: Option<&Context>) -> Self {
        let expert = |(expert, _): &(std::sync::Arc<crate::Expert>, f32)| {
            expert.plan().new_cache().within(context, &format!("expert:{}", expert.generation()))
        };
        let experts = mixture.parts().iter().map(expert).collect();
        let fusion = core.fusion.new_cache().within(context, &fusion_stream(&mixture.key()));
        Self { mixture, experts, fusion }
    }

    /// Takes over caches that were made under this very mixture, as far as their tokens are those of `tokens`; anything
    /// else is dropped.
    pub(crate) fn with(
        core: &BaseCore,
        mixture: Mixture,
        caches: Option<BehindCaches>,
        tokens: &[u32],
        context: Option<&Context>,
    ) -> Self {
        match caches {
            Some(caches) if caches.key == mixture.key() => {
                let common = caches.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
                let BehindCaches { experts, fusion, .. } = caches;
                let mut behind = Self { mixture, experts, fusion };
                behind.truncate(common);
                behind
            }
            _ => Self::new(core, mixture, context),
        }
    }

    /// The caches without the experts that filled them.
    pub(crate) fn into_caches(self, tokens: &[u32]) -> BehindCaches {
        let Self { mixture, experts, fusion } = self;
        let tokens = tokens[..fusion.len().min(tokens.len())].to_vec();
        BehindCaches { key: mixture.key(), tokens, experts, fusion }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.experts.iter_mut().for_each(|cache| cache.truncate(len));
        self.fusion.truncate(len);
    }

    /// Bytes of what its caches know of their cold blocks.
    pub(crate) fn known_bytes(&self) -> usize {
        self.experts.iter().chain([&self.fusion]).map(KvCache::known_bytes).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.experts.iter().chain([&self.fusion]).map(KvCache::bytes).sum()
    }
}

/// The cold store's name of the fusion layers' KV under a mixture.
fn fusion_stream(key: &MixtureKey) -> String {
    let digest = Sha256::digest(format!("{key:?}"));
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("fusion:{hex}")
}

/// The caches behind the slot of a sequence that rests: KV of the experts and of the fusion layers. They are keyed by
/// the generations and weights of their mixture and by their tokens, and keep no expert alive.
#[derive(Debug)]
pub struct BehindCaches {
    key: MixtureKey,
    tokens: Vec<u32>,
    experts: Vec<KvCache>,
    fusion: KvCache,
}

impl BehindCaches {
    pub(crate) fn of(key: MixtureKey, tokens: Vec<u32>, experts: Vec<KvCache>, fusion: KvCache) -> Self {
        Self { key, tokens, experts, fusion }
    }

    /// One cache for each part of the mixture.
    pub(crate) fn experts(&self) -> &[KvCache] {
        &self.experts
    }

    pub(crate) fn fusion(&self) -> &KvCache {
        &self.fusion
    }

    /// The mixture they were made under.
    pub fn key(&self) -> &MixtureKey {
        &self.key
    }

    /// The generations whose caches they are: of no use once one of these is gone for good.
    pub fn generations(&self) -> impl Iterator<Item = &str> {
        self.key.generations()
    }

    /// Bytes allocated for them.
    pub fn bytes(&self) -> usize {
        let caches = self.experts.iter().chain([&self.fusion]).map(KvCache::bytes).sum::<usize>();
        caches + self.tokens.capacity() * size_of::<u32>()
    }
}
