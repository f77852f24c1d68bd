//! The blocks that files hold, until the text has the tokens they belong to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::block_file::Place;
use crate::block_record::Head;
use crate::token_chain::ChainHash;

/// A block in the file of this number.
#[derive(Debug)]
pub(crate) struct FoundBlock {
    pub(crate) stream: Arc<str>,
    pub(crate) layer: u32,
    pub(crate) file: usize,
    pub(crate) place: Place,
}

/// By the hash of the tokens up to their end. Of one block that was written twice both are here, the later
/// one last.
#[derive(Debug, Default)]
pub(crate) struct FoundBlocks {
    streams: HashMap<String, Arc<str>>,
    blocks: HashMap<ChainHash, Vec<FoundBlock>>,
}

impl FoundBlocks {
    pub(crate) fn add(&mut self, file: usize, head: Head, place: Place) {
        let Head { stream, layer, chain, .. } = head;
        let stream = Arc::clone(self.streams.entry(stream).or_insert_with_key(|name| name.as_str().into()));
        self.blocks.entry(chain).or_default().push(FoundBlock { stream, layer, file, place });
    }

    pub(crate) fn take(&mut self, chain: &ChainHash) -> Vec<FoundBlock> {
        self.blocks.remove(chain).unwrap_or_default()
    }
}
