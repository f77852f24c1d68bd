//! The `modularbase` program as its users meet it: the real binary, the real base, real packs.

mod answers;
mod conversation;
mod data;
mod evaluation;
mod fetching;
mod kept_conversations;
mod killed;
mod long_text_memory;
mod operating;
mod packs;
mod place;
mod program;
mod refusals;
mod routing;
mod routing_bench;
mod running_host;
mod sessions;
mod training;
