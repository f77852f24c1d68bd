//! The place in the base where packs work.

use std::fmt;

/// The layers `[start, end)` of a base that packs stand for: a pack takes the hidden state after layer `start - 1` and
/// gives the one that enters layer `end`. `start < end` always holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "SlotFields")]
pub struct Slot {
    start: u32,
    end: u32,
}

/// The layers `[start, end)` of a base that packs stand for; start < end.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Slot")]
struct SlotFields {
    /// The first layer inside.
    start: u32,
    /// The first layer behind.
    end: u32,
}

/// A slot without a layer in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot [{start}, {end}) holds no layer: start must lie below end")]
pub struct EmptySlot {
    start: u32,
    end: u32,
}

impl Slot {
    /// The layers `[start, end)`. Error: `start >= end`.
    pub const fn new(start: u32, end: u32) -> Result<Self, EmptySlot> {
        if start < end { Ok(Self { start, end }) } else { Err(EmptySlot { start, end }) }
    }

    /// The first layer inside.
    pub const fn start(self) -> u32 {
        self.start
    }

    /// The first layer behind.
    pub const fn end(self) -> u32 {
        self.end
    }

    /// The number of layers inside, at least 1.
    pub const fn layers(self) -> u32 {
        self.end - self.start
    }
}

impl TryFrom<SlotFields> for Slot {
    type Error = EmptySlot;

    fn try_from(fields: SlotFields) -> Result<Self, EmptySlot> {
        Self::new(fields.start, fields.end)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}
