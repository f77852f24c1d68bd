//! `packs measure`: what a pack's own weights take on the device, for `[memory]` of its manifest.

use std::collections::BTreeSet;
use std::path::Path;

use manifests::{Dtype, MemoryDeclaration};
use modularbase_graph::Graph;
use modularbase_loader::resident_bytes;
use safetensors::SafeTensors;

use super::bad_pack;
use super::unfinished_pack::UnfinishedPack;
use crate::settings::Settings;
use crate::terminal::{bytes_text, print, print_json, table};

/// The formats that a host can hold weights in.
const HELD: [Dtype; 6] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4_1];

/// Prints the bytes by dtype; with `--json` in the form of the manifest.
pub(crate) fn measure(dir: &Path, settings: &Settings) -> anyhow::Result<()> {
    let pack = UnfinishedPack::read(dir, &super::base_context(settings)?)?;
    let owned = match &pack.weights {
        Some((file, _)) => names_in(&file.in_folder(dir))?,
        None => BTreeSet::new(),
    };
    let declaration = declaration(pack.graph.graph(), &owned, pack.weights.as_ref().map(|(_, dtype)| *dtype));
    if settings.json {
        return print_json(&declaration);
    }
    let rows: Vec<Vec<String>> = declaration
        .resident_bytes
        .iter()
        .map(|(dtype, bytes)| vec![dtype.to_string(), bytes_text(*bytes)])
        .collect();
    print(&table(&rows))
}

/// The bytes of a pack that holds the weights `owned` of this graph, stored as `stored`.
pub(crate) fn declaration(
    graph: &Graph,
    owned: &BTreeSet<String>,
    stored: Option<Dtype>,
) -> MemoryDeclaration {
    // Deltas may also be held as they are stored.
    let delta = stored.filter(|dtype| dtype.is_delta());
    let held = HELD.into_iter().chain(delta);
    MemoryDeclaration {
        resident_bytes: held.map(|dtype| (dtype, resident_bytes(graph, owned, dtype))).collect(),
    }
}

fn names_in(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let unsound = || bad_pack(format!("{} can't be used as weights", path.display()));
    let bytes = std::fs::read(path).map_err(|error| anyhow::Error::new(error).context(unsound()))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| anyhow::Error::new(error).context(unsound()))?;
    Ok(file.names().into_iter().map(str::to_owned).collect())
}
