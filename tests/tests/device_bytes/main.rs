//! What the core says of its bytes against what the allocator says. One test in a program of its own: the allocator
//! counts the whole process.

mod random_run;

use std::{alloc::System, sync::Arc};

use cap::Cap;
use modularbase_core::{CpuBackend, KvDtype};

use self::random_run::{Counter, random_run};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

struct Allocator;

impl Counter for Allocator {
    fn allocated(&self) -> usize {
        ALLOCATOR.allocated()
    }

    fn most_allocated(&self) -> usize {
        ALLOCATOR.max_allocated()
    }
}

#[test]
fn what_the_core_says_of_its_bytes_is_what_the_allocator_says_at_every_step_of_a_random_run() {
    random_run(Arc::new(CpuBackend::new(2, KvDtype::F16)), &Allocator);
}
