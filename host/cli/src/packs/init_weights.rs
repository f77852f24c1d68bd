//! `packs init-weights`: the values that a pack's weights start from, as its graph states them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use manifests::Dtype;
use modularbase_graph::Init;
use modularbase_loader::{NewWeight, weights_of, write_weights};
use modularbase_trainer::initial_values;
use safetensors::tensor::{Dtype as StoredDtype, SafeTensors, TensorView};
use serde_json::json;

use super::bad_pack;
use super::unfinished_pack::UnfinishedPack;
use crate::settings::Settings;
use crate::terminal::{bytes_text, print_json, print_line};

/// Writes the weights file of the pack in `dir`, atomically. Tensors that are in it already stay as they are; weights
/// that copy from the base stay out of it.
pub(crate) fn init_weights(dir: &Path, seed: u64, settings: &Settings) -> anyhow::Result<()> {
    let pack = UnfinishedPack::read(dir, &super::base_context(settings)?)?;
    let Some((file, dtype)) = &pack.weights else {
        let failure = bad_pack("the pack's manifest names no weights file");
        return Err(failure.help("add [weights] with file and dtype to pack.toml").into());
    };
    let dtype = first_dtype(*dtype)?;
    let path = file.in_folder(dir);
    let mut tensors = existing_tensors(&path)?;
    let mut made = 0;
    for (name, spec) in weights_of(pack.graph.graph()) {
        if matches!(spec.init, Init::CopyFromBase(_)) || tensors.contains_key(name) {
            continue;
        }
        let values = initial_values(&spec.init, spec.elements(), seed, name);
        tensors.insert(name.to_owned(), NewWeight::of_values(name, &spec.shape, &values, dtype)?);
        made += 1;
    }
    if tensors.is_empty() {
        let failure =
            bad_pack("every weight of the pack's graph is a copy of the base's: there is nothing to write");
        return Err(failure.help("remove [weights] from pack.toml").into());
    }
    let tensors: Vec<NewWeight> = tensors.into_values().collect();
    let bytes = write_weights(&path, &tensors).with_context(|| format!("can't write {}", path.display()))?;
    if settings.json {
        return print_json(&json!({ "path": path, "tensors": tensors.len(), "made": made, "bytes": bytes }));
    }
    print_line(&format!("{}: {made} tensors made, {}", path.display(), bytes_text(bytes)))
}

/// The tensors of a file that is there; none where it is not.
fn existing_tensors(path: &Path) -> anyhow::Result<BTreeMap<String, NewWeight>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    };
    let unsound = || bad_pack(format!("{} is no sound safetensors file", path.display()));
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| anyhow::Error::new(error).context(unsound()))?;
    let kept = |(name, view): (String, TensorView<'_>)| {
        let dtype = match view.dtype() {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::Bf16,
            other => {
                let failure = bad_pack(format!("{} holds `{name}` as {other:?}", path.display()));
                return Err(failure.help("first weights are written as f32, f16 or bf16").into());
            }
        };
        let weight = NewWeight::of_bytes(&name, view.shape(), view.data().to_vec(), dtype)?;
        Ok((name, weight))
    };
    file.tensors().into_iter().map(kept).collect()
}

/// What first weights can be written as.
fn first_dtype(dtype: Dtype) -> anyhow::Result<Dtype> {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Ok(dtype),
        other => {
            let failure = bad_pack(format!("weights can't be written as {other}"));
            Err(failure.help("set dtype in [weights] of pack.toml to f32, f16 or bf16").into())
        }
    }
}
