//! The `modularbase` program as its users meet it: the real binary, the real base, real packs.

mod answers;
mod conversation;
mod data;
mod evaluation;
mod fetching;
mod killed;
mod operating;
mod packs;
mod place;
mod program;
mod refusals;
mod routing;
mod running_host;
mod sessions;
mod training;
