//! A base from a GGUF file: architectures `llama` and `qwen2`.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use pack_sdk::BaseShape;

use super::error::BaseFileError;
use super::gguf_header::GgufHeader;
use super::rope_scaling::linear_factors;
use super::shape_checks::{MAX_DIMENSION, check_shape};
use super::stored_dtype::StoredDtype;
use super::stored_tensors::{StoredTensor, WeightFile, match_tensors};
use super::tensor_names::{expected_tensors, half_split_row_map};
use super::{BaseFile, TokenizerSource};

/// Factors that divide the inverse frequencies of RoPE (Llama 3 files carry them).
const ROPE_FACTORS: &str = "rope_freqs.weight";

pub(super) fn open(path: &Path) -> Result<BaseFile, BaseFileError> {
    let file = File::open(path).map_err(|source| BaseFileError::io(path, "open", source))?;
    let length = file.metadata().map_err(|source| BaseFileError::io(path, "look at", source))?.len();
    let header = GgufHeader::read(path, &file, length)?;
    let files = vec![WeightFile { path: path.to_path_buf(), file, length }];

    let mut shape = read_shape(path, &header)?;
    check_shape(path, &shape)?;
    shape.rope_freq_scale = read_rope_scaling(path, &header, &files[0], shape.head_dim)?;
    check_shape(path, &shape)?;

    let mut stored = HashMap::with_capacity(header.tensors.len());
    for (name, tensor) in &header.tensors {
        let start =
            header.data_offset.checked_add(tensor.offset).ok_or_else(|| BaseFileError::TensorBounds {
                path: path.to_path_buf(),
                stored_name: name.clone(),
                start: tensor.offset,
                end: u64::MAX,
                why: "more than any file holds".to_owned(),
            })?;
        let kind = StoredDtype::from_ggml_type(tensor.ggml_type)
            .ok_or_else(|| format!("ggml type {}", tensor.ggml_type));
        let entry = StoredTensor { shape: tensor.shape.clone(), kind, file: 0, start, stated_end: None };
        stored.insert(name.clone(), entry);
    }
    let tied_head = !stored.contains_key("output.weight");
    // Files of Llama models hold the rows of queries and keys interleaved; those of Qwen2 do not, because ggml
    // turns halves for them.
    let row_map = |heads: usize| -> Option<Arc<[u32]>> {
        (shape.architecture == "llama").then(|| half_split_row_map(heads, shape.head_dim).into())
    };
    let (q_map, k_map) = (row_map(shape.num_heads), row_map(shape.num_kv_heads));
    let tensors = match_tensors(
        path,
        &files,
        &stored,
        expected_tensors(&shape, tied_head),
        |spec| &spec.gguf_name,
        |spec| match spec.rope_heads {
            Some(heads) if heads == shape.num_heads => q_map.clone(),
            Some(_) => k_map.clone(),
            None => None,
        },
    )?;
    Ok(BaseFile {
        path: path.to_path_buf(),
        shape,
        tied_head,
        tensors,
        files,
        parts: vec![path.to_path_buf()],
        tokenizer: TokenizerSource::Gguf(header),
    })
}

