//! Work on a window's blocks, block by block, on all threads.

use std::sync::{Mutex, PoisonError};

use modularbase_kernels::ThreadPool;

/// Calls `work` with each item, on all threads of the pool, and returns an error of one of them, if any failed.
pub(super) fn in_parallel<T: Send, E: Send>(
    pool: &ThreadPool,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (left, failure) = (Mutex::new(items), Mutex::new(None));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    pool.run(&|_| {
        while let Some(item) = next() {
            if let Err(error) = work(item) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_worked_on_once_and_an_error_comes_back_behind_all_of_them() {
        let pool = ThreadPool::new(3);
        let mut squares = [0; 10];
        let items = squares.iter_mut().zip(0_u32..);
        let done = in_parallel(&pool, items, |(square, number)| {
            *square = number * number;
            if number == 4 { Err(number) } else { Ok(()) }
        });
        assert_eq!(done, Err(4));
        assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
    }
}
