//! The caches of a sequence as named bytes, and back to the bit: what lets a text go on in another process.
//!
//! What is cold stays where it is, in the cold store. Of the rest the rows are kept as they lie in memory, layer by
//! layer, and beside them what they are, in JSON. What is placed before the hot tokens is left out: it comes back with
//! the next step.

use std::borrow::Cow;
use std::collections::HashMap;

use modularbase_context::BlockSummary;
use serde::{Deserialize, Serialize};

use crate::kv_cache::{LayerCache, make_room};
use crate::{BaseCore, BehindCaches, CoreError, KvCache, MixtureKey, Sequence};

use super::Context;
use super::attention_mass::KeptMass;
use super::layer_window::LayerWindow;

/// The part that says what the others are.
const HEAD: &str = "caches";
/// The hidden states in front of the slot.
const HIDDEN: &str = "hidden";

/// A named part of a sequence's caches.
pub type KeptPart<'a> = (String, Cow<'a, [u8]>);

/// Bytes of parts by their names.
type Parts = HashMap<String, Vec<u8>>;

/// What the parts are.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    front: KeptKv,
    /// The first row of the hidden states that is kept here.
    hidden_first: usize,
    behind: Option<KeptBehind>,
}

/// The caches behind the slot.
#[derive(Debug, Serialize, Deserialize)]
struct KeptBehind {
    /// Generations and the bits of their weights.
    mixture: Vec<(String, u32)>,
    experts: Vec<KeptKv>,
    fusion: KeptKv,
}

/// One plan's KV.
#[derive(Debug, Serialize, Deserialize)]
struct KeptKv {
    stream: String,
    tokens: usize,
    /// Bytes of a value: 2 or 4.
    value_bytes: usize,
    layers: Vec<KeptLayer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptLayer {
    width: usize,
    /// The position of the first hot token; 0 where nothing is cold.
    start: usize,
    /// What is known of the attention to its blocks.
    #[serde(default)]
    mass: KeptMass,
}

/// What came back of kept caches.
#[derive(Debug, Default)]
pub struct RestoredCaches {
    /// Those behind the slot, to be attached with their mixture.
    pub behind: Option<BehindCaches>,
}

impl Sequence {
    /// The caches of this sequence, which stays in a window, and those `behind` its slot that are put aside. Parts borrow
    /// rows in host memory.
    ///
    /// # Errors
    /// A sequence without a window, a failing device.
    pub fn kept_caches<'a>(
        &'a self,
        behind: Option<&'a BehindCaches>,
    ) -> Result<Vec<KeptPart<'a>>, CoreError> {
        if self.context.is_none() {
            return Err(CoreError::mismatch("a sequence to be kept", "one in a window", "one without"));
        }
        let mut parts = Vec::new();
        let front = self.understanding.kept(&mut parts)?;
        let (hidden_first, rows) = self.hidden.kept()?;
        parts.push((HIDDEN.to_owned(), Cow::Borrowed(bytemuck::cast_slice(rows))));
        let behind = match behind {
            Some(behind) => Some(KeptBehind {
                mixture: behind.key().parts().to_vec(),
                experts: behind
                    .experts()
                    .iter()
                    .map(|cache| cache.kept(&mut parts))
                    .collect::<Result<_, _>>()?,
                fusion: behind.fusion().kept(&mut parts)?,
            }),
            None => None,
        };
        let head = serde_json::to_vec(&Head { front, hidden_first, behind });
        let head = head.map_err(|error| CoreError::mismatch("kept caches", "their head in JSON", error))?;
        parts.push((HEAD.to_owned(), Cow::Owned(head)));
        Ok(parts)
    }

    /// Takes over what [`Sequence::kept_caches`] gave for a text of these `tokens`, with its cold blocks in this
    /// sequence's store, which knows the tokens already. The sequence holds nothing yet, and nothing either after an
    /// error.
    ///
    /// # Errors
    /// Parts that are missing, are of another base or device, or whose cold blocks are not all there: the text has to be
    /// computed again.
    pub fn restore_caches(
        &mut self,
        core: &BaseCore,
        tokens: &[u32],
        parts: Vec<(String, Vec<u8>)>,
    ) -> Result<RestoredCaches, CoreError> {
        let restored = self.take_over(core, tokens, parts.into_iter().collect());
        if restored.is_err() {
            let empty = Self::detached(core);
            self.understanding =
                core.understanding.new_cache().within(self.context.as_ref(), "understanding");
            self.hidden = empty.hidden;
        }
        restored
    }

    fn take_over(
        &mut self,
        core: &BaseCore,
        tokens: &[u32],
        mut parts: Parts,
    ) -> Result<RestoredCaches, CoreError> {
        let Some(context) = self.context.clone() else {
            return Err(CoreError::mismatch("a sequence that goes on", "one in a window", "one without"));
        };
        let head: Head = serde_json::from_slice(&taken(&mut parts, HEAD)?)
            .map_err(|error| CoreError::mismatch("kept caches", "a head that can be read", error))?;
        let fresh = core.understanding.new_cache();
        self.understanding.restore(&head.front, &context, &mut parts)?;
        same("tokens of kept caches", tokens.len(), head.front.tokens)?;
        same("layers of kept caches", fresh.layer_count(), head.front.layers.len())?;
        self.hidden.restore(head.hidden_first, tokens.len(), &taken(&mut parts, HIDDEN)?, &context)?;
        make_room(&mut self.tokens, tokens.len(), 1);
        self.tokens.extend_from_slice(tokens);
        let Some(behind) = head.behind else { return Ok(RestoredCaches::default()) };
        // What lies behind the slot can be computed from the hidden states.
        let behind = restored_behind(behind, &fresh, tokens, &context, &mut parts);
        if let Err(error) = &behind {
            tracing::debug!(%error, "caches behind the slot are computed again");
        }
        Ok(RestoredCaches { behind: behind.ok() })
    }
}

