//! The header of a safetensors file, read by position and checked before anything is allocated for it.
//!
//! Format: 8 bytes with the length of the JSON header (little-endian), the header, the data.
//! <https://github.com/huggingface/safetensors#format>

use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use serde::Deserialize;

use super::error::BaseFileError;
use super::stored_dtype::StoredDtype;
use super::stored_tensors::{StoredTensor, WeightFile};

/// The limit of the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Adds the tensors of one file to `stored`.
pub(crate) fn read_tensors(
    file: &WeightFile,
    index: usize,
    stored: &mut HashMap<String, StoredTensor>,
) -> Result<(), BaseFileError> {
    let damaged =
        |offset: u64, what: String| BaseFileError::Damaged { path: file.path.clone(), offset, what };
    let io = |source| BaseFileError::io(&file.path, "read", source);
    if file.length < 8 {
        return Err(damaged(0, format!("it has {} bytes, a safetensors file at least 8", file.length)));
    }
    let mut prefix = [0; 8];
    file.file.read_exact_at(&mut prefix, 0).map_err(io)?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAX_HEADER_BYTES || header_bytes > file.length - 8 {
        return Err(damaged(
            0,
            format!("its header claims {header_bytes} bytes, {} are there", file.length - 8),
        ));
    }
    let mut header = vec![0; header_bytes as usize];
    file.file.read_exact_at(&mut header, 8).map_err(io)?;
    let items: HashMap<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|error| damaged(8, format!("its header is not the JSON expected: {error}")))?;
    let data_start = 8 + header_bytes;
    let mut places = Vec::with_capacity(items.len());
    for (name, item) in items {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_value(item)
            .map_err(|error| damaged(8, format!("the entry of tensor '{name}' is wrong: {error}")))?;
        let (start, end) = entry.data_offsets;
        let absolute = data_start.checked_add(start).zip(data_start.checked_add(end));
        let Some((start, end)) = absolute.filter(|(start, end)| start <= end && *end <= file.length) else {
            return Err(BaseFileError::TensorBounds {
                path: file.path.clone(),
                stored_name: name,
                start,
                end,
                why: format!("but there are {} bytes of data. Fetch it again", file.length - data_start),
            });
        };
        places.push((start, end, name.clone()));
        let kind = StoredDtype::from_safetensors(&entry.dtype).ok_or(entry.dtype);
        let tensor = StoredTensor { shape: entry.shape, kind, file: index, start, stated_end: Some(end) };
        if stored.insert(name.clone(), tensor).is_some() {
            return Err(damaged(8, format!("tensor '{name}' is also in another shard")));
        }
    }
    places.sort_unstable();
    if let Some(pair) = places.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Err(BaseFileError::TensorBounds {
            path: file.path.clone(),
            stored_name: pair[1].2.clone(),
            start: pair[1].0,
            end: pair[1].1,
            why: format!("but '{}' holds them up to {}", pair[0].2, pair[0].1),
        });
    }
    Ok(())
}
