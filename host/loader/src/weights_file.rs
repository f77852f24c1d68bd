//! A pack's own weights: a safetensors file, mapped, and checked against the pack's graph before use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
};

use manifests::{Dtype, WeightsRecord};
use memmap2::Mmap;
use modularbase_graph::{Graph, Init, Op, WeightSpec};
use safetensors::tensor::{Dtype as StoredDtype, SafeTensors, TensorView};

/// A mapped safetensors file in which every tensor is one of the graph's weights, in shape and type.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    map: Mmap,
    dtype: Dtype,
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
    /// A storage type that safetensors files of packs can't have.
    #[error("weights stored as {0} can't be read by this host: store them as f32, f16 or bf16")]
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
    /// Another type than in the manifest.
    #[error("weight `{name}`: the manifest states {expected}, the file holds {found:?}")]
    StoredDtype {
        /// The weight.
        name: String,
        /// In the manifest.
        expected: Dtype,
        /// In the file.
        found: StoredDtype,
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
    /// Maps the file and reads its header: offsets within the file, no overlaps, sizes that fit shapes and types.
    ///
    /// # Errors
    /// The file can't be read, is not sound, or is of a type the host can't read.
    pub fn open(path: &Path, record: &WeightsRecord) -> Result<Self, WeightsError> {
        stored_dtype(record.dtype).ok_or(WeightsError::UnsupportedDtype(record.dtype))?;
        let read_error = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        // SAFETY: the file is the cache's own copy, mode 0444, which the cache never changes in place.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        let weights = Self { path: path.to_owned(), map, dtype: record.dtype };
        weights.tensors()?;
        Ok(weights)
    }

    /// How the values are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its tensors: names, shapes, bytes in the file's order (row-major, little-endian).
    ///
    /// # Errors
    /// Never after [`WeightsFile::open`].
    pub fn tensors(&self) -> Result<SafeTensors<'_>, WeightsError> {
        SafeTensors::deserialize(&self.map)
            .map_err(|error| WeightsError::Format { path: self.path.clone(), reason: error.to_string() })
    }

    /// Names of the weights it holds.
    ///
    /// # Errors
    /// Never after [`WeightsFile::open`].
    pub fn names(&self) -> Result<BTreeSet<String>, WeightsError> {
        Ok(self.tensors()?.names().into_iter().map(str::to_owned).collect())
    }

    /// Checks that every tensor is one of the graph's weights, in its shape and of the stated type.
    ///
    /// # Errors
    /// The first tensor that is not.
    pub fn fits(&self, graph: &Graph) -> Result<(), WeightsError> {
        let wanted: BTreeMap<&str, &WeightSpec> = weights_of(graph).collect();
        let expected = self.dtype;
        let stored = stored_dtype(expected).ok_or(WeightsError::UnsupportedDtype(expected))?;
        let mut tensors: Vec<(String, TensorView<'_>)> = self.tensors()?.tensors();
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, tensor) in tensors {
            let Some(weight) = wanted.get(name.as_str()) else {
                return Err(WeightsError::Unknown { name });
            };
            if weight.shape != tensor.shape() {
                let found = tensor.shape().to_vec();
                return Err(WeightsError::Shape { name, expected: weight.shape.clone(), found });
            }
            if tensor.dtype() != stored {
                return Err(WeightsError::StoredDtype { name, expected, found: tensor.dtype() });
            }
        }
        Ok(())
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

fn stored_dtype(dtype: Dtype) -> Option<StoredDtype> {
    match dtype {
        Dtype::F32 => Some(StoredDtype::F32),
        Dtype::F16 => Some(StoredDtype::F16),
        Dtype::Bf16 => Some(StoredDtype::BF16),
        _ => None,
    }
}
