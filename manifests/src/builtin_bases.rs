//! The bases whose manifests come with the program.

use crate::base_manifest::BaseManifest;
use crate::error::ManifestError;
use crate::host_config::DEFAULT_BASE;

/// Name and manifest text of each built-in base, the default one first.
pub const BUILTIN_BASES: &[(&str, &str)] =
    &[(DEFAULT_BASE, include_str!("../bases/smollm2-135m-instruct.toml"))];

/// The built-in base of this name; `None` when there is none.
pub fn builtin_base(name: &str) -> Option<Result<BaseManifest, ManifestError>> {
    let (_, text) = BUILTIN_BASES.iter().find(|(known, _)| *known == name)?;
    Some(BaseManifest::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_base_is_valid_and_carries_the_name_it_is_found_by() {
        for (name, _) in BUILTIN_BASES {
            let manifest = builtin_base(name).unwrap().unwrap();
            assert_eq!(manifest.base.name.as_str(), *name);
            assert!(manifest.file.is_some() && !manifest.source.is_empty(), "{name} can be fetched");
        }
        assert!(builtin_base("unknown").is_none());
    }

    #[test]
    fn the_default_base_has_its_slot_at_18_to_24() {
        let base = builtin_base(DEFAULT_BASE).unwrap().unwrap();
        let slot = base.base.slot.unwrap();
        assert_eq!((slot.start(), slot.end()), (14, 26));
        assert_eq!(base.file.unwrap().size, 98_362_432);
        assert_eq!(base.base.context, Some(8192));
    }
}
