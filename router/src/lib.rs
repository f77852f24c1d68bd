//! Which packs answer, and with which weights.
//!
//! A pack ships a [`RoutingKey`]: statistics of the hidden states that its own text leads to. A [`Discriminant`] scores
//! packs by their keys alone: a pack that is added adds its statistics, and nothing is trained anew.
//!
//! *Deliberately not here*: libraries, the model, where files lie.

#![forbid(unsafe_code)]

mod discriminant;
mod matrices;
mod routing_key;
mod routing_key_file;
mod scatter;
mod selection;

pub use discriminant::Discriminant;
pub use routing_key::{HeldOutCheck, KeyError, KeyFacts, MAX_KEY_BYTES, RoutingKey};
pub use scatter::Scatter;
pub use selection::{Candidate, Selection, SelectionError, select};
