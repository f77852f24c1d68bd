//! Routing keys from text: prompts are cut from documents, the base says what they look like in front of the slot, and
//! their mean and scatter are the key.

mod detector_training;
mod features;
mod joining;
mod key_maker;
mod prompts;
mod router_making;

pub use detector_training::{DetectorOptions, LabelledFeature, train_detectors};
pub use features::features;
pub use joining::{intent_features, joining_detector};
pub use key_maker::{KeyOptions, held_out_check, make_routing_key};
pub use prompts::{Prompt, PromptForm, PromptOptions, prompts};
pub use router_making::make_router;
