//! The local control socket of a running host: its protocol, its server and its client.
//!
//! A host serves one Unix stream socket in a folder of its user's own ([`socket_path`]); whoever may open it speaks
//! one JSON object a line ([`Request`]). [`ControlServer`] hands what comes in to an [`Operate`]; [`Client`] is the
//! other end; [`running_hosts`] finds the sockets of a folder of packs.
//!
//! *Deliberately not here*: what the commands do; terminals; the network. A socket is never reachable from outside
//! of the machine, nor by another user on it.

#![forbid(unsafe_code)]

mod client;
mod error;
mod lines;
mod operate;
mod protocol;
mod server;
mod socket_file;
mod socket_path;

pub use client::{Client, Followed};
pub use error::{ClientError, ControlError};
pub use operate::Operate;
pub use protocol::{MAX_REQUEST_BYTES, PROTOCOL_VERSION, Request, RequestError};
pub use server::{ControlServer, MAX_CLIENTS};
pub use socket_path::{RunningHost, running_hosts, running_hosts_in, socket_path, socket_path_in};
