//! A short text whose way to the slot is known: what many mixtures make of it, each expert run once.

use std::collections::HashMap;
use std::ops::Range;

use modularbase_core::{Activations, CHUNK_ROWS, CoreError, Mixture};
use modularbase_residency::{Owner, Reservation};

use crate::output_attention::attended;
use crate::scoring::{LOGIT_ROWS, loss};
use crate::{EngineError, Host, working_memory::Work};

/// A text, its hidden states in front of the slot, and what experts made of them so far.
pub struct KnownText<'a> {
    host: &'a Host,
    ids: Vec<u32>,
    hidden: Activations,
    /// By generation.
    outputs: HashMap<String, Activations>,
    /// Of the hidden states and outputs.
    memory: Reservation,
}

impl<'a> KnownText<'a> {
    /// Reads a text of 2 to 512 tokens up to the slot.
    ///
    /// # Errors
    /// Another length, not enough memory, a failing device.
    pub fn read(host: &'a Host, ids: &[u32]) -> Result<Self, EngineError> {
        let bytes = ids.len() * host.core().shape().hidden_size * size_of::<f32>();
        let memory = host.reserve(Owner::Scratch, bytes as u64)?;
        let hidden = {
            let _step = host.begin_step();
            host.core().hidden_before_slot(ids)?
        };
        Self::with(host, ids, hidden, memory)
    }

    /// A text that was read, with its hidden states `[tokens, hidden]`.
    ///
    /// # Errors
    /// As [`KnownText::read`].
    pub(crate) fn of(host: &'a Host, ids: &[u32], hidden: Activations) -> Result<Self, EngineError> {
        let memory = host.reserve(Owner::Scratch, hidden.bytes() as u64)?;
        Self::with(host, ids, hidden, memory)
    }

    fn with(
        host: &'a Host,
        ids: &[u32],
        hidden: Activations,
        memory: Reservation,
    ) -> Result<Self, EngineError> {
        if !(2..=CHUNK_ROWS).contains(&ids.len()) || hidden.rows() != ids.len() {
            let found = format!("{} tokens with {} hidden states", ids.len(), hidden.rows());
            let expected = format!("2 to {CHUNK_ROWS} tokens, each with its hidden state");
            return Err(CoreError::Mismatch { what: "a known text", expected, found }.into());
        }
        Ok(Self { host, ids: ids.to_vec(), hidden, outputs: HashMap::new(), memory })
    }

    /// Hidden states in front of the slot of some of its tokens, `[tokens, hidden]`.
    ///
    /// # Errors
    /// Tokens that are not there.
    pub fn hidden_of(&self, tokens: Range<usize>) -> Result<Activations, EngineError> {
        Ok(self.hidden.slice_rows(tokens.start, tokens.len())?)
    }

    /// The mean loss of the tokens from `from` on, at least 1, given those before them, nats a token.
    ///
    /// # Errors
    /// As [`KnownText::losses`].
    pub fn loss(&mut self, mixture: &Mixture, from: usize) -> Result<f64, EngineError> {
        let losses = self.losses(mixture, from)?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The loss of each token from `from` on, at least 1, given those before it, nats.
    ///
    /// # Errors
    /// No token from `from` on, not enough memory, a failing device.
    pub fn losses(&mut self, mixture: &Mixture, from: usize) -> Result<Vec<f64>, EngineError> {
        self.losses_of(mixture, from, |_, outputs| Activations::weighted_sum(outputs))
    }

    /// As [`KnownText::losses`], the outputs of the mixture's experts fused by attention of this sharpness in place of their
    /// weighted sum; on the CPU.
    ///
    /// # Errors
    /// As [`KnownText::losses`], and on a device that is not the CPU.
    pub fn losses_attended(
        &mut self,
        mixture: &Mixture,
        from: usize,
        sharpness: f32,
    ) -> Result<Vec<f64>, EngineError> {
        self.losses_of(mixture, from, |hidden, outputs| attended(hidden, &outputs, sharpness))
    }

    /// The losses where the outputs of the mixture's experts, each with its weight, become one by `fuse`, which is given the
    /// hidden states in front of the slot too.
    fn losses_of(
        &mut self,
        mixture: &Mixture,
        from: usize,
        fuse: impl FnOnce(&Activations, Vec<(Activations, f32)>) -> Result<Activations, CoreError>,
    ) -> Result<Vec<f64>, EngineError> {
        let tokens = self.ids.len();
        if !(1..tokens).contains(&from) {
            let expected = format!("1 to {}", tokens - 1);
            let found = from.to_string();
            return Err(CoreError::Mismatch { what: "the first token to predict", expected, found }.into());
        }
        let _kv = self.host.reserve_kv(mixture, tokens)?;
        let logit_rows = LOGIT_ROWS.min(tokens - from);
        let work = Work { rows: tokens, context: tokens, logit_rows, window: None };
        let _working = self.host.begin_work(mixture, work)?;
        let _step = self.host.begin_step();
        let mut parts = Vec::with_capacity(mixture.parts().len());
        for (expert, weight) in mixture.parts() {
            if !self.outputs.contains_key(expert.generation()) {
                let bytes = self.memory.bytes() + self.hidden.bytes() as u64;
                self.host.grow(&mut self.memory, bytes)?;
                self.outputs.insert(expert.generation().to_owned(), expert.output(&self.hidden)?);
            }
            parts.push((self.outputs[expert.generation()].clone(), *weight));
        }
        let core = self.host.core();
        let behind = core.hidden_behind_fusion(&fuse(&self.hidden, parts)?)?;
        let mut losses = Vec::with_capacity(tokens - from);
        for first in (from - 1..tokens - 1).step_by(LOGIT_ROWS) {
            let count = LOGIT_ROWS.min(tokens - 1 - first);
            let logits = core.head_logits(&behind.slice_rows(first, count)?)?.to_vec()?;
            let rows = logits.chunks_exact(core.shape().vocab_size);
            losses.extend(rows.zip(&self.ids[first + 1..]).map(|(row, &next)| loss(row, next)));
        }
        Ok(losses)
    }
}
