//! Decoded blocks in memory: the least recently used go first when their bytes are needed.

use std::sync::Arc;

use lru::LruCache;

use crate::block_index::BlockKey;
use crate::mapped_values::MappedValues;

/// The keys and values of a layer's block, f16 bits `[block_tokens, kv_heads * head_dim]`.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodedBlock {
    /// Keys as they were given, before RoPE.
    pub keys: MappedValues,
    /// Values.
    pub values: MappedValues,
}

impl DecodedBlock {
    /// A block of these numbers.
    pub fn of(keys: &[u16], values: &[u16]) -> Self {
        Self { keys: keys.into(), values: values.into() }
    }

    fn bytes(&self) -> u64 {
        2 * (self.keys.len() + self.values.len()) as u64
    }
}

#[derive(Debug)]
pub(crate) struct RamTier {
    blocks: LruCache<BlockKey, Arc<DecodedBlock>>,
    bytes: u64,
    limit: u64,
}

impl RamTier {
    pub(crate) fn new(limit: u64) -> Self {
        Self { blocks: LruCache::unbounded(), bytes: 0, limit }
    }

    /// From now on it takes so many bytes at most.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
        self.make_room(0);
    }

    pub(crate) fn get(&mut self, key: BlockKey) -> Option<Arc<DecodedBlock>> {
        self.blocks.get(&key).cloned()
    }

    /// A block, if it is there; this is no use of it.
    pub(crate) fn peek(&self, key: BlockKey) -> Option<Arc<DecodedBlock>> {
        self.blocks.peek(&key).cloned()
    }

    /// Whether a block is there; asking is no use of it.
    pub(crate) fn has(&self, key: BlockKey) -> bool {
        self.blocks.contains(&key)
    }

    /// Keeps a block, as far as the limit allows: room is made first, so the limit is never exceeded.
    pub(crate) fn keep(&mut self, key: BlockKey, block: &Arc<DecodedBlock>) {
        if block.bytes() > self.limit {
            return;
        }
        self.remove(key);
        self.make_room(block.bytes());
        self.bytes += block.bytes();
        self.blocks.put(key, Arc::clone(block));
    }

    pub(crate) fn truncate(&mut self, blocks: u32) {
        let behind: Vec<BlockKey> =
            self.blocks.iter().map(|(key, _)| *key).filter(|key| key.index >= blocks).collect();
        for key in behind {
            self.remove(key);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn count(&self) -> usize {
        self.blocks.len()
    }

    fn make_room(&mut self, more: u64) {
        while self.bytes + more > self.limit
            && let Some((_, oldest)) = self.blocks.pop_lru()
        {
            self.bytes -= oldest.bytes();
        }
    }

    fn remove(&mut self, key: BlockKey) {
        if let Some(block) = self.blocks.pop(&key) {
            self.bytes -= block.bytes();
        }
    }
}
