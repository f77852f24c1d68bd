//! One sequence's state, and how a batch of sequences moves forward through the slot.

use crate::{Activations, BaseCore, CoreError, KvCache, Mixture, PlanInput, SequenceRows};

/// Rows that go through a plan in one call. Larger calls gain nothing on a CPU and need more scratch memory.
const CHUNK_ROWS: usize = 512;

/// Tokens, their hidden states in front of the slot, and the caches on both sides of it.
///
/// Understanding KV and `h_s` depend on the tokens alone and are kept when the mixture changes; everything behind the
/// slot belongs to one mixture and is recomputed from `h_s`. So the logits depend on (tokens, mixture) only.
pub struct Sequence {
    tokens: Vec<u32>,
    understanding: KvCache,
    /// `[tokens, hidden]`; `None` before the first token.
    hidden: Option<Activations>,
    behind: BehindSlot,
}

struct BehindSlot {
    mixture: Mixture,
    /// One cache for each part of the mixture.
    experts: Vec<KvCache>,
    fusion: KvCache,
}

impl BehindSlot {
    fn new(core: &BaseCore, mixture: Mixture) -> Self {
        let experts = mixture.parts().iter().map(|(expert, _)| expert.plan().new_cache()).collect();
        Self { mixture, experts, fusion: core.fusion.new_cache() }
    }

    fn truncate(&mut self, len: usize) {
        self.experts.iter_mut().for_each(|cache| cache.truncate(len));
        self.fusion.truncate(len);
    }
}

impl Sequence {
    /// An empty sequence for a mixture.
    pub fn new(core: &BaseCore, mixture: Mixture) -> Self {
        Self {
            tokens: Vec::new(),
            understanding: core.understanding.new_cache(),
            hidden: None,
            behind: BehindSlot::new(core, mixture),
        }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The mixture in force.
    pub fn mixture(&self) -> &Mixture {
        &self.behind.mixture
    }

    /// Hidden states in front of the slot, `[tokens, hidden]`.
    pub fn hidden(&self) -> Option<&Activations> {
        self.hidden.as_ref()
    }

    /// Changes the mixture. What lies behind the slot is forgotten and recomputed at the next step, unless the
    /// mixture is the one in force.
    pub fn set_mixture(&mut self, core: &BaseCore, mixture: Mixture) {
        if !self.behind.mixture.same_as(&mixture) {
            self.behind = BehindSlot::new(core, mixture);
        }
    }

    /// Forgets all tokens from `len` on.
    ///
    /// # Errors
    /// The device fails.
    pub fn truncate(&mut self, len: usize) -> Result<(), CoreError> {
        self.tokens.truncate(len);
        self.understanding.truncate(len);
        if let Some(hidden) = &mut self.hidden {
            hidden.truncate(len)?;
        }
        self.behind.truncate(len);
        Ok(())
    }

    /// Bytes of all caches: KV on both sides of the slot and the hidden states in front of it.
    pub fn bytes(&self) -> usize {
        let behind = self.behind.experts.iter().chain([&self.behind.fusion]);
        let hidden = self.hidden.as_ref().map_or(0, Activations::bytes);
        self.understanding.bytes() + behind.map(KvCache::bytes).sum::<usize>() + hidden
    }

    /// Bytes that a sequence of `tokens` tokens with this mixture takes, for a reservation beforehand.
    pub fn bytes_for(core: &BaseCore, mixture: &Mixture, tokens: usize) -> usize {
        let plans = mixture
            .parts()
            .iter()
            .map(|(expert, _)| expert.plan())
            .chain([&core.understanding, &core.fusion]);
        plans.map(|plan| plan.cache_bytes(tokens)).sum::<usize>()
            + tokens * core.shape().hidden_size * size_of::<f32>()
    }
}

/// Which rows of a step become logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: a prefill whose last token comes later.
    None,
    /// The last token's.
    Last,
    /// Every new token's.
    All,
}

