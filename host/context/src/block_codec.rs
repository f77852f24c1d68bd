//! Blocks of KV in 16, 8, 4, 2 or 1 bits a value.
//!
//! Keys are coded by channel and values by token and head, as KIVI does (Liu et al. 2024, arXiv 2402.02750):
//! keys have channels that are large in every token, values have not. A group's levels lie evenly between its
//! minimum, called zero, and its maximum: `value = zero + step * code`, zero and step in f16. Four levels are too few for
//! that: at 2 bits zero and step are those with the least squared error that a short search finds (`four_levels.rs`). At 16
//! bits the f16 are stored as they are, at 1 bit the mean of every sixteen tokens is (`means.rs`).
//!
//! Little-endian, in this order: the keys' zeros and steps (`width` f16 each), the values' zeros and steps
//! (`block_tokens * kv_heads` f16 each), the keys' codes, the values' codes, both row by row. A row of codes
//! is cut into as many equal parts as a byte holds codes, and byte `j` holds code `j` of each part, the first
//! part in its lowest bits, so that one shift and one mask give neighbours.

mod four_levels;
mod means;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::{KvBits, KvShape};

/// An encoded block that isn't what its bits and shape ask for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a block of {tokens} tokens, {width} channels and {bits} bits takes {expected} bytes, found {found}")]
pub struct CodecError {
    tokens: usize,
    width: usize,
    bits: usize,
    expected: usize,
    found: usize,
}

/// Bytes of an encoded block.
pub fn encoded_bytes(bits: KvBits, shape: KvShape) -> usize {
    match bits {
        KvBits::B16 => 4 * shape.elements(),
        KvBits::B1 => means::encoded_bytes(shape),
        _ => {
            let groups = shape.width() + shape.block_tokens * shape.kv_heads;
            4 * groups + 2 * shape.block_tokens * RowCodes::new(bits, shape.width()).part
        }
    }
}

/// Encodes the keys and values of a block, both `[block_tokens, kv_heads * head_dim]`, bits of f16. What is
/// no number counts as 0, what is infinite as the largest f16.
///
/// # Panics
/// When the slices haven't the shape's length.
pub fn encode_block(bits: KvBits, shape: KvShape, keys: &[u16], values: &[u16]) -> Vec<u8> {
    assert_eq!((keys.len(), values.len()), (shape.elements(), shape.elements()), "a block of {shape:?}");
    let mut encoded = Vec::with_capacity(encoded_bytes(bits, shape));
    if bits == KvBits::B16 {
        for bits in keys.iter().chain(values) {
            encoded.extend_from_slice(&bits.to_le_bytes());
        }
        return encoded;
    }
    let width = shape.width();
    let (keys, values) = (finite(keys), finite(values));
    if bits == KvBits::B1 {
        means::encode(width, &keys, &mut encoded);
        means::encode(width, &values, &mut encoded);
        return encoded;
    }
    // Channel by channel, the tokens of each side by side.
    let mut channels = vec![0_f32; shape.elements()];
    for (token, row) in keys.chunks_exact(width).enumerate() {
        for (channel, &key) in row.iter().enumerate() {
            channels[channel * shape.block_tokens + token] = key;
        }
    }
    let key_groups = Groups::fit(channels.chunks_exact(shape.block_tokens), bits);
    let value_groups = Groups::fit(values.chunks_exact(shape.head_dim), bits);
    key_groups.write(&mut encoded);
    value_groups.write(&mut encoded);

    let mut packing = RowCodes::new(bits, width);
    let top = largest_code(bits);
    let inverses: Vec<f32> = key_groups.steps.iter().map(|&step| inverse(step)).collect();
    for row in keys.chunks_exact(width) {
        for (((code, &key), &zero), &inverse) in
            packing.codes.iter_mut().zip(row).zip(&key_groups.zeros).zip(&inverses)
        {
            *code = nearest((key - zero) * inverse, top);
        }
        packing.pack(&mut encoded);
    }
    for (row, groups) in values.chunks_exact(width).zip(value_groups.rows(shape.kv_heads)) {
        let heads = packing.codes.chunks_exact_mut(shape.head_dim).zip(row.chunks_exact(shape.head_dim));
        for ((codes, values), (zero, step)) in heads.zip(groups) {
            let inverse = inverse(step);
            for (code, &value) in codes.iter_mut().zip(values) {
                *code = nearest((value - zero) * inverse, top);
            }
        }
        packing.pack(&mut encoded);
    }
    encoded
}

