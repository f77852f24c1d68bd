//! A pack between being compiled and being complete: a library, a manifest in either form, perhaps weights.

use std::path::Path;

use manifests::{
    Dtype, FileName, MemoryDeclaration, PACK_MANIFEST_FILE, PackManifest, PackSource, Sha256, Version,
};
use modularbase_graph::{CheckedGraph, infer_shapes};
use modularbase_loader::{BaseContext, copies_fit_base, fits_base, inspect_library};
use pack_sdk::config_json;

use super::bad_pack;
use crate::failure::Failure;

/// What is known of it, its graph included.
pub(crate) struct UnfinishedPack {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: Version,
    /// Its weights file and how the numbers are to be stored; `None` when it has none of its own.
    pub(crate) weights: Option<(FileName, Dtype)>,
    /// Its graph for the base; shapes are checked.
    pub(crate) graph: CheckedGraph,
    /// The finished manifest; what the author's form leaves open stands at zero.
    pub(crate) manifest: PackManifest,
}

impl UnfinishedPack {
    /// Reads the manifest, inspects the library and lets a child process build the graph.
    pub(crate) fn read(dir: &Path, base: &BaseContext) -> anyhow::Result<Self> {
        let manifest = read_manifest(dir)?;
        let refused = |what: &str| bad_pack(format!("pack `{}`: {what}", manifest.pack.name));
        fits_base(&manifest, base)
            .map_err(|error| anyhow::Error::new(error).context(refused("it is for another base")))?;
        let Some(library) = &manifest.library else { return Err(refused("it has no library").into()) };
        let library = library.file.in_folder(dir);
        let bytes = std::fs::read(&library).map_err(|error| {
            anyhow::Error::new(error).context(Failure::usage(format!("can't read {}", library.display())))
        })?;
        if let Some(finding) = inspect_library(&bytes).refusals().next() {
            return Err(anyhow::anyhow!(finding.to_string()).context(refused("its library is refused")));
        }
        let config = config_json(&base.shape, base.slot, &manifest.config_json());
        let report = super::prober()
            .probe(&library, &config, 0)
            .map_err(|error| anyhow::Error::new(error).context(refused("its library failed the probe")))?;
        let graph = infer_shapes(report.graph)
            .and_then(|graph| graph.suits_slot(base.shape.hidden_size).map(|()| graph))
            .map_err(|error| anyhow::Error::new(error).context(refused("its graph is refused")))?;
        copies_fit_base(graph.graph(), &base.shape)
            .map_err(|error| anyhow::Error::new(error).context(refused("its graph does not fit the base")))?;
        let weights = manifest.weights.as_ref().map(|weights| (weights.file.clone(), weights.dtype));
        let (name, version) = (manifest.pack.name.to_string(), manifest.pack.version.clone());
        Ok(Self { name, version, weights, graph, manifest })
    }
}

/// The name of the pack in `dir`, whose manifest may be in either form.
pub(crate) fn manifest_name(dir: &Path) -> anyhow::Result<String> {
    Ok(read_manifest(dir)?.pack.name.to_string())
}

/// The manifest in the form that the author wrote, else in the finished one. Hashes and sizes of the first are not
/// known yet and stand at zero; nothing here looks at them.
fn read_manifest(dir: &Path) -> anyhow::Result<PackManifest> {
    let path = dir.join(PACK_MANIFEST_FILE);
    let source_error = match PackSource::read(&path) {
        Ok(source) => {
            let memory = MemoryDeclaration::default();
            let unknown = |_: &FileName| Ok::<_, std::convert::Infallible>((Sha256::from_bytes([0; 32]), 0));
            let Ok(manifest) = source.complete(memory, unknown);
            return Ok(manifest);
        }
        Err(error) => error,
    };
    PackManifest::read(&path).map_err(|finished_error| {
        // Of a manifest that is wrong in both forms, the author's form is the one to correct.
        tracing::debug!(%finished_error, "not a finished manifest either");
        anyhow::Error::new(source_error).context(bad_pack("the pack's manifest can't be used"))
    })
}
