//! The router pack of the packs folder and the detectors beside it, as far as they can be read.

use manifests::{PACK_MANIFEST_FILE, PackKind, PackManifest};
use modularbase_loader::{PackFolder, read_router};
use router::{Detector, RouterWeights, RoutingKey};

use crate::settings::Settings;

/// A router and the detectors that were trained with it.
pub(crate) struct InstalledRouter {
    /// The first router pack by its folder.
    pub(crate) weights: RouterWeights,
    /// By the names of their packs, in order of the folders.
    pub(crate) detectors: Vec<(String, Detector)>,
}

impl InstalledRouter {
    /// Reads the packs folder; `None` where no sound router pack lies there.
    pub(crate) fn find(settings: &Settings) -> Option<Self> {
        let entries = std::fs::read_dir(settings.packs_dir().ok()?).ok()?;
        let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let manifests: Vec<_> = folders
            .into_iter()
            .filter_map(|folder| Some((PackManifest::read(&folder.join(PACK_MANIFEST_FILE)).ok()?, folder)))
            .collect();
        let weights = manifests.iter().find_map(|(manifest, folder)| {
            let folder =
                (manifest.pack.kind == PackKind::Router).then(|| PackFolder::read(folder).ok())??;
            read_router(&folder).ok()
        })?;
        let projection = weights.projection();
        let detectors = manifests
            .iter()
            .filter_map(|(manifest, folder)| {
                let file = &manifest.routing_key.as_ref()?.file;
                let key = RoutingKey::from_bytes(&std::fs::read(file.in_folder(folder)).ok()?).ok()?;
                let detector = key.detector.filter(|_| key.facts.router == Some(projection))?;
                Some((manifest.pack.name.to_string(), detector))
            })
            .collect();
        Some(Self { weights, detectors })
    }
}
