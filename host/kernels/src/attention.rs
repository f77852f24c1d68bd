//! Scaled dot-product attention over a token-major KV cache, for several sequences of different lengths in one call.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::attention_chunk::{CHUNK, Finish, Partial};
use crate::attention_decode::{DecodeChunk, decode_workspace};
use crate::attention_prefill::{PrefillSizes, PrefillTile};
use crate::chunk_scheduler::ChunkScheduler;
use crate::error::{KernelError, check_length, checked_mul};
use crate::linear::SharedPointer;
use crate::scratch::{Scratch, ScratchSizes, reserve};
use crate::simd::{Kernel, LANES, Simd, launch};
use crate::thread_pool::ThreadPool;

/// Keys or values of one layer: `[tokens, kv_heads * head_dim]`. May hold more tokens than are used.
#[derive(Debug, Clone, Copy)]
pub enum KvSlice<'a> {
    F32(&'a [f32]),
    /// Bits of IEEE half floats.
    F16(&'a [u16]),
}

impl KvSlice<'_> {
    /// Values in the slice.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether the slice is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What all sequences of a call have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads, a multiple of `kv_heads`: heads `g * n .. g * (n + 1)` share KV head `n`, with
    /// `g = heads / kv_heads`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Values of one head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Query row `r` sees keys `0..=past + r`; otherwise all of `0..kv_len`.
    pub causal: bool,
}

/// One sequence of an [`attention`] call.
#[derive(Debug)]
pub struct AttentionJob<'a> {
    /// `[m, heads * head_dim]`.
    pub q: &'a [f32],
    pub keys: KvSlice<'a>,
    pub values: KvSlice<'a>,
    /// Tokens in the cache, this call's `m` included.
    pub kv_len: usize,
    /// Tokens in the cache before this call's first row.
    pub past: usize,
    /// `[m, heads * head_dim]`.
    pub out: &'a mut [f32],
}

/// A number that keys and values are stored as.
pub(crate) trait KvElement: Copy + 'static {
    /// Sixteen values. Conditions: see [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
    /// Sixteen values from `at` on in each of sixteen rows, turned: lane i of result j is value `at + j` of row i.
    /// Conditions: see [`Simd`].
    unsafe fn load_columns<S: Simd>(rows: &[*const Self; LANES], at: usize) -> [S::F; LANES];
    /// The first `n` values, all if there are more; the others are zero. Conditions: see [`Simd`].
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::F;
}

impl KvElement for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load(p) }
    }

    #[inline(always)]
    unsafe fn load_columns<S: Simd>(rows: &[*const Self; LANES], at: usize) -> [S::F; LANES] {
        // SAFETY: passed on.
        unsafe {
            let mut values = [S::splat(0.0); LANES];
            for (value, row) in values.iter_mut().zip(rows) {
                *value = S::load(row.add(at));
            }
            S::transpose(values)
        }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::F {
        // SAFETY: passed on.
        unsafe { if n >= LANES { S::load(p) } else { S::load_first(p, n) } }
    }
}

impl KvElement for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: passed on.
        unsafe { S::load_f16(p) }
    }

    #[inline(always)]
    unsafe fn load_columns<S: Simd>(rows: &[*const Self; LANES], at: usize) -> [S::F; LANES] {
        // SAFETY: passed on.
        unsafe { S::load_f16_columns(rows, at) }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::F {
        // SAFETY: passed on; the short case reads n values into a buffer of sixteen.
        unsafe {
            if n >= LANES {
                return S::load_f16(p);
            }
            let mut lanes = [0; LANES];
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            S::load_f16(lanes.as_ptr())
        }
    }
}

/// Query vectors that a prefill unit takes together.
const TILE_QUERIES: usize = 96;
/// Up to this many rows, a sequence's cache is divided among workers.
const FEW_ROWS: usize = 16;

/// What a worker takes at a time: some rows of one sequence, some KV heads, one stretch of the cache.
#[derive(Clone, Copy)]
pub(crate) struct Unit {
    job: usize,
    /// Where the sequence's results go.
    out: SharedPointer<f32>,
    /// Its first KV head and how many.
    kv_head: usize,
    kv_heads: usize,
    first_row: usize,
    rows: usize,
    /// One row, by the kernel for that.
    single: bool,
    /// Which of the sequence's parts, and how many there are.
    part: usize,
    parts: usize,
    /// Tokens in a part: one chunk, or all.
    part_tokens: usize,
    /// Which counter of unfinished parts.
    pending: usize,
    /// Where the partial results of the first of several parts start.
    partial: usize,
}

