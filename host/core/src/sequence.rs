//! One sequence's state.

use crate::{
    Activations, BaseCore, BehindCaches, CoreError, KvCache, Mixture,
    behind_slot::BehindSlot,
    hidden_states::HiddenStates,
    kv_cache::{GROWTH_TOKENS, make_room},
};

/// Tokens, their hidden states in front of the slot, and the caches on both sides of it.
///
/// Understanding KV and `h_s` depend on the tokens alone and are kept when the mixture changes; everything behind the
/// slot belongs to one mixture and is recomputed from `h_s`. So the logits depend on (tokens, mixture) only.
///
/// Between requests a sequence can be [detached](Sequence::detach): it then keeps no expert alive.
pub struct Sequence {
    tokens: Vec<u32>,
    pub(crate) understanding: KvCache,
    pub(crate) hidden: HiddenStates,
    /// `None` while it is detached.
    pub(crate) behind: Option<BehindSlot>,
}

impl Sequence {
    /// An empty sequence for a mixture.
    pub fn new(core: &BaseCore, mixture: Mixture) -> Self {
        Self { behind: Some(BehindSlot::new(core, mixture)), ..Self::detached(core) }
    }

    /// An empty sequence without a mixture: to be [attached](Sequence::attach) before it is advanced.
    pub fn detached(core: &BaseCore) -> Self {
        Self {
            tokens: Vec::new(),
            understanding: core.understanding.new_cache(),
            hidden: HiddenStates::new(core.shape().hidden_size),
            behind: None,
        }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The mixture in force, `None` while the sequence is detached.
    pub fn mixture(&self) -> Option<&Mixture> {
        self.behind.as_ref().map(|behind| &behind.mixture)
    }

    /// A copy of the hidden states in front of the slot, `[tokens, hidden]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn hidden(&self) -> Result<Activations, CoreError> {
        self.hidden.slice(0, self.tokens.len())
    }

    /// Changes the mixture. What lies behind the slot is forgotten and recomputed at the next step, unless the
    /// mixture is the one in force.
    pub fn set_mixture(&mut self, core: &BaseCore, mixture: Mixture) {
        if !self.mixture().is_some_and(|known| known.same_as(&mixture)) {
            self.behind = Some(BehindSlot::new(core, mixture));
        }
    }

    /// Lets go of the experts, which may then be evicted. Tokens, understanding KV and `h_s` stay; the caches behind
    /// the slot are given out for [`Sequence::attach`], `None` if the sequence was detached already.
    pub fn detach(&mut self) -> Option<BehindCaches> {
        Some(self.behind.take()?.into_caches(&self.tokens))
    }

    /// Puts a mixture in force. `caches` are taken over if they were made under the same generations in the same order
    /// with the same weights, to the bit, and as far as their tokens are this sequence's; otherwise what lies behind
    /// the slot is recomputed at the next step.
    pub fn attach(&mut self, core: &BaseCore, mixture: Mixture, caches: Option<BehindCaches>) {
        self.behind = Some(BehindSlot::with(core, mixture, caches, &self.tokens));
    }

    /// Forgets all tokens from `len` on. Memory is kept for the tokens to come.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.understanding.truncate(len);
        self.hidden.truncate(len);
        if let Some(behind) = &mut self.behind {
            behind.truncate(len);
        }
    }

    /// Bytes allocated: tokens, KV on both sides of the slot and the hidden states in front of it, with room for
    /// further tokens.
    pub fn bytes(&self) -> usize {
        let behind = self.behind.as_ref().map_or(0, BehindSlot::bytes);
        let tokens = self.tokens.capacity() * size_of::<u32>();
        tokens + self.understanding.bytes() + self.hidden.bytes() + behind
    }

    /// Bytes that a sequence takes with this mixture once it has grown to `tokens` tokens, for a reservation
    /// beforehand. It takes more where it was longer before.
    pub fn bytes_for(core: &BaseCore, mixture: &Mixture, tokens: usize) -> usize {
        let experts = mixture.parts().iter().map(|(expert, _)| expert.plan().cache_bytes(tokens));
        Self::detached_bytes_for(core, tokens) + core.fusion.cache_bytes(tokens) + experts.sum::<usize>()
    }

    /// As [`Sequence::bytes_for`], for a detached one.
    pub fn detached_bytes_for(core: &BaseCore, tokens: usize) -> usize {
        let a_token = size_of::<u32>() + core.shape().hidden_size * size_of::<f32>();
        core.understanding.cache_bytes(tokens) + tokens.next_multiple_of(GROWTH_TOKENS) * a_token
    }

    pub(crate) fn push_tokens(&mut self, tokens: &[u32]) {
        make_room(&mut self.tokens, tokens.len(), 1);
        self.tokens.extend_from_slice(tokens);
    }
}
