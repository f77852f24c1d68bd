//! The packs of the answers to come, and who chose them.

use manifests::{MixtureChoice, ValueError};
use router::Routing;

use crate::EngineError;

/// The packs of the answers to come, and what the router said where it chose them.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Packs and weights.
    pub choice: MixtureChoice,
    /// `None` where they were asked for.
    pub routing: Option<Routing>,
}

impl Chosen {
    /// What the router chose.
    ///
    /// # Errors
    /// A pack with a name that no mixture can have.
    pub fn by_router(routing: Routing) -> Result<Self, EngineError> {
        let packs = routing.mixture.iter().map(|share| Ok((share.pack.parse()?, share.weight)));
        let packs: Vec<_> =
            packs.collect::<Result<_, ValueError>>().map_err(|error| EngineError::Option(error.message))?;
        let choice = if packs.is_empty() { MixtureChoice::None } else { MixtureChoice::Packs(packs) };
        Ok(Self { choice, routing: Some(routing) })
    }

    /// Packs that may be wanted next, the likeliest first.
    pub fn nearest(&self) -> impl Iterator<Item = &str> {
        self.routing.iter().flat_map(|routing| &routing.nearest).map(String::as_str)
    }
}

impl From<MixtureChoice> for Chosen {
    fn from(choice: MixtureChoice) -> Self {
        Self { choice, routing: None }
    }
}
