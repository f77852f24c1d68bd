//! Tensors as they lie in the files: places checked against the files' lengths, matched to canonical names.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::BaseFileError;
use super::stored_dtype::StoredDtype;
use super::tensor_names::TensorSpec;

/// One tensor of a base, under its canonical name.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// e.g. `layers.3.attn_q`.
    pub name: String,
    /// `[out, in]` or `[size]`.
    pub shape: Vec<usize>,
    pub kind: StoredDtype,
    /// Row `r` of the tensor is the stored row `row_map[r]`; `None` where the stored order is right.
    pub row_map: Option<Arc<[u32]>>,
    /// Which of the base's weight files, and where in it.
    pub(crate) file: usize,
    pub(crate) start: u64,
    pub(crate) row_bytes: usize,
}

impl TensorInfo {
    /// Rows of the stored form: 1 for a norm, `out` for a linear layer and for a bias with a row map.
    pub fn rows(&self) -> usize {
        if self.shape.len() == 1 && self.row_map.is_none() { 1 } else { self.shape[0] }
    }

    /// Stored bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Stored bytes of the whole tensor.
    pub fn byte_len(&self) -> usize {
        self.rows() * self.row_bytes
    }
}

/// A tensor entry of either format, before it is known whether the base needs it.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    pub shape: Vec<usize>,
    /// The type, or the words for a type that is not supported.
    pub kind: Result<StoredDtype, String>,
    pub file: usize,
    pub start: u64,
    /// Where the format states it; else it follows from shape and type.
    pub stated_end: Option<u64>,
}

/// A file that holds weights, with its length in bytes.
#[derive(Debug)]
pub(crate) struct WeightFile {
    pub path: PathBuf,
    pub file: std::fs::File,
    pub length: u64,
}

/// Finds each expected tensor among the stored ones and checks shape, type and place.
///
/// `stored_name` picks the format's name; `row_map` gives the map for tensors with RoPE heads.
pub(crate) fn match_tensors(
    path: &Path,
    files: &[WeightFile],
    stored: &HashMap<String, StoredTensor>,
    expected: impl Iterator<Item = TensorSpec>,
    stored_name: impl Fn(&TensorSpec) -> &str,
    row_map: impl Fn(&TensorSpec) -> Option<Arc<[u32]>>,
) -> Result<BTreeMap<String, TensorInfo>, BaseFileError> {
    let mut found = BTreeMap::new();
    // (file, start, end, name): to see overlaps.
    let mut places: Vec<(usize, u64, u64, String)> = Vec::new();
    for spec in expected {
        let file_name = stored_name(&spec).to_owned();
        let Some(entry) = stored.get(&file_name) else {
            return Err(BaseFileError::MissingTensor {
                path: path.to_path_buf(),
                name: spec.name,
                stored_name: file_name,
                expected: spec.shape,
            });
        };
        if entry.shape != spec.shape {
            return Err(BaseFileError::TensorShape {
                path: path.to_path_buf(),
                name: spec.name,
                stored_name: file_name,
                expected: spec.shape,
                found: entry.shape.clone(),
            });
        }
        let row_map = row_map(&spec);
        let info = place_tensor(path, files, entry, &file_name, spec, row_map)?;
        places.push((info.file, info.start, info.start + info.byte_len() as u64, file_name));
        found.insert(info.name.clone(), info);
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        let (file, start, end, name) = &pair[1];
        if *file == pair[0].0 && *start < pair[0].2 {
            return Err(BaseFileError::TensorBounds {
                path: files[*file].path.clone(),
                stored_name: name.clone(),
                start: *start,
                end: *end,
                why: format!("but '{}' holds them up to {}", pair[0].3, pair[0].2),
            });
        }
    }
    Ok(found)
}

fn place_tensor(
    path: &Path,
    files: &[WeightFile],
    entry: &StoredTensor,
    stored_name: &str,
    spec: TensorSpec,
    row_map: Option<Arc<[u32]>>,
) -> Result<TensorInfo, BaseFileError> {
    let weight_file = &files[entry.file];
    let kind = match &entry.kind {
        Ok(kind) => *kind,
        Err(found) => {
            return Err(BaseFileError::unsupported(
                path,
                "the tensor type",
                format!("{found} of '{stored_name}'"),
                "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K",
            ));
        }
    };
    // A bias whose rows are permuted is a matrix of one column.
    let columns = match (spec.shape.as_slice(), &row_map) {
        ([_, columns], _) => *columns,
        ([_], Some(_)) => 1,
        ([size], None) => *size,
        _ => 1,
    };
    let rows = spec.shape.iter().product::<usize>() / columns.max(1);
    let bounds = |end: u64, why: String| BaseFileError::TensorBounds {
        path: weight_file.path.clone(),
        stored_name: stored_name.to_owned(),
        start: entry.start,
        end,
        why,
    };
    let row_bytes = kind.row_bytes(columns).ok_or_else(|| {
        bounds(entry.start, format!("but rows of {columns} are no whole number of {kind} blocks"))
    })?;
    let bytes = rows
        .checked_mul(row_bytes)
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| bounds(u64::MAX, "more than any file holds".to_owned()))?;
    let end = entry
        .start
        .checked_add(bytes)
        .ok_or_else(|| bounds(u64::MAX, "more than any file holds".to_owned()))?;
    if end > weight_file.length {
        return Err(bounds(end, format!("but the file has {} bytes. Fetch it again", weight_file.length)));
    }
    if let Some(stated) = entry.stated_end
        && stated != end
    {
        return Err(bounds(stated, format!("but {:?} of {kind} take {bytes} bytes", spec.shape)));
    }
    Ok(TensorInfo {
        name: spec.name,
        shape: spec.shape,
        kind,
        row_map,
        file: entry.file,
        start: entry.start,
        row_bytes,
    })
}
