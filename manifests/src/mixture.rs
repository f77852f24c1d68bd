//! Which packs answer, and with what weight, as people write it.

use std::fmt;
use std::str::FromStr;

use crate::names::PackName;
use crate::string_type::{ValueError, as_string, quoted};

/// The mixture asked for: `auto` (the router chooses), `none` (the base alone, no pack) or `NAME[=W],..`.
///
/// Weights are finite and >= 0, at least one is > 0; a missing one is 1. They need not sum to 1: see
/// [`MixtureChoice::normalized`].
#[derive(Debug, Clone, PartialEq, Default)]
pub enum MixtureChoice {
    /// The router chooses.
    #[default]
    Auto,
    /// The base alone.
    None,
    /// These packs with these weights, each name once, in the order written.
    Packs(Vec<(PackName, f64)>),
}

as_string!(
    MixtureChoice,
    "The mixture: `auto`, `none` or NAME[=WEIGHT] joined by commas.",
    "^(auto|none|[a-z0-9][a-z0-9_-]*(=[0-9.eE+-]+)?(,[a-z0-9][a-z0-9_-]*(=[0-9.eE+-]+)?)*)$"
);

const HELP: &str = "write `auto`, `none` or `NAME[=WEIGHT],..`, such as `general=0.5,law=0.5`";

impl MixtureChoice {
    /// The packs with weights that sum to 1, packs of weight 0 left out; `None` for `auto` and `none`.
    pub fn normalized(&self) -> Option<Vec<(PackName, f64)>> {
        let Self::Packs(packs) = self else { return None };
        // The largest goes first out of the sum, so that huge weights can't overflow it.
        let largest = packs.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let sum: f64 = packs.iter().map(|(_, weight)| weight / largest).sum();
        let used = packs.iter().filter(|(_, weight)| *weight > 0.0);
        Some(used.map(|(name, weight)| (name.clone(), weight / largest / sum)).collect())
    }
}

impl FromStr for MixtureChoice {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.trim() {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let refuse = |why: String| ValueError::new(format!("{} is not a mixture: {why}", quoted(text)), HELP);
        let mut packs: Vec<(PackName, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = match part.trim().split_once('=') {
                None => (part.trim(), 1.0),
                Some((name, weight)) => {
                    let parsed: f64 = weight
                        .trim()
                        .parse()
                        .map_err(|_| refuse(format!("weight {} is not a number", quoted(weight))))?;
                    (name.trim(), parsed)
                }
            };
            let name: PackName = name.parse().map_err(|error: ValueError| refuse(error.message))?;
            if !weight.is_finite() || weight < 0.0 {
                return Err(refuse(format!(
                    "the weight of `{name}` must be finite and not negative, found {weight}"
                )));
            }
            if packs.iter().any(|(known, _)| *known == name) {
                return Err(refuse(format!("`{name}` is named twice")));
            }
            packs.push((name, weight));
        }
        if packs.iter().all(|(_, weight)| *weight == 0.0) {
            return Err(refuse("every weight is 0".into()));
        }
        Ok(Self::Packs(packs))
    }
}

impl fmt::Display for MixtureChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Packs(packs) => {
                for (index, (name, weight)) in packs.iter().enumerate() {
                    write!(f, "{}{name}={weight}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixtures_parse_and_their_weights_sum_to_one() {
        assert_eq!("auto".parse(), Ok(MixtureChoice::Auto));
        assert_eq!("none".parse(), Ok(MixtureChoice::None));
        let mixture: MixtureChoice = "general, law=3, idle=0".parse().unwrap();
        let weights: Vec<f64> = mixture.normalized().unwrap().into_iter().map(|(_, weight)| weight).collect();
        assert_eq!(weights, [0.25, 0.75]);
        assert_eq!(mixture.to_string().parse(), Ok(mixture));
    }

    #[test]
    fn huge_weights_do_not_overflow_when_normalized() {
        let mixture: MixtureChoice = "a=1e308,b=1e308".parse().unwrap();
        let weights: Vec<f64> = mixture.normalized().unwrap().into_iter().map(|(_, weight)| weight).collect();
        assert_eq!(weights, [0.5, 0.5]);
    }

    #[test]
    fn bad_mixtures_are_refused_with_the_reason() {
        let message = |text: &str| text.parse::<MixtureChoice>().unwrap_err().message;
        assert!(message("a=-1").contains("must be finite and not negative"));
        assert!(message("a=inf").contains("must be finite and not negative"));
        assert!(message("a=NaN").contains("must be finite and not negative"));
        assert!(message("a=x").contains("weight `x` is not a number"));
        assert!(message("a,a").contains("`a` is named twice"));
        assert!(message("a=0").contains("every weight is 0"));
        assert!(message("").contains("is not a pack's name"));
        assert!(message("a,,b").contains("is not a pack's name"));
        assert!(message("none,b").contains("is not a mixture"));
    }
}
