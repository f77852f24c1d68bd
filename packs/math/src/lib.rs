//! Math: the base's own layers of the slot, trained further.

#![forbid(unsafe_code)]

pack_sdk::export_pack!(pack_sdk::LlamaExpert);
