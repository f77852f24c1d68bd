//! A pack's own weights: a safetensors file, mapped, and checked against the pack's graph before use. What a tensor may
//! look like in it: see `weight_blocks.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use manifests::{Dtype, WeightsRecord};
use memmap2::Mmap;
use modularbase_deltas::{DeltaError, Levels, check_blocks};
use modularbase_graph::{Graph, Init, Op, WeightSpec};
use safetensors::tensor::{Dtype as StoredDtype, SafeTensors};

use crate::weight_blocks::{BLOCKS_KEY, BlocksEntry, check_entry, delta_format, expected_formats};

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
    delta: Option<Delta>,
    bytes: Range<usize>,
}

/// What a tensor of deltas is to be added to, and its levels.
#[derive(Debug)]
struct Delta {
    base: String,
    levels: Levels,
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
    /// Where the values are deltas: to what.
    pub delta: Option<DeltaTo<'a>>,
}

/// What deltas are to be added to, and the levels that their codes stand for.
#[derive(Debug, Clone, Copy)]
pub struct DeltaTo<'a> {
    /// Canonical name of the base's tensor.
    pub base: &'a str,
    /// The levels.
    pub levels: &'a Levels,
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
        "weights stored as {0} can't be read by this host: store them as f32, f16, bf16, q8_0, q4_0, q4_1 or as deltas"
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
    /// A delta to something else than what the weight starts as.
    #[error(
        "weight `{name}` is stored as a delta to the base's `{found}`, but the graph has it start as `{init}`"
    )]
    DeltaBase {
        /// The weight.
        name: String,
        /// In the graph.
        init: Init,
        /// In the file.
        found: String,
    },
    /// Deltas that are damaged.
    #[error("weight `{name}`: {source}")]
    Delta {
        /// The weight.
        name: String,
        /// The codec's words.
        source: DeltaError,
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

impl WeightsFile {
    /// Maps the file and reads its header: offsets within the file, no overlaps, sizes that fit shapes and types, blocks
    /// as the metadata states them, levels and scales of deltas finite.
    ///
    /// # Errors
    /// The file can't be read, is not sound, or is of a type the host can't read.
    pub fn open(path: &Path, record: &WeightsRecord) -> Result<Self, WeightsError> {
        if expected_formats(record.dtype, &[], true).is_none() {
            return Err(WeightsError::UnsupportedDtype(record.dtype));
        }
        let read_error = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        // SAFETY: the file is the cache's own copy, mode 0444, which the cache never changes in place.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        let tensors = read_header(&map, path)?;
        let file = Self { map, dtype: record.dtype, tensors };
        for WeightView { name, shape, delta, bytes, .. } in file.weights() {
            let Some(DeltaTo { levels, .. }) = delta else { continue };
            check_blocks(bytes, shape.iter().product(), levels.format())
                .map_err(|source| WeightsError::Delta { name: name.to_owned(), source })?;
        }
        Ok(file)
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
            delta: tensor.delta.as_ref().map(|delta| DeltaTo { base: &delta.base, levels: &delta.levels }),
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
        for WeightView { name, shape, dtype: found, delta, .. } in self.weights() {
            let name = name.to_owned();
            let Some(weight) = wanted.get(name.as_str()) else {
                return Err(WeightsError::Unknown { name });
            };
            if weight.shape != shape {
                let (expected, found) = (weight.shape.clone(), shape.to_vec());
                return Err(WeightsError::Shape { name, expected, found });
            }
            let manifest = self.dtype;
            let is_copy = matches!(weight.init, Init::CopyFromBase(_));
            let (formats, expected) =
                expected_formats(manifest, shape, is_copy).ok_or(WeightsError::UnsupportedDtype(manifest))?;
            if let (Some(delta), init) = (delta, &weight.init)
                && !matches!(init, Init::CopyFromBase(base) if base == delta.base)
            {
                return Err(WeightsError::DeltaBase {
                    name,
                    init: init.clone(),
                    found: delta.base.to_owned(),
                });
            }
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
    let mut blocks: BTreeMap<String, BlocksEntry> = match text {
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
        let entry = blocks.remove(&name);
        let delta = match &entry {
            Some(entry) => {
                check_entry(&name, entry, info).map_err(wrong_blocks)?;
                delta_of(&name, entry).map_err(wrong_blocks)?
            }
            None => None,
        };
        let (dtype, shape) = match (entry, info.dtype) {
            (Some(entry), _) => (entry.dtype, entry.shape.to_vec()),
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
        tensors.push(StoredWeight { name, shape, dtype, delta, bytes });
    }
    match blocks.into_keys().next() {
        Some(name) => {
            let reason = format!("names `{name}`, which the file does not hold: remove the entry");
            Err(wrong_blocks(reason))
        }
        None => Ok(tensors),
    }
}

/// The delta that an entry states; `None` for formats that stand alone.
fn delta_of(name: &str, entry: &BlocksEntry) -> Result<Option<Delta>, String> {
    match (delta_format(entry.dtype), &entry.base, &entry.levels) {
        (None, None, None) => Ok(None),
        (Some(format), Some(base), Some(levels)) => {
            let levels = Levels::new(format, levels)
                .map_err(|error| format!("the levels of `{name}` can't be used: {error}"))?;
            Ok(Some(Delta { base: base.clone(), levels }))
        }
        (Some(_), _, _) => {
            Err(format!("expected `base` and `levels` for the deltas of `{name}`, found only one or none"))
        }
        (None, _, _) => Err(format!(
            "expected no `base` and no `levels` for `{name}`, which is stored as {}: remove them",
            entry.dtype
        )),
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
