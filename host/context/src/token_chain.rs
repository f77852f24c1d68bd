//! The tokens of a session and the hash of every whole block of them.

use sha2::{Digest, Sha256};

use crate::ContextOptions;

/// Base and options that a text's KV depends on, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(pub(crate) [u8; 32]);

impl Identity {
    pub(crate) fn new(base: &str, options: &ContextOptions) -> Self {
        let ContextOptions { hot_tokens, block_tokens, bits, sinks, retrieved_blocks, levels, .. } = options;
        let bits = bits.count();
        let mut text = format!("{base}\n{hot_tokens} {block_tokens} {bits} {sinks} {retrieved_blocks}");
        // Sessions from before there were levels have none.
        if levels.are_on() {
            text += &format!(" {} {}", levels.critical, levels.redundant);
        }
        Self(Sha256::digest(text).into())
    }
}

/// The hash over the identity and the tokens of a block and of all blocks before it. With stream and layer it
/// is the key of a block: equal keys, equal KV.
pub(crate) type ChainHash = [u8; 32];

/// A text that grows and is cut, with the chain of its whole blocks.
#[derive(Debug, Clone)]
pub(crate) struct TokenChain {
    identity: Identity,
    block_tokens: usize,
    tokens: Vec<u32>,
    hashes: Vec<ChainHash>,
}

impl TokenChain {
    pub(crate) fn new(identity: Identity, block_tokens: usize) -> Self {
        Self { identity, block_tokens, tokens: Vec::new(), hashes: Vec::new() }
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of whole blocks.
    pub(crate) fn blocks(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// The hash of block `index`, where its last token is there.
    pub(crate) fn hash(&self, index: u32) -> Option<&ChainHash> {
        self.hashes.get(index as usize)
    }

    pub(crate) fn extend(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        while self.tokens.len() >= (self.hashes.len() + 1) * self.block_tokens {
            let start = self.hashes.len() * self.block_tokens;
            let mut hasher = Sha256::new_with_prefix(self.hashes.last().unwrap_or(&self.identity.0));
            for token in &self.tokens[start..start + self.block_tokens] {
                hasher.update(token.to_le_bytes());
            }
            self.hashes.push(hasher.finalize().into());
        }
    }

    /// Bytes that tokens and hashes take.
    pub(crate) fn bytes(&self) -> usize {
        self.tokens.capacity() * size_of::<u32>() + self.hashes.capacity() * size_of::<ChainHash>()
    }

    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.hashes.truncate(self.tokens.len() / self.block_tokens);
    }
}
