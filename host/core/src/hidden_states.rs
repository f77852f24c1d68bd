//! The hidden states of a sequence in front of the slot, kept for the day its mixture changes.

use crate::{
    Activations, CoreError,
    kv_cache::{DeviceRows, make_room},
};

/// Rows `[tokens, hidden]`, f32, that grow in the same steps as the KV caches.
#[derive(Debug)]
pub(crate) struct HiddenStates {
    width: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Host(Vec<f32>),
    Device(DeviceRows),
}

impl HiddenStates {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, store: Store::Host(Vec::new()) }
    }

    /// Appends rows. The first ones decide where the rows are kept.
    pub(crate) fn append(&mut self, rows: &Activations) -> Result<(), CoreError> {
        if rows.width() != self.width {
            return Err(CoreError::mismatch("hidden states", self.width, rows.width()));
        }
        if rows.rows() == 0 {
            return Ok(());
        }
        if let (Store::Host(store), Some(_)) = (&self.store, rows.as_tensor())
            && store.is_empty()
        {
            self.store = Store::Device(DeviceRows::default());
        }
        match (&mut self.store, rows.as_host(), rows.as_tensor()) {
            (Store::Host(store), Some(values), _) => {
                make_room(store, values.len(), self.width);
                store.extend_from_slice(values);
            }
            (Store::Device(store), _, Some(tensor)) => {
                store.append(tensor)?;
            }
            _ => return Err(CoreError::mismatch("hidden states", "one device", "two")),
        }
        Ok(())
    }

    /// Rows `first .. first + count`. On a device they are a view, to be used before the next row is appended.
    pub(crate) fn slice(&self, first: usize, count: usize) -> Result<Activations, CoreError> {
        match &self.store {
            Store::Host(store) => {
                let values = store.get(first * self.width..(first + count) * self.width);
                let values = values.ok_or_else(|| {
                    CoreError::mismatch(
                        "rows",
                        format!("at most {}", store.len() / self.width),
                        first + count,
                    )
                })?;
                Activations::from_host(count, self.width, values.to_vec())
            }
            Store::Device(store) => Activations::from_tensor(store.rows()?.narrow(0, first, count)?),
        }
    }

    /// Forgets all rows from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        match &mut self.store {
            Store::Host(store) => store.truncate(len * self.width),
            Store::Device(store) => store.truncate(len),
        }
    }

    /// Bytes allocated, room for further rows included.
    pub(crate) fn bytes(&self) -> usize {
        match &self.store {
            Store::Host(store) => store.capacity() * size_of::<f32>(),
            Store::Device(store) => store.bytes(),
        }
    }
}