/// `softmax(q k^T * scale) v` for each query row of each job. Grouped-query heads read their keys and values once.
///
/// A row's result depends on its query, the keys and values that it sees and the processor's level alone, to the bit:
/// not on the rows beside it (so that a prompt may be taken whole, in pieces or token by token), nor on other jobs,
/// nor on the number of threads. The order of summation is fixed, 128 keys at a time from the cache's start.
///
/// # Errors
/// When heads cannot be grouped, a length does not fit, or a causal cache is shorter than `past + m`; nothing is
/// written then.
pub fn attention(
    pool: &ThreadPool,
    jobs: &mut [AttentionJob<'_>],
    shape: AttentionShape,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    for job in jobs.iter() {
        check(job, shape)?;
    }
    let group = shape.heads.checked_div(shape.kv_heads).unwrap_or(1);
    let sizes = PrefillSizes::new(TILE_QUERIES.max(group), shape.head_dim);
    let partial_values = plan(jobs, shape, scratch);
    let each = Partial::values(shape.head_dim);
    let too_large = KernelError::TooLarge { rows: partial_values, cols: shape.head_dim };
    let bytes = checked_mul(partial_values, size_of::<f32>())?;
    reserve(&mut scratch.partials, bytes).ok_or(too_large.clone())?;
    let (working, worker_values) = worker_values(shape, sizes);
    let bytes = checked_mul(checked_mul(worker_values, pool.threads())?, size_of::<f32>())?;
    reserve(&mut scratch.workers, bytes).ok_or(too_large)?;

    let partials = SharedPointer(scratch.partials.as_mut_ptr().cast::<f32>());
    let workspaces = SharedPointer(scratch.workers.as_mut_ptr().cast::<f32>());
    let (units, pending) = (&scratch.units, &scratch.pending);
    let jobs: &[AttentionJob<'_>] = jobs;
    let chunks = ChunkScheduler::new(units.len(), 1, pool.threads());
    let work = |worker: usize| {
        let mut after_last = usize::MAX;
        while let Some(range) = chunks.next(worker) {
            for (index, unit) in range.clone().zip(&units[range]) {
                let cold = index != after_last || unit.part == 0;
                after_last = index + 1;
                // SAFETY: each worker index has a workspace of its own; units name rows, heads and tokens that `check`
                // found to be there; each unit has its own partial results, which the one that brings the counter
                // to zero reads after all were written, and its own rows and heads of the output.
                unsafe {
                    let workspace = workspaces.get().add(worker * worker_values);
                    let own = Partial { start: workspace.add(working), head_dim: shape.head_dim };
                    let stride = unit.rows * unit.kv_heads * group * each;
                    let shared = |part: usize| Partial {
                        start: partials.get().add(unit.partial + part * stride),
                        head_dim: shape.head_dim,
                    };
                    let job = &jobs[unit.job];
                    let to = if unit.parts == 1 { own } else { shared(unit.part) };
                    compute(pool, job, shape, unit, cold, sizes, to, workspace);
                    if unit.parts == 1 {
                        launch(pool.level(), FinishUnit { job, unit, shape, first: own, stride });
                    } else if pending[unit.pending].fetch_sub(1, Ordering::AcqRel) == 1 {
                        launch(pool.level(), FinishUnit { job, unit, shape, first: shared(0), stride });
                    }
                }
            }
        }
    };
    if units.len() == 1 {
        work(0)
    } else {
        pool.run(&work)
    }
    Ok(())
}

/// f32 values of each worker's memory: what the kernels work in, and all, partial results that need no merging
/// included.
fn worker_values(shape: AttentionShape, sizes: PrefillSizes) -> (usize, usize) {
    let working = sizes.values().max(decode_workspace(shape.head_dim));
    let own_vectors = sizes.queries.max(shape.heads);
    (working, (working + own_vectors * Partial::values(shape.head_dim)).next_multiple_of(LANES))
}

/// Working memory that is enough for any [`attention`] call of `rows` query rows in at most `sequences` sequences of up
/// to `tokens` tokens each.
pub fn attention_scratch(
    threads: usize,
    shape: AttentionShape,
    rows: usize,
    sequences: usize,
    tokens: usize,
) -> ScratchSizes {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let group = heads.checked_div(kv_heads).unwrap_or(1);
    let sizes = PrefillSizes::new(TILE_QUERIES.max(group), head_dim);
    let tile_rows = tile_rows(group);
    let sequences = sequences.min(rows);
    // Sequences of few rows are cut into parts of a chunk each, the others are not.
    let few = rows.min(sequences * FEW_ROWS);
    let parts = tokens.div_ceil(CHUNK);
    let few_tiles = few.min(sequences * FEW_ROWS.div_ceil(tile_rows));
    let tiles = rows / tile_rows + sequences;
    ScratchSizes {
        partials: size_of::<f32>() * few * heads * parts * Partial::values(head_dim),
        workers: size_of::<f32>() * threads * worker_values(shape, sizes).1,
        pending: size_of::<AtomicUsize>() * (few_tiles + tiles) * kv_heads,
        units: size_of::<Unit>() * (few_tiles * parts + tiles) * kv_heads,
        ..ScratchSizes::default()
    }
}

/// Query rows that a unit takes together.
fn tile_rows(group: usize) -> usize {
    (TILE_QUERIES / group.max(1)).max(1)
}

/// Some rows of one job, before they are divided among KV heads and parts.
#[derive(Clone, Copy)]
struct RowTile {
    first_row: usize,
    rows: usize,
    /// One row, by the kernel for that.
    single: bool,
    parts: usize,
    part_tokens: usize,
    /// KV heads that a unit takes together.
    together: usize,
}

/// The tiles of a job, costly ones first.
fn row_tiles(job: &AttentionJob<'_>, shape: AttentionShape) -> impl Iterator<Item = RowTile> + use<> {
    let m = job.q.len() / (shape.heads * shape.head_dim);
    let (past, kv_len) = (job.past, job.kv_len);
    let tile_rows = tile_rows(shape.heads / shape.kv_heads.max(1));
    (0..m).step_by(tile_rows).rev().map(move |first_row| {
        let rows = tile_rows.min(m - first_row);
        let seen = if shape.causal { past + first_row + rows } else { kv_len };
        let single = m == 1 && shape.head_dim.is_multiple_of(LANES);
        let part_tokens = if m <= FEW_ROWS { CHUNK } else { seen };
        // A single row's KV heads lie side by side in memory, so some are read together; other rows work long enough
        // on each tile.
        let together = if single { (256 / shape.head_dim).clamp(1, shape.kv_heads) } else { 1 };
        RowTile { first_row, rows, single, parts: seen.div_ceil(part_tokens), part_tokens, together }
    })
}

/// Lists the units of a call and returns how many values their partial results take.
fn plan(jobs: &mut [AttentionJob<'_>], shape: AttentionShape, scratch: &mut Scratch) -> usize {
    scratch.units.clear();
    scratch.pending.clear();
    let (mut units, mut pending) = (0, 0);
    for tile in jobs.iter().flat_map(|job| row_tiles(job, shape)) {
        let groups = shape.kv_heads.div_ceil(tile.together);
        pending += groups;
        units += groups * tile.parts;
    }
    // Exactly, so that the memory is what [`attention_scratch`] announces.
    scratch.units.reserve_exact(units);
    scratch.pending.reserve_exact(pending);
    let mut partial = 0;
    let group = shape.heads / shape.kv_heads.max(1);
    for (job, found) in jobs.iter_mut().enumerate() {
        let out = SharedPointer(found.out.as_mut_ptr());
        for RowTile { first_row, rows, single, parts, part_tokens, together } in row_tiles(found, shape) {
            for kv_head in (0..shape.kv_heads).step_by(together) {
                let kv_heads = together.min(shape.kv_heads - kv_head);
                let pending = scratch.pending.len();
                scratch.pending.push(AtomicUsize::new(parts));
                scratch.units.extend((0..parts).map(|part| Unit {
                    job,
                    out,
                    kv_head,
                    kv_heads,
                    first_row,
                    rows,
                    single,
                    part,
                    parts,
                    part_tokens,
                    pending,
                    partial,
                }));
                if parts > 1 {
                    partial += parts * rows * kv_heads * group * Partial::values(shape.head_dim);
                }
            }
        }
    }
    partial
}

/// Runs one unit. Conditions: as stated where it is called.
#[allow(clippy::too_many_arguments)]
unsafe fn compute(
    pool: &ThreadPool,
    job: &AttentionJob<'_>,
    shape: AttentionShape,
    unit: &Unit,
    cold: bool,
    sizes: PrefillSizes,
    to: Partial,
    workspace: *mut f32,
) {
    // SAFETY: passed on.
    unsafe {
        match (job.keys, job.values) {
            (KvSlice::F32(k), KvSlice::F32(v)) => {
                compute_as(pool, job, k.as_ptr(), v.as_ptr(), shape, unit, cold, sizes, to, workspace);
            }
            (KvSlice::F16(k), KvSlice::F16(v)) => {
                compute_as(pool, job, k.as_ptr(), v.as_ptr(), shape, unit, cold, sizes, to, workspace);
            }
            _ => unreachable!("`check` refuses mixed caches"),
        }
    }
}

/// As [`compute`], with the cache's type known.
#[allow(clippy::too_many_arguments)]
unsafe fn compute_as<E: KvElement>(
    pool: &ThreadPool,
    job: &AttentionJob<'_>,
    keys: *const E,
    values: *const E,
    shape: AttentionShape,
    unit: &Unit,
    cold: bool,
    sizes: PrefillSizes,
    to: Partial,
    workspace: *mut f32,
) {
    let AttentionShape { heads, kv_heads, head_dim, scale, causal } = shape;
    let group = heads / kv_heads;
    let stride = kv_heads * head_dim;
    let q_stride = heads * head_dim;
    let first = unit.part * unit.part_tokens;
    let seen = if causal { job.past + unit.first_row + unit.rows } else { job.kv_len };
    let last = (first + unit.part_tokens).min(seen);
    // SAFETY: the unit's rows, KV head and tokens exist.
    unsafe {
        let q = job.q.as_ptr().add(unit.first_row * q_stride + unit.kv_head * group * head_dim);
        let keys = keys.add(unit.kv_head * head_dim);
        let values = values.add(unit.kv_head * head_dim);
        if unit.single {
            let (keys, values) = (keys.add(first * stride), values.add(first * stride));
            let tokens = last - first;
            launch(
                pool.level(),
                DecodeChunk {
                    q,
                    kv_heads: unit.kv_heads,
                    group,
                    head_dim,
                    scale,
                    keys,
                    values,
                    stride,
                    tokens,
                    cold,
                    to,
                    workspace,
                },
            );
        } else {
            launch(
                pool.level(),
                PrefillTile {
                    q,
                    q_stride,
                    rows: unit.rows,
                    heads: group,
                    head_dim,
                    scale,
                    keys,
                    values,
                    stride,
                    first,
                    last,
                    visible: if causal { job.past + unit.first_row + 1 } else { job.kv_len },
                    causal,
                    to,
                    sizes,
                    workspace,
                },
            );
        }
    }
}

/// Brings a unit's parts together and writes the output.
///
/// Conditions: `first` and what follows it at `stride` hold the finished partial results of the unit's parts.
struct FinishUnit<'a> {
    job: &'a AttentionJob<'a>,
    unit: &'a Unit,
    shape: AttentionShape,
    first: Partial,
    stride: usize,
}

impl Kernel for FinishUnit<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { job, unit, shape, first, stride } = self;
        let AttentionShape { heads, kv_heads, head_dim, causal, .. } = shape;
        let group = heads / kv_heads;
        let own_heads = unit.kv_heads * group;
        for query in 0..unit.rows * own_heads {
            let (row, head) = (unit.first_row + query / own_heads, unit.kv_head * group + query % own_heads);
            let seen = if causal { job.past + row + 1 } else { job.kv_len };
            // An early row may see nothing of the last parts.
            let parts = seen.div_ceil(unit.part_tokens);
            // SAFETY: the row and head are those of the unit.
            unsafe {
                let out = unit.out.get().add((row * heads + head) * head_dim);
                Finish { first, stride, parts, query, out }.run::<S>();
            }
        }
    }
}

