//! A number of bytes as people write it: `512MiB`, `1.5GB`, `4096`.

use std::fmt;
use std::str::FromStr;

use crate::string_type::{ValueError, quoted};

/// A number of bytes.
///
/// Text form: a decimal number, then nothing or `B`, `kB`/`KB`/`K`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`,
/// `GiB`, `TiB` (powers of 1024); case does not matter. A TOML integer is plain bytes. It prints as the shortest text
/// that is exact with at most three decimals, so that what is printed parses to the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

const HELP: &str = "write bytes as `1048576`, `512MiB` or `1.5GB`";

/// Name and bytes of each unit, in the order in which they are tried for printing.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `mebibytes` times 2^20 bytes; saturates.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1 << 20))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<u64> for ByteSize {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse =
            |why: &str| ValueError::new(format!("{} is not a number of bytes: {why}", quoted(text)), HELP);
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(refuse("it is negative"));
        }
        let number_end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_end);
        let unit = unit.trim_start();
        let unit_bytes = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1_u128 << 40,
            _ if number.is_empty() => return Err(refuse("it does not start with a number")),
            _ => return Err(refuse(&format!("unknown unit {}", quoted(unit)))),
        };
        // Exact arithmetic: a float would round what a budget is counted in.
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(refuse("it does not start with a number"));
        }
        if fraction.len() > 12 {
            return Err(refuse("more than 12 decimals"));
        }
        let too_large = || refuse("it is larger than 2^63 - 1 bytes");
        let digits =
            |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<u128>().map_err(|_| too_large()) };
        let scale = 10_u128.pow(fraction.len() as u32);
        let bytes = digits(whole)?
            .checked_mul(unit_bytes)
            .and_then(|whole_bytes| Some((whole_bytes, digits(fraction).ok()?.checked_mul(unit_bytes)?)))
            .and_then(|(whole_bytes, fraction_bytes)| whole_bytes.checked_add(fraction_bytes / scale))
            .ok_or_else(too_large)?;
        // TOML integers end at 2^63 - 1, and so do file offsets.
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= i64::MAX as u64 => Ok(Self(bytes)),
            _ => Err(too_large()),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shortest: Option<String> = None;
        for (name, unit) in UNITS.into_iter().filter(|(_, unit)| self.0 >= *unit) {
            let thousandths = u128::from(self.0) * 1000;
            if thousandths % u128::from(unit) != 0 {
                continue;
            }
            let thousandths = thousandths / u128::from(unit);
            let number = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            let text = format!("{}{name}", number.trim_end_matches('0').trim_end_matches('.'));
            if shortest.as_ref().is_none_or(|known| text.len() < known.len()) {
                shortest = Some(text);
            }
        }
        f.pad(shortest.as_deref().unwrap_or("0B"))
    }
}

impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 1048576 or \"512MiB\"")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| {
                    let message = format!("`{bytes}` is not a number of bytes: it is negative");
                    E::custom(crate::document::with_help(message, HELP))
                })
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(|error: ValueError| {
                    E::custom(crate::document::with_help(&error.message, &error.help))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A number of bytes: plain, or with a unit (kB, MB, GB, TB, KiB, MiB, GiB, TiB).",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]*\\.?[0-9]+ ?([kKmMgGtT]?[iI]?[bB]|[kKmMgGtT])?$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<u64, String> {
        text.parse::<ByteSize>().map(ByteSize::bytes).map_err(|error| error.message)
    }

    #[test]
    fn decimal_and_binary_units_parse() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("512 mib"), Ok(512 << 20));
        assert_eq!(bytes("1.5GB"), Ok(1_500_000_000));
        assert_eq!(bytes("0.1KiB"), Ok(102));
        assert_eq!(bytes("2T"), Ok(2_000_000_000_000));
    }

    #[test]
    fn negative_empty_unknown_and_overflowing_sizes_are_refused() {
        assert_eq!(bytes("-1"), Err("`-1` is not a number of bytes: it is negative".into()));
        for text in ["", ".", "MiB", "1.2.3", "abc"] {
            assert!(bytes(text).unwrap_err().contains("does not start with a number"), "{text}");
        }
        assert_eq!(
            bytes("5 parsecs"),
            Err("`5 parsecs` is not a number of bytes: unknown unit `parsecs`".into())
        );
        for text in ["9223372036854775808", "8388608TiB", "99999999999999999999999999999999999999999"] {
            assert!(bytes(text).unwrap_err().contains("larger than 2^63 - 1"), "{text}");
        }
        assert_eq!(bytes("9223372036854775807"), Ok(i64::MAX as u64));
    }

    #[test]
    fn sizes_print_as_the_shortest_exact_text() {
        let print = |bytes| ByteSize::new(bytes).to_string();
        assert_eq!(print(0), "0B");
        assert_eq!(print(999), "999B");
        assert_eq!(print(512 << 20), "512MiB");
        assert_eq!(print(3 << 19), "1.5MiB");
        assert_eq!(print(1_500_000_000), "1.5GB");
        assert_eq!(print(98_362_432), "98362432B");
        assert_eq!(print(1_000_001), "1000001B");
    }

    #[test]
    fn what_is_printed_parses_to_the_same_number() {
        for bytes in [0, 1, 1023, 1024, 98_362_432, 123_456_789_012, (1 << 40) + 1, i64::MAX as u64] {
            let printed = ByteSize::new(bytes).to_string();
            assert_eq!(printed.parse::<ByteSize>().map(ByteSize::bytes), Ok(bytes), "{printed}");
        }
    }
}
