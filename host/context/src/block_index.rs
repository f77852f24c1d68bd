//! Which blocks of the text are kept, and where.

use std::collections::HashMap;
use std::sync::Arc;

use crate::block_file::Place;

/// A block: a layer of a stream, and which block of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId<'a> {
    /// Whose KV: one name a plan, such as `understanding` or `expert:<generation>`; at most 65,535 bytes.
    pub stream: &'a str,
    /// The layer, counted within the stream.
    pub layer: u32,
    /// Block `i` holds the tokens `[i * block_tokens, (i + 1) * block_tokens)`.
    pub index: u32,
}

/// A block by the number of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub(crate) stream: usize,
    pub(crate) layer: u32,
    pub(crate) index: u32,
}

/// Where a block is: not written yet, or in one of the files.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    Waiting(Arc<Vec<u8>>),
    Written { file: u32, place: Place },
}

type Layers = Vec<Vec<Option<Slot>>>;

#[derive(Debug, Default)]
pub(crate) struct BlockIndex {
    numbers: HashMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
    streams: Vec<Layers>,
}

impl BlockIndex {
    /// The key of a block whose stream is known.
    pub(crate) fn key(&self, id: BlockId<'_>) -> Option<BlockKey> {
        let stream = *self.numbers.get(id.stream)?;
        Some(BlockKey { stream, layer: id.layer, index: id.index })
    }

    /// The stream of this number.
    pub(crate) fn name(&self, stream: usize) -> Arc<str> {
        Arc::clone(&self.names[stream])
    }

    pub(crate) fn get(&self, key: BlockKey) -> Option<&Slot> {
        self.streams[key.stream].get(key.layer as usize)?.get(key.index as usize)?.as_ref()
    }

    pub(crate) fn set(&mut self, id: BlockId<'_>, slot: Slot) -> BlockKey {
        let stream = match self.numbers.get(id.stream) {
            Some(&stream) => stream,
            None => {
                let name: Arc<str> = id.stream.into();
                self.numbers.insert(Arc::clone(&name), self.streams.len());
                self.names.push(name);
                self.streams.push(Vec::new());
                self.streams.len() - 1
            }
        };
        let (layer, index) = (id.layer as usize, id.index as usize);
        let layers = &mut self.streams[stream];
        layers.resize_with(layers.len().max(layer + 1), Vec::new);
        let blocks = &mut layers[layer];
        blocks.resize_with(blocks.len().max(index + 1), || None);
        blocks[index] = Some(slot);
        BlockKey { stream, layer: id.layer, index: id.index }
    }

    /// The record that was waiting is in the file now; nothing happens where the block was cut off meanwhile.
    pub(crate) fn written(&mut self, key: BlockKey, record: &Arc<Vec<u8>>, file: usize, place: Place) {
        let blocks = self.streams[key.stream].get_mut(key.layer as usize);
        if let Some(Some(slot)) = blocks.and_then(|blocks| blocks.get_mut(key.index as usize))
            && matches!(slot, Slot::Waiting(waiting) if Arc::ptr_eq(waiting, record))
        {
            *slot = Slot::Written { file: file as u32, place };
        }
    }

    pub(crate) fn truncate(&mut self, blocks: u32) {
        for kept in self.streams.iter_mut().flatten() {
            kept.truncate(blocks as usize);
        }
    }

    /// How many blocks from the first on are there in each of the layers `[0, layers)`.
    pub(crate) fn whole(&self, stream: &str, layers: u32) -> u32 {
        let Some(&stream) = self.numbers.get(stream) else { return 0 };
        let kept = |layer| {
            let blocks = self.streams[stream].get(layer as usize);
            blocks.map_or(0, |blocks| blocks.iter().take_while(|slot| slot.is_some()).count())
        };
        (0..layers).map(kept).min().unwrap_or(0) as u32
    }

    /// Bytes that the places of blocks take.
    pub(crate) fn bytes(&self) -> usize {
        let slots: usize = self.streams.iter().flatten().map(Vec::capacity).sum();
        slots * size_of::<Option<Slot>>()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.streams.iter().flatten().flatten().flatten()
    }
}
