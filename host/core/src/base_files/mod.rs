//! A base's files: their shape, their tensors under canonical names, their identity.
//!
//! Two forms are read: a GGUF file, and a Hugging Face folder. Headers are read and checked at
//! [`BaseFile::open`]; weights stay on disk and are read by position when they are asked for, so that the
//! process holds no more of the file than what it is converting just then (a mapping would leave the pages
//! it touched in the resident set).
//!
//! Canonical names: `token_embd`, `output_norm`, `output` (absent with a tied head), and for layer `i`
//! `layers.i.` with `attn_norm, attn_q, attn_k, attn_v, attn_output, ffn_norm, ffn_gate, ffn_up, ffn_down`
//! and, with `qkv_bias`, `attn_q_bias, attn_k_bias, attn_v_bias`. Linear weights are `[out, in]`.

mod error;
mod fingerprint;
mod gguf_base;
mod gguf_header;
mod hugging_face;
mod rope_scaling;
mod safetensors_header;
mod shape_checks;
mod stored_dtype;
mod stored_tensors;
mod tensor_names;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use error::BaseFileError;
pub use pack_sdk::BaseShape;
pub use stored_dtype::{NoValues, StoredDtype};
pub use stored_tensors::TensorInfo;

pub(crate) use gguf_header::{GgufHeader, StringArray};
pub(crate) use hugging_face::read_json_bytes;
use stored_tensors::WeightFile;

/// The weights of a Llama-family base: canonical name, Hugging Face's name, dimensions. With `tied_head` there is no
/// `output`.
pub fn hugging_face_weights(shape: &BaseShape, tied_head: bool) -> Vec<(String, String, Vec<usize>)> {
    let specs = tensor_names::expected_tensors(shape, tied_head);
    specs.map(|spec| (spec.name, spec.hugging_face_name, spec.shape)).collect()
}

/// How much is read and dequantized at once, in bytes of the stored form.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a base's tokenizer comes from.
#[derive(Debug)]
pub(crate) enum TokenizerSource {
    /// The metadata of a GGUF file.
    Gguf(GgufHeader),
    /// A folder with `tokenizer.json`.
    Folder(PathBuf),
}

/// A base opened for reading: the header is checked, the weights are still on disk.
#[derive(Debug)]
pub struct BaseFile {
    path: PathBuf,
    shape: BaseShape,
    tied_head: bool,
    tensors: BTreeMap<String, TensorInfo>,
    files: Vec<WeightFile>,
    /// Everything that the fingerprint covers.
    parts: Vec<PathBuf>,
    tokenizer: TokenizerSource,
}

