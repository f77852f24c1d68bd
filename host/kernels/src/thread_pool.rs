//! The worker threads: they spin for a moment after a job, then sleep.
//!
//! A decode step is some hundred short jobs a few microseconds apart, so waking threads through the kernel each
//! time would cost more than the work. A job is posted into one slot per worker. When the caller has done its
//! own share it takes back every share that no worker has begun, so a worker that lost its core to another
//! process never holds the job up.

use std::any::Any;
use std::cell::{RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::cpu_level::CpuLevel;

/// Spinning longer than this takes a core from others.
const SPIN: Duration = Duration::from_micros(60);

const IDLE: u32 = 0;
const POSTED: u32 = 1;
const TAKEN: u32 = 2;
const DONE: u32 = 3;

type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// One worker's mailbox, on a cache line (pair) of its own.
#[repr(align(128))]
struct Slot {
    state: AtomicU32,
    asleep: AtomicBool,
}

/// The job in hand. Written by the caller while every slot is `IDLE`, read by workers that took a slot.
struct Current {
    job: *const Job<'static>,
    caller: Option<Thread>,
}

struct Shared {
    slots: Vec<Slot>,
    current: UnsafeCell<Current>,
    caller_asleep: AtomicBool,
    shutdown: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `current` is written only by the holder of the pool's `running` lock while all slots are IDLE, and read
// only between a successful POSTED -> TAKEN exchange and the store of DONE, which the writer waits for.
unsafe impl Sync for Shared {}
// SAFETY: the raw job pointer is used only while the caller of `run` keeps the closure alive, and the closure is Sync.
unsafe impl Send for Shared {}

struct Pool {
    shared: Arc<Shared>,
    running: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
    level: CpuLevel,
}

/// A fixed set of threads that run one job at a time. Clones share the threads; the last one joins them.
#[derive(Clone)]
pub struct ThreadPool {
    pool: Arc<Pool>,
}

thread_local! {
    /// Pools whose job this thread is inside of, by the address of their shared state.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl ThreadPool {
    /// A pool of `threads` workers (at least 1) of which the calling thread of [`ThreadPool::run`] is one, with
    /// the instruction set of [`CpuLevel::from_environment`].
    pub fn new(threads: usize) -> Self {
        Self::with_level(threads, CpuLevel::from_environment())
    }

    /// As [`ThreadPool::new`], with an instruction set no higher than `level`.
    pub fn with_level(threads: usize, level: CpuLevel) -> Self {
        let threads = threads.max(1);
        let slots = (1..threads)
            .map(|_| Slot { state: AtomicU32::new(IDLE), asleep: AtomicBool::new(false) })
            .collect();
        let shared = Arc::new(Shared {
            slots,
            current: UnsafeCell::new(Current {
                job: std::ptr::null::<fn(usize)>() as *const Job,
                caller: None,
            }),
            caller_asleep: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        // A thread that cannot be started leaves its slot to the caller, which takes it back in every run.
        let workers = (0..threads - 1)
            .filter_map(|slot| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("kernels-{}", slot + 1))
                    .spawn(move || work(&shared, slot))
                    .ok()
            })
            .collect();
        Self { pool: Arc::new(Pool { shared, running: Mutex::new(()), workers, level: level.available() }) }
    }

    /// The number of worker indices that [`ThreadPool::run`] calls its job with.
    pub fn threads(&self) -> usize {
        self.pool.shared.slots.len() + 1
    }

    /// The instruction set that kernels run with on this pool.
    pub fn level(&self) -> CpuLevel {
        self.pool.level
    }

    /// Calls `job(index)` once for each index in `0..threads()`, in parallel, and returns when all are done.
    ///
    /// Index 0 runs on the calling thread. Calls from several threads wait for each other. A call from inside a
    /// job of the same pool runs all indices one after the other on the spot.
    ///
    /// # Panics
    /// With the first panic of the job, after every index has ended.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.pool.shared;
        let address = std::ptr::from_ref(shared) as usize;
        if shared.slots.is_empty() || INSIDE.with_borrow(|inside| inside.contains(&address)) {
            (0..self.threads()).for_each(job);
            return;
        }
        let running = lock(&self.pool.running);
        // SAFETY: every slot is IDLE here (the previous run waited for that under the same lock), so no worker
        // reads `current`. The lifetime is erased, and no worker uses the job after storing DONE, which this
        // function waits for before it returns or unwinds.
        unsafe {
            let job = std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job);
            *shared.current.get() = Current { job, caller: Some(thread::current()) };
        }
        for (slot, worker) in shared.slots.iter().zip(&self.pool.workers) {
            slot.state.store(POSTED, Ordering::SeqCst);
            if slot.asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        for slot in shared.slots.iter().skip(self.pool.workers.len()) {
            slot.state.store(POSTED, Ordering::SeqCst);
        }

        let mut panic = call(job, 0, address).err();
        for (index, slot) in shared.slots.iter().enumerate() {
            if slot.state.compare_exchange(POSTED, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                if let Err(payload) = call(job, index + 1, address) {
                    panic.get_or_insert(payload);
                }
                slot.state.store(DONE, Ordering::Release);
            }
        }
        for slot in &shared.slots {
            wait_for_done(shared, slot);
            slot.state.store(IDLE, Ordering::Relaxed);
        }
        if let Some(payload) = lock(&shared.panic).take() {
            panic.get_or_insert(payload);
        }
        drop(running);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Splits `0..total` among the workers in pieces of at least `grain` items, and calls `job` with each piece.
    /// Runs on the calling thread alone when there is only one piece.
    pub fn run_ranges(&self, total: usize, grain: usize, job: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
        let pieces = total.div_ceil(grain.max(1)).min(self.threads());
        match pieces {
            0 => {}
            1 => job(0..total),
            _ => self.run(&|worker| {
                let range = split_range(total, pieces, worker);
                if !range.is_empty() {
                    job(range);
                }
            }),
        }
    }
}

/// The part of `0..total` that belongs to piece `index` of `pieces`; sizes differ by at most one. Empty for
/// `index >= pieces`.
pub fn split_range(total: usize, pieces: usize, index: usize) -> std::ops::Range<usize> {
    let pieces = pieces.max(1);
    if index >= pieces {
        return total..total;
    }
    let (each, more) = (total / pieces, total % pieces);
    let first = index * each + index.min(more);
    first..first + each + usize::from(index < more)
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).field("level", &self.level()).finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A job may own the last handle: then the dropping thread is the worker itself, which ends on its own.
            if worker.thread().id() != thread::current().id() {
                // Workers catch the panics of jobs, so there is nothing left to report here.
                let _ = worker.join();
            }
        }
    }
}

