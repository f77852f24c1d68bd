//! Blocks on their way to the file: one thread writes them in the order they came.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::ContextError;
use crate::block_file::Place;
use crate::block_index::BlockKey;
use crate::block_record::Head;
use crate::cold_store::{Shared, State};

/// Bytes that may wait: above them whoever brings more waits for the disk.
pub(crate) const MOST_WAITING: u64 = 4 << 20;

#[derive(Debug)]
pub(crate) struct Queue {
    records: VecDeque<(BlockKey, Arc<Vec<u8>>)>,
    bytes: u64,
    /// Where the file's last record ends.
    end: u64,
    /// Why the first of the records couldn't be written. Nothing is tried again before somebody asks for it.
    failure: Option<ContextError>,
}

impl Queue {
    pub(crate) fn new(end: u64) -> Self {
        Self { records: VecDeque::new(), bytes: 0, end, failure: None }
    }

    pub(crate) fn push(&mut self, key: BlockKey, record: Arc<Vec<u8>>) {
        self.bytes += record.len() as u64;
        self.records.push_back((key, record));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

/// Writes until the store is closed and nothing waits that can be written.
pub(crate) fn run(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        while state.queue.records.is_empty() || state.queue.failure.is_some() {
            if state.closing {
                return;
            }
            state = shared.to_write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (key, record) = state.queue.records[0].clone();
        let (number, end) = (state.files.len() - 1, state.queue.end);
        let file = Arc::clone(&state.files[number]);
        drop(state);
        let added = file.add(&record, end);
        state = shared.lock();
        match added {
            Ok(()) => {
                state.queue.records.pop_front();
                state.queue.bytes -= record.len() as u64;
                state.queue.end += record.len() as u64;
                let head_bytes = Head::payload_start(&record);
                let (bytes, bits) = (record.len() as u32, Head::bits(&record));
                let place = Place { offset: end, bytes, head_bytes, bits };
                state.index.written(key, &record, number, place);
            }
            Err(error) => state.queue.failure = Some(error),
        }
        shared.was_written.notify_all();
    }
}

impl Shared {
    /// Waits until more may be brought.
    pub(crate) fn room_to_write<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>, ContextError> {
        match state.queue.failure {
            Some(_) => self.written_down_to(state, 0),
            None => self.written_down_to(state, MOST_WAITING),
        }
    }

    /// Waits until no more than `bytes` wait; tries again what could not be written.
    pub(crate) fn written_down_to<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
    ) -> Result<MutexGuard<'a, State>, ContextError> {
        if state.queue.failure.take().is_some() {
            self.to_write.notify_one();
        }
        while state.queue.bytes > bytes {
            if let Some(failure) = &state.queue.failure {
                return Err(failure.clone());
            }
            state = self.was_written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state)
    }
}
