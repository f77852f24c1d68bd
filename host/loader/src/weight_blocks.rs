//! Block formats in files of packs: how they are laid out, and where each may be used.
//!
//! Where `[weights].dtype` in the manifest is `f32`, `f16` or `bf16`, every tensor is of that type. Where it is `q8_0`,
//! `q4_0` or `q4_1`, matrices `[rows, columns]` are stored in that format's blocks of 32 columns, laid out as ggml
//! does (little-endian, row by row), and are placed on the device as they are. Such a matrix is a tensor of type `U8`
//! and shape `[rows, bytes a row]`, and the file's `__metadata__` says under the key `modularbase.blocks` what it holds, as JSON
//! text:
//!
//! ```json
//! {"layers.0.attn_q": {"dtype": "q8_0", "shape": [576, 576]}}
//! ```
//!
//! | format | a block | bytes |
//! | --- | --- | --- |
//! | `q8_0` | 32 values: f16 scale, 32 signed bytes | 34 |
//! | `q4_0` | 32 values: f16 scale, 16 bytes: value `j` low, `j + 16` high, 8 added | 18 |
//! | `q4_1` | 32 values: f16 scale, f16 minimum, 16 bytes as above with nothing added | 20 |
//! | `delta-q1` | 64 values: f16 scale, 64 codes of 1 bit | 10 |
//! | `delta-q2` | 64 values: f16 scale, 64 codes of 2 bits | 18 |
//! | `delta-q3` | 64 values: f16 scale, 64 codes of 3 bits | 26 |
//!
//! Tensors that are not named there are plain: vectors as `f32`, `f16` or `bf16`, and matrices whose rows are no whole
//! number of blocks as `f16` or `bf16`.
//!
//! # Deltas
//! Where it is `delta-q1`, `delta-q2` or `delta-q3`, a matrix that starts as a copy of the base's (`copy_from_base:NAME`)
//! may be stored as what is to be added to that tensor as the base's own file stores it:
//! `value = base + scale * levels[code]`, in groups of 64 columns. `modularbase_deltas` says how codes lie in a block. The
//! entry names the base's tensor and the levels, `2^bits` ascending numbers of f32:
//!
//! ```json
//! {"layers.18.attn_q": {"dtype": "delta-q2", "shape": [576, 576],
//!                       "base": "layers.18.attn_q", "levels": [-0.0112, -0.0034, 0.0034, 0.0112]}}
//! ```
//!
//! All other matrices of such a file, and those of other widths, are stored as `q8_0`, `bf16` or `f16`, vectors as `f32`,
//! `f16` or `bf16`. The manifest must name its base by fingerprint.

use manifests::Dtype;
use modularbase_deltas::{DeltaFormat, GROUP};
use safetensors::tensor::{Dtype as StoredDtype, TensorInfo};

/// The key of `__metadata__` under which a file says which of its tensors hold blocks.
pub const BLOCKS_KEY: &str = "modularbase.blocks";

/// Values in a block of the formats that stand alone.
pub(crate) const BLOCK: usize = 32;

/// What the metadata says of one tensor.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlocksEntry {
    pub(crate) dtype: Dtype,
    pub(crate) shape: [usize; 2],
    /// Of deltas: the base's tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<String>,
    /// Of deltas: what codes stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) levels: Option<Vec<f32>>,
}

/// The codec's name of a format of deltas; `None` for every other format.
pub fn delta_format(dtype: Dtype) -> Option<DeltaFormat> {
    match dtype {
        Dtype::DeltaQ1 => Some(DeltaFormat::Q1),
        Dtype::DeltaQ2 => Some(DeltaFormat::Q2),
        Dtype::DeltaQ3 => Some(DeltaFormat::Q3),
        _ => None,
    }
}

/// The manifest's name of a format of deltas.
pub fn delta_dtype(format: DeltaFormat) -> Dtype {
    match format {
        DeltaFormat::Q1 => Dtype::DeltaQ1,
        DeltaFormat::Q2 => Dtype::DeltaQ2,
        DeltaFormat::Q3 => Dtype::DeltaQ3,
    }
}

/// Values and bytes of a block in formats that files of packs may have.
pub(crate) fn block_of(dtype: Dtype) -> Option<(usize, usize)> {
    match dtype {
        Dtype::Q8_0 => Some((BLOCK, 34)),
        Dtype::Q4_0 => Some((BLOCK, 18)),
        Dtype::Q4_1 => Some((BLOCK, 20)),
        _ => delta_format(dtype).map(|format| (GROUP, format.block_bytes())),
    }
}

/// Checks a tensor against what the metadata says of it.
pub(crate) fn check_entry(name: &str, entry: &BlocksEntry, info: &TensorInfo) -> Result<(), String> {
    let BlocksEntry { dtype, shape: [rows, columns], .. } = *entry;
    let Some((values, bytes)) = block_of(dtype) else {
        return Err(format!("expected q8_0, q4_0, q4_1 or deltas for `{name}`, found {dtype}"));
    };
    if !columns.is_multiple_of(values) {
        return Err(format!(
            "expected rows of whole blocks of {values} values for `{name}`, found {columns} columns: store it as f16"
        ));
    }
    if info.dtype != StoredDtype::U8 {
        return Err(format!("expected `{name}` to be of type U8, found {:?}", info.dtype));
    }
    let expected = (columns / values).checked_mul(bytes).map(|row| [rows, row]);
    match expected {
        Some(expected) if *info.shape == expected => Ok(()),
        _ => Err(format!(
            "expected `{name}` as [{rows}, {columns}] values of {dtype} to be {} bytes, found {:?}",
            expected.map_or("a smaller number of".to_owned(), |shape| format!("{shape:?}")),
            info.shape
        )),
    }
}

/// How a weight of that shape may be stored where the manifest states `dtype`, and that in words; `None` for a type
/// that files of packs can't have. `is_copy`: it starts as a copy of the base's.
pub(crate) fn expected_formats(
    dtype: Dtype,
    shape: &[usize],
    is_copy: bool,
) -> Option<(Vec<Dtype>, &'static str)> {
    if matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
        return Some((vec![dtype], dtype.name()));
    }
    let (block, _) = block_of(dtype)?;
    Some(match *shape {
        [_, columns] if dtype.is_delta() => {
            let mut formats = vec![Dtype::F16, Dtype::Bf16, Dtype::Q8_0];
            if is_copy && columns.is_multiple_of(block) {
                formats.push(dtype);
                (formats, "that, q8_0, bf16 or f16")
            } else {
                (formats, "q8_0, bf16 or f16")
            }
        }
        [_, columns] if columns.is_multiple_of(block) => (vec![dtype], dtype.name()),
        [_, _] => (vec![Dtype::F16, Dtype::Bf16], "f16 or bf16"),
        _ => (vec![Dtype::F32, Dtype::F16, Dtype::Bf16], "f32, f16 or bf16"),
    })
}
