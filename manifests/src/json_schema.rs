//! JSON schemas of the manifests, for editors and for other programs.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use crate::base_manifest::BaseManifest;
use crate::data_recipe::DataRecipe;
use crate::host_config::HostConfig;
use crate::pack_manifest::PackManifest;
use crate::pack_source::PackSource;

/// Schema of `pack.toml` in a packs folder.
pub fn pack_schema() -> Value {
    schema::<PackManifest>()
}

/// Schema of `pack.toml` in a pack's crate.
pub fn pack_source_schema() -> Value {
    schema::<PackSource>()
}

/// Schema of a base's manifest.
pub fn base_schema() -> Value {
    schema::<BaseManifest>()
}

/// Schema of the host's configuration.
pub fn host_schema() -> Value {
    schema::<HostConfig>()
}

/// Schema of a data recipe.
pub fn data_recipe_schema() -> Value {
    schema::<DataRecipe>()
}

/// File name in `manifests/schema` and content of every schema; pretty, ending with a newline.
pub fn schema_files() -> Vec<(&'static str, String)> {
    [
        ("pack.schema.json", pack_schema()),
        ("pack-source.schema.json", pack_source_schema()),
        ("base.schema.json", base_schema()),
        ("host.schema.json", host_schema()),
        ("data-recipe.schema.json", data_recipe_schema()),
    ]
    .into_iter()
    .map(|(name, schema)| (name, format!("{schema:#}\n")))
    .collect()
}

fn schema<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    // The version is an integer to serde, and exactly one integer to the reader of a manifest.
    if let Some(version) = schema.pointer_mut("/properties/schema_version") {
        *version = serde_json::json!({
            "description": "Version of this format.", "const": crate::SCHEMA_VERSION
        });
    }
    schema.to_value()
}
