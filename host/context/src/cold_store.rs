//! The cold blocks of one text: taken in, written behind, found again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::block_codec::{check_length, decode_block, decode_keys};
use crate::block_file::{BlockFile, Place};
use crate::block_index::{BlockId, BlockIndex, BlockKey, Slot};
use crate::block_record::{Content, Head, HeadFault, record};
use crate::disk_budget::DiskBudget;
use crate::found_blocks::{FoundBlock, FoundBlocks};
use crate::ram_tier::{DecodedBlock, RamTier};
use crate::token_chain::{ChainHash, Identity, TokenChain};
use crate::write_behind::Queue;
use crate::{BlockSummary, ContextError, ContextOptions, KvBits, KvShape, prefetch, write_behind};

/// The cold blocks of one text. All methods may be called from any thread.
///
/// Its tokens are the caller's: [`extend`](Self::extend) before blocks of these tokens are appended,
/// [`truncate`](Self::truncate) when the text is cut. A block is kept by the hash of base, options and all
/// tokens up to its end, so one that belongs to another text is never found.
#[derive(Debug)]
pub struct ColdStore {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a store holds and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ColdStats {
    /// Blocks that can be asked for, each layer's counted.
    pub blocks: usize,
    /// Of these, kept whole for the attention that they got.
    pub critical_blocks: usize,
    /// Of these, means alone, for want of attention.
    pub redundant_blocks: usize,
    /// Bytes of these blocks with their heads and summaries, as they are stored.
    pub stored_bytes: u64,
    /// Bytes that wait to be written; they are in memory.
    pub waiting_bytes: u64,
    /// Bytes of the file that this store adds to, with what is no longer asked for.
    pub file_bytes: u64,
    /// Decoded blocks in memory.
    pub ram_blocks: usize,
    /// Their bytes, at most [`ContextOptions::ram_bytes`].
    pub ram_bytes: u64,
    /// Bytes of what is known of all blocks: where each is, the tokens, and their hashes. Decoded blocks take so much less.
    pub index_bytes: u64,
    /// Blocks asked for that were in memory.
    pub hits: u64,
    /// Blocks asked for that were read and decoded.
    pub misses: u64,
    /// Blocks read and decoded ahead of need.
    pub prefetched: u64,
}

impl ColdStats {
    /// Bytes of memory that it takes now.
    pub fn memory_bytes(&self) -> u64 {
        self.ram_bytes + self.waiting_bytes + self.index_bytes
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Something to write, or the end.
    pub(crate) to_write: Condvar,
    /// Something was written, or can't be.
    pub(crate) was_written: Condvar,
    /// Something to fetch ahead, or the end.
    pub(crate) to_fetch: Condvar,
    /// Nothing is being fetched ahead.
    pub(crate) was_fetched: Condvar,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) chain: TokenChain,
    pub(crate) index: BlockIndex,
    found: FoundBlocks,
    pub(crate) files: Vec<Arc<BlockFile>>,
    pub(crate) queue: Queue,
    budget: DiskBudget,
    /// To be fetched ahead of need, in this order.
    pub(crate) wanted: VecDeque<BlockKey>,
    /// One of them is on its way.
    pub(crate) fetching: bool,
    pub(crate) closing: bool,
    tier: RamTier,
    /// What decoded blocks and what is set aside may take together.
    ram_bytes: u64,
    refused: Option<(u32, Arc<str>)>,
    block_tokens: usize,
    /// Of a block that is neither critical nor redundant.
    bits: KvBits,
    hits: u64,
    misses: u64,
    prefetched: u64,
}

impl ColdStore {
    /// A store in a file without a name in `folder`, gone with the store. `base` is the fingerprint of what
    /// computes the KV.
    ///
    /// # Errors
    /// When the options can't be, or no file can be made there.
    pub fn temporary(folder: &Path, base: &str, options: &ContextOptions) -> Result<Self, ContextError> {
        options.check()?;
        let identity = Identity::new(base, options);
        let file = BlockFile::unnamed(folder, &identity)?;
        let chain = TokenChain::new(identity, options.block_tokens);
        let end = BlockFile::first_offset();
        let budget = DiskBudget::alone(options.disk_bytes);
        Ok(Self::start(chain, FoundBlocks::default(), vec![Arc::new(file)], end, options, budget))
    }