fn check(job: &AttentionJob<'_>, shape: AttentionShape) -> Result<(), KernelError> {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    if heads == 0 || kv_heads == 0 || head_dim == 0 || !heads.is_multiple_of(kv_heads) {
        let what = "query heads must be a multiple of the KV heads";
        return Err(KernelError::Attention { what, expected: kv_heads, found: heads });
    }
    let width = checked_mul(heads, head_dim)?;
    let m = job.q.len() / width;
    check_length("attention queries", checked_mul(m, width)?, job.q.len())?;
    check_length("attention output", job.q.len(), job.out.len())?;
    let needed = checked_mul(job.kv_len, checked_mul(kv_heads, head_dim)?)?;
    for (what, found) in [("key cache values", job.keys.len()), ("value cache values", job.values.len())] {
        if found < needed {
            return Err(KernelError::Attention { what, expected: needed, found });
        }
    }
    if matches!(job.keys, KvSlice::F32(_)) != matches!(job.values, KvSlice::F32(_)) {
        let what = "keys and values of one type, bits a value";
        let bits = |slice: &KvSlice<'_>| if matches!(slice, KvSlice::F32(_)) { 32 } else { 16 };
        return Err(KernelError::Attention { what, expected: bits(&job.keys), found: bits(&job.values) });
    }
    let seen = if shape.causal { job.past.saturating_add(m) } else { usize::from(m > 0) };
    if job.kv_len < seen {
        let what = "tokens in the cache";
        return Err(KernelError::Attention { what, expected: seen, found: job.kv_len });
    }
    Ok(())
}
