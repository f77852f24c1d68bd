//! Keys and values of one sequence for one plan, owned by the host.

use candle_core::Device;
use modularbase_graph::KvLayer;

use crate::{
    CoreError,
    context::{Context, Group, LayerWindow, Queries, WindowStep, WindowedLayer, layer_bytes},
    device_rows::DeviceRows,
    kv_rows::KvRows,
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

/// Makes a buffer `len` long, its values being whatever they are. It is exactly as large as its largest use, and the
/// old memory goes before the new comes.
pub(crate) fn fit<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.capacity() < len {
        *buffer = Vec::new();
        *buffer = vec![T::default(); len];
    }
    buffer.resize(len, T::default());
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
        Self::with(layers.iter().map(KvLayer::width), || KvRows::host(dtype))
    }

    pub(crate) fn on_device(layers: &[KvLayer], device: &Device) -> Self {
        Self::with(layers.iter().map(KvLayer::width), || KvRows::Device(DeviceRows::new(device)))
    }

    fn with(widths: impl Iterator<Item = usize>, rows: impl Fn() -> KvRows) -> Self {
        let layer =
            |width| LayerCache { width, keys: rows(), values: rows(), window: LayerWindow::default() };
        Self { layers: widths.map(layer).collect(), len: 0, context: None }
    }

    /// Keeps it in a window from now on, with `stream` as its name in the cold store. It must be empty.
    pub(crate) fn within(mut self, context: Option<&Context>, stream: &str) -> Self {
        self.context = context.map(|context| (context.clone(), stream.into()));
        self
    }

    /// An empty one with layers of these widths, in the precision and place of this one.
    pub(crate) fn emptied(&self, widths: impl Iterator<Item = usize>) -> Self {
        let rows =
            || self.layers.first().map_or_else(|| KvRows::host(KvDtype::F32), |layer| layer.keys.emptied());
        Self::with(widths, rows)
    }

    /// Its name in the cold store; empty without a window.
    pub(crate) fn stream(&self) -> &str {
        self.context.as_ref().map_or("", |(_, stream)| stream)
    }

    /// Bytes of a key or value.
    pub(crate) fn value_bytes(&self) -> usize {
        self.layers.first().map_or(size_of::<f32>(), |layer| layer.keys.value_bytes())
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

    /// Bytes that a cache of `tokens` tokens takes, for a reservation made beforehand.
    fn whole_bytes(layers: &[KvLayer], dtype: KvDtype, tokens: usize) -> usize {
        let size = match dtype {
            KvDtype::F32 => size_of::<f32>(),
            KvDtype::F16 => size_of::<u16>(),
        };
        let rows = tokens.next_multiple_of(GROWTH_TOKENS);
        layers.iter().map(|layer| 2 * layer.width() * rows * size).sum()
    }

    /// As [`KvCache::whole_bytes`], in a window where there is one.
    pub(crate) fn bytes_within(
        layers: &[KvLayer],
        dtype: KvDtype,
        tokens: usize,
        context: Option<&Context>,
    ) -> usize {
        let Some(Context { shape, .. }) = context else { return Self::whole_bytes(layers, dtype, tokens) };
        let windows: usize = layers.iter().map(|layer| layer_bytes(shape, *layer, tokens)).sum();
        windows + Self::whole_bytes(layers, dtype, tokens.min(shape.capacity()))
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

    /// Makes a layer ready for the next `rows` rows, which are appended to it then.
    pub(crate) fn make_ready(
        &mut self,
        index: usize,
        step: &mut WindowStep<'_>,
        rows: usize,
    ) -> Result<&mut LayerCache, CoreError> {
        let cache = &mut self.layers[index];
        if let Some((context, stream)) = &self.context {
            WindowedLayer { cache, context, stream, index, step }.make_ready(self.len, rows)?;
        }
        Ok(cache)
    }

    /// What the next rows of a step attend to, of which `done` were told before and `left` are left. `queries` are those
    /// of the rows that are left.
    pub(crate) fn next_group(
        &mut self,
        index: usize,
        step: &mut WindowStep<'_>,
        (done, left): (usize, usize),
        queries: Queries<'_>,
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
