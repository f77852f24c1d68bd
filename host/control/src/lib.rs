//! The local control socket of a running host: its protocol, its server and its client.
//!
//! *Deliberately not here*: what the commands do; terminals.

#![forbid(unsafe_code)]
