//! The pool under panics, nesting, concurrency and drop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use modularbase_kernels::{ChunkScheduler, ThreadPool, split_range};

#[test]
fn every_index_runs_exactly_once_in_each_of_many_runs() {
    for threads in [1, 2, 3, 8] {
        let pool = ThreadPool::new(threads);
        assert_eq!(pool.threads(), threads);
        let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..2000 {
            pool.run(&|index| {
                counts[index].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2000));
    }
}

#[test]
fn workers_that_have_fallen_asleep_wake_up() {
    let pool = ThreadPool::new(3);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(300));
        });
        assert_eq!(count.into_inner(), 3);
    }
}

#[test]
fn a_panic_on_any_index_reaches_the_caller_and_the_pool_works_on() {
    let pool = ThreadPool::new(3);
    for bad in 0..3 {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|index| {
                ended.fetch_add(1, Ordering::Relaxed);
                assert!(index != bad, "index {bad} fails");
            });
        }));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), &format!("index {bad} fails"));
        assert_eq!(ended.into_inner(), 3);
        let sum = AtomicUsize::new(0);
        pool.run(&|index| {
            sum.fetch_add(index, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 3);
    }
}

#[test]
fn a_run_inside_of_a_job_of_the_same_pool_runs_all_indices_on_the_spot() {
    let pool = ThreadPool::new(2);
    let other = ThreadPool::new(2);
    let count = AtomicUsize::new(0);
    pool.run(&|_| {
        pool.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        other.run(&|_| {
            count.fetch_add(10, Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 2 * 2 + 2 * 20);
}

#[test]
fn runs_from_several_threads_wait_for_each_other() {
    let pool = ThreadPool::new(2);
    let (inside, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let pool = pool.clone();
            let (inside, count, barrier) = (&inside, &count, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..300 {
                    let owner = AtomicUsize::new(0);
                    pool.run(&|_| {
                        if owner.fetch_add(1, Ordering::SeqCst) == 0 {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) == 0, "two jobs at once");
                        }
                        if owner.fetch_add(1, Ordering::SeqCst) == 3 {
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 4 * 300 * 2);
}

#[test]
fn dropping_the_last_handle_joins_the_threads() {
    let alive = Arc::new(());
    let pool = ThreadPool::new(4);
    let clone = pool.clone();
    pool.run(&|_| {
        thread_local!(static HELD: std::cell::RefCell<Option<Arc<()>>> = const { std::cell::RefCell::new(None) });
        HELD.set(Some(Arc::clone(&alive)));
        // Long enough that each thread gets a share of its own.
        std::thread::sleep(Duration::from_millis(30));
    });
    drop(pool);
    assert!(Arc::strong_count(&alive) > 2);
    drop(clone);
    // Thread-locals of the workers are gone, so the workers are; this thread's remains.
    assert_eq!(Arc::strong_count(&alive), 2);
}

#[test]
fn ranges_and_chunks_cover_everything_once() {
    for (total, pieces) in [(0, 3), (1, 3), (10, 3), (12, 4), (5, 9)] {
        let parts: Vec<usize> = (0..pieces).flat_map(|index| split_range(total, pieces, index)).collect();
        assert_eq!(parts, (0..total).collect::<Vec<_>>());
    }
    for (total, grain, workers) in [(0, 1, 2), (1, 4, 2), (100, 7, 3), (1000, 1, 20)] {
        let scheduler = ChunkScheduler::new(total, grain, workers);
        let mut seen = vec![0; total];
        for worker in (0..workers).rev() {
            // Only some at first, so that the others have something to help with.
            if let Some(range) = scheduler.next(worker) {
                range.for_each(|i| seen[i] += 1);
            }
        }
        while let Some(range) = scheduler.next(0) {
            range.for_each(|i| seen[i] += 1);
        }
        assert!(seen.iter().all(|count| *count == 1));
    }
    let pool = ThreadPool::new(3);
    for total in [0, 1, 5, 100] {
        let sum = AtomicUsize::new(0);
        pool.run_ranges(total, 4, &|range| {
            sum.fetch_add(range.sum(), Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), total * total.saturating_sub(1) / 2);
    }
}

#[test]
fn a_worker_that_woke_too_late_takes_part_again() {
    let pool = ThreadPool::new(2);
    // Jobs so short, and so far apart, that the caller takes the sleeping worker's share back.
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(1));
        pool.run(&|_| {});
    }
    let caller = std::thread::current().id();
    let elsewhere = AtomicUsize::new(0);
    for _ in 0..20 {
        pool.run(&|_| {
            if std::thread::current().id() != caller {
                elsewhere.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(2));
        });
    }
    assert!(elsewhere.into_inner() >= 15, "the worker is asleep for ever");
}
