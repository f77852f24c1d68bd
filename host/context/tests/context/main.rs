//! The crate as its users see it.

mod codec;
mod cold_store;
mod damage;
mod full_disk;
mod killed;
mod prefixes;
mod reference;
mod sessions;
mod space;
mod support;
