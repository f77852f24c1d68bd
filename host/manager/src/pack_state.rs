//! How far a pack has come, in one word.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pack's station between the folder and the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackState {
    /// Found in the folder; its files are not complete or not looked at yet, or this machine can't take it now.
    Seen,
    /// Every file is what the manifest says, the signature satisfies the policy, and it fits the base.
    Verified,
    /// A child process has opened its library and built its graph.
    Probed,
    /// Ready to be loaded; nothing of it is.
    Registered,
    /// On its way to the device.
    Loading,
    /// On the device, and no request uses it.
    Resident,
    /// On the device, in use by requests.
    Leased,
    /// Replaced or removed; it goes when the last request that uses it ends.
    Draining,
    /// Was on the device; its bytes are back. It is loaded again when asked for.
    Evicted,
    /// Off the device, but the dynamic linker keeps its library mapped; no other version of it can load.
    Pinned,
    /// Kept out until its files change or the quarantine is cleared.
    Quarantined,
}

impl fmt::Display for PackState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Seen => "seen",
            Self::Verified => "verified",
            Self::Probed => "probed",
            Self::Registered => "registered",
            Self::Loading => "loading",
            Self::Resident => "resident",
            Self::Leased => "leased",
            Self::Draining => "draining",
            Self::Evicted => "evicted",
            Self::Pinned => "pinned",
            Self::Quarantined => "quarantined",
        })
    }
}
