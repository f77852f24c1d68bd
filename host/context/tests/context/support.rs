//! Blocks to keep, drawn from a seed.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use half::f16;
use modularbase_context::{
    BlockId, BlockSummary, ColdStore, ContextError, ContextOptions, DecodedBlock, KvBits, KvShape,
    encode_block,
};

/// Numbers that look random and are the same every time (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Near normal, mean 0 and variance 1: the sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1_u64 << 24) as f32).sum::<f32>() - 6.0
    }
}

/// Keys, with some channels that are large in every token as real ones have, and values; f16 bits.
pub fn block(shape: KvShape, seed: u64) -> (Vec<u16>, Vec<u16>) {
    let mut random = Random(seed);
    let offsets: Vec<f32> =
        (0..shape.width()).map(|channel| if channel % 16 == 3 { 8.0 } else { random.normal() }).collect();
    let keys = (0..shape.elements()).map(|at| random.normal() + offsets[at % shape.width()]);
    let keys = keys.collect::<Vec<f32>>();
    let values: Vec<f32> = (0..shape.elements()).map(|_| 0.3 * random.normal()).collect();
    (bits(&keys), bits(&values))
}

pub fn bits(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| f16::from_f32(value).to_bits()).collect()
}

pub fn floats(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect()
}

/// Small blocks, of texts that a test can look at byte by byte.
pub const SMALL: KvShape = KvShape { kv_heads: 1, head_dim: 4, block_tokens: 4 };

pub fn small_options() -> ContextOptions {
    ContextOptions { block_tokens: SMALL.block_tokens, ram_bytes: 600, ..ContextOptions::default() }
}

pub const STREAMS: [&str; 2] = ["understanding", "expert:9f"];
pub const LAYERS: u32 = 2;

/// The block that a text has: decided by its tokens alone, as real KV is.
pub fn block_of(text: &[u32], id: BlockId<'_>) -> DecodedBlock {
    let mut hasher = DefaultHasher::new();
    (&text[..(id.index as usize + 1) * SMALL.block_tokens], id).hash(&mut hasher);
    let (keys, values) = block(SMALL, hasher.finish());
    DecodedBlock::of(&keys, &values)
}

/// Every block of a text of so many tokens.
pub fn ids(tokens: usize) -> impl Iterator<Item = BlockId<'static>> {
    let blocks = (tokens / SMALL.block_tokens) as u32;
    let layers = move |stream| (0..LAYERS).map(move |layer| (stream, layer));
    let of_block = move |index| {
        let layers = STREAMS.into_iter().flat_map(layers);
        layers.map(move |(stream, layer)| BlockId { stream, layer, index })
    };
    (0..blocks).flat_map(of_block)
}

/// Appends what the text has of the block.
pub fn append(store: &ColdStore, text: &[u32], id: BlockId<'_>) -> Result<(), ContextError> {
    let DecodedBlock { keys, values } = block_of(text, id);
    let encoded = encode_block(KvBits::B16, SMALL, &keys, &values);
    store.append(id, KvBits::B16, SMALL, &encoded, &BlockSummary::of(SMALL, &keys))
}

/// Lets the text go on by these tokens, and appends its new blocks.
pub fn read(store: &ColdStore, tokens: &[u32]) {
    let before = store.tokens().len();
    store.extend(tokens);
    let text = store.tokens();
    for id in ids(text.len()).filter(|id| (id.index as usize + 1) * SMALL.block_tokens > before) {
        append(store, &text, id).unwrap();
    }
}

/// Every block of the store's text is there, and what it was.
pub fn check_all(store: &ColdStore) {
    let text = store.tokens();
    for id in ids(text.len()) {
        assert_eq!(*store.block(id).unwrap(), block_of(&text, id), "{id:?}");
    }
}

/// What is found of the store's text is what it was, the rest is refused; how many blocks are whole.
pub fn check_what_is_there(store: &ColdStore) -> u32 {
    let text = store.tokens();
    for id in ids(text.len()) {
        match store.block(id) {
            Ok(found) => assert_eq!(*found, block_of(&text, id), "{id:?}"),
            Err(ContextError::NotKept { .. } | ContextError::Refused { .. }) => {}
            Err(other) => panic!("{id:?}: {other}"),
        }
    }
    STREAMS.into_iter().map(|stream| store.whole_blocks(stream, LAYERS)).min().unwrap_or(0)
}
