//! The residency by its behaviour, with real threads.

mod budget;
mod evictions;
mod leases;
mod marks;
mod model;
mod prefetching;
mod support;
mod threads;