/// Decodes what [`encode_block`] made of a block of this shape with these bits.
///
/// # Errors
/// When `encoded` has not the length that bits and shape ask for.
///
/// # Panics
/// When an output hasn't the shape's length.
pub fn decode_block(
    bits: KvBits,
    shape: KvShape,
    encoded: &[u8],
    keys_out: &mut [u16],
    values_out: &mut [u16],
) -> Result<(), CodecError> {
    assert_eq!(values_out.len(), shape.elements(), "a block of {shape:?}");
    decode_keys(bits, shape, encoded, keys_out)?;
    let width = shape.width();
    match bits {
        KvBits::B16 => read_halves(&encoded[encoded.len() / 2..], values_out),
        KvBits::B1 => means::decode(width, &encoded[encoded.len() / 2..], values_out),
        _ => {
            let mut packing = RowCodes::new(bits, width);
            let codes = encoded.len() - shape.block_tokens * packing.part;
            let (groups, _) = Groups::read(&encoded[4 * width..], shape.block_tokens * shape.kv_heads);
            let mut row = vec![0_f32; width];
            let rows = encoded[codes..].chunks_exact(packing.part).zip(values_out.chunks_exact_mut(width));
            for ((bytes, out), groups) in rows.zip(groups.rows(shape.kv_heads)) {
                packing.unpack(bytes);
                let heads =
                    row.chunks_exact_mut(shape.head_dim).zip(packing.codes.chunks_exact(shape.head_dim));
                for ((values, codes), (zero, step)) in heads.zip(groups) {
                    for (value, &code) in values.iter_mut().zip(codes) {
                        *value = f32::from(code) * step + zero;
                    }
                }
                out.reinterpret_cast_mut::<f16>().convert_from_f32_slice(&row);
            }
        }
    }
    Ok(())
}

/// As [`decode_block`], the keys alone.
///
/// # Errors
/// When `encoded` has not the length that bits and shape ask for.
///
/// # Panics
/// When the output hasn't the shape's length.
pub(crate) fn decode_keys(
    bits: KvBits,
    shape: KvShape,
    encoded: &[u8],
    keys_out: &mut [u16],
) -> Result<(), CodecError> {
    assert_eq!(keys_out.len(), shape.elements(), "a block of {shape:?}");
    check_length(bits, shape, encoded)?;
    let width = shape.width();
    match bits {
        KvBits::B16 => read_halves(&encoded[..encoded.len() / 2], keys_out),
        KvBits::B1 => means::decode(width, &encoded[..encoded.len() / 2], keys_out),
        _ => {
            let (groups, rest) = Groups::read(encoded, width);
            let codes = &rest[4 * shape.block_tokens * shape.kv_heads..];
            let mut packing = RowCodes::new(bits, width);
            let mut row = vec![0_f32; width];
            for (bytes, out) in codes.chunks_exact(packing.part).zip(keys_out.chunks_exact_mut(width)) {
                packing.unpack(bytes);
                let groups = groups.zeros.iter().zip(&groups.steps);
                for ((value, &code), (&zero, &step)) in row.iter_mut().zip(&packing.codes).zip(groups) {
                    *value = f32::from(code) * step + zero;
                }
                out.reinterpret_cast_mut::<f16>().convert_from_f32_slice(&row);
            }
        }
    }
    Ok(())
}

/// Bits of f16, little-endian.
fn read_halves(bytes: &[u8], out: &mut [u16]) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *out = u16::from_le_bytes(*bytes);
    }
}

/// Refuses what can't be an encoded block of this shape with these bits.
pub(crate) fn check_length(bits: KvBits, shape: KvShape, encoded: &[u8]) -> Result<(), CodecError> {
    let (expected, found) = (encoded_bytes(bits, shape), encoded.len());
    if expected == found {
        return Ok(());
    }
    Err(CodecError { tokens: shape.block_tokens, width: shape.width(), bits: bits.count(), expected, found })
}

