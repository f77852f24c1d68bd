//! The general pack: the base's own layers of the slot, with the base's own weights.

#![forbid(unsafe_code)]

pack_sdk::export_pack!(pack_sdk::LlamaExpert);