/// Poisoning means nothing here: the guarded values are replaced whole, and panics are reported by `run`.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn call(job: &Job<'_>, index: usize, pool: usize) -> Result<(), Box<dyn Any + Send>> {
    INSIDE.with_borrow_mut(|inside| inside.push(pool));
    let result = catch_unwind(AssertUnwindSafe(|| job(index)));
    INSIDE.with_borrow_mut(|inside| inside.pop());
    result
}

fn work(shared: &Shared, index: usize) {
    let slot = &shared.slots[index];
    let address = std::ptr::from_ref(shared) as usize;
    while wait_for_job(shared, slot) {
        if slot.state.compare_exchange(POSTED, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            continue; // The caller took the share back.
        }
        // SAFETY: the exchange to TAKEN succeeded, so the caller has written `current` and waits for DONE before
        // it writes again; the job outlives that wait.
        let (job, caller) = unsafe {
            let current = &*shared.current.get();
            (&*current.job, current.caller.clone())
        };
        if let Err(payload) = call(job, index + 1, address) {
            lock(&shared.panic).get_or_insert(payload);
        }
        slot.state.store(DONE, Ordering::SeqCst);
        if shared.caller_asleep.swap(false, Ordering::SeqCst)
            && let Some(caller) = caller
        {
            caller.unpark();
        }
    }
}

/// Spins up to [`SPIN`] for `ready`, giving the core away now and then; true if it came.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return ready();
        }
    }
}

/// Waits for a posted job; false when the pool shuts down.
fn wait_for_job(shared: &Shared, slot: &Slot) -> bool {
    loop {
        let due = || slot.state.load(Ordering::SeqCst) == POSTED || shared.shutdown.load(Ordering::SeqCst);
        if !spin_until(due) {
            slot.asleep.store(true, Ordering::SeqCst);
            // Once, not until a job is due: who wakes too late finds that the caller has taken the job back, and must
            // say anew that it sleeps, or nobody would wake it again.
            if !due() {
                thread::park();
            }
            slot.asleep.store(false, Ordering::SeqCst);
        }
        if shared.shutdown.load(Ordering::SeqCst) {
            return false;
        }
        if slot.state.load(Ordering::SeqCst) == POSTED {
            return true;
        }
    }
}

fn wait_for_done(shared: &Shared, slot: &Slot) {
    let done = || slot.state.load(Ordering::SeqCst) == DONE;
    while !spin_until(done) {
        shared.caller_asleep.store(true, Ordering::SeqCst);
        if !done() {
            thread::park();
        }
        shared.caller_asleep.store(false, Ordering::SeqCst);
    }
}
