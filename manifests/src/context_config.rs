//! `[context]` of the host's configuration: texts longer than a window, and how much of them stays at hand.

use crate::byte_size::ByteSize;
use crate::document::Problem;

/// The largest number of tokens below: more is a mistake.
const MAX_TOKENS: u32 = 1 << 20;

/// `[context]` as written.
#[derive(
    Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct ContextConfig {
    /// Whether a text may be longer than the window below, and so than the base's own context.
    /// Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The latest tokens, at full precision: whole blocks; default 2048. A window moves on by an eighth of them at a time,
    /// and holds that much more before it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_tokens: Option<u32>,
    /// Tokens of a block; default 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<u32>,
    /// Bits of a key or value in a cold block: 2, 4, 8 or 16; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// The first tokens, which always stay: whole blocks, at most `hot_tokens`; default 64. Of a conversation with
    /// instructions at least these do, as far as the window has room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sinks: Option<u32>,
    /// Cold blocks that come back for a step, at most; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieved_blocks: Option<u32>,
    /// Percent of the mean attention of its layer's blocks from which on a cold block is critical and kept whole, at 16
    /// bits; 0 for none, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_percent: Option<u32>,
    /// Percent of it below which a cold block is redundant: means of sixteen tokens are kept; 0 for none, which is the
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redundant_percent: Option<u32>,
    /// Decoded cold blocks in memory, of each text; default 64MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram: Option<ByteSize>,
}

/// `[context]` with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextSettings {
    /// See [`ContextConfig::enabled`].
    pub enabled: bool,
    /// See [`ContextConfig::hot_tokens`].
    pub hot_tokens: u32,
    /// See [`ContextConfig::block_tokens`].
    pub block_tokens: u32,
    /// See [`ContextConfig::bits`].
    pub bits: u32,
    /// See [`ContextConfig::sinks`].
    pub sinks: u32,
    /// See [`ContextConfig::retrieved_blocks`].
    pub retrieved_blocks: u32,
    /// See [`ContextConfig::critical_percent`].
    pub critical_percent: u32,
    /// See [`ContextConfig::redundant_percent`].
    pub redundant_percent: u32,
    /// See [`ContextConfig::ram`].
    pub ram: ByteSize,
}

impl Default for ContextSettings {
    fn default() -> Self {
        ContextConfig::default().settings()
    }
}

impl ContextConfig {
    /// What this level says, else what `lower` says.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            enabled: self.enabled.or(lower.enabled),
            hot_tokens: self.hot_tokens.or(lower.hot_tokens),
            block_tokens: self.block_tokens.or(lower.block_tokens),
            bits: self.bits.or(lower.bits),
            sinks: self.sinks.or(lower.sinks),
            retrieved_blocks: self.retrieved_blocks.or(lower.retrieved_blocks),
            critical_percent: self.critical_percent.or(lower.critical_percent),
            redundant_percent: self.redundant_percent.or(lower.redundant_percent),
            ram: self.ram.or(lower.ram),
        }
    }

    /// With the built-in values where nothing was said.
    pub fn settings(self) -> ContextSettings {
        ContextSettings {
            enabled: self.enabled.unwrap_or(false),
            hot_tokens: self.hot_tokens.unwrap_or(2048),
            block_tokens: self.block_tokens.unwrap_or(64),
            bits: self.bits.unwrap_or(8),
            sinks: self.sinks.unwrap_or(64),
            retrieved_blocks: self.retrieved_blocks.unwrap_or(8),
            critical_percent: self.critical_percent.unwrap_or(0),
            redundant_percent: self.redundant_percent.unwrap_or(0),
            ram: self.ram.unwrap_or(ByteSize::mib(64)),
        }
    }

    /// Faults of meaning. Whether the window fits the base is known only where the base is.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let settings = self.clone().settings();
        let ContextSettings { hot_tokens, block_tokens, bits, sinks, retrieved_blocks, .. } = settings;
        let mut problems = Vec::new();
        for (key, value, least) in [
            ("hot_tokens", hot_tokens, 1),
            ("block_tokens", block_tokens, 1),
            ("sinks", sinks, 0),
            ("retrieved_blocks", retrieved_blocks, 0),
        ] {
            if !(least..=MAX_TOKENS).contains(&value) {
                let message = format!("{key} must be {least} to {MAX_TOKENS}, found {value}");
                problems.push(Problem::new(&["context", key], message));
            }
        }
        if ![2, 4, 8, 16].contains(&bits) {
            let message = format!("bits must be 2, 4, 8 or 16, found {bits}");
            problems.push(Problem::new(&["context", "bits"], message).help("leave it out for 8"));
        }
        for (key, value) in [("hot_tokens", hot_tokens), ("sinks", sinks)] {
            if block_tokens > 0 && !value.is_multiple_of(block_tokens) {
                let message = format!("{key} must be whole blocks of {block_tokens} tokens, found {value}");
                problems.push(Problem::new(&["context", key], message));
            }
        }
        if sinks > hot_tokens {
            let message = format!("sinks must be at most hot_tokens, {hot_tokens}, found {sinks}");
            problems.push(Problem::new(&["context", "sinks"], message));
        }
        let ContextSettings { critical_percent: critical, redundant_percent: redundant, .. } = settings;
        if critical > 0 && redundant > critical {
            let message =
                format!("redundant_percent must be at most critical_percent, {critical}, found {redundant}");
            problems.push(Problem::new(&["context", "redundant_percent"], message));
        }
        problems
    }
}
