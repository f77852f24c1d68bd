//! A value with a hand-written backward function, put into candle's graph.
//!
//! candle's custom operators make their output inside the operator. Here the output is made first, by whatever mix of
//! products and kernels is fastest, and its storage is then moved into an operator that only knows the way back.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, Layout, Result, Shape, Storage,
    Tensor, TensorId,
};

use crate::OpError;

/// Gradients of up to three inputs.
pub(crate) type Gradients = [Option<Tensor>; 3];
type Backward = dyn Fn(&Tensor, &Tensor) -> Result<Gradients> + Send + Sync;

/// An operator in the graph, seen from its output.
pub(crate) struct Node {
    /// The tracked inputs.
    pub(crate) inputs: Vec<Tensor>,
    /// From the gradient of the output (contiguous) and the output to the gradients of `inputs`, in their order.
    backward: Box<Backward>,
}

impl Node {
    pub(crate) fn gradients(&self, gradient: &Tensor, output: &Tensor) -> Result<Gradients> {
        (self.backward)(&gradient.contiguous()?, output)
    }
}

/// `output`, from which gradients flow to those of `inputs` (one to three) that are tracked. `output` must own its
/// storage alone: its memory is moved, not copied. `backward` should not compute what [`Tensor::track_op`] says
/// nobody wants; what it returns for an untracked input is dropped.
pub(crate) fn record<const N: usize>(
    name: &'static str,
    output: Tensor,
    inputs: [&Tensor; N],
    backward: impl Fn(&Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
) -> Result<Tensor> {
    let tracked: Vec<usize> = (0..N).filter(|&index| inputs[index].track_op()).collect();
    if tracked.is_empty() {
        return Ok(output);
    }
    let shape = output.shape().clone();
    let storage = Mutex::new(Some(take_storage(&output)?));
    let wanted = tracked.clone();
    let node = Arc::new(Node {
        inputs: tracked.iter().map(|&index| inputs[index].clone()).collect(),
        backward: Box::new(move |gradient, output| {
            let mut all = backward(gradient, output)?;
            let mut gradients = [None, None, None];
            for (slot, &index) in gradients.iter_mut().zip(&wanted) {
                *slot = all[index].take();
            }
            Ok(gradients)
        }),
    });
    let operator = Recorded { name, output: storage, shape, node: Arc::clone(&node) };
    let recorded = match *tracked.as_slice() {
        [a] => inputs[a].apply_op1(operator),
        [a, b] => inputs[a].apply_op2(inputs[b], operator),
        [a, b, c] => inputs[a].apply_op3(inputs[b], inputs[c], operator),
        _ => Err(OpError::inputs(name, "one to three tracked inputs", &inputs).into()),
    }?;
    NODES.with_borrow_mut(|nodes| nodes.insert(recorded.id(), &node));
    Ok(recorded)
}

/// The operator that made a tensor on this thread.
pub(crate) fn node_of(tensor: &Tensor) -> Option<Arc<Node>> {
    NODES.with_borrow(|nodes| nodes.known.get(&tensor.id()).and_then(Weak::upgrade))
}

thread_local! {
    /// Which operator made which tensor. candle's graph owns the operators; this only finds them.
    static NODES: RefCell<Nodes> = RefCell::new(Nodes { known: HashMap::new(), sweep_at: 1024 });
}

struct Nodes {
    known: HashMap<TensorId, Weak<Node>>,
    /// How many entries may be there before the dead ones are looked for.
    sweep_at: usize,
}

impl Nodes {
    fn insert(&mut self, id: TensorId, node: &Arc<Node>) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, node| node.strong_count() > 0);
            self.sweep_at = 1024 + 2 * self.known.len();
        }
        self.known.insert(id, Arc::downgrade(node));
    }
}

struct Recorded {
    name: &'static str,
    output: Mutex<Option<Storage>>,
    shape: Shape,
    node: Arc<Node>,
}

impl Recorded {
    fn storage(&self) -> Result<Storage> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output
            .take()
            .ok_or_else(|| OpError::Backend { op: self.name, found: "no output, or taken twice" }.into())
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.storage()? {
            Storage::Cpu(storage) => Ok((storage, self.shape.clone())),
            _ => {
                Err(OpError::Backend { op: self.name, found: "an input on the CPU, the output elsewhere" }
                    .into())
            }
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.storage()? {
            Storage::Cuda(storage) => Ok((storage, self.shape.clone())),
            _ => {
                Err(OpError::Backend { op: self.name, found: "an input on CUDA, the output elsewhere" }
                    .into())
            }
        }
    }
}

impl CustomOp1 for Recorded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, _: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a, _, _] = self.node.gradients(gradient, output)?;
        Ok(a)
    }
}

impl CustomOp2 for Recorded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b, _] = self.node.gradients(gradient, output)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Recorded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.node.gradients(gradient, output)?;
        Ok((a, b, c))
    }
}

/// Moves the memory out of a tensor, which is of no use afterwards. A view is copied instead.
fn take_storage(tensor: &Tensor) -> Result<Storage> {
    let whole = {
        let (storage, layout) = tensor.storage_and_layout();
        layout.is_contiguous() && layout.start_offset() == 0 && holds(&storage, layout.shape().elem_count())
    };
    let owned = if whole { tensor.clone() } else { tensor.force_contiguous()? };
    let taken = Taken(Mutex::new(None));
    owned.inplace_op1(&taken)?;
    let storage = taken.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    storage.ok_or_else(|| OpError::Backend { op: "take_storage", found: "no storage" }.into())
}

/// Whether the storage is of this many elements and no more.
fn holds(storage: &Storage, elements: usize) -> bool {
    match storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.len() == elements,
        Storage::Cpu(CpuStorage::BF16(values)) => values.len() == elements,
        // On a device only outputs that were just allocated get here; surplus memory would do no harm.
        Storage::Cuda(_) => true,
        _ => false,
    }
}

struct Taken(Mutex<Option<Storage>>);

impl Taken {
    fn keep(&self, storage: Storage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(storage);
    }
}

impl InplaceOp1 for Taken {
    fn name(&self) -> &'static str {
        "take_storage"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        self.keep(Storage::Cpu(std::mem::replace(storage, CpuStorage::U8(Vec::new()))));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        let nothing = crate::cuda::smallest_storage(&storage.device)?;
        self.keep(Storage::Cuda(std::mem::replace(storage, nothing)));
        Ok(())
    }
}
