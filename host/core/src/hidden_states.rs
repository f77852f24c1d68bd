//! The hidden states of a sequence in front of the slot, kept for the day its mixture changes.

use candle_core::{Device, Tensor};
use modularbase_context::BlockId;

use crate::{
    Activations, CHUNK_ROWS, CoreError, context::Context, device_rows::DeviceRows, kv_cache::make_room,
};

/// The cold store's name of them.
const STREAM: &str = "hidden";

/// Rows `[tokens, hidden]`, f32, that grow in the same steps as the KV caches. In a context they are in host memory, and
/// those that the steps have passed go into the cold store, to the bit.
#[derive(Debug)]
pub(crate) struct HiddenStates {
    width: usize,
    store: Store,
    /// The device that rows in host memory came from, and go to when they are wanted.
    device: Option<Device>,
    /// Rows before those in memory: whole blocks in the cold store.
    first: usize,
}

#[derive(Debug)]
enum Store {
    Host(Vec<f32>),
    Device(DeviceRows),
}

impl HiddenStates {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, store: Store::Host(Vec::new()), device: None, first: 0 }
    }

    /// Appends rows. The first ones decide where the rows are kept.
    pub(crate) fn append(&mut self, rows: &Activations, context: Option<&Context>) -> Result<(), CoreError> {
        if rows.width() != self.width {
            return Err(CoreError::mismatch("hidden states", self.width, rows.width()));
        }
        if rows.rows() == 0 {
            return Ok(());
        }
        if let Some(context) = context {
            self.let_go(context)?;
            self.device = rows.as_tensor().map(|tensor| tensor.device().clone());
        } else if let (Store::Host(store), Some(tensor)) = (&self.store, rows.as_tensor())
            && store.is_empty()
        {
            self.store = Store::Device(DeviceRows::new(tensor.device()));
        }
        match (&mut self.store, rows.as_host(), rows.as_tensor()) {
            (Store::Host(store), Some(values), _) => {
                make_room(store, values.len(), self.width);
                store.extend_from_slice(values);
            }
            (Store::Host(store), _, Some(_)) if context.is_some() => {
                let values = rows.to_vec()?;
                make_room(store, values.len(), self.width);
                store.extend_from_slice(&values);
            }
            (Store::Device(store), _, Some(tensor)) => store.append(tensor)?,
            _ => return Err(CoreError::mismatch("hidden states", "one device", "two")),
        }
        Ok(())
    }

    /// Puts whole blocks into the cold store until what is left has room for a step's rows.
    fn let_go(&mut self, context: &Context) -> Result<(), CoreError> {
        let Store::Host(store) = &mut self.store else { return Ok(()) };
        let block = context.shape.block * self.width;
        let mut gone = 0;
        while store.len() - gone > rows_kept(context) * self.width {
            let index = ((self.first * self.width + gone) / block) as u32;
            let bytes: Vec<u8> =
                store[gone..gone + block].iter().flat_map(|value| value.to_le_bytes()).collect();
            context.store.append_bytes(BlockId { stream: STREAM, layer: 0, index }, &bytes)?;
            gone += block;
        }
        store.drain(..gone);
        self.first += gone / self.width;
        Ok(())
    }

    /// Rows `first .. first + count`. On a device they are a view, to be used before the next row is appended.
    pub(crate) fn slice(
        &self,
        first: usize,
        count: usize,
        context: Option<&Context>,
    ) -> Result<Activations, CoreError> {
        let store = match &self.store {
            Store::Host(store) => store,
            Store::Device(store) => return Activations::from_tensor(store.rows(first, count)?),
        };
        let mut values = Vec::with_capacity(count * self.width);
        let end = first + count;
        if let Some(context) = context {
            let block = context.shape.block;
            for index in first / block..end.min(self.first).div_ceil(block) {
                let id = BlockId { stream: STREAM, layer: 0, index: index as u32 };
                let bytes = context.store.bytes(id)?;
                let (from, to) = (first.max(index * block), end.min((index + 1) * block));
                let row = self.width * size_of::<f32>();
                let Some(bytes) = bytes.get((from - index * block) * row..(to - index * block) * row) else {
                    return Err(CoreError::mismatch("bytes of hidden states", block * row, bytes.len()));
                };
                values.extend(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
        }
        let from = first.max(self.first);
        if from < end {
            let found = store.get((from - self.first) * self.width..(end - self.first) * self.width);
            let found = found.ok_or_else(|| {
                CoreError::mismatch("rows", format!("at most {}", self.first + store.len() / self.width), end)
            })?;
            values.extend_from_slice(found);
        }
        match &self.device {
            Some(device) => Activations::from_tensor(Tensor::from_vec(values, (count, self.width), device)?),
            None => Activations::from_host(count, self.width, values),
        }
    }

    /// The rows in memory and the number of the first.
    pub(crate) fn kept(&self) -> Result<(usize, &[f32]), CoreError> {
        match &self.store {
            Store::Host(store) => Ok((self.first, store)),
            Store::Device(_) => Err(CoreError::mismatch("hidden states", "host memory", "a device tensor")),
        }
    }

    /// Takes over rows from number `first` to `end`, as they were kept; those before are in the cold store. It holds
    /// nothing yet.
    pub(crate) fn restore(
        &mut self,
        first: usize,
        end: usize,
        bytes: &[u8],
        context: &Context,
    ) -> Result<(), CoreError> {
        let wanted = end.saturating_sub(first) * self.width * size_of::<f32>();
        if bytes.len() != wanted {
            return Err(CoreError::mismatch("bytes of kept hidden states", wanted, bytes.len()));
        }
        let cold = context.store.whole_blocks(STREAM, 1) as usize * context.shape.block;
        if cold < first || !first.is_multiple_of(context.shape.block) {
            return Err(CoreError::mismatch("cold rows of hidden states", first, cold));
        }
        let mut store = Vec::new();
        make_room(&mut store, bytes.len() / size_of::<f32>(), self.width);
        store.extend(bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)));
        (self.store, self.first) = (Store::Host(store), first);
        Ok(())
    }

    /// Forgets all rows from `len` on; of rows in the cold store whole blocks can stay.
    pub(crate) fn truncate(&mut self, len: usize) {
        match &mut self.store {
            Store::Host(store) => store.truncate(len.saturating_sub(self.first) * self.width),
            Store::Device(store) => store.truncate(len),
        }
        self.first = self.first.min(len);
    }

    /// Bytes allocated, room for further rows included.
    pub(crate) fn bytes(&self) -> usize {
        match &self.store {
            Store::Host(store) => store.capacity() * size_of::<f32>(),
            Store::Device(store) => store.bytes(),
        }
    }

    /// Rows in memory of a text of `tokens` tokens, at most.
    pub(crate) fn rows_for(tokens: usize, context: Option<&Context>) -> usize {
        context.map_or(tokens, |context| tokens.min(rows_kept(context) + CHUNK_ROWS))
    }
}

/// Rows that stay in memory between two steps.
fn rows_kept(context: &Context) -> usize {
    context.shape.hot
}
