//! The bar for opening and closing libraries, alone in its process so that its memory is its own.

use std::time::Instant;

use fixture_packs::{build_request, library};
use modularbase_loader::{Unload, build_graph, mapped_regions};

#[test]
fn ten_thousand_open_check_build_close_cycles_return_every_byte() {
    const WARM_UP: usize = 50;
    const CYCLES: usize = 10_000;
    let library = library("general");
    let request = build_request(&library);
    let mut micros = Vec::with_capacity(CYCLES);
    let mut before = 0;
    for cycle in 0..WARM_UP + CYCLES {
        if cycle == WARM_UP {
            before = resident_bytes();
        }
        let start = Instant::now();
        let built = build_graph(&request).unwrap();
        if cycle >= WARM_UP {
            micros.push(start.elapsed().as_micros());
        }
        assert_eq!(built.unload, Unload::Unloaded, "in cycle {cycle}");
    }
    let growth = resident_bytes() - before;
    micros.sort_unstable();
    let (median, slowest) = (micros[CYCLES / 2], micros[CYCLES - 1]);
    eprintln!("{CYCLES} cycles: median {median} us, slowest {slowest} us, resident memory {growth:+} bytes");
    assert!(growth.abs() < 1 << 20, "resident memory changed by {growth} bytes");
    assert_eq!(mapped_regions(&library).unwrap(), 0);
}

fn resident_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as i64
}
