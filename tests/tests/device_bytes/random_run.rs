//! A random run of a base, experts and sequences, in which what the core says of its bytes is held against what somebody
//! else counts who sees them all.

use std::{
    borrow::Cow,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use fixture_packs::{SMOLLM2_SLOT, random_weights, smollm2_shape};
use manifests::{Dtype, FileName, Sha256, WeightsRecord};
use modularbase_core::{
    Advance, Backend, BaseCore, BaseFile, BehindCaches, CHUNK_ROWS, Expert, LogitRows, Mixture, PackTensor,
    PackTensorKind, Sequence, StepSize, StoredTensor, WeightDtype,
};
use modularbase_graph::{CheckedGraph, Graph, infer_shapes};
use modularbase_loader::{WeightView, WeightsFile};
use pack_sdk::{BlockStart, GraphBuilder, LlamaBlock, MoeFfn, Value};

const CONTEXT: usize = 1_500;
const SEQUENCES: usize = 4;

/// Who counts the bytes that are allocated where the model runs.
pub trait Counter {
    /// Bytes that are allocated now.
    fn allocated(&self) -> usize;

    /// The most bytes that ever were.
    fn most_allocated(&self) -> usize;
}

/// A pack's network and, where it has weights of its own, their file.
struct Pack {
    graph: CheckedGraph,
    weights: Option<(PathBuf, Dtype)>,
}

impl Pack {
    fn new(folder: &Path, dtype: Option<Dtype>, network: impl Fn(&mut GraphBuilder, Value) -> Value) -> Self {
        let mut builder = GraphBuilder::new();
        let hidden = builder.hidden_input(smollm2_shape().hidden_size);
        let output = network(&mut builder, hidden);
        let graph = infer_shapes(Graph::from_abi(&builder.finish(&[output])).unwrap()).unwrap();
        let weights = dtype.map(|dtype| {
            let nodes = graph.graph().nodes.len();
            let path = folder.join(format!("{dtype}-{nodes}.safetensors"));
            random_weights(graph.graph(), dtype, &path);
            (path, dtype)
        });
        Self { graph, weights }
    }

    fn load(&self, core: &BaseCore, generation: &str) -> Expert {
        let file = self.weights.as_ref().map(|(path, dtype)| {
            let name: FileName = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            let record = WeightsRecord { file: name, sha256: Sha256::of_bytes(b""), size: 1, dtype: *dtype };
            let file = WeightsFile::open(path, &record).unwrap();
            file.fits(self.graph.graph()).unwrap();
            file
        });
        let views: HashMap<&str, WeightView<'_>> =
            file.iter().flat_map(WeightsFile::weights).map(|view| (view.name, view)).collect();
        let announced = core
            .expert_bytes(&self.graph, &|name| {
                views.get(name).map(|view| PackTensorKind::Whole(view.dtype.try_into().unwrap()))
            })
            .unwrap();
        let own = |name: &str| {
            let tensor = views.get(name).map(|view| StoredTensor {
                name: name.to_owned(),
                shape: view.shape.to_vec(),
                dtype: view.dtype.try_into().unwrap(),
                bytes: Cow::Borrowed(view.bytes),
            });
            Ok(tensor.map(PackTensor::Whole))
        };
        let expert = core.compile_expert("fixture", generation, &self.graph, &own).unwrap();
        assert_eq!(expert.resident_bytes(), announced, "weights take what was announced");
        assert!(expert.plan_bytes() <= core.plan_bytes_for(&self.graph), "and so does the plan, at most");
        expert
    }
}

/// Layers of the base's shape, of the base's weights or of random ones.
fn layers(builder: &mut GraphBuilder, mut hidden: Value, count: usize, start: Option<BlockStart>) -> Value {
    let base = smollm2_shape();
    for layer in SMOLLM2_SLOT.start..SMOLLM2_SLOT.start + count {
        let block = LlamaBlock::of_base(&base, layer);
        hidden = LlamaBlock { start: start.unwrap_or(block.start), ..block }.apply(builder, hidden);
    }
    hidden
}

fn mixture_of_experts(builder: &mut GraphBuilder, hidden: Value, intermediate_size: usize) -> Value {
    let base = smollm2_shape();
    let (width, rms_norm_eps) = (base.hidden_size, base.rms_norm_eps);
    MoeFfn {
        prefix: "moe".to_owned(),
        width,
        intermediate_size,
        experts: 4,
        top_k: 2,
        rms_norm_eps,
        std: 0.05,
    }
    .apply(builder, hidden)
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// A base with experts and sequences, and what was allocated before.
struct Device<'a> {
    core: BaseCore,
    counter: &'a dyn Counter,
    before: usize,
    experts: Vec<Arc<Expert>>,
    sequences: Vec<(Sequence, Option<BehindCaches>)>,
    largest_difference: f64,
    ceiling: usize,
}

impl Device<'_> {
    /// Everything that the core knows of.
    fn known(&self) -> usize {
        let experts = self.experts.iter().map(|expert| expert.resident_bytes() + expert.plan_bytes());
        let caches = |caches: &Option<BehindCaches>| caches.as_ref().map_or(0, BehindCaches::bytes);
        let sequences = self.sequences.iter().map(|(sequence, held)| sequence.bytes() + caches(held));
        self.core.resident_bytes()
            + self.core.plan_bytes()
            + self.core.workspace_bytes()
            + experts.sum::<usize>()
            + sequences.sum::<usize>()
    }

    fn scratch(&self) -> usize {
        let rows = CHUNK_ROWS;
        let step = StepSize {
            rows,
            sequences: SEQUENCES,
            mixture_parts: 2,
            context: CONTEXT,
            logit_rows: SEQUENCES,
            window: None,
        };
        self.core.scratch_bytes(self.experts.iter().map(|expert| &**expert), &step)
    }

    fn check(&mut self, what: &str) {
        let (known, found) = (self.known(), self.counter.allocated() - self.before);
        let difference = known.abs_diff(found) as f64 / found as f64;
        self.largest_difference = self.largest_difference.max(difference);
        assert!(difference < 0.01, "after {what}: the core knows of {known} bytes, {found} are allocated");
        let scratch = self.scratch();
        let workspace = self.core.workspace_bytes();
        assert!(workspace <= scratch, "after {what}: {workspace} bytes of scratch, {scratch} announced");
        // In the middle of a step there were at most these.
        self.ceiling = self.ceiling.max(known - workspace + scratch);
        let most = self.counter.most_allocated().saturating_sub(self.before);
        let limit = self.ceiling + self.ceiling / 100;
        assert!(most <= limit, "at most {limit} bytes were announced until {what}, {most} were allocated");
    }

    fn some_mixture(&self, random: &mut Random) -> Mixture {
        let first = Arc::clone(&self.experts[random.below(self.experts.len())]);
        let second = Arc::clone(&self.experts[random.below(self.experts.len())]);
        Mixture::new(vec![(first, 0.75), (second, 0.25)]).unwrap()
    }
}

