//! Keys and values of one sequence for one plan, owned by the host.

use candle_core::Tensor;
use modularbase_graph::KvLayer;
use modularbase_kernels::ThreadPool;

use crate::{
    CoreError,
    context::{Context, Group, LayerWindow, WindowStep, WindowedLayer, layer_bytes},
};

/// Precision of keys and values in host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value.
    F16,
}

/// Room is made for so many tokens at a time: few reallocations, little waste, and bytes that can be told beforehand.
pub(crate) const GROWTH_TOKENS: usize = 256;

/// Keys after RoPE and values, `[tokens, kv_heads * head_dim]` a layer.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    /// The window, and this cache's name in its cold store.
    context: Option<(Context, Box<str>)>,
}

#[derive(Debug)]
pub(crate) struct LayerCache {
    pub(crate) width: usize,
    pub(crate) keys: KvRows,
    pub(crate) values: KvRows,
    pub(crate) window: LayerWindow,
}

/// Rows of one layer's keys or values.
#[derive(Debug)]
pub(crate) enum KvRows {
    F32(Vec<f32>),
    /// Bits of IEEE half-precision numbers.
    F16(Vec<u16>),
    Device(DeviceRows),
}

/// Rows on a device: a tensor `[capacity, width]` of which the first `len` rows count.
#[derive(Debug, Default)]
pub(crate) struct DeviceRows {
    store: Option<Tensor>,
    len: usize,
}

impl DeviceRows {
    /// Appends `[rows, width]` and gives all rows, `[len, width]`.
    pub(crate) fn append(&mut self, rows: &Tensor) -> Result<Tensor, CoreError> {
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
        let all = store.narrow(0, 0, needed)?;
        self.store = Some(store);
        Ok(all)
    }

    /// All rows, `[len, width]`: a view.
    pub(crate) fn rows(&self) -> Result<Tensor, CoreError> {
        match &self.store {
            Some(store) => Ok(store.narrow(0, 0, self.len)?),
            None => Err(CoreError::mismatch("rows on a device", "at least one", 0)),
        }
    }

    /// Forgets all rows from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.store.as_ref().map_or(0, |store| store.elem_count() * store.dtype().size_in_bytes())
    }
}

impl KvRows {
    fn host(dtype: KvDtype) -> Self {
        match dtype {
            KvDtype::F32 => Self::F32(Vec::new()),
            KvDtype::F16 => Self::F16(Vec::new()),
        }
    }

    /// Appends rows in host memory.
    pub(crate) fn append(&mut self, pool: &ThreadPool, rows: &[f32], width: usize) -> Result<(), CoreError> {
        match self {
            Self::F32(store) => {
                make_room(store, rows.len(), width);
                store.extend_from_slice(rows);
            }
            Self::F16(store) => {
                make_room(store, rows.len(), width);
                let old = store.len();
                store.resize(old + rows.len(), 0);
                modularbase_kernels::f32_to_f16(pool, rows, &mut store[old..])?;
            }
            Self::Device(_) => return Err(CoreError::mismatch("KV cache", "host memory", "a device tensor")),
        }
        Ok(())
    }

    /// Forgets all rows from `len` on.
    pub(crate) fn truncate(&mut self, len: usize, width: usize) {
        match self {
            Self::F32(store) => store.truncate(len * width),
            Self::F16(store) => store.truncate(len * width),
            Self::Device(rows) => rows.truncate(len),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(store) => store.capacity() * size_of::<f32>(),
            Self::F16(store) => store.capacity() * size_of::<u16>(),
            Self::Device(rows) => rows.bytes(),
        }
    }
}

/// Makes a buffer `len` long, its values being whatever they are. It is exactly as large as its largest use, and the
/// old memory goes before the new comes.
pub(crate) fn fit(buffer: &mut Vec<f32>, len: usize) {
    if buffer.capacity() < len {
        *buffer = Vec::new();
        *buffer = vec![0.0; len];
    }
    buffer.resize(len, 0.0);
}

/// Makes room for `more` values in rows of `width`, for whole steps of [`GROWTH_TOKENS`] rows and not a value more.
pub(crate) fn make_room<T>(store: &mut Vec<T>, more: usize, width: usize) {
    let needed = store.len() + more;
    if needed > store.capacity() {
        let step = GROWTH_TOKENS * width;
        store.reserve_exact(needed.next_multiple_of(step) - store.len());
    }
}

impl KvCache {
    pub(crate) fn on_host(layers: &[KvLayer], dtype: KvDtype) -> Self {
        Self::with(layers, || KvRows::host(dtype))
    }

    pub(crate) fn on_device(layers: &[KvLayer]) -> Self {
        Self::with(layers, || KvRows::Device(DeviceRows::default()))
    }