    /// A store of a text, with the blocks that were `found` in `files`. It adds to the last of these at
    /// `end`.
    pub(crate) fn start(
        chain: TokenChain,
        found: FoundBlocks,
        files: Vec<Arc<BlockFile>>,
        end: u64,
        options: &ContextOptions,
        budget: DiskBudget,
    ) -> Self {
        let mut state = State {
            chain,
            index: BlockIndex::default(),
            found,
            files,
            queue: Queue::new(end),
            budget,
            wanted: VecDeque::new(),
            fetching: false,
            closing: false,
            tier: RamTier::new(options.ram_bytes),
            ram_bytes: options.ram_bytes,
            refused: None,
            block_tokens: options.block_tokens,
            bits: options.bits,
            hits: 0,
            misses: 0,
            prefetched: 0,
        };
        state.take_found(0);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            to_write: Condvar::new(),
            was_written: Condvar::new(),
            to_fetch: Condvar::new(),
            was_fetched: Condvar::new(),
        });
        let threads = [write_behind::run as fn(&Shared), prefetch::run].map(|work| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared))
        });
        Self { shared, threads: threads.into() }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> Vec<u32> {
        self.shared.lock().chain.tokens().to_vec()
    }

    /// More tokens at the end of the text. Blocks that the session's files have of the longer text are there
    /// at once.
    pub fn extend(&self, tokens: &[u32]) {
        let mut state = self.shared.lock();
        let before = state.chain.blocks();
        state.chain.extend(tokens);
        state.take_found(before);
    }

    /// Cuts the text to its first `tokens`. Blocks that end behind them are gone; with them goes a refusal of
    /// damaged ones.
    pub fn truncate(&self, tokens: usize) {
        self.shared.lock().truncate(tokens);
    }

    /// Takes a block of KV: what [`encode_block`](crate::encode_block) made of it, and its summary. It can be
    /// asked for at once and is written behind. A block that is there already is not taken again: equal
    /// tokens have equal KV. Waits while more than 4 MiB are unwritten.
    ///
    /// # Errors
    /// When the block's tokens are not all there, `encoded` has the wrong length, or the disk or its budget
    /// is full. Then the block is not kept and all blocks before it still are; a later call tries to write
    /// again.
    pub fn append(
        &self,
        id: BlockId<'_>,
        bits: KvBits,
        shape: KvShape,
        encoded: &[u8],
        summary: &BlockSummary,
    ) -> Result<(), ContextError> {
        check_length(bits, shape, encoded)?;
        self.take(id, Content::Kv(bits, shape), &summary.to_bytes(), encoded)
    }

    /// Takes a block of plain bytes, such as hidden states that must come back to the bit. Else as
    /// [`append`](Self::append).
    ///
    /// # Errors
    /// As `append`.
    pub fn append_bytes(&self, id: BlockId<'_>, bytes: &[u8]) -> Result<(), ContextError> {
        self.take(id, Content::Bytes, &[], bytes)
    }

    fn take(
        &self,
        id: BlockId<'_>,
        content: Content,
        summary: &[u8],
        payload: &[u8],
    ) -> Result<(), ContextError> {
        let mut state = self.shared.room_to_write(self.shared.lock())?;
        if let Some(key) = state.index.key(id)
            && state.index.get(key).is_some()
            && state.check_refused(id.index).is_ok()
        {
            return Ok(());
        }
        let Some(chain) = state.chain.hash(id.index) else {
            let end = (id.index as usize + 1) * state.block_tokens;
            return Err(ContextError::NotWhole { index: id.index, end, tokens: state.chain.tokens().len() });
        };
        let record = Arc::new(record(id, chain, content, summary, payload));
        let (written, waiting) = (state.queue.end(), state.queue.bytes());
        state.budget.make_room(written, waiting + record.len() as u64)?;
        let key = state.index.set(id, Slot::Waiting(Arc::clone(&record)));
        state.queue.push(key, record);
        self.shared.to_write.notify_one();
        Ok(())
    }

    /// How many blocks, from the first on, are kept for each of the stream's layers `[0, layers)` and not
    /// refused: what a text can go on from.
    pub fn whole_blocks(&self, stream: &str, layers: u32) -> u32 {
        let state = self.shared.lock();
        let whole = state.index.whole(stream, layers);
        state.refused.as_ref().map_or(whole, |(from, _)| whole.min(*from))
    }

    /// A block of KV, from memory or else read, checked and decoded.
    ///
    /// # Errors
    /// When it isn't kept, can't be read, or its bytes aren't those that were written. In the last case it is
    /// refused from now on with all blocks after it, of every stream, until the text is cut before it.
    pub fn block(&self, id: BlockId<'_>) -> Result<Arc<DecodedBlock>, ContextError> {
        self.shared.block(id, false)
    }

    /// The keys of a block, as [`block`](Self::block) gives them, into `keys_out`, f16 bits `[block_tokens, kv_heads *
    /// head_dim]`: to look at, without a place in memory for it.
    ///
    /// # Errors
    /// As [`block`](Self::block), and when it has more or fewer keys.
    pub fn keys(&self, id: BlockId<'_>, keys_out: &mut [u16]) -> Result<(), ContextError> {
        self.shared.keys(id, keys_out)
    }

    /// A block of plain bytes, always read.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    pub fn bytes(&self, id: BlockId<'_>) -> Result<Vec<u8>, ContextError> {
        let stored = self.shared.find(id)?;
        let (record, head) = self.shared.read(id, &stored, Part::Whole)?;
        let payload = head.payload(&record).map_err(|reason| self.shared.refuse(id, &stored, reason))?;
        Ok(payload.to_vec())
    }

    /// The owner keeps so many bytes of its own for cold blocks, such as their summaries: decoded ones and what is known of
    /// all blocks take that much less than [`ContextOptions::ram_bytes`], but a quarter of it at least.
    pub fn set_aside(&self, bytes: u64) {
        let mut state = self.shared.lock();
        let limit = state.ram_bytes.saturating_sub(bytes).max(state.ram_bytes / 4);
        let limit = limit.saturating_sub(state.index_bytes());
        state.tier.set_limit(limit);
    }

    /// Has blocks of a layer read and decoded into memory ahead of need, as far as they aren't there. What was asked for
    /// before of that layer and is not begun is given up.
    pub fn prefetch(&self, stream: &str, layer: u32, blocks: &[u32]) {
        let mut state = self.shared.lock();
        let Some(stream) = state.index.key(BlockId { stream, layer, index: 0 }).map(|key| key.stream) else {
            return;
        };
        let State { wanted, tier, .. } = &mut *state;
        wanted.retain(|key| (key.stream, key.layer) != (stream, layer));
        let keys = blocks.iter().map(|&index| BlockKey { stream, layer, index });
        wanted.extend(keys.filter(|key| !tier.has(*key)));
        if !wanted.is_empty() {
            self.shared.to_fetch.notify_one();
        }
    }

    /// Gives up what is to be fetched ahead. When this returns, decoded blocks take no more memory than they do until they
    /// are asked for again.
    pub fn stop_prefetch(&self) {
        let mut state = self.shared.lock();
        state.wanted.clear();
        while state.fetching {
            state = self.shared.was_fetched.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The summaries of a layer's blocks, from the first on to the first that is not kept.
    ///
    /// # Errors
    /// When one can't be read, or its bytes aren't those that were written.
    pub fn summaries(&self, stream: &str, layer: u32) -> Result<Vec<BlockSummary>, ContextError> {
        let mut summaries = Vec::new();
        loop {
            let id = BlockId { stream, layer, index: summaries.len() as u32 };
            let stored = match self.shared.find(id) {
                Err(ContextError::NotKept { .. } | ContextError::Refused { .. }) => return Ok(summaries),
                found => found?,
            };
            let (record, head) = self.shared.read(id, &stored, Part::Head)?;
            summaries.push(BlockSummary::from_bytes(head.summary(&record)));
        }
    }

    /// Waits until everything is in the file.
    ///
    /// # Errors
    /// When it can't be written. What is not, stays in memory, and a later call tries again.
    pub fn flush(&self) -> Result<(), ContextError> {
        drop(self.shared.written_down_to(self.shared.lock(), 0)?);
        Ok(())
    }

    /// Everything is on the disk and in its place: how many blocks the text has. From now on only these are
    /// known.
    pub(crate) fn settle(&self) -> Result<usize, ContextError> {
        let mut state = self.shared.written_down_to(self.shared.lock(), 0)?;
        state.found = FoundBlocks::default();
        let files = state.files.clone();
        drop(state);
        for file in &files {
            file.check_in_place()?;
        }
        if let Some(own) = files.last() {
            own.sync()?;
        }
        Ok(self.stats().blocks)
    }

    /// What it holds and did.
    pub fn stats(&self) -> ColdStats {
        let state = self.shared.lock();
        let mut stats = ColdStats {
            waiting_bytes: state.queue.bytes(),
            file_bytes: state.queue.end(),
            ram_blocks: state.tier.count(),
            ram_bytes: state.tier.bytes(),
            index_bytes: state.index_bytes(),
            hits: state.hits,
            misses: state.misses,
            prefetched: state.prefetched,
            ..ColdStats::default()
        };
        for slot in state.index.slots() {
            let (bytes, bits) = match slot {
                Slot::Waiting(record) => (record.len() as u64, Head::bits(record)),
                Slot::Written { place, .. } => (place.bytes.into(), place.bits),
            };
            stats.blocks += 1;
            stats.stored_bytes += bytes;
            stats.critical_blocks += usize::from(state.bits != KvBits::B16 && bits == 16);
            stats.redundant_blocks += usize::from(state.bits != KvBits::B1 && bits == 1);
        }
        stats
    }
}

impl Drop for ColdStore {
    /// Everything that can be written is.
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.to_write.notify_all();
        self.shared.to_fetch.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the thread has been reported by it.
            thread.join().ok();
        }
    }
}

