//! Threads that take work from one queue.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use crate::thread_priority::yield_to_steps;

struct Queue<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
}

/// A queue with its workers. Dropping it forgets the jobs that no worker has begun, and joins the workers.
pub(crate) struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> WorkQueue<T> {
    /// Starts `workers` threads of low priority that call `work` with each job.
    pub(crate) fn start(
        workers: usize,
        name: &str,
        work: impl Fn(T) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { jobs: VecDeque::new(), closed: false }),
            changed: Condvar::new(),
        });
        let work = Arc::new(work);
        let workers = (0..workers)
            .map(|_| {
                let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
                thread::Builder::new().name(name.to_owned()).spawn(move || {
                    yield_to_steps();
                    while let Some(job) = shared.next() {
                        work(job);
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, workers })
    }

    /// Adds a job at the end of the queue.
    pub(crate) fn push(&self, job: T) {
        self.shared.lock().jobs.push_back(job);
        self.shared.changed.notify_one();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<T> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for WorkQueue<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let this = thread::current().id();
        for worker in self.workers.drain(..).filter(|worker| worker.thread().id() != this) {
            // A worker that panicked has nothing left to hand over.
            let _ = worker.join();
        }
    }
}
