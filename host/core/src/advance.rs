//! How a batch of sequences moves forward through the slot.

use crate::{
    Activations, BaseCore, CoreError, PlanInput, Sequence, SequenceRows, behind_slot::BehindSlot,
    context::Purpose,
};

/// Rows that go through a plan in one call. Larger calls gain nothing on a CPU and need more scratch memory.
pub const CHUNK_ROWS: usize = 512;

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

impl Advance<'_> {
    fn behind(&self) -> Result<&BehindSlot, CoreError> {
        self.sequence.behind.as_ref().ok_or(CoreError::Detached)
    }

    fn behind_mut(&mut self) -> Result<&mut BehindSlot, CoreError> {
        self.sequence.behind.as_mut().ok_or(CoreError::Detached)
    }
}

impl BaseCore {
    /// Appends tokens to several sequences at once, each with a mixture of its own.
    ///
    /// Returns for each sequence its logits `[rows, vocab]`, as [`Advance::logits`] asks for. Long inputs are cut
    /// into chunks. Sequences of one mixture part share the expert's matrix products.
    ///
    /// # Errors
    /// No tokens, too many of them, one outside the vocabulary, a detached sequence, a failing device. Every sequence
    /// then is what it was before.
    pub fn advance(&self, batch: &mut [Advance<'_>]) -> Result<Vec<Option<Activations>>, CoreError> {
        for item in batch.iter() {
            if item.tokens.is_empty() {
                return Err(CoreError::mismatch("tokens to append", "at least one", 0));
            }
            item.behind()?;
            // A window places every token within the positions that the base knows.
            if item.sequence.context().is_none() {
                self.check_length(item.sequence.tokens().len() + item.tokens.len())?;
            }
        }
        let lengths: Vec<usize> = batch.iter().map(|item| item.sequence.tokens().len()).collect();
        let result = self.look(batch).and_then(|done| self.steps(batch, &lengths, done));
        if result.is_err() {
            for (item, &len) in batch.iter_mut().zip(&lengths) {
                item.sequence.truncate(len);
            }
        }
        result
    }

    /// Before an answer, reads the last rows of texts with cold blocks a first time, so that all layers know which blocks any
    /// of them wants: how many tokens of each sequence needn't be read again.
    fn look(&self, batch: &mut [Advance<'_>]) -> Result<Vec<usize>, CoreError> {
        let look = |item: &mut Advance<'_>| {
            let Some(context) = item.sequence.context.clone() else { return Ok(0) };
            if item.tokens.len() == 1 && context.interest.purpose() == Purpose::Answering {
                context.interest.begin(Purpose::Answering);
                return Ok(0);
            }
            context.interest.begin(Purpose::Reading);
            let len = item.sequence.tokens().len();
            let first = context.shape.look_from(len, item.tokens.len());
            let Some(first) = first.filter(|_| item.logits == LogitRows::Last) else { return Ok(0) };
            let (before, last) = item.tokens.split_at(first - len);
            let sequence = &mut *item.sequence;
            let mut read = |tokens, len| {
                let step = Advance { sequence, tokens, logits: LogitRows::None };
                self.steps(&mut [step], &[len], vec![0])
            };
            read(before, len)?;
            context.interest.begin(Purpose::Looking);
            read(last, first)?;
            sequence.cut(first);
            context.interest.begin(Purpose::Answering);
            Ok(before.len())
        };
        batch.iter_mut().map(look).collect()
    }

    /// Chunk by chunk through all layers, so that the hidden states of one are at hand when the slot needs them. Of each
    /// sequence's tokens, `done` are done.
    fn steps(
        &self,
        batch: &mut [Advance<'_>],
        lengths: &[usize],
        mut done: Vec<usize>,
    ) -> Result<Vec<Option<Activations>>, CoreError> {
        let mut logits: Vec<Logits> = batch.iter().map(|_| Logits::default()).collect();
        for (logits, item) in logits.iter_mut().zip(batch.iter()) {
            logits.rows = match item.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => item.tokens.len(),
            };
        }
        let ends: Vec<usize> =
            batch.iter().zip(lengths).map(|(item, length)| length + item.tokens.len()).collect();
        while self.understand(batch, &mut done)? {
            self.behind_slot(batch, &ends, &mut logits)?;
        }
        Ok(logits.into_iter().map(|logits| logits.found).collect())
    }

    /// Embedding and understanding layers for the next chunk of new tokens, of which `done` are done; `false` when none
    /// are left.
    fn understand(&self, batch: &mut [Advance<'_>], done: &mut [usize]) -> Result<bool, CoreError> {
        let left: Vec<usize> =
            batch.iter().zip(&*done).map(|(item, done)| item.tokens.len() - done).collect();
        let Some(counts) = chunk(&left) else { return Ok(false) };
        let mut ids = Vec::with_capacity(counts.iter().sum());
        let mut rows = Vec::with_capacity(batch.len());
        for ((item, &count), &done) in batch.iter_mut().zip(&counts).zip(&*done) {
            let tokens = &item.tokens[done..done + count];
            ids.extend_from_slice(tokens);
            // Before they are computed: a window may let go of blocks that end in this very chunk.
            item.sequence.push_tokens(tokens);
            rows.push(SequenceRows { rows: count, cache: &mut item.sequence.understanding });
        }
        let hidden = self.understanding.forward(PlanInput::Tokens(&ids), &mut rows)?;
        let parts = hidden.split_rows(&counts)?;
        for (((item, &count), done), part) in batch.iter_mut().zip(&counts).zip(done).zip(parts) {
            item.sequence.append_hidden(&part)?;
            *done += count;
        }
        Ok(true)
    }

    /// Slot, fusion layers and head for every token whose fusion KV is not there yet: the new ones, and all earlier
    /// ones after a change of mixture. Each sequence will be as long as `ends` says.
    fn behind_slot(
        &self,
        batch: &mut [Advance<'_>],
        ends: &[usize],
        logits: &mut [Logits],
    ) -> Result<(), CoreError> {
        loop {
            let starts = batch
                .iter()
                .map(|item| Ok(item.behind()?.fusion.len()))
                .collect::<Result<Vec<_>, CoreError>>()?;
            let left: Vec<usize> =
                batch.iter().zip(&starts).map(|(item, start)| item.sequence.tokens().len() - start).collect();
            let Some(counts) = chunk(&left) else { return Ok(()) };
            let fused = self.fuse(batch, &counts)?;
            let mut rows = Vec::with_capacity(batch.len());
            for (item, &count) in batch.iter_mut().zip(&counts) {
                rows.push(SequenceRows { rows: count, cache: &mut item.behind_mut()?.fusion });
            }
            let out = self.fusion.forward(PlanInput::Hidden(&fused), &mut rows)?;
            drop(fused);

            let mut wanted = Vec::new();
            let mut first = 0;
            for index in 0..batch.len() {
                let (start, count) = (starts[index], counts[index]);
                let end = start + count;
                let from = (ends[index] - logits[index].rows).clamp(start, end);
                if from < end {
                    wanted.push((index, out.slice_rows(first + from - start, end - from)?));
                }
                first += count;
            }
            drop(out);
            if wanted.is_empty() {
                continue;
            }
            let (indices, parts): (Vec<usize>, Vec<Activations>) = wanted.into_iter().unzip();
            let counts: Vec<usize> = parts.iter().map(Activations::rows).collect();
            let all = self.head.forward(PlanInput::Hidden(&Activations::concat_rows(parts)?), &mut [])?;
            for (index, part) in indices.into_iter().zip(all.split_rows(&counts)?) {
                logits[index].add(part)?;
            }
        }
    }

    /// `sum_i w_i E_i(h_s)` for the next `counts` rows of each sequence, `[rows, hidden]`. An expert that several
    /// sequences use runs once for all of them.
    fn fuse(&self, batch: &mut [Advance<'_>], counts: &[usize]) -> Result<Activations, CoreError> {
        let mut parts: Vec<Vec<(Activations, f32)>> = batch.iter().map(|_| Vec::new()).collect();
        let mut pending: Vec<(usize, usize)> = Vec::new();
        for (index, item) in batch.iter().enumerate().filter(|(index, _)| counts[*index] > 0) {
            pending.extend((0..item.behind()?.mixture.parts().len()).map(|part| (index, part)));
        }
        // Parts of one sequence are collected in the order of its mixture, so that the sum has one order.
        while let Some(&(index, part)) = pending.first() {
            let expert = batch[index].behind()?.mixture.parts()[part].0.clone();
            let mut users = Vec::with_capacity(batch.len());
            for &(index, part) in &pending {
                let known = &batch[index].behind()?.mixture.parts()[part].0;
                if known.generation() == expert.generation() && parts[index].len() == part {
                    users.push((index, part));
                }
            }
            pending.retain(|user| !users.contains(user));
            let mut inputs = Vec::with_capacity(users.len());
            let mut rows = Vec::with_capacity(users.len());
            let mut weights = Vec::with_capacity(users.len());
            let mut user_counts = Vec::with_capacity(users.len());
            for (index, item) in batch.iter_mut().enumerate() {
                let Some(&(_, part)) = users.iter().find(|(user, _)| *user == index) else { continue };
                let sequence = &mut *item.sequence;
                let behind = sequence.behind.as_mut().ok_or(CoreError::Detached)?;
                inputs.push(sequence.hidden.slice(
                    behind.fusion.len(),
                    counts[index],
                    sequence.context.as_ref(),
                )?);
                weights.push((index, behind.mixture.parts()[part].1));
                user_counts.push(counts[index]);
                rows.push(SequenceRows { rows: counts[index], cache: &mut behind.experts[part] });
            }
            let output = {
                let input = Activations::concat_rows(inputs)?;
                expert.plan().forward(PlanInput::Hidden(&input), &mut rows)?
            };
            for ((index, weight), part) in weights.into_iter().zip(output.split_rows(&user_counts)?) {
                parts[index].push((part, weight));
            }
        }
        let fused = parts
            .into_iter()
            .filter(|parts| !parts.is_empty())
            .map(Activations::weighted_sum)
            .collect::<Result<Vec<_>, _>>()?;
        Activations::concat_rows(fused)
    }
}

/// The logits of one sequence, as they come in chunk by chunk.
#[derive(Default)]
struct Logits {
    /// How many are asked for.
    rows: usize,
    found: Option<Activations>,
}

impl Logits {
    fn add(&mut self, part: Activations) -> Result<(), CoreError> {
        match &mut self.found {
            None if part.rows() == self.rows => self.found = Some(part),
            None => self.found = Some(part.with_room(self.rows)),
            Some(found) => found.append(&part)?,
        }
        Ok(())
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