/// A block that is kept: its key, the hash that its head must have, and where it is.
struct Stored {
    key: BlockKey,
    chain: ChainHash,
    source: Source,
}

enum Part {
    Head,
    Whole,
}

enum Source {
    Waiting(Arc<Vec<u8>>),
    File(Arc<BlockFile>, Place),
}

impl State {
    fn index_bytes(&self) -> u64 {
        (self.index.bytes() + self.chain.bytes()) as u64
    }

    fn check_refused(&self, index: u32) -> Result<(), ContextError> {
        match &self.refused {
            Some((from, reason)) if index >= *from => {
                Err(ContextError::Refused { index: *from, reason: Arc::clone(reason) })
            }
            _ => Ok(()),
        }
    }

    /// Takes up what files have of the blocks from `first` on.
    fn take_found(&mut self, first: u32) {
        for index in first..self.chain.blocks() {
            let found = self.chain.hash(index).map(|chain| self.found.take(chain)).unwrap_or_default();
            for FoundBlock { stream, layer, file, place } in found {
                let slot = Slot::Written { file: file as u32, place };
                self.index.set(BlockId { stream: &stream, layer, index }, slot);
            }
        }
    }

    fn truncate(&mut self, tokens: usize) {
        self.chain.truncate(tokens);
        let blocks = self.chain.blocks();
        self.index.truncate(blocks);
        self.tier.truncate(blocks);
        self.refused.take_if(|(from, _)| *from >= blocks);
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of KV; `ahead` of need it is only kept in memory, and no use of it.
    pub(crate) fn block(&self, id: BlockId<'_>, ahead: bool) -> Result<Arc<DecodedBlock>, ContextError> {
        let stored = self.find(id)?;
        if let Some(block) = self.in_memory(stored.key, ahead) {
            return Ok(block);
        }
        let (record, head) = self.read(id, &stored, Part::Whole)?;
        let (bits, shape, payload) = self.kv(id, &stored, &record, &head)?;
        let room = self.lock().tier.room(shape.elements());
        let mut block = room.unwrap_or_else(|| DecodedBlock::zeros(shape.elements()));
        decode_block(bits, shape, payload, &mut block.keys, &mut block.values)?;
        let block = Arc::new(block);
        let mut state = self.lock();
        *(if ahead { &mut state.prefetched } else { &mut state.misses }) += 1;
        // The text may have been cut meanwhile, and may have grown again with other tokens.
        if state.chain.hash(id.index) == Some(&stored.chain) {
            state.tier.keep(stored.key, &block);
        }
        Ok(block)
    }

    fn keys(&self, id: BlockId<'_>, keys_out: &mut [u16]) -> Result<(), ContextError> {
        let stored = self.find(id)?;
        let known = self.lock().tier.peek(stored.key);
        if let Some(block) = known.filter(|block| block.keys.len() == keys_out.len()) {
            keys_out.copy_from_slice(&block.keys);
            return Ok(());
        }
        let (record, head) = self.read(id, &stored, Part::Whole)?;
        let (bits, shape, payload) = self.kv(id, &stored, &record, &head)?;
        if shape.elements() != keys_out.len() {
            return Err(self.refuse(id, &stored, "it has another shape"));
        }
        Ok(decode_keys(bits, shape, payload, keys_out)?)
    }

    /// The KV in a record with this head, with its checksum checked.
    fn kv<'a>(
        &self,
        id: BlockId<'_>,
        stored: &Stored,
        record: &'a [u8],
        head: &Head,
    ) -> Result<(KvBits, KvShape, &'a [u8]), ContextError> {
        let payload = head.payload(record).map_err(|reason| self.refuse(id, stored, reason))?;
        match head.content {
            Content::Kv(bits, shape) => Ok((bits, shape, payload)),
            Content::Bytes => Err(self.refuse(id, stored, "it holds plain bytes")),
        }
    }