impl BaseFile {
    /// Opens a `.gguf` file, or a folder with `config.json`, `tokenizer.json` and `model.safetensors` (or
    /// its shards and their index).
    ///
    /// Errors: [`BaseFileError`], for whatever is missing, damaged, contradictory or not supported. Never
    /// panics, whatever the bytes.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BaseFileError> {
        let path = path.as_ref();
        let facts = std::fs::metadata(path).map_err(|source| BaseFileError::io(path, "open", source))?;
        if facts.is_dir() { hugging_face::open(path) } else { gguf_base::open(path) }
    }

    /// Without what only the tokenizer needs, megabytes of a GGUF file's header: for those who keep it to read tensors.
    /// No tokenizer can be made of it any more.
    #[must_use]
    pub fn without_tokenizer(mut self) -> Self {
        if let TokenizerSource::Gguf(header) = &mut self.tokenizer {
            header.forget_metadata();
        }
        self
    }

    /// The path given to [`BaseFile::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn shape(&self) -> &BaseShape {
        &self.shape
    }

    /// Whether the LM head is the embedding; then there is no tensor `output`.
    pub fn tied_head(&self) -> bool {
        self.tied_head
    }

    /// All tensors of the base, in order of their canonical names.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// The tensor of a canonical name. With a tied head, `output` is the embedding.
    ///
    /// Errors: [`BaseFileError::UnknownTensor`].
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, BaseFileError> {
        let stored = if name == "output" && self.tied_head { "token_embd" } else { name };
        self.tensors.get(stored).ok_or_else(|| BaseFileError::UnknownTensor { name: name.to_owned() })
    }

    /// The stored bytes of the tensor, rows in stored order ([`TensorInfo::row_map`] is not applied).
    pub fn read_bytes(&self, name: &str) -> Result<Vec<u8>, BaseFileError> {
        let info = self.tensor(name)?;
        let mut bytes = vec![0; info.byte_len()];
        self.read_at(info, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The stored bytes of the tensor with its rows in canonical order (row map applied).
    pub fn read_ordered_bytes(&self, name: &str) -> Result<Vec<u8>, BaseFileError> {
        let info = self.tensor(name)?;
        let stored = self.read_bytes(name)?;
        let Some(map) = &info.row_map else { return Ok(stored) };
        let mut ordered = Vec::with_capacity(stored.len());
        for row in map.iter() {
            let start = *row as usize * info.row_bytes();
            ordered.extend_from_slice(&stored[start..start + info.row_bytes()]);
        }
        Ok(ordered)
    }

    /// Fills `out` with whole stored rows from `first_row` on, rows in stored order. `out` must be a multiple
    /// of [`TensorInfo::row_bytes`] long.
    ///
    /// Errors: rows that the tensor does not have, a file that has become shorter.
    pub fn read_rows(&self, name: &str, first_row: usize, out: &mut [u8]) -> Result<(), BaseFileError> {
        let info = self.tensor(name)?;
        let offset = first_row.checked_mul(info.row_bytes());
        let end = offset.and_then(|offset| offset.checked_add(out.len()));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= info.byte_len() => self.read_at(info, offset, out),
            _ => Err(BaseFileError::TensorBounds {
                path: self.path.clone(),
                stored_name: name.to_owned(),
                start: offset.unwrap_or(usize::MAX) as u64,
                end: end.unwrap_or(usize::MAX) as u64,
                why: format!("but it has {} bytes", info.byte_len()),
            }),
        }
    }

    /// The tensor dequantized, rows in canonical order, row-major. Beside the result it needs about 5 MiB.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, BaseFileError> {
        let info = self.tensor(name)?;
        let mut values = Vec::with_capacity(info.shape.iter().product());
        let rows_at_once = (CHUNK_BYTES / info.row_bytes().max(1)).clamp(1, info.rows().max(1));
        let mut chunk = vec![0; rows_at_once * info.row_bytes()];
        let mut row = 0;
        while row < info.rows() {
            let count = rows_at_once.min(info.rows() - row);
            let bytes = &mut chunk[..count * info.row_bytes()];
            self.read_at(info, row * info.row_bytes(), bytes)?;
            info.kind
                .append_f32(bytes, &mut values)
                .map_err(|reason| BaseFileError::Dequantize { name: info.name.clone(), reason })?;
            row += count;
        }
        let Some(map) = &info.row_map else { return Ok(values) };
        let columns = values.len() / map.len().max(1);
        let mut ordered = Vec::with_capacity(values.len());
        for row in map.iter() {
            ordered.extend_from_slice(&values[*row as usize * columns..][..columns]);
        }
        Ok(ordered)
    }

    fn read_at(&self, info: &TensorInfo, offset: usize, out: &mut [u8]) -> Result<(), BaseFileError> {
        let file = &self.files[info.file];
        file.file
            .read_exact_at(out, info.start + offset as u64)
            .map_err(|source| BaseFileError::io(&file.path, "read", source))
    }

    /// `sha256:` and 64 hex digits over config, tokenizer and weights; depends on neither path nor time. For a
    /// GGUF file it is the file's SHA-256; for a folder that of the lines which `sha256sum` prints for its
    /// parts in byte order of their names.
    pub fn fingerprint(&self) -> Result<String, BaseFileError> {
        fingerprint::fingerprint(&self.parts, self.is_gguf())
    }

    /// [`BaseFile::fingerprint`], remembered in `cache_dir` by path, size, modification time and inode.
    pub fn cached_fingerprint(&self, cache_dir: &Path) -> Result<String, BaseFileError> {
        fingerprint::cached_fingerprint(&self.parts, self.is_gguf(), cache_dir)
    }

    /// The files that the fingerprint covers.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    fn is_gguf(&self) -> bool {
        matches!(self.tokenizer, TokenizerSource::Gguf(_))
    }

    pub(crate) fn tokenizer_source(&self) -> &TokenizerSource {
        &self.tokenizer
    }
}
