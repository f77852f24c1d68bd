//! Number formats by the names that manifests, the command line and the ledger share.

use std::fmt;
use std::str::FromStr;

use crate::string_type::{ValueError, quoted};

macro_rules! dtypes {
    ($($variant:ident $name:literal $doc:literal),+ $(,)?) => {
        /// How numbers of a weight are stored.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum Dtype {
            $(#[doc = $doc] #[serde(rename = $name)] $variant),+
        }

        impl Dtype {
            /// Every format, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in manifests and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

dtypes! {
    F32 "f32" "IEEE 754 single precision.",
    F16 "f16" "IEEE 754 half precision.",
    Bf16 "bf16" "bfloat16.",
    Q8_0 "q8_0" "Blocks of 32: an f16 scale and 8-bit integers.",
    Q4_0 "q4_0" "Blocks of 32: an f16 scale and 4-bit integers.",
    Q4_1 "q4_1" "Blocks of 32: f16 scale and minimum, 4-bit integers.",
    Q5_0 "q5_0" "Blocks of 32: an f16 scale and 5-bit integers.",
    Q5_1 "q5_1" "Blocks of 32: f16 scale and minimum, 5-bit integers.",
    Q2K "q2_k" "Super-blocks of 256, 2 bits.",
    Q3K "q3_k" "Super-blocks of 256, 3 bits.",
    Q4K "q4_k" "Super-blocks of 256, 4 bits.",
    Q5K "q5_k" "Super-blocks of 256, 5 bits.",
    Q6K "q6_k" "Super-blocks of 256, 6 bits.",
    DeltaQ1 "delta-q1" "Deltas to the base's tensors, 1 bit in groups of 64 with an f16 scale; only in files of packs.",
    DeltaQ2 "delta-q2" "Deltas to the base's tensors, 2 bits in groups of 64 with an f16 scale; only in files of packs.",
    DeltaQ3 "delta-q3" "Deltas to the base's tensors, 3 bits in groups of 64 with an f16 scale; only in files of packs.",
}

impl Dtype {
    /// Whether numbers in it are to be added to a base's: what a file may hold, and nothing that can be computed in.
    pub const fn is_delta(self) -> bool {
        matches!(self, Self::DeltaQ1 | Self::DeltaQ2 | Self::DeltaQ3)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            ValueError::new(format!("unknown dtype {}", quoted(text)), format!("one of {}", names.join(", ")))
        })
    }
}
