//! What the manager needs of whoever owns the device.

use modularbase_loader::{Generation, LoadedPack, QuarantineReason};
use modularbase_residency::{BudgetExceeded, Room};

/// Puts packs on a device.
pub trait PlacePacks: Send + Sync + 'static {
    /// A pack on the device. It owns the reservation of its bytes, so that they come back exactly when it is dropped.
    type Resident: Send + Sync + 'static;

    /// Reserves the bytes of a pack's weights and puts them on the device.
    ///
    /// # Errors
    /// Not enough memory, or a pack that can't be used.
    fn place(&self, pack: &LoadedPack, room: &Room<'_>) -> Result<Placed<Self::Resident>, PlaceError>;

    /// A pack has left the device: caches that were made with it are of no use.
    fn evicted(&self, generation: Generation);
}

/// A pack on the device.
#[derive(Debug)]
pub struct Placed<R> {
    /// What requests use.
    pub resident: R,
    /// Bytes that it holds, for reports.
    pub bytes: u64,
}

/// Why a pack is not on the device.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlaceError {
    /// Not for now.
    #[error(transparent)]
    NoRoom(BudgetExceeded),
    /// Not until its files change.
    #[error("{0}")]
    Bad(QuarantineReason),
}