    fn in_memory(&self, key: BlockKey, ahead: bool) -> Option<Arc<DecodedBlock>> {
        let mut state = self.lock();
        let block = state.tier.get(key)?;
        state.hits += u64::from(!ahead);
        Some(block)
    }

    fn find(&self, id: BlockId<'_>) -> Result<Stored, ContextError> {
        let state = self.lock();
        state.check_refused(id.index)?;
        let kept = state.index.key(id).and_then(|key| Some((key, state.index.get(key)?)));
        let (Some((key, slot)), Some(&chain)) = (kept, state.chain.hash(id.index)) else {
            return Err(ContextError::NotKept { stream: id.stream.into(), layer: id.layer, index: id.index });
        };
        let source = match slot {
            Slot::Waiting(record) => Source::Waiting(Arc::clone(record)),
            Slot::Written { file, place } => Source::File(Arc::clone(&state.files[*file as usize]), *place),
        };
        Ok(Stored { key, chain, source })
    }

    /// A record, or only its head and summary, with the head checked.
    fn read(
        &self,
        id: BlockId<'_>,
        stored: &Stored,
        part: Part,
    ) -> Result<(Arc<Vec<u8>>, Head), ContextError> {
        let record = match &stored.source {
            Source::Waiting(record) => Arc::clone(record),
            Source::File(file, place) => Arc::new(match part {
                Part::Head => file.read(*place, place.head_bytes)?,
                Part::Whole => file.read(*place, place.bytes)?,
            }),
        };
        match Head::parse(&record) {
            Ok(head) if !head.is_of(id, &stored.chain) => {
                Err(self.refuse(id, stored, "another block is there"))
            }
            Ok(head) => Ok((record, head)),
            Err(HeadFault::Short(_)) => Err(self.refuse(id, stored, "the record is cut off")),
            Err(HeadFault::Damaged(reason)) => Err(self.refuse(id, stored, reason)),
        }
    }

    /// Refuses a block and all after it.
    fn refuse(&self, id: BlockId<'_>, stored: &Stored, reason: &str) -> ContextError {
        let reason: Arc<str> = match &stored.source {
            Source::Waiting(_) => reason.into(),
            Source::File(file, place) => file.fault(place.offset, reason).into(),
        };
        let mut state = self.lock();
        if state.check_refused(id.index).is_ok() {
            state.refused = Some((id.index, Arc::clone(&reason)));
        }
        ContextError::Refused { index: id.index, reason }
    }
}
