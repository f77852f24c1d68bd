//! A store of one text: what is kept is found, what was cut is not.

use std::sync::Arc;

use crate::support::block;
use modularbase_context::{
    BlockId, BlockSummary, ColdStore, ContextError, ContextOptions, DecodedBlock, KvBits, KvShape,
    encode_block,
};

const SHAPE: KvShape = KvShape { kv_heads: 3, head_dim: 64, block_tokens: 64 };

fn options() -> ContextOptions {
    ContextOptions { block_tokens: 64, ram_bytes: 1 << 20, ..ContextOptions::default() }
}

fn store(options: &ContextOptions) -> ColdStore {
    ColdStore::temporary(&std::env::temp_dir(), "base", options).unwrap()
}

fn id(layer: u32, index: u32) -> BlockId<'static> {
    BlockId { stream: "understanding", layer, index }
}

fn append(store: &ColdStore, id: BlockId<'_>, seed: u64) -> Result<DecodedBlock, ContextError> {
    let (keys, values) = block(SHAPE, seed);
    let encoded = encode_block(KvBits::B16, SHAPE, &keys, &values);
    store.append(id, KvBits::B16, SHAPE, &encoded, &BlockSummary::of(SHAPE, &keys))?;
    Ok(DecodedBlock::of(&keys, &values))
}

#[test]
fn a_block_is_found_before_and_after_it_is_written() {
    let store = store(&options());
    store.extend(&[7; 128]);
    let kept = [append(&store, id(0, 0), 1).unwrap(), append(&store, id(0, 1), 2).unwrap()];
    for flushed in [false, true] {
        if flushed {
            store.flush().unwrap();
            assert_eq!(store.stats().waiting_bytes, 0);
        }
        for (index, kept) in kept.iter().enumerate() {
            let mut keys = vec![0; SHAPE.elements()];
            // Before it is decoded, and then from memory.
            for _ in 0..2 {
                store.keys(id(0, index as u32), &mut keys).unwrap();
                assert_eq!(keys, *kept.keys);
                assert_eq!(*store.block(id(0, index as u32)).unwrap(), *kept);
            }
        }
    }
    let summaries = store.summaries("understanding", 0).unwrap();
    let expected: Vec<BlockSummary> = kept.iter().map(|kept| BlockSummary::of(SHAPE, &kept.keys)).collect();
    assert_eq!(summaries, expected);
    store.append_bytes(BlockId { stream: "h_s", layer: 0, index: 1 }, b"rows").unwrap();
    assert_eq!(store.bytes(BlockId { stream: "h_s", layer: 0, index: 1 }).unwrap(), b"rows");
}

#[test]
fn keys_alone_are_those_of_the_block_whatever_its_bits_and_count_as_no_use_of_it() {
    let store = store(&options());
    let all = [KvBits::B16, KvBits::B8, KvBits::B4, KvBits::B2, KvBits::B1];
    store.extend(&[7; 64 * 5]);
    for (index, bits) in all.into_iter().enumerate() {
        let (keys, values) = block(SHAPE, index as u64);
        let encoded = encode_block(bits, SHAPE, &keys, &values);
        store.append(id(0, index as u32), bits, SHAPE, &encoded, &BlockSummary::of(SHAPE, &keys)).unwrap();
    }
    store.flush().unwrap();
    let mut keys = vec![0; SHAPE.elements()];
    for index in 0..all.len() as u32 {
        store.keys(id(0, index), &mut keys).unwrap();
        let before = store.stats();
        assert_eq!((before.ram_blocks, before.misses, before.hits), (index as usize, index.into(), 0));
        assert_eq!(keys, *store.block(id(0, index)).unwrap().keys);
    }
    let error = store.keys(BlockId { stream: "other", ..id(0, 0) }, &mut keys).unwrap_err();
    assert!(matches!(error, ContextError::NotKept { .. }), "{error}");
}