fn restored_behind(
    kept: KeptBehind,
    fresh: &KvCache,
    tokens: &[u32],
    context: &Context,
    parts: &mut Parts,
) -> Result<BehindCaches, CoreError> {
    let mut restore = |kept: &KeptKv| -> Result<KvCache, CoreError> {
        let mut cache =
            fresh.emptied(kept.layers.iter().map(|layer| layer.width)).within(Some(context), &kept.stream);
        cache.restore(kept, context, parts)?;
        Ok(cache)
    };
    let experts = kept.experts.iter().map(&mut restore).collect::<Result<Vec<_>, _>>()?;
    let fusion = restore(&kept.fusion)?;
    let known = tokens.get(..fusion.len());
    let known =
        known.ok_or_else(|| CoreError::mismatch("tokens behind the slot", tokens.len(), fusion.len()))?;
    Ok(BehindCaches::of(MixtureKey::of(kept.mixture), known.to_vec(), experts, fusion))
}

impl KvCache {
    /// What it is, its rows put into `parts`.
    fn kept<'a>(&'a self, parts: &mut Vec<KeptPart<'a>>) -> Result<KeptKv, CoreError> {
        let (stream, tokens) = (self.stream().to_owned(), self.len());
        let mut layers = Vec::with_capacity(self.layer_count());
        for index in 0..self.layer_count() {
            let LayerCache { width, keys, values, window } = self.layer(index);
            let (start, row, sinks) = window.kept();
            let mut part = |what: &str, bytes: Cow<'a, [u8]>| {
                parts.push((format!("{stream}/{index}/{what}"), bytes));
            };
            part("keys", keys.bytes_from(row * width)?);
            part("values", values.bytes_from(row * width)?);
            if start > 0 {
                part("sink-keys", Cow::Borrowed(bytemuck::cast_slice(sinks[0])));
                part("sink-values", Cow::Borrowed(bytemuck::cast_slice(sinks[1])));
            }
            layers.push(KeptLayer { width: *width, start, mass: window.kept_mass() });
        }
        Ok(KeptKv { stream, tokens, value_bytes: self.value_bytes(), layers })
    }

    /// Takes the rows out of `parts`.
    fn restore(&mut self, kept: &KeptKv, context: &Context, parts: &mut Parts) -> Result<(), CoreError> {
        let shape = &context.shape;
        let KeptKv { stream, tokens, layers, .. } = kept;
        let value_bytes = self.value_bytes();
        same("bytes of a kept value", value_bytes, kept.value_bytes)?;
        for (index, KeptLayer { width, start, mass }) in layers.iter().enumerate() {
            let (width, start) = (*width, *start);
            if index >= self.layer_count() {
                return Err(CoreError::mismatch("layers of kept caches", self.layer_count(), layers.len()));
            }
            let cache = self.layer_mut(index);
            same("width of a kept layer", cache.width, width)?;
            let aligned = start.is_multiple_of(shape.block) && (start == 0 || start > shape.sinks);
            if !aligned || start > *tokens {
                return Err(CoreError::mismatch("begin of a kept window", "a whole block's", start));
            }
            let mut rows = |what: &str| taken(parts, &format!("{stream}/{index}/{what}"));
            let (keys, values) = (rows("keys")?, rows("values")?);
            let wanted = (tokens - start) * width * value_bytes;
            same("bytes of a kept layer's keys", wanted, keys.len())?;
            same("bytes of a kept layer's values", wanted, values.len())?;
            let row = if start == 0 { 0 } else { shape.front() };
            cache.keys.restore(row * width, &keys, width)?;
            cache.values.restore(row * width, &values, width)?;
            drop((keys, values));
            if start == 0 {
                cache.window.restore_mass(mass);
                continue;
            }
            let sinks = [rows("sink-keys")?, rows("sink-values")?];
            for bytes in &sinks {
                same("bytes of kept sinks", shape.sinks * width * size_of::<u16>(), bytes.len())?;
            }
            let summaries = context.store.summaries(stream, index as u32)?;
            let cold = start / shape.block;
            if summaries.len() < cold || summaries.iter().any(|summary| summary.bounds.len() != 2 * width) {
                let expected = format!("{cold} of {width} channels");
                return Err(CoreError::mismatch("cold blocks of a kept layer", expected, summaries.len()));
            }
            cache.window = LayerWindow::restored(start, row, sinks.map(|bytes| numbers(&bytes)));
            cache.window.restore_mass(mass);
            let choosable: &[BlockSummary] = &summaries[shape.sinks / shape.block..cold];
            choosable.iter().for_each(|summary| cache.window.learn(summary));
        }
        self.advance(*tokens);
        Ok(())
    }
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|&bytes| u16::from_ne_bytes(bytes)).collect()
}

fn taken(parts: &mut Parts, name: &str) -> Result<Vec<u8>, CoreError> {
    parts.remove(name).ok_or_else(|| CoreError::mismatch("parts of kept caches", format!("`{name}`"), "none"))
}

fn same(what: &'static str, expected: usize, found: usize) -> Result<(), CoreError> {
    if expected == found { Ok(()) } else { Err(CoreError::mismatch(what, expected, found)) }
}