fn read_shape(path: &Path, header: &GgufHeader) -> Result<BaseShape, BaseFileError> {
    let architecture = header.text("general.architecture")?;
    if !matches!(architecture, "llama" | "qwen2") {
        return Err(BaseFileError::unsupported(path, "the architecture", architecture, "llama, qwen2"));
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let integer = |name: &str| header.integer(&key(name), 1, MAX_DIMENSION).map(|value| value as usize);
    let optional = |name: &str| {
        let value = header.optional_integer(&key(name), 1, MAX_DIMENSION)?;
        Ok::<_, BaseFileError>(value.map(|value| value as usize))
    };
    if let Some(experts @ 1..) = header.optional_integer(&key("expert_count"), 0, u64::MAX)? {
        let found = format!("{experts} experts");
        return Err(BaseFileError::unsupported(path, "a mixture of", found, "dense feed-forward layers"));
    }

    if header.tensors.contains_key("blk.0.attn_output.bias") {
        return Err(BaseFileError::unsupported(path, "a bias of", "attn_output", "biases of q, k and v"));
    }

    let hidden_size = integer("embedding_length")?;
    let num_heads = integer("attention.head_count")?;
    let head_dim = match optional("attention.key_length")? {
        Some(size) => size,
        None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => {
            return Err(BaseFileError::field(
                path,
                key("attention.head_count"),
                format!("a divisor of the hidden size {hidden_size}"),
                num_heads,
            ));
        }
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        let size = optional(name)?.unwrap_or(head_dim);
        if size != head_dim {
            return Err(BaseFileError::field(path, key(name), format!("the head size {head_dim}"), size));
        }
    }
    let embedding = header.tensors.get("token_embd.weight");
    let vocab_size = match (optional("vocab_size")?, embedding.map(|tensor| tensor.shape.as_slice())) {
        (None, Some([rows, _])) => *rows,
        (Some(stated), _) => stated,
        (None, _) => header.texts("tokenizer.ggml.tokens")?.len(),
    };
    let tokens = header.texts("tokenizer.ggml.tokens")?.len();
    if tokens > vocab_size {
        return Err(BaseFileError::field(
            path,
            "tokenizer.ggml.tokens",
            format!("at most {vocab_size} tokens, the rows of the embedding"),
            tokens,
        ));
    }
    let eps = key("attention.layer_norm_rms_epsilon");
    Ok(BaseShape {
        architecture: architecture.to_owned(),
        hidden_size,
        intermediate_size: integer("feed_forward_length")?,
        num_layers: integer("block_count")?,
        num_heads,
        num_kv_heads: optional("attention.head_count_kv")?.unwrap_or(num_heads),
        head_dim,
        vocab_size,
        rms_norm_eps: header
            .optional_float(&eps)?
            .ok_or_else(|| BaseFileError::field(path, eps.as_str(), "a number", "nothing"))?,
        rope_theta: header.optional_float(&key("rope.freq_base"))?.unwrap_or(10_000.0),
        rope_freq_scale: None,
        qkv_bias: header.tensors.contains_key("blk.0.attn_q.bias"),
        max_position: integer("context_length")?,
    })
}

fn read_rope_scaling(
    path: &Path,
    header: &GgufHeader,
    file: &WeightFile,
    head_dim: usize,
) -> Result<Option<Vec<f32>>, BaseFileError> {
    let architecture = header.text("general.architecture")?;
    let kind_key = format!("{architecture}.rope.scaling.type");
    let factor_key = format!("{architecture}.rope.scaling.factor");
    let linear = match header.optional_text(&kind_key)? {
        None | Some("none") => None,
        Some("linear") => {
            let factor = header.optional_float(&factor_key)?.unwrap_or(1.0);
            if !(factor > 0.0 && factor.is_finite()) {
                return Err(BaseFileError::field(path, factor_key, "a positive number", factor));
            }
            Some(linear_factors(factor, head_dim))
        }
        Some(other) => {
            return Err(BaseFileError::unsupported(path, "RoPE scaling", other, "none, linear, rope_freqs"));
        }
    };
    let Some(tensor) = header.tensors.get(ROPE_FACTORS) else { return Ok(linear) };
    if tensor.shape != [head_dim / 2] {
        return Err(BaseFileError::TensorShape {
            path: path.to_path_buf(),
            name: "the RoPE frequency factors".to_owned(),
            stored_name: ROPE_FACTORS.to_owned(),
            expected: vec![head_dim / 2],
            found: tensor.shape.clone(),
        });
    }
    if StoredDtype::from_ggml_type(tensor.ggml_type) != Some(StoredDtype::F32) {
        let found = format!("ggml type {} of '{ROPE_FACTORS}'", tensor.ggml_type);
        return Err(BaseFileError::unsupported(path, "the tensor type", found, "F32"));
    }
    let start = header.data_offset.saturating_add(tensor.offset);
    let end = start.saturating_add(4 * (head_dim as u64 / 2));
    if end > file.length {
        return Err(BaseFileError::TensorBounds {
            path: path.to_path_buf(),
            stored_name: ROPE_FACTORS.to_owned(),
            start,
            end,
            why: format!("but the file has {} bytes. Fetch it again", file.length),
        });
    }
    let mut bytes = vec![0; 4 * (head_dim / 2)];
    file.file.read_exact_at(&mut bytes, start).map_err(|source| BaseFileError::io(path, "read", source))?;
    let (words, _) = bytes.as_chunks::<4>();
    let linear = linear.unwrap_or_else(|| vec![1.0; head_dim / 2]);
    let scale = words.iter().zip(linear).map(|(word, linear)| linear / f32::from_le_bytes(*word));
    Ok(Some(scale.collect()))
}
