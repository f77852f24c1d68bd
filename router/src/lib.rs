//! Which packs answer, and with which weights.
//!
//! A pack ships a [`RoutingKey`]: statistics of the hidden states that its own text leads to. A [`Discriminant`] scores
//! packs by their keys alone: a pack that is added adds its statistics, and nothing is trained anew. A key may hold a
//! learned [`Detector`] too; [`route`] makes a mixture of what the detectors say.
//!
//! *Deliberately not here*: libraries, the model, where files lie.

#![forbid(unsafe_code)]

mod detector;
mod discriminant;
mod matrices;
mod routing;
mod routing_key;
mod routing_key_file;
mod scatter;
mod selection;

pub use detector::Detector;
pub use discriminant::Discriminant;
pub use routing::{MixtureShare, PackScore, Routing, RoutingPolicy, route};
pub use routing_key::{HeldOutCheck, KeyError, KeyFacts, MAX_KEY_BYTES, RoutingKey};
pub use scatter::Scatter;
pub use selection::{Candidate, Selection, SelectionError, select};
