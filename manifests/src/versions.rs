//! `semver` versions and ranges in manifests, refused with advice.

/// `#[serde(with = "version")]`: a version such as `1.2.0`.
pub(crate) mod version {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &semver::Version,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<semver::Version, D::Error> {
        let text = String::deserialize(deserializer)?;
        semver::Version::parse(&text).map_err(|error| {
            let message = format!("{} is not a version: {error}", crate::string_type::quoted(&text));
            D::Error::custom(crate::document::with_help(message, "write MAJOR.MINOR.PATCH, such as `0.1.0`"))
        })
    }
}

/// A range of versions, as cargo writes it: `^1.2`, `>=1, <3`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionRange(semver::VersionReq);

crate::string_type::as_string!(VersionRange, "A range of versions, such as `^1.2`.", ".+");

impl VersionRange {
    /// Whether `version` lies inside.
    pub fn matches(&self, version: &semver::Version) -> bool {
        self.0.matches(version)
    }
}

impl std::str::FromStr for VersionRange {
    type Err = crate::ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        semver::VersionReq::parse(text).map(Self).map_err(|error| {
            let message = format!("{} is not a range of versions: {error}", crate::string_type::quoted(text));
            crate::ValueError::new(message, "write it as cargo does, such as `^1.2` or `>=1, <3`")
        })
    }
}

impl std::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
