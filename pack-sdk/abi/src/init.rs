//! How a weight gets its first values, as the text of its `init` attribute.

use std::{fmt, str::FromStr};

/// First values of a weight. Also the rule for a weight that the pack's file does not hold: [`Init::CopyFromBase`]
/// shares the base's own tensor, anything else is an error outside training.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// `copy_from_base:NAME`: the base's tensor of that canonical name, for example `layers.18.attn_q`.
    CopyFromBase(String),
    /// `normal:STD`: independent draws from a normal distribution of mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// `zeros`.
    Zeros,
    /// `ones`.
    Ones,
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyFromBase(name) => write!(f, "copy_from_base:{name}"),
            Self::Normal { std } => write!(f, "normal:{std}"),
            Self::Zeros => f.write_str("zeros"),
            Self::Ones => f.write_str("ones"),
        }
    }
}

impl FromStr for Init {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "expected `copy_from_base:NAME`, `normal:STD`, `zeros` or `ones`";
        match text.split_once(':') {
            Some(("copy_from_base", name)) if !name.is_empty() => Ok(Self::CopyFromBase(name.to_owned())),
            Some(("normal", std)) => match std.parse::<f32>() {
                Ok(std) if std.is_finite() && std >= 0.0 => Ok(Self::Normal { std }),
                _ => Err(format!("`{text}`: the standard deviation is not a finite number >= 0; {wanted}")),
            },
            None if text == "zeros" => Ok(Self::Zeros),
            None if text == "ones" => Ok(Self::Ones),
            _ => Err(format!("found `{text}`, {wanted}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_init_survives_its_own_text() {
        for init in [
            Init::CopyFromBase("layers.18.attn_q".into()),
            Init::Normal { std: 0.02 },
            Init::Zeros,
            Init::Ones,
        ] {
            assert_eq!(init.to_string().parse::<Init>(), Ok(init));
        }
    }

    #[test]
    fn unknown_init_is_refused_with_the_choices() {
        for text in ["", "normal", "normal:x", "normal:-1", "normal:inf", "copy_from_base:", "uniform:1"] {
            let error = text.parse::<Init>().unwrap_err();
            assert!(error.contains("expected") || error.contains("not a finite"), "{text}: {error}");
        }
    }
}
