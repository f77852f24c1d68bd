//! A refused text value, and what every checked string type has in common.

use std::fmt;

/// Why a text is not a value of the type it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// What was expected and what was found.
    pub message: String,
    /// What a right value looks like.
    pub help: String,
}

impl ValueError {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for ValueError {}

/// Serde and JSON schema for a type that is written as a string through `Display` and `FromStr`.
macro_rules! as_string {
    ($type:ident, $description:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(|error: $crate::ValueError| {
                    serde::de::Error::custom($crate::document::with_help(&error.message, &error.help))
                })
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string", "description": $description, "pattern": $pattern
                })
            }
        }
    };
}
pub(crate) use as_string;

/// The text shortened for a message: what comes from outside may be long.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 { format!("`{short}...`") } else { format!("`{short}`") }
}