    fn with(layers: &[KvLayer], rows: impl Fn() -> KvRows) -> Self {
        let layers = layers
            .iter()
            .map(|layer| LayerCache {
                width: layer.width(),
                keys: rows(),
                values: rows(),
                window: LayerWindow::default(),
            })
            .collect();
        Self { layers, len: 0, context: None }
    }

    /// Keeps it in a window from now on, with `stream` as its name in the cold store. It must be empty.
    pub(crate) fn within(mut self, context: Option<&Context>, stream: &str) -> Self {
        self.context = context.map(|context| (context.clone(), stream.into()));
        self
    }

    /// An empty one in host memory, with layers of these widths and values of 4 bytes or else 2.
    pub(crate) fn empty(widths: impl Iterator<Item = usize>, value_bytes: usize) -> Self {
        let rows = || KvRows::host(if value_bytes == size_of::<f32>() { KvDtype::F32 } else { KvDtype::F16 });
        let layer =
            |width| LayerCache { width, keys: rows(), values: rows(), window: LayerWindow::default() };
        Self { layers: widths.map(layer).collect(), len: 0, context: None }
    }

    /// Its name in the cold store; empty without a window.
    pub(crate) fn stream(&self) -> &str {
        self.context.as_ref().map_or("", |(_, stream)| stream)
    }

    /// Bytes of a key or value in host memory.
    pub(crate) fn value_bytes(&self) -> usize {
        match self.layers.first() {
            Some(LayerCache { keys: KvRows::F16(_), .. }) => size_of::<u16>(),
            _ => size_of::<f32>(),
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated for keys and values, room for further tokens included.
    pub fn bytes(&self) -> usize {
        let of_layer = |layer: &LayerCache| layer.keys.bytes() + layer.values.bytes() + layer.window.bytes();
        self.layers.iter().map(of_layer).sum()
    }

    /// Bytes that a cache of `tokens` tokens in host memory takes, for a reservation made beforehand.
    pub fn host_bytes(layers: &[KvLayer], dtype: KvDtype, tokens: usize) -> usize {
        let size = match dtype {
            KvDtype::F32 => size_of::<f32>(),
            KvDtype::F16 => size_of::<u16>(),
        };
        let rows = tokens.next_multiple_of(GROWTH_TOKENS);
        layers.iter().map(|layer| 2 * layer.width() * rows * size).sum()
    }

    /// As [`KvCache::host_bytes`], in a window where there is one.
    pub(crate) fn host_bytes_within(
        layers: &[KvLayer],
        dtype: KvDtype,
        tokens: usize,
        context: Option<&Context>,
    ) -> usize {
        let Some(Context { shape, .. }) = context else { return Self::host_bytes(layers, dtype, tokens) };
        let windows: usize = layers.iter().map(|layer| layer_bytes(shape, *layer, tokens)).sum();
        windows + Self::host_bytes(layers, dtype, tokens.min(shape.capacity()))
    }

    /// Forgets all tokens from `len` on. A forward pass that failed half-way is undone by this too.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for layer in &mut self.layers {
            if let Some((context, _)) = &self.context {
                layer.window.truncate(self.len, &context.shape);
            }
            let rows = layer.window.rows(self.len);
            layer.keys.truncate(rows, layer.width);
            layer.values.truncate(rows, layer.width);
        }
    }

    pub(crate) fn layer(&self, index: usize) -> &LayerCache {
        &self.layers[index]
    }

    pub(crate) fn layer_mut(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    /// Appends the keys and values of a step's rows to a layer.
    pub(crate) fn append(
        &mut self,
        index: usize,
        step: &mut WindowStep<'_>,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), CoreError> {
        let cache = &mut self.layers[index];
        match &self.context {
            Some((context, stream)) => {
                WindowedLayer { cache, context, stream, index, step }.append(self.len, keys, values)
            }
            None => {
                cache.keys.append(step.pool, keys, cache.width)?;
                cache.values.append(step.pool, values, cache.width)
            }
        }
    }

    /// What the next rows of a step attend to, of which `done` were told before and `left` are left. `queries` are those
    /// of the rows that are left.
    pub(crate) fn next_group(
        &mut self,
        index: usize,
        step: &mut WindowStep<'_>,
        (done, left): (usize, usize),
        queries: &[f32],
    ) -> Result<Group, CoreError> {
        let position = self.len + done;
        let cache = &mut self.layers[index];
        match &self.context {
            Some((context, stream)) => {
                WindowedLayer { cache, context, stream, index, step }.next_group(position, left, queries)
            }
            None => Ok(Group { rows: left, first: 0, past: position }),
        }
    }

    /// Bytes of what its layers know of their cold blocks.
    pub(crate) fn known_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.window.known_bytes()).sum()
    }

    /// Blocks that came back for the last step, in the first layer.
    pub(crate) fn retrieved_blocks(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.window.retrieved())
    }

    pub(crate) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Counts tokens whose keys and values every layer now holds.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
