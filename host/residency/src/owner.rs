//! Who holds bytes of the budget, and the answer to those who can't have more.

use std::fmt;

/// What an allocation on the device is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Weights of the base core.
    Base,
    /// Key and value caches and hidden states of requests.
    Kv,
    /// Lowered graphs, and what belongs to them beside weights.
    Plan,
    /// Weights of a pack, by its generation.
    Pack(String),
    /// Working memory of the executor.
    Scratch,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Kv => f.write_str("kv"),
            Self::Plan => f.write_str("plan"),
            Self::Pack(generation) => write!(f, "pack {}", generation.get(..12).unwrap_or(generation)),
            Self::Scratch => f.write_str("scratch"),
        }
    }
}

/// A reservation that the budget does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{owner} needs {needed} bytes, but of the budget of {budget} bytes only {free} are free{} ({}): \
     raise --budget or use less",
    kept_in_words(*.kept),
    holders(.held)
)]
pub struct BudgetExceeded {
    /// Who asked.
    pub owner: Owner,
    /// Bytes asked for.
    pub needed: u64,
    /// Bytes of the whole budget.
    pub budget: u64,
    /// Bytes of it that nobody holds.
    pub free: u64,
    /// Bytes that are kept for others who have waited longer than is fair.
    pub kept: u64,
    /// Who holds the rest.
    pub held: Vec<(Owner, u64)>,
}

fn kept_in_words(kept: u64) -> String {
    if kept == 0 { String::new() } else { format!(", and {kept} are promised to others who wait") }
}

fn holders(held: &[(Owner, u64)]) -> String {
    match held {
        [] => "nothing is held".to_owned(),
        _ => held.iter().map(|(owner, bytes)| format!("{owner}: {bytes}")).collect::<Vec<_>>().join(", "),
    }
}