/// Loads the default base onto `backend`, and does what hosts do with it in an order from `system_tests::seed`. After
/// each step the core's figure is within 1 % of the counter's, and at the end all bytes are back.
pub fn random_run(backend: Arc<dyn Backend>, counter: &dyn Counter) {
    let seed = system_tests::seed();
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let packs = [
        Pack::new(folder.path(), None, |builder, hidden| layers(builder, hidden, 6, None)),
        Pack::new(folder.path(), Some(Dtype::Q8_0), |builder, hidden| {
            layers(builder, hidden, 6, Some(BlockStart::Random { std: 0.02 }))
        }),
        Pack::new(folder.path(), Some(Dtype::Bf16), |builder, hidden| {
            layers(builder, hidden, 1, Some(BlockStart::Random { std: 0.02 }))
        }),
        // Experts of whole tiles of rows, and others that have to be copied.
        Pack::new(folder.path(), Some(Dtype::F16), |builder, hidden| mixture_of_experts(builder, hidden, 64)),
        Pack::new(folder.path(), Some(Dtype::F32), |builder, hidden| {
            mixture_of_experts(builder, hidden, 1_000)
        }),
    ];
    let base = manifests::builtin_base(manifests::DEFAULT_BASE).unwrap().unwrap();
    let path = base.file.unwrap().name.in_folder(&manifests::folders::bases_folder().unwrap());
    let file = BaseFile::open(&path).unwrap_or_else(|error| panic!("run `cargo xtask test`: {error}"));
    let before = counter.allocated();
    let core = BaseCore::load(&file, SMOLLM2_SLOT, backend, WeightDtype::AsStored, &mut |_, _| {}).unwrap();
    // Tensors are read one after the other on the way; packs' weights were drawn before.
    let ceiling = counter.most_allocated() - before;
    let mut device = Device {
        core,
        counter,
        before,
        experts: Vec::new(),
        sequences: Vec::new(),
        largest_difference: 0.0,
        ceiling,
    };
    device.check("loading the base");
    let started = Instant::now();
    let mut steps = 0;
    while steps < 150 && started.elapsed() < Duration::from_secs(120) || steps < 60 {
        let what = step(&mut device, &packs, steps, &mut random);
        device.check(&format!("step {steps}, {what} (MODULARBASE_SEED={seed})"));
        steps += 1;
    }
    device.sequences.clear();
    device.experts.clear();
    device.check("letting go of everything");
    println!("{steps} steps, largest difference {:.4} %", 100.0 * device.largest_difference);
    drop(device);
    let left = counter.allocated().saturating_sub(before);
    assert!(left < 64 << 10, "{left} bytes are left when the base is gone");
}

