//! Loading what may be wanted soon, at nobody's cost.

use std::fmt::Display;

use crate::{
    event::EventKind,
    lease::LeaseError,
    loading::{Failure, Loading},
    room::Room,
    state::{Key, Shared, Stage},
    sync::Arc,
};

impl<K: Key, R: Send + Sync + 'static> Shared<K, R> {
    pub(crate) fn prefetch<E: Display + Send + Sync + 'static>(
        self: &Arc<Self>,
        key: &K,
        load: impl FnOnce(&Room<'_>) -> Result<(R, u64), E>,
    ) -> Result<bool, LeaseError<E>> {
        let mut state = self.state();
        let entry = state.entries.entry(key.clone()).or_default();
        if entry.retired {
            return Err(LeaseError::Retired { key: key.to_string() });
        }
        if !matches!(entry.stage, Stage::Absent) {
            return Ok(false);
        }
        let loading = Loading::begin(self, key, &mut entry.stage);
        state.outbox.push(key, EventKind::Loading);
        drop(state);
        self.tell();
        match load(&Room::of_free_bytes(self)) {
            Ok((value, bytes)) => {
                loading.arrive(value, bytes, false);
                Ok(true)
            }
            Err(error) => {
                loading.fail(Failure::Unwaited);
                Err(LeaseError::Load { key: key.to_string(), error: Arc::new(error) })
            }
        }
    }
}