#[test]
fn only_whole_blocks_of_the_text_are_taken() {
    let store = store(&options());
    store.extend(&[1; 127]);
    append(&store, id(0, 0), 1).unwrap();
    let error = append(&store, id(0, 1), 2).unwrap_err();
    assert!(matches!(error, ContextError::NotWhole { index: 1, end: 128, tokens: 127 }), "{error}");
    let short = store.append(id(1, 0), KvBits::B4, SHAPE, &[0; 10], &BlockSummary::default());
    assert!(matches!(short, Err(ContextError::Codec(_))));
    assert!(matches!(store.block(id(1, 0)), Err(ContextError::NotKept { .. })));
    assert!(matches!(
        store.block(BlockId { stream: "expert", ..id(0, 0) }),
        Err(ContextError::NotKept { .. })
    ));
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_made() {
    for options in [
        ContextOptions { block_tokens: 0, ..options() },
        ContextOptions { sinks: 9, hot_tokens: 8, ..options() },
    ] {
        let refused = ColdStore::temporary(&std::env::temp_dir(), "base", &options);
        assert!(matches!(refused, Err(ContextError::Options { .. })), "{options}");
    }
}

#[test]
fn a_text_is_as_long_as_its_shortest_layer() {
    let store = store(&options());
    store.extend(&[1; 64 * 4]);
    for (layer, blocks) in [(0, 4), (1, 2), (2, 3)] {
        for index in 0..blocks {
            append(&store, id(layer, index), u64::from(index)).unwrap();
        }
    }
    assert_eq!(store.whole_blocks("understanding", 1), 4);
    assert_eq!(store.whole_blocks("understanding", 3), 2);
    assert_eq!(store.whole_blocks("understanding", 4), 0);
    assert_eq!(store.whole_blocks("expert", 1), 0);
}

#[test]
fn what_was_cut_is_not_found_when_the_text_goes_on_otherwise() {
    let store = store(&options());
    store.extend(&[1; 192]);
    for index in 0..3 {
        append(&store, id(0, index), u64::from(index)).unwrap();
    }
    store.block(id(0, 1)).unwrap();
    store.truncate(100);
    assert_eq!(store.tokens(), [1; 100]);
    assert_eq!(store.whole_blocks("understanding", 1), 1);
    store.extend(&[2; 92]);
    assert!(matches!(store.block(id(0, 1)), Err(ContextError::NotKept { .. })));
    let other = append(&store, id(0, 1), 77).unwrap();
    assert_eq!(*store.block(id(0, 1)).unwrap(), other);
    store.flush().unwrap();
    assert_eq!(*store.block(id(0, 1)).unwrap(), other);
}

#[test]
fn memory_never_exceeds_its_limit_and_uses_are_counted() {
    let a_block = 4 * SHAPE.elements() as u64;
    let store = store(&ContextOptions { ram_bytes: 3 * a_block + 5, ..options() });
    store.extend(&[1; 64 * 8]);
    for index in 0..8 {
        append(&store, id(0, index), u64::from(index)).unwrap();
    }
    for index in [0, 1, 2, 0, 3, 0, 1] {
        store.block(id(0, index)).unwrap();
        assert!(store.stats().ram_bytes <= 3 * a_block);
    }
    let stats = store.stats();
    // 1 went when 3 came: 0 had been used since.
    assert_eq!((stats.hits, stats.misses, stats.ram_blocks), (2, 5, 3));
    store.flush().unwrap();
    assert_eq!(store.stats().blocks, 8);
    assert_eq!(store.stats().stored_bytes + 44, store.stats().file_bytes);
}

#[test]
fn decoded_blocks_and_what_is_known_of_all_have_one_limit() {
    let a_block = 4 * SHAPE.elements() as u64;
    let limit = 10 * a_block;
    let store = store(&ContextOptions { ram_bytes: limit, ..options() });
    store.extend(&[1; 64 * 8]);
    for index in 0..8 {
        append(&store, id(0, index), u64::from(index)).unwrap();
        store.block(id(0, index)).unwrap();
    }
    assert_eq!(store.stats().ram_blocks, 8);
    while store.stats().index_bytes < limit - 5 * a_block {
        store.extend(&[1; 64 * 64]);
        store.set_aside(0);
        let stats = store.stats();
        assert!(stats.ram_bytes + stats.index_bytes <= limit, "{stats:?}");
    }
    let stats = store.stats();
    assert!((3..=5).contains(&stats.ram_blocks), "{stats:?}");
    store.set_aside(limit);
    assert_eq!(store.stats().ram_blocks, 0, "a quarter of the limit is less than is known of all blocks");
    store.block(id(0, 7)).unwrap();
}

#[test]
fn blocks_asked_for_ahead_are_in_memory_when_needed() {
    let store = store(&options());
    store.extend(&[1; 64 * 4]);
    let kept: Vec<_> = (0..4).map(|index| append(&store, id(0, index), 9).unwrap()).collect();
    store.prefetch(id(0, 0).stream, 0, &[1, 3]);
    store.prefetch(id(0, 0).stream, 5, &[0]);
    store.prefetch("nobody's", 0, &[0]);
    while store.stats().prefetched < 2 {
        std::thread::yield_now();
    }
    assert_eq!(*store.block(id(0, 3)).unwrap(), kept[3]);
    assert_eq!(*store.block(id(0, 1)).unwrap(), kept[1]);
    let stats = store.stats();
    assert_eq!((stats.hits, stats.misses), (2, 0));
    store.prefetch(id(0, 0).stream, 0, &[0, 2]);
    store.stop_prefetch();
    store.flush().unwrap();
    let stopped = store.stats();
    for _ in 0..100 {
        std::thread::yield_now();
        assert_eq!(store.stats(), stopped);
    }
}

#[test]
fn what_is_above_the_disk_budget_is_not_kept_and_the_rest_still_is() {
    let store = store(&ContextOptions { disk_bytes: 150_000, ..options() });
    store.extend(&[1; 64 * 4]);
    let first = append(&store, id(0, 0), 1).unwrap();
    append(&store, id(0, 1), 1).unwrap();
    let error = append(&store, id(0, 2), 1).unwrap_err();
    assert!(matches!(error, ContextError::OverBudget { limit: 150_000, .. }), "{error}");
    assert_eq!(store.whole_blocks("understanding", 1), 2);
    assert_eq!(*store.block(id(0, 0)).unwrap(), first);
}

#[test]
fn threads_may_ask_while_others_append() {
    let store = Arc::new(store(&ContextOptions { ram_bytes: 200_000, ..options() }));
    store.extend(&[3; 64 * 64]);
    std::thread::scope(|scope| {
        for layer in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for index in 0..64 {
                    let kept = append(store, id(layer, index), u64::from(layer * 100 + index)).unwrap();
                    assert_eq!(*store.block(id(layer, index)).unwrap(), kept);
                    let earlier = index / 2;
                    let (keys, values) = block(SHAPE, u64::from(layer * 100 + earlier));
                    store.prefetch(id(layer, 0).stream, layer, &[index / 3]);
                    let found = store.block(id(layer, earlier)).unwrap();
                    assert_eq!(*found, DecodedBlock::of(&keys, &values));
                }
            });
        }
    });
    assert_eq!(store.whole_blocks("understanding", 3), 64);
}
