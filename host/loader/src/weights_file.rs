//! A pack's own weights: a safetensors file, mapped, and checked against the pack's graph before use.
//!
//! # Block formats
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
//! | format | a block of 32 values | bytes |
//! | --- | --- | --- |
//! | `q8_0` | f16 scale, 32 signed bytes | 34 |
//! | `q4_0` | f16 scale, 16 bytes: value `j` low, `j + 16` high, 8 added | 18 |
//! | `q4_1` | f16 scale, f16 minimum, 16 bytes as above with nothing added | 20 |
//!
//! Tensors that are not named there are plain: vectors as `f32`, `f16` or `bf16`, and matrices whose rows are no whole
//! number of blocks as `f16` or `bf16`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use manifests::{Dtype, WeightsRecord};
use memmap2::Mmap;
use modularbase_graph::{Graph, Init, Op, WeightSpec};
use safetensors::tensor::{Dtype as StoredDtype, SafeTensors, TensorInfo};

/// The key of `__metadata__` under which a file says which of its tensors hold blocks.
pub const BLOCKS_KEY: &str = "modularbase.blocks";

/// A mapped safetensors file in which every tensor is one of the graph's weights, in shape and type.
#[derive(Debug)]
pub struct WeightsFile {
    map: Mmap,
    dtype: Dtype,
    /// In the order of the file.
    tensors: Vec<StoredWeight>,
}

#[derive(Debug)]
struct StoredWeight {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Range<usize>,
}

/// One weight as the file holds it.
#[derive(Debug, Clone, Copy)]
pub struct WeightView<'a> {
    /// The graph's name of it.
    pub name: &'a str,
    /// Dimensions, outermost first; of a matrix in blocks those of its values.
    pub shape: &'a [usize],
    /// Number format of `bytes`.
    pub dtype: Dtype,
    /// The values, row by row, little-endian: the map itself.
    pub bytes: &'a [u8],
}

/// Why a weights file does not fit its pack.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file can't be mapped.
    #[error("can't read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no sound safetensors file.
    #[error("`{}` is no sound safetensors file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        reason: String,
    },
    /// What the file says of its blocks is not so.
    #[error("`{}`, `{BLOCKS_KEY}` of its metadata: {reason}", path.display())]
    Blocks {
        /// The file.
        path: PathBuf,
        /// Expected, found, and what to do.
        reason: String,
    },
    /// A storage type that files of packs can't have.
    #[error(
        "weights stored as {0} can't be read by this host: store them as f32, f16, bf16, q8_0, q4_0 or q4_1"
    )]
    UnsupportedDtype(Dtype),
    /// A tensor the graph has no weight for.
    #[error(
        "the weights file holds `{name}`, which the graph has no weight for: do file and library belong together?"
    )]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// Another shape than in the graph.
    #[error("weight `{name}`: the graph has shape {expected:?}, the file {found:?}")]
    Shape {
        /// The weight.
        name: String,
        /// In the graph.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// Another type than the manifest leads one to expect.
    #[error(
        "weight `{name}`: with {manifest} in the manifest it should be stored as {expected}, found {found}"
    )]
    StoredDtype {
        /// The weight.
        name: String,
        /// In the manifest.
        manifest: Dtype,
        /// What it should be.
        expected: &'static str,
        /// In the file.
        found: Dtype,
    },
    /// A weight without a value.
    #[error(
        "weight `{name}` starts as `{init}` and is in no file: only weights that copy from the base may be left out"
    )]
    Missing {
        /// The weight.
        name: String,
        /// How it starts.
        init: Init,
    },
}

/// What the metadata says of one tensor.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Blocks {
    dtype: Dtype,
    shape: [usize; 2],
}

impl WeightsFile {
    /// Maps the file and reads its header: offsets within the file, no overlaps, sizes that fit shapes and types, blocks
    /// as the metadata states them.
    ///
    /// # Errors
    /// The file can't be read, is not sound, or is of a type the host can't read.
    pub fn open(path: &Path, record: &WeightsRecord) -> Result<Self, WeightsError> {
        if expected_formats(record.dtype, &[]).is_none() {
            return Err(WeightsError::UnsupportedDtype(record.dtype));
        }
        let read_error = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        // SAFETY: the file is the cache's own copy, mode 0444, which the cache never changes in place.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        let tensors = read_header(&map, path)?;
        Ok(Self { map, dtype: record.dtype, tensors })
    }

    /// How the manifest says that the matrices are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its weights in the order of the file. Their bytes are the map, so nothing is copied.
    pub fn weights(&self) -> impl Iterator<Item = WeightView<'_>> {
        self.tensors.iter().map(|tensor| WeightView {
            name: &tensor.name,
            shape: &tensor.shape,
            dtype: tensor.dtype,
            bytes: &self.map[tensor.bytes.clone()],
        })
    }

    /// Names of the weights it holds.
    pub fn names(&self) -> BTreeSet<String> {
        self.tensors.iter().map(|tensor| tensor.name.clone()).collect()
    }

    /// Checks that every tensor is one of the graph's weights, in its shape and of the stated type.
    ///
    /// # Errors
    /// The first tensor that is not.
    pub fn fits(&self, graph: &Graph) -> Result<(), WeightsError> {
        let wanted: BTreeMap<&str, &WeightSpec> = weights_of(graph).collect();
        for WeightView { name, shape, dtype: found, .. } in self.weights() {
            let name = name.to_owned();
            let Some(weight) = wanted.get(name.as_str()) else {
                return Err(WeightsError::Unknown { name });
            };
            if weight.shape != shape {
                let (expected, found) = (weight.shape.clone(), shape.to_vec());
                return Err(WeightsError::Shape { name, expected, found });
            }
            let manifest = self.dtype;
            let (formats, expected) =
                expected_formats(manifest, shape).ok_or(WeightsError::UnsupportedDtype(manifest))?;
            if !formats.contains(&found) {
                return Err(WeightsError::StoredDtype { name, manifest, expected, found });
            }
        }
        Ok(())
    }
}

