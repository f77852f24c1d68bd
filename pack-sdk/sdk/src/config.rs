//! The text that a host hands to a pack's `build`: both directions of it.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

use crate::{BaseShape, Error, SlotRange};

/// What a pack is told when it builds its graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Config<Settings = NoSettings> {
    /// The base it runs in.
    pub base: BaseShape,
    /// The layers it stands in for.
    pub slot: SlotRange,
    /// The `[config]` table of its manifest, in the author's own type.
    pub pack: Settings,
}

/// Settings of a pack that takes none: an entry in the manifest's `[config]` table is then an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

#[derive(Serialize, Deserialize)]
struct Text {
    base: BaseShape,
    slot: SlotRange,
    #[serde(default)]
    pack: Json,
}

impl<Settings: DeserializeOwned> Config<Settings> {
    /// Reads the text that [`config_json`] writes. A missing `pack` table reads as an empty one.
    ///
    /// # Errors
    /// `INVALID_CONFIG` with the field and the reason.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let text: Text = serde_json::from_str(text)
            .map_err(|error| Error::invalid_config(format!("the host's configuration: {error}")))?;
        let table = if text.pack.is_null() { Json::Object(serde_json::Map::new()) } else { text.pack };
        let pack = serde_json::from_value(table)
            .map_err(|error| Error::invalid_config(format!("[config] in pack.toml: {error}")))?;
        Ok(Self { base: text.base, slot: text.slot, pack })
    }
}

/// The text for a pack's `build`: the base's shape, the slot and the `[config]` table of the pack's manifest.
pub fn config_json(base: &BaseShape, slot: SlotRange, pack: &Json) -> String {
    serde_json::json!({ "base": base, "slot": slot, "pack": pack }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::test_shape;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        rank: usize,
        #[serde(default)]
        note: String,
    }

    #[test]
    fn the_packs_own_table_arrives_in_its_own_type() {
        let mut shape = test_shape();
        shape.rope_freq_scale = Some(vec![1.0, 0.125, 0.1]);
        shape.rms_norm_eps = f64::from(1e-5f32);
        let slot = SlotRange { start: 1, end: 3 };
        let text = config_json(&shape, slot, &serde_json::json!({ "rank": 8 }));
        let config = Config::<Settings>::from_json(&text).unwrap();
        assert_eq!(config, Config { base: shape, slot, pack: Settings { rank: 8, note: String::new() } });
    }

    #[test]
    fn a_wrong_table_is_an_error_that_names_the_field() {
        let text =
            config_json(&test_shape(), SlotRange { start: 1, end: 2 }, &serde_json::json!({ "rnak": 8 }));
        let error = Config::<Settings>::from_json(&text).unwrap_err();
        assert_eq!(error.code, pack_abi::ErrorCode::INVALID_CONFIG);
        assert!(error.message.contains("[config] in pack.toml") && error.message.contains("rnak"), "{error}");
        assert!(Config::<NoSettings>::from_json(&text).is_err());
    }

    #[test]
    fn no_table_reads_as_an_empty_one_and_unknown_host_fields_are_ignored() {
        let text = config_json(&test_shape(), SlotRange { start: 1, end: 2 }, &Json::Null);
        assert!(Config::<NoSettings>::from_json(&text).is_ok());
        let text = text.replacen('{', "{\"from_a_newer_host\": 1,", 1);
        assert!(Config::<NoSettings>::from_json(&text).is_ok());
    }
}
