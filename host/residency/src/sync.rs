//! The synchronisation that this crate is built on, in one place: the tests exchange it for a scheduler's
//! that tries interleavings.

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
