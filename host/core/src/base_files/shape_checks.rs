//! Checks that a base's shape must pass, whichever file it came from.

use std::path::Path;

use super::error::BaseFileError;
use pack_sdk::BaseShape;

/// No dimension of a real model comes near; below it no product of two overflows.
pub(crate) const MAX_DIMENSION: u64 = 1 << 24;

/// The widest projection of queries, in rows; a row map holds four bytes for each.
const MAX_QUERY_WIDTH: usize = 1 << 20;

/// Checks each number's range and the relations between them.
pub(crate) fn check_shape(path: &Path, shape: &BaseShape) -> Result<(), BaseFileError> {
    let positive = [
        ("hidden size", shape.hidden_size),
        ("feed-forward size", shape.intermediate_size),
        ("number of layers", shape.num_layers),
        ("number of heads", shape.num_heads),
        ("number of key-value heads", shape.num_kv_heads),
        ("head size", shape.head_dim),
        ("vocabulary size", shape.vocab_size),
        ("context length", shape.max_position),
    ];
    for (what, value) in positive {
        if value == 0 || value as u64 > MAX_DIMENSION {
            return Err(BaseFileError::field(path, what, format!("from 1 to {MAX_DIMENSION}"), value));
        }
    }
    // Neither factor is above 2^24 here.
    if shape.num_heads * shape.head_dim > MAX_QUERY_WIDTH {
        return Err(BaseFileError::field(
            path,
            "heads times head size",
            format!("at most {MAX_QUERY_WIDTH}"),
            shape.num_heads * shape.head_dim,
        ));
    }
    if !shape.num_heads.is_multiple_of(shape.num_kv_heads) {
        return Err(BaseFileError::field(
            path,
            "number of key-value heads",
            format!("a divisor of the {} heads", shape.num_heads),
            shape.num_kv_heads,
        ));
    }
    if !shape.head_dim.is_multiple_of(2) {
        return Err(BaseFileError::field(path, "head size", "even (RoPE turns pairs)", shape.head_dim));
    }
    if !(shape.rms_norm_eps > 0.0 && shape.rms_norm_eps < 1.0) {
        return Err(BaseFileError::field(path, "RMS norm epsilon", "between 0 and 1", shape.rms_norm_eps));
    }
    if !(shape.rope_theta > 0.0 && shape.rope_theta.is_finite()) {
        return Err(BaseFileError::field(
            path,
            "RoPE base frequency",
            "positive and finite",
            shape.rope_theta,
        ));
    }
    if let Some(scale) = &shape.rope_freq_scale {
        if scale.len() != shape.head_dim / 2 {
            return Err(BaseFileError::field(
                path,
                "RoPE frequency factors",
                format!("{} numbers", shape.head_dim / 2),
                scale.len(),
            ));
        }
        if let Some(bad) = scale.iter().find(|factor| !(**factor > 0.0 && factor.is_finite())) {
            return Err(BaseFileError::field(path, "RoPE frequency factors", "positive and finite", bad));
        }
    }
    Ok(())
}
