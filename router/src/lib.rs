//! Which packs answer, and with which weights.
//!
//! A pack ships a [`RoutingKey`]: statistics of the hidden states that its own text leads to. A [`Discriminant`] scores
//! packs by their keys alone: a pack that is added adds its statistics, and nothing is trained anew. A key may hold a
//! learned [`Detector`] too, of the features that a [`RouterWeights`] makes of prompts; [`route`] makes a mixture of what the
//! detectors say.
//!
//! *Deliberately not here*: libraries, the model, where files lie.

#![forbid(unsafe_code)]

mod cover;
mod detector;
mod discriminant;
mod intent_feature;
mod matrices;
mod posterior;
mod router_file;
mod router_weights;
mod routing;
mod routing_key;
mod routing_key_file;
mod routing_policy;
mod scatter;
mod segments;
mod selection;

pub use cover::{Segment, SegmentLogits, cover};
pub use detector::{Detector, MAX_LOGIT, logits};
pub use discriminant::Discriminant;
pub use intent_feature::IntentFeature;
pub use posterior::{PackEvidence, Posterior, ambiguous, with_evidence};
pub use router_weights::{MAX_ROUTER_BYTES, RouterError, RouterFacts, RouterWeights};
pub use routing::{MixtureShare, PackScore, Routing, route};
pub use routing_key::{HeldOutCheck, KeyError, KeyFacts, MAX_KEY_BYTES, RoutingKey};
pub use routing_policy::RoutingPolicy;
pub use scatter::Scatter;
pub use segments::cut;
pub use selection::{Candidate, Selection, SelectionError, select};