/// Zero and step of each group, as the f16 that are stored say them.
struct Groups {
    zeros: Vec<f32>,
    steps: Vec<f32>,
}

impl Groups {
    fn fit<'a>(groups: impl Iterator<Item = &'a [f32]>, bits: KvBits) -> Self {
        let levels = largest_code(bits);
        let group = |values: &[f32]| {
            let minimum = values.iter().copied().fold(f32::INFINITY, f32::min);
            let maximum = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let whole = (minimum, stored_step(minimum, (maximum - minimum) / levels, levels));
            if bits == KvBits::B2 { four_levels::fit(values, whole) } else { whole }
        };
        let (zeros, steps) = groups.map(group).unzip();
        Self { zeros, steps }
    }

    /// The groups of each row, zero and step, of so many groups a row.
    fn rows(&self, groups: usize) -> impl Iterator<Item = impl Iterator<Item = (f32, f32)>> {
        let rows = self.zeros.chunks_exact(groups).zip(self.steps.chunks_exact(groups));
        rows.map(|(zeros, steps)| zeros.iter().copied().zip(steps.iter().copied()))
    }

    fn write(&self, encoded: &mut Vec<u8>) {
        for &value in self.zeros.iter().chain(&self.steps) {
            encoded.extend_from_slice(&f16::from_f32(value).to_le_bytes());
        }
    }

    fn read(encoded: &[u8], groups: usize) -> (Self, &[u8]) {
        let (stored, rest) = encoded.split_at(4 * groups);
        let mut zeros: Vec<f32> =
            stored.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect();
        let steps = zeros.split_off(groups);
        (Self { zeros, steps }, rest)
    }
}

/// The codes of one row, one a byte, and the way to their packed form and back.
struct RowCodes {
    bits: usize,
    /// Bytes of a packed row.
    part: usize,
    /// `part` codes for each code that a byte holds; those behind the row's width mean nothing.
    codes: Vec<u8>,
}

impl RowCodes {
    fn new(bits: KvBits, width: usize) -> Self {
        let a_byte = 8 / bits.count().min(8);
        let part = width.div_ceil(a_byte);
        Self { bits: bits.count(), part, codes: vec![0; part * a_byte] }
    }

    fn pack(&self, encoded: &mut Vec<u8>) {
        let start = encoded.len();
        encoded.resize(start + self.part, 0);
        let bytes = &mut encoded[start..];
        for (position, part) in self.codes.chunks_exact(self.part).enumerate() {
            for (byte, code) in bytes.iter_mut().zip(part) {
                *byte |= code << (position * self.bits);
            }
        }
    }

    fn unpack(&mut self, bytes: &[u8]) {
        let mask = u8::MAX >> (8 - self.bits);
        for (position, part) in self.codes.chunks_exact_mut(self.part).enumerate() {
            for (code, byte) in part.iter_mut().zip(bytes) {
                *code = (byte >> (position * self.bits)) & mask;
            }
        }
    }
}

fn finite(bits: &[u16]) -> Vec<f32> {
    let mut values = vec![0_f32; bits.len()];
    bits.reinterpret_cast::<f16>().convert_to_f32_slice(&mut values);
    let largest = f16::MAX.to_f32();
    for value in &mut values {
        *value = if value.is_nan() { 0.0 } else { value.clamp(-largest, largest) };
    }
    values
}

/// The largest code of so many bits.
fn largest_code(bits: KvBits) -> f32 {
    ((1_u32 << bits.count()) - 1) as f32
}

/// The step as its f16 says it, such that the largest level is one that f16 holds.
fn stored_step(zero: f32, step: f32, levels: f32) -> f32 {
    let largest = f16::MAX.to_f32();
    let nearest = f16::from_f32(step.min((largest - zero) / levels));
    // Rounded up, it may lead beyond what f16 holds.
    let beyond = zero + nearest.to_f32() * levels > largest;
    if beyond { f16::from_bits(nearest.to_bits() - 1).to_f32() } else { nearest.to_f32() }
}

/// A group of equal values has step 0; all its codes are 0.
fn inverse(step: f32) -> f32 {
    if step > 0.0 { 1.0 / step } else { 0.0 }
}

fn nearest(level: f32, top: f32) -> u8 {
    (level + 0.5).min(top) as u8
}
