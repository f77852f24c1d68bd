//! The identity of a pack.

use std::{fmt, str::FromStr};

use manifests::{PackManifest, Sha256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 over a pack's manifest, library and weights: its identity everywhere, where a name is none. Two folders with
/// the same bytes are one generation; a replaced file makes another.
///
/// `Display` gives the first 12 digits, for people; [`Generation::to_hex`] gives all 64, for files and interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(Sha256);

impl Generation {
    /// From the hashes of the three parts. The manifest names the hashes of all other files, so these are covered.
    pub fn new(manifest: &Sha256, library: &Sha256, weights: Option<&Sha256>) -> Self {
        let mut parts = b"modularbase generation 1\0".to_vec();
        parts.extend_from_slice(manifest.as_bytes());
        parts.extend_from_slice(library.as_bytes());
        // Absent and present weights must not collide.
        parts.push(u8::from(weights.is_some()));
        if let Some(weights) = weights {
            parts.extend_from_slice(weights.as_bytes());
        }
        Self(Sha256::of_bytes(&parts))
    }

    /// Of a manifest and its bytes. A pack without a library is told from every pack with one by its manifest.
    pub fn of_manifest(manifest: &PackManifest, bytes: &[u8]) -> Self {
        let none = Sha256::of_bytes(b"");
        let library = manifest.library.as_ref().map_or(&none, |library| &library.sha256);
        let weights = manifest.weights.as_ref().map(|weights| &weights.sha256);
        Self::new(&Sha256::of_bytes(bytes), library, weights)
    }

    /// All 64 digits.
    pub fn to_hex(self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.to_hex();
        out.write_str(hex.get(..12).unwrap_or(&hex))
    }
}

impl FromStr for Generation {
    type Err = manifests::ValueError;

    /// Reads all 64 digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: manifests::ValueError| serde::de::Error::custom(error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_the_text_form_is_exact() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Sha256::of_bytes(text.as_bytes()));
        let generation = Generation::new(&a, &b, Some(&c));
        for other in [
            Generation::new(&b, &b, Some(&c)),
            Generation::new(&a, &c, Some(&c)),
            Generation::new(&a, &b, Some(&b)),
            Generation::new(&a, &b, None),
        ] {
            assert_ne!(generation, other);
        }
        assert_eq!(generation, Generation::new(&a, &b, Some(&c)));
        assert_eq!(generation.to_hex().parse(), Ok(generation));
        assert_eq!(generation.to_string().len(), 12);
        let json = serde_json::to_string(&generation).unwrap();
        assert_eq!(serde_json::from_str::<Generation>(&json).unwrap(), generation);
    }
}
