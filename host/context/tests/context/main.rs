//! The crate as its users see it.

mod codec;
mod cold_store;
mod support;
