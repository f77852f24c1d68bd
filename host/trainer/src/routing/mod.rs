//! Routing keys from text: prompts are cut from documents, the base says what they look like in front of the slot, and
//! their mean and scatter are the key.

mod detector_training;
mod features;
mod key_maker;
mod prompts;

pub use detector_training::{DetectorOptions, LabelledFeature, train_detector};
pub use features::features;
pub use key_maker::{KeyOptions, held_out_check, make_routing_key};
pub use prompts::{Prompt, PromptForm, PromptOptions, prompts};
