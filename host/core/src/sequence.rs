//! One sequence's state.

use std::ops::Range;

use crate::{
    Activations, BaseCore, BehindCaches, CoreError, KvCache, Mixture,
    behind_slot::BehindSlot,
    context::{Context, ContextTokens},
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
    pub(crate) tokens: Vec<u32>,
    pub(crate) understanding: KvCache,
    pub(crate) hidden: HiddenStates,
    /// `None` while it is detached.
    pub(crate) behind: Option<BehindSlot>,
    pub(crate) context: Option<Context>,
}

impl Sequence {
    /// An empty sequence for a mixture.
    pub fn new(core: &BaseCore, mixture: Mixture) -> Self {
        Self { behind: Some(BehindSlot::new(core, mixture, None)), ..Self::detached(core) }
    }

    /// An empty sequence without a mixture whose caches stay in a window: it may be longer than the base's context. The
    /// store is its own, and holds no tokens yet.
    pub fn within(core: &BaseCore, context: Context) -> Self {
        let understanding = core.understanding.new_cache().within(Some(&context), "understanding");
        Self { understanding, context: Some(context), ..Self::detached(core) }
    }

    /// An empty sequence without a mixture: to be [attached](Sequence::attach) before it is advanced.
    pub fn detached(core: &BaseCore) -> Self {
        Self {
            tokens: Vec::new(),
            understanding: core.understanding.new_cache(),
            hidden: HiddenStates::new(core.shape().hidden_size),
            behind: None,
            context: None,
        }
    }

    /// The window, where there is one.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// Which of its tokens are hot and which cold, where there is a window.
    pub fn context_tokens(&self) -> Option<ContextTokens> {
        let Context { shape, store, .. } = self.context.as_ref()?;
        let tokens = self.tokens.len();
        let cold = shape.cold_blocks(tokens) * shape.block;
        let retrieved = self.understanding.retrieved_blocks() * shape.block;
        Some(ContextTokens { tokens, hot: tokens - cold, cold, retrieved, store: store.stats() })
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
        self.hidden_of(0..self.tokens.len())
    }

    /// As [`Sequence::hidden`], of some of the tokens.
    ///
    /// # Errors
    /// Tokens that are not there, a failing device.
    pub fn hidden_of(&self, tokens: Range<usize>) -> Result<Activations, CoreError> {
        if tokens.start > tokens.end || tokens.end > self.tokens.len() {
            let expected = format!("within {}", self.tokens.len());
            return Err(CoreError::mismatch("tokens", expected, format!("{tokens:?}")));
        }
        self.hidden.slice(tokens.start, tokens.len(), self.context.as_ref())
    }

    /// Changes the mixture. What lies behind the slot is forgotten and recomputed at the next step, unless the
    /// mixture is the one in force.
    pub fn set_mixture(&mut self, core: &BaseCore, mixture: Mixture) {
        if !self.mixture().is_some_and(|known| known.same_as(&mixture)) {
            self.behind = Some(BehindSlot::new(core, mixture, self.context.as_ref()));
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
        self.behind = Some(BehindSlot::with(core, mixture, caches, &self.tokens, self.context.as_ref()));
    }

    /// Forgets all tokens from `len` on, and tells how many are left. Memory is kept for the tokens to come.
    ///
    /// In a window that has left the text's end behind, hot tokens come back from their cold blocks, as exact as these
    /// are: so the text is cut where a block ends, and one that needs no cold blocks is forgotten whole, so that it is
    /// computed again to the bit.
    pub fn truncate(&mut self, len: usize) -> usize {
        let len = match &self.context {
            Some(Context { shape, .. }) if len < self.tokens.len() => {
                let start = shape.start(self.tokens.len().saturating_sub(1));
                if start > 0 && len <= shape.whole() {
                    0
                } else if len < start {
                    len / shape.block * shape.block
                } else {
                    len
                }
            }
            _ => len.min(self.tokens.len()),
        };
        self.cut(len);
        len
    }

    /// Forgets all tokens from `len` on, which the caller knows to be possible.
    pub(crate) fn cut(&mut self, len: usize) {
        if let Some(context) = &self.context {
            context.store.truncate(len);
        }
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
        let interest = self.context.as_ref().map_or(0, |context| context.interest.bytes());
        tokens + self.understanding.bytes() + self.hidden.bytes() + interest + behind
    }

    /// Bytes that a sequence takes with this mixture once it has grown to `tokens` tokens, for a reservation
    /// beforehand. It takes more where it was longer before.
    pub fn bytes_for(core: &BaseCore, mixture: &Mixture, tokens: usize) -> usize {
        Self::bytes_within(core, mixture, tokens, None)
    }

    /// As [`Sequence::bytes_for`], in a window where there is one; decoded cold blocks are not part of it.
    pub fn bytes_within(
        core: &BaseCore,
        mixture: &Mixture,
        tokens: usize,
        context: Option<&Context>,
    ) -> usize {
        let experts = mixture.parts().iter().map(|(expert, _)| expert.plan().cache_bytes(tokens, context));
        let behind = core.fusion.cache_bytes(tokens, context) + experts.sum::<usize>();
        behind + Self::front_bytes(core, tokens, context)
    }

    /// As [`Sequence::bytes_for`], for a detached one.
    pub fn detached_bytes_for(core: &BaseCore, tokens: usize) -> usize {
        Self::front_bytes(core, tokens, None)
    }

    fn front_bytes(core: &BaseCore, tokens: usize, context: Option<&Context>) -> usize {
        let grown = |rows: usize| rows.next_multiple_of(GROWTH_TOKENS);
        let hidden = grown(HiddenStates::rows_for(tokens, context)) * core.shape().hidden_size;
        let tokens_bytes = grown(tokens) * size_of::<u32>();
        core.understanding.cache_bytes(tokens, context) + hidden * size_of::<f32>() + tokens_bytes
    }

    pub(crate) fn append_hidden(&mut self, rows: &Activations) -> Result<(), CoreError> {
        self.hidden.append(rows, self.context.as_ref())
    }

    pub(crate) fn push_tokens(&mut self, tokens: &[u32]) {
        if let Some(context) = &self.context {
            context.store.extend(tokens);
            // Whatever the length of the text, they and the decoded blocks take the same memory.
            let behind = self.behind.as_ref().map_or(0, BehindSlot::known_bytes);
            context.store.set_aside((self.understanding.known_bytes() + behind) as u64);
        }
        make_room(&mut self.tokens, tokens.len(), 1);
        self.tokens.extend_from_slice(tokens);
    }
}
