//! What the core says of its bytes on a GPU against what the driver says. A program of its own: the driver counts the whole
//! process. Only in a build with CUDA, on a machine with such a GPU: `cargo test -p system-tests --features cuda --test
//! cuda_bytes`.
#![cfg(feature = "cuda")]

#[path = "device_bytes/random_run.rs"]
mod random_run;

use std::sync::Arc;

use candle_core::Device;
use modularbase_core::TensorBackend;
use modularbase_gradients::pool_bytes;

use self::random_run::{Counter, random_run};

struct Driver(Device);

impl Counter for Driver {
    fn allocated(&self) -> usize {
        pool_bytes(&self.0).unwrap().used
    }

    fn most_allocated(&self) -> usize {
        pool_bytes(&self.0).unwrap().most_used
    }
}

#[test]
fn what_the_core_says_of_its_bytes_is_what_the_driver_says_at_every_step_of_a_random_run() {
    let driver = Driver(Device::new_cuda(0).unwrap());
    random_run(Arc::new(TensorBackend::cuda(0, 2).unwrap()), &driver);
}
