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
    /// Room for a block of so many keys and values.
    pub(crate) fn zeros(elements: usize) -> Self {
        Self { keys: MappedValues::zeros(elements), values: MappedValues::zeros(elements) }
    }

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

    /// Room for a block of so many keys and values, where it can be that of one which goes for it: new memory is dear.
    pub(crate) fn room(&mut self, elements: usize) -> Option<DecodedBlock> {
        let bytes = 4 * elements as u64;
        let gone = if bytes > self.limit { None } else { self.make_room(bytes) };
        gone.and_then(Arc::into_inner).filter(|block| block.bytes() == bytes)
    }

    /// Gives the last of the blocks that go.
    fn make_room(&mut self, more: u64) -> Option<Arc<DecodedBlock>> {
        let mut gone = None;
        while self.bytes + more > self.limit
            && let Some((_, oldest)) = self.blocks.pop_lru()
        {
            self.bytes -= oldest.bytes();
            gone = Some(oldest);
        }
        gone
    }

    fn remove(&mut self, key: BlockKey) {
        if let Some(block) = self.blocks.pop(&key) {
            self.bytes -= block.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_that_of_the_oldest_block_unless_somebody_holds_it() {
        let key = |index| BlockKey { stream: 0, layer: 0, index };
        let mut tier = RamTier::new(16);
        for index in 0..2 {
            tier.keep(key(index), &Arc::new(DecodedBlock::of(&[index as u16; 2], &[7; 2])));
        }
        assert_eq!(tier.room(2), Some(DecodedBlock::of(&[0; 2], &[7; 2])));
        assert_eq!((tier.count(), tier.bytes()), (1, 8));
        assert_eq!(tier.room(2), None, "there is room");
        let held = tier.get(key(1));
        tier.keep(key(2), &Arc::new(DecodedBlock::of(&[2; 2], &[7; 2])));
        assert_eq!(tier.room(2), None, "the oldest is held");
        assert!(held.is_some() && !tier.has(key(1)) && tier.has(key(2)));
        assert_eq!(tier.room(5), None, "no block is so large");
        assert!(tier.has(key(2)));
    }
}
