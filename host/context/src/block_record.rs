//! One block as it lies in a file: a head with its key, a summary, and the encoded keys and values.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | `MBRC` |
//! | 4 | CRC-32C of the head from here on: fields, stream, summary |
//! | 4 | CRC-32C of the payload |
//! | 4 | bytes of the payload |
//! | 4 | layer |
//! | 4 | block |
//! | 2, 2, 4 | KV heads, head dimension, tokens of the block; all 0 for plain bytes |
//! | 2 | bits of a key or value; 0 for plain bytes |
//! | 2 | bytes of the stream's name |
//! | 4 | bytes of the summary |
//! | 32 | hash of the tokens up to the block's end |
//! | .. | stream, summary, payload |
//!
//! Little-endian. Records follow each other without a gap.

use crate::token_chain::ChainHash;
use crate::{BlockId, KvBits, KvShape};

const MAGIC: [u8; 4] = *b"MBRC";
const FIXED: usize = 72;

/// What a record's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Kv(KvBits, KvShape),
    Bytes,
}

impl Content {
    /// Bits of a key or value; 0 for plain bytes.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::Kv(bits, _) => bits.count() as u8,
            Self::Bytes => 0,
        }
    }
}

/// The head of a record, without its summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: String,
    pub(crate) layer: u32,
    pub(crate) index: u32,
    pub(crate) chain: ChainHash,
    pub(crate) content: Content,
    /// Bytes of head, stream and summary: where the payload begins.
    pub(crate) bytes: usize,
    pub(crate) payload_bytes: usize,
    payload_crc: u32,
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// They may be the beginning of one of this length.
    Short(usize),
    Damaged(&'static str),
}

/// A whole record. `stream` is at most 65,535 bytes, summary and payload each less than 4 GiB.
pub(crate) fn record(
    BlockId { stream, layer, index }: BlockId<'_>,
    chain: &ChainHash,
    content: Content,
    summary: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let (bits, heads, head_dim, tokens) = match content {
        Content::Kv(bits, shape) => (bits.count(), shape.kv_heads, shape.head_dim, shape.block_tokens),
        Content::Bytes => (0, 0, 0, 0),
    };
    let mut bytes = Vec::with_capacity(FIXED + stream.len() + summary.len() + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&layer.to_le_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.extend_from_slice(&(heads as u16).to_le_bytes());
    bytes.extend_from_slice(&(head_dim as u16).to_le_bytes());
    bytes.extend_from_slice(&(tokens as u32).to_le_bytes());
    bytes.extend_from_slice(&(bits as u16).to_le_bytes());
    bytes.extend_from_slice(&(stream.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&(summary.len() as u32).to_le_bytes());
    bytes.extend_from_slice(chain);
    bytes.extend_from_slice(stream.as_bytes());
    bytes.extend_from_slice(summary);
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

impl Head {
    /// The head at the beginning of `bytes`, which may end anywhere behind it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeadFault> {
        let Some(fixed) = bytes.first_chunk::<FIXED>() else {
            return Err(HeadFault::Short(FIXED));
        };
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let short = |at: usize| usize::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
        if fixed[..4] != MAGIC {
            return Err(HeadFault::Damaged("no record begins there"));
        }
        let (stream_bytes, summary_bytes) = (short(34), word(36) as usize);
        let length = FIXED + stream_bytes + summary_bytes;
        let Some(head) = bytes.get(..length) else {
            return Err(HeadFault::Short(length));
        };
        if crc32c::crc32c(&head[8..]) != word(4) {
            return Err(HeadFault::Damaged("the head's checksum is another one"));
        }
        let content = match (short(32), KvBits::from_count(short(32))) {
            (0, _) => Content::Bytes,
            (_, Some(bits)) => {
                let shape =
                    KvShape { kv_heads: short(24), head_dim: short(26), block_tokens: word(28) as usize };
                Content::Kv(bits, shape)
            }
            (_, None) => return Err(HeadFault::Damaged("no such number of bits")),
        };
        let mut chain = [0; 32];
        chain.copy_from_slice(&fixed[40..72]);
        Ok(Self {
            stream: String::from_utf8_lossy(&head[FIXED..FIXED + stream_bytes]).into_owned(),
            layer: word(16),
            index: word(20),
            chain,
            content,
            bytes: length,
            payload_bytes: word(12) as usize,
            payload_crc: word(8),
        })
    }

    /// Where the payload of a record begins.
    pub(crate) fn payload_start(record: &[u8]) -> u32 {
        let payload_bytes = u32::from_le_bytes([record[12], record[13], record[14], record[15]]);
        record.len() as u32 - payload_bytes
    }

    /// Bits of a key or value of a record; 0 for plain bytes.
    pub(crate) fn bits(record: &[u8]) -> u8 {
        record[32]
    }

    /// Whether it is the head of this block, of a text with this hash.
    pub(crate) fn is_of(&self, id: BlockId<'_>, chain: &ChainHash) -> bool {
        (self.stream.as_str(), self.layer, self.index) == (id.stream, id.layer, id.index)
            && self.chain == *chain
    }

    /// The summary in a record with this head.
    pub(crate) fn summary<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[FIXED + self.stream.len()..self.bytes]
    }

    /// The payload in a record with this head, where its checksum is right.
    pub(crate) fn payload<'a>(&self, record: &'a [u8]) -> Result<&'a [u8], &'static str> {
        match record.get(self.bytes..self.bytes + self.payload_bytes) {
            None => Err("it is cut off"),
            Some(payload) if crc32c::crc32c(payload) != self.payload_crc => {
                Err("its checksum is another one")
            }
            Some(payload) => Ok(payload),
        }
    }
}