/// The tensors of a file in their order.
fn read_header(map: &[u8], path: &Path) -> Result<Vec<StoredWeight>, WeightsError> {
    let unsound = |reason: String| WeightsError::Format { path: path.to_owned(), reason };
    let (header, metadata) = SafeTensors::read_metadata(map).map_err(|error| unsound(error.to_string()))?;
    let wrong_blocks = |reason: String| WeightsError::Blocks { path: path.to_owned(), reason };
    let text = metadata.metadata().as_ref().and_then(|texts| texts.get(BLOCKS_KEY));
    let mut blocks: BTreeMap<String, Blocks> = match text {
        Some(text) => serde_json::from_str(text).map_err(|error| {
            wrong_blocks(format!(
                "expected JSON like {{\"name\": {{\"dtype\": \"q8_0\", \"shape\": [rows, columns]}}}}, found {error}"
            ))
        })?,
        None => BTreeMap::new(),
    };
    let first = header + size_of::<u64>();
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (dtype, shape) = match (blocks.remove(&name), info.dtype) {
            (Some(blocks), _) => {
                check_blocks(&name, &blocks, info).map_err(wrong_blocks)?;
                (blocks.dtype, blocks.shape.to_vec())
            }
            (None, StoredDtype::F32) => (Dtype::F32, info.shape.clone()),
            (None, StoredDtype::F16) => (Dtype::F16, info.shape.clone()),
            (None, StoredDtype::BF16) => (Dtype::Bf16, info.shape.clone()),
            (None, StoredDtype::U8) => {
                return Err(wrong_blocks(format!(
                    "expected an entry for the tensor `{name}` of type U8, found none: state its format and shape"
                )));
            }
            (None, other) => {
                return Err(unsound(format!(
                    "tensor `{name}` is of type {other:?}: store it as F32, F16, BF16 or in blocks"
                )));
            }
        };
        let bytes = first + info.data_offsets.0..first + info.data_offsets.1;
        tensors.push(StoredWeight { name, shape, dtype, bytes });
    }
    match blocks.into_keys().next() {
        Some(name) => {
            let reason = format!("names `{name}`, which the file does not hold: remove the entry");
            Err(wrong_blocks(reason))
        }
        None => Ok(tensors),
    }
}

/// Checks a tensor against what the metadata says of it.
fn check_blocks(name: &str, blocks: &Blocks, info: &TensorInfo) -> Result<(), String> {
    let Blocks { dtype, shape: [rows, columns] } = *blocks;
    let Some(block_bytes) = block_bytes(dtype) else {
        return Err(format!("expected q8_0, q4_0 or q4_1 for `{name}`, found {dtype}"));
    };
    if !columns.is_multiple_of(BLOCK) {
        return Err(format!(
            "expected rows of whole blocks of {BLOCK} values for `{name}`, found {columns} columns: store it as f16"
        ));
    }
    if info.dtype != StoredDtype::U8 {
        return Err(format!("expected `{name}` to be of type U8, found {:?}", info.dtype));
    }
    let expected = (columns / BLOCK).checked_mul(block_bytes).map(|row| [rows, row]);
    match expected {
        Some(expected) if *info.shape == expected => Ok(()),
        _ => Err(format!(
            "expected `{name}` as [{rows}, {columns}] values of {dtype} to be {} bytes, found {:?}",
            expected.map_or("a smaller number of".to_owned(), |shape| format!("{shape:?}")),
            info.shape
        )),
    }
}

/// Values in a block.
const BLOCK: usize = 32;

/// Bytes of a block in formats that files of packs may have.
fn block_bytes(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::Q8_0 => Some(34),
        Dtype::Q4_0 => Some(18),
        Dtype::Q4_1 => Some(20),
        _ => None,
    }
}

/// How a weight of that shape may be stored where the manifest states `dtype`, and that in words; `None` for a type
/// that files of packs can't have.
fn expected_formats(dtype: Dtype, shape: &[usize]) -> Option<(Vec<Dtype>, &'static str)> {
    let plain = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
    match *shape {
        _ if plain => Some((vec![dtype], dtype.name())),
        _ if block_bytes(dtype).is_none() => None,
        [_, columns] if columns.is_multiple_of(BLOCK) => Some((vec![dtype], dtype.name())),
        [_, _] => Some((vec![Dtype::F16, Dtype::Bf16], "f16 or bf16")),
        _ => Some((vec![Dtype::F32, Dtype::F16, Dtype::Bf16], "f32, f16 or bf16")),
    }
}

/// The graph's weights by name.
pub fn weights_of(graph: &Graph) -> impl Iterator<Item = (&str, &WeightSpec)> {
    graph.nodes.iter().filter_map(|node| match &node.op {
        Op::Weight(weight) => Some((node.name.as_str(), weight)),
        _ => None,
    })
}

/// Checks that each weight of the graph is either in the file or shared with the base.
///
/// # Errors
/// The first weight that is neither.
pub fn all_weights_have_values(graph: &Graph, in_file: &BTreeSet<String>) -> Result<(), WeightsError> {
    for (name, weight) in weights_of(graph) {
        if !in_file.contains(name) && !matches!(weight.init, Init::CopyFromBase(_)) {
            return Err(WeightsError::Missing { name: name.to_owned(), init: weight.init.clone() });
        }
    }
    Ok(())
}