/// One sequence's part of a step.
pub struct Advance<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// Tokens to append, at least one.
    pub tokens: &'a [u32],
    /// What to return.
    pub logits: LogitRows,
}

impl BaseCore {
    /// Appends tokens to several sequences at once, each with a mixture of its own.
    ///
    /// Returns for each sequence its logits `[rows, vocab]`, as [`Advance::logits`] asks for. Long inputs are cut
    /// into chunks. Sequences of one mixture part share the expert's matrix products.
    ///
    /// # Errors
    /// No tokens, too many of them, one outside the vocabulary, a failing device. Every sequence then is what it was
    /// before.
    pub fn advance(&self, batch: &mut [Advance<'_>]) -> Result<Vec<Option<Activations>>, CoreError> {
        for item in batch.iter() {
            if item.tokens.is_empty() {
                return Err(CoreError::mismatch("tokens to append", "at least one", 0));
            }
            self.check_length(item.sequence.tokens.len() + item.tokens.len())?;
        }
        let lengths: Vec<usize> = batch.iter().map(|item| item.sequence.tokens.len()).collect();
        let result = self.understand(batch).and_then(|()| self.behind_slot(batch, &lengths));
        if result.is_err() {
            for (item, &len) in batch.iter_mut().zip(&lengths) {
                item.sequence.truncate(len)?;
            }
        }
        result
    }

    /// Embedding and understanding layers for all new tokens.
    fn understand(&self, batch: &mut [Advance<'_>]) -> Result<(), CoreError> {
        let mut done = vec![0; batch.len()];
        loop {
            let left: Vec<usize> =
                batch.iter().zip(&done).map(|(item, done)| item.tokens.len() - done).collect();
            let Some(counts) = chunk(&left) else { return Ok(()) };
            let mut ids = Vec::new();
            let mut rows = Vec::new();
            for ((item, &count), &done) in batch.iter_mut().zip(&counts).zip(&done) {
                ids.extend_from_slice(&item.tokens[done..done + count]);
                rows.push(SequenceRows { rows: count, cache: &mut item.sequence.understanding });
            }
            let hidden = self.understanding.forward(PlanInput::Tokens(&ids), &mut rows)?;
            let mut first = 0;
            for ((item, &count), done) in batch.iter_mut().zip(&counts).zip(&mut done) {
                let part = hidden.slice_rows(first, count)?;
                let sequence = &mut *item.sequence;
                match &mut sequence.hidden {
                    Some(hidden) => hidden.append(&part)?,
                    hidden => *hidden = Some(part),
                }
                sequence.tokens.extend_from_slice(&item.tokens[*done..*done + count]);
                *done += count;
                first += count;
            }
        }
    }

    /// Slot, fusion layers and head for every token whose fusion KV is not there yet: the new ones, and all earlier
    /// ones after a change of mixture.
    fn behind_slot(
        &self,
        batch: &mut [Advance<'_>],
        first_new: &[usize],
    ) -> Result<Vec<Option<Activations>>, CoreError> {
        let mut logits: Vec<Option<Activations>> = batch.iter().map(|_| None).collect();
        loop {
            let left: Vec<usize> = batch
                .iter()
                .map(|item| item.sequence.tokens.len() - item.sequence.behind.fusion.len())
                .collect();
            let Some(counts) = chunk(&left) else { return Ok(logits) };
            let starts: Vec<usize> = batch.iter().map(|item| item.sequence.behind.fusion.len()).collect();
            let fused = self.fuse(batch, &counts)?;
            let mut rows: Vec<_> = batch
                .iter_mut()
                .zip(&counts)
                .map(|(item, &rows)| SequenceRows { rows, cache: &mut item.sequence.behind.fusion })
                .collect();
            let out = self.fusion.forward(PlanInput::Hidden(&fused), &mut rows)?;

            let mut wanted = Vec::new();
            let mut first = 0;
            for (index, item) in batch.iter().enumerate() {
                let (start, count) = (starts[index], counts[index]);
                let end = start + count;
                let from = match item.logits {
                    LogitRows::None => end,
                    LogitRows::Last => end.min(item.sequence.tokens.len() - 1).max(start),
                    LogitRows::All => end.min(first_new[index]).max(start),
                };
                if from < end {
                    wanted.push((index, out.slice_rows(first + from - start, end - from)?));
                }
                first += count;
            }
            if wanted.is_empty() {
                continue;
            }
            let parts: Vec<&Activations> = wanted.iter().map(|(_, part)| part).collect();
            let all = self.head.forward(PlanInput::Hidden(&Activations::concat_rows(&parts)?), &mut [])?;
            let mut first = 0;
            for (index, part) in &wanted {
                let part_logits = all.slice_rows(first, part.rows())?;
                match &mut logits[*index] {
                    Some(logits) => logits.append(&part_logits)?,
                    logits => *logits = Some(part_logits),
                }
                first += part.rows();
            }
        }
    }

    /// `sum_i w_i E_i(h_s)` for the next `counts` rows of each sequence, `[rows, hidden]`. An expert that several
    /// sequences use runs once for all of them.
    fn fuse(&self, batch: &mut [Advance<'_>], counts: &[usize]) -> Result<Activations, CoreError> {
        let mut parts: Vec<Vec<(Activations, f32)>> = batch.iter().map(|_| Vec::new()).collect();
        let mut pending: Vec<(usize, usize)> = Vec::new();
        for (index, item) in batch.iter().enumerate().filter(|(index, _)| counts[*index] > 0) {
            pending.extend((0..item.sequence.behind.mixture.parts().len()).map(|part| (index, part)));
        }
        // Parts of one sequence are collected in the order of its mixture, so that the sum has one order.
        while let Some(&(index, part)) = pending.first() {
            let expert = batch[index].sequence.behind.mixture.parts()[part].0.clone();
            let users: Vec<(usize, usize)> = pending
                .iter()
                .copied()
                .filter(|&(index, part)| {
                    let mixture = batch[index].sequence.behind.mixture.parts();
                    mixture[part].0.generation() == expert.generation() && parts[index].len() == part
                })
                .collect();
            pending.retain(|user| !users.contains(user));
            let mut inputs = Vec::with_capacity(users.len());
            let mut rows = Vec::with_capacity(users.len());
            let mut weights = Vec::with_capacity(users.len());
            for (index, item) in batch.iter_mut().enumerate() {
                let Some(&(_, part)) = users.iter().find(|(user, _)| *user == index) else { continue };
                let sequence = &mut *item.sequence;
                let Some(hidden) = &sequence.hidden else { continue };
                inputs.push(hidden.slice_rows(sequence.behind.fusion.len(), counts[index])?);
                weights.push((index, sequence.behind.mixture.parts()[part].1));
                rows.push(SequenceRows { rows: counts[index], cache: &mut sequence.behind.experts[part] });
            }
            let input = Activations::concat_rows(&inputs.iter().collect::<Vec<_>>())?;
            let output = expert.plan().forward(PlanInput::Hidden(&input), &mut rows)?;
            let mut first = 0;
            for (index, weight) in weights {
                parts[index].push((output.slice_rows(first, counts[index])?, weight));
                first += counts[index];
            }
        }
        let fused = parts
            .into_iter()
            .filter(|parts| !parts.is_empty())
            .map(Activations::weighted_sum)
            .collect::<Result<Vec<_>, _>>()?;
        Activations::concat_rows(&fused.iter().collect::<Vec<_>>())
    }
}

/// How many rows of each sequence go into the next call, `None` when none are left.
fn chunk(left: &[usize]) -> Option<Vec<usize>> {
    let active = left.iter().filter(|&&left| left > 0).count();
    if active == 0 {
        return None;
    }
    let share = (CHUNK_ROWS / active).max(1);
    Some(left.iter().map(|&left| left.min(share)).collect())
}
