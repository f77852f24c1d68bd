//! What a child that probes a library may use.

use std::{fs, io, time::Duration};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

/// Limits of one probe. Building a graph takes milliseconds and kilobytes; these are far above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeLimits {
    /// Wall time. The child is killed after it.
    pub wall_time: Duration,
    /// Processor time, in whole seconds.
    pub cpu_seconds: u64,
    /// Address space beyond what the child has when it starts, bytes.
    pub address_space: u64,
    /// Open file descriptors.
    pub file_descriptors: u64,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            wall_time: Duration::from_secs(10),
            cpu_seconds: 10,
            address_space: 1 << 30,
            file_descriptors: 64,
        }
    }
}

impl ProbeLimits {
    /// Sets the limits on this process, for good. It also ends with its parent, writes no files and no core dumps.
    pub(super) fn apply(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let set = |resource, value: u64| {
            setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
                .map_err(io::Error::from)
        };
        set(Resource::Core, 0)?;
        set(Resource::Fsize, 0)?;
        set(Resource::Nofile, self.file_descriptors)?;
        set(Resource::Cpu, self.cpu_seconds)?;
        set(Resource::As, address_space_in_use()?.saturating_add(self.address_space))
    }
}

fn address_space_in_use() -> io::Result<u64> {
    Ok(memory_pages()?.0 * rustix::param::page_size() as u64)
}

/// Resident bytes of this process.
pub(super) fn resident_bytes() -> io::Result<u64> {
    Ok(memory_pages()?.1 * rustix::param::page_size() as u64)
}

/// Pages in the address space, and resident ones.
fn memory_pages() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let mut words = text.split(' ').map(|word| word.parse().ok());
    match (words.next().flatten(), words.next().flatten()) {
        (Some(size), Some(resident)) => Ok((size, resident)),
        _ => Err(io::Error::other("/proc/self/statm has another form than expected")),
    }
}
