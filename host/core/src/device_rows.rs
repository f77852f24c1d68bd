//! Rows that grow on a device.

use candle_core::{Device, Tensor};

use crate::{CoreError, kv_cache::GROWTH_TOKENS};

/// A tensor `[capacity, width]`, f32, of which the first `len` rows count.
#[derive(Debug)]
pub(crate) struct DeviceRows {
    device: Device,
    store: Option<Tensor>,
    len: usize,
}

impl DeviceRows {
    /// None yet.
    pub(crate) fn new(device: &Device) -> Self {
        Self { device: device.clone(), store: None, len: 0 }
    }

    /// None yet, on the same device.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(&self.device)
    }

    /// Appends `[rows, width]`.
    pub(crate) fn append(&mut self, rows: &Tensor) -> Result<(), CoreError> {
        let (count, width) = rows.dims2()?;
        let needed = self.len + count;
        let store = match self.store.take() {
            Some(store) if store.dim(0)? >= needed => store,
            old => {
                let capacity = needed.next_multiple_of(GROWTH_TOKENS);
                let store = Tensor::zeros((capacity, width), rows.dtype(), rows.device())?;
                if let Some(old) = old {
                    store.slice_set(&old.narrow(0, 0, self.len)?.contiguous()?, 0, 0)?;
                }
                store
            }
        };
        store.slice_set(&rows.contiguous()?, 0, self.len)?;
        self.len = needed;
        self.store = Some(store);
        Ok(())
    }

    /// Appends rows of `width` from host memory.
    pub(crate) fn append_values(&mut self, values: &[f32], width: usize) -> Result<(), CoreError> {
        match values.is_empty() {
            true => Ok(()),
            false => self.append(&Tensor::from_slice(values, (values.len() / width, width), &self.device)?),
        }
    }

    /// Rows `first .. first + count`: a view.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Result<Tensor, CoreError> {
        match &self.store {
            Some(store) if first + count <= self.len => Ok(store.narrow(0, first, count)?),
            _ => Err(CoreError::mismatch("rows on a device", first + count, self.len)),
        }
    }

    /// Copies values to host memory, from number `first` on: those of whole rows.
    pub(crate) fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CoreError> {
        if !out.is_empty() {
            let width = self.width();
            let rows = self.rows(first / width, out.len() / width)?;
            out.copy_from_slice(&rows.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    /// Replaces values, from number `first` on: those of whole rows.
    pub(crate) fn write(&mut self, first: usize, values: &[f32]) -> Result<(), CoreError> {
        if !values.is_empty() {
            let width = self.width();
            let rows = Tensor::from_slice(values, (values.len() / width, width), &self.device)?;
            self.rows(0, self.len)?.slice_set(&rows, 0, first / width)?;
        }
        Ok(())
    }

    /// Forgets the first `count` rows; the others move up.
    pub(crate) fn drop_first(&mut self, count: usize) -> Result<(), CoreError> {
        let left = self.len - count;
        if let Some(store) = self.store.as_ref().filter(|_| count > 0 && left > 0) {
            store.slice_set(&self.rows(count, left)?.copy()?, 0, 0)?;
        }
        self.len = left;
        Ok(())
    }

    /// Forgets all rows from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Values held.
    pub(crate) fn values(&self) -> usize {
        self.len * self.width()
    }

    /// Values of a row; 0 before the first.
    fn width(&self) -> usize {
        self.store.as_ref().map_or(0, |store| store.dims()[1])
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.store.as_ref().map_or(0, |store| store.elem_count() * store.dtype().size_in_bytes())
    }
}