fn step(device: &mut Device<'_>, packs: &[Pack], number: usize, random: &mut Random) -> &'static str {
    let action = if device.experts.is_empty() { 0 } else { random.below(10) };
    match action {
        0 | 1 if device.experts.len() < 6 => {
            let pack = &packs[random.below(packs.len())];
            device.experts.push(pack.load(&device.core, &format!("generation {number}")).into());
            "loading an expert"
        }
        0 | 1 => {
            let gone = device.experts.remove(random.below(device.experts.len()));
            let uses = |sequence: &Sequence| {
                let parts = sequence.mixture().into_iter().flat_map(Mixture::parts);
                parts.into_iter().any(|(expert, _)| Arc::ptr_eq(expert, &gone))
            };
            for (sequence, caches) in &mut device.sequences {
                if uses(sequence) {
                    *caches = sequence.detach();
                }
            }
            assert_eq!(Arc::strong_count(&gone), 1, "nobody holds an expert that is evicted");
            "evicting an expert"
        }
        2 if device.sequences.len() < SEQUENCES => {
            let mixture = device.some_mixture(random);
            device.sequences.push((Sequence::new(&device.core, mixture), None));
            "beginning a sequence"
        }
        2 => {
            device.sequences.remove(random.below(device.sequences.len()));
            "ending a sequence"
        }
        3 if !device.sequences.is_empty() => {
            let index = random.below(device.sequences.len());
            let (sequence, _) = &mut device.sequences[index];
            sequence.truncate(random.below(sequence.tokens().len() + 1));
            "truncating a sequence"
        }
        4 if !device.sequences.is_empty() => {
            let mixture = device.some_mixture(random);
            let index = random.below(device.sequences.len());
            let (sequence, caches) = &mut device.sequences[index];
            if let Some(found) = sequence.detach() {
                *caches = Some(found);
            }
            if random.below(2) == 0 {
                sequence.attach(&device.core, mixture, caches.take());
            }
            "detaching a sequence"
        }
        _ => {
            advance(device, random);
            "a step of the model"
        }
    }
}

/// Moves some sequences on by a long prompt, a short one or a token.
fn advance(device: &mut Device<'_>, random: &mut Random) {
    let longest = [1, 1, 20, 600][random.below(4)];
    let tokens: Vec<u32> = (0..longest).map(|_| random.below(40_000) as u32).collect();
    let mixture = device.some_mixture(random);
    let mut batch = Vec::new();
    for (sequence, caches) in &mut device.sequences {
        if sequence.tokens().len() + longest > CONTEXT || random.below(2) == 0 {
            continue;
        }
        if sequence.mixture().is_none() {
            sequence.attach(&device.core, mixture.clone(), caches.take());
        }
        batch.push(Advance { sequence, tokens: &tokens, logits: LogitRows::Last });
    }
    if !batch.is_empty() {
        device.core.advance(&mut batch).unwrap();
    }
}
