//! A restart with ten thousand known packs, alone in its process, so that what is read and kept is its own.

use std::{fs, path::Path, time::Duration};

use fixture_packs::{TestHost, lay_out};
use manifests::{PackManifest, Sha256};
use modularbase_loader::{
    Candidate, FileCache, Generation, INDEX_FILE, Known, LoadContext, Outcome, PackSummary, ProbeOutcome,
    Unload, candidates,
};
use rustix::time::{ClockId, clock_gettime};

const PACKS: usize = 10_000;

#[test]
fn ten_thousand_known_packs_are_known_again_without_reading_or_probing_one() {
    // A probe could not even start.
    let host = TestHost::new("/nowhere/probe");
    let packs = host.packs();
    lay_out_many(&packs, &lay_out("side-network", &host.root.path().join("one")));

    let start = processor_time();
    let found = candidates(&packs).unwrap();
    let first_scan = processor_time() - start;
    assert_eq!(found.len(), PACKS);
    assert!(found.is_sorted_by_key(|candidate| candidate.path.clone()));
    for candidate in &found {
        remember(candidate, &host.context);
    }
    drop(found);

    let cache = FileCache::new(host.context.cache.folder());
    let context = LoadContext::new(cache, host.context.base.clone(), host.context.prober.clone());
    drop(host.context);
    let (read_before, resident_before) = (bytes_read(), resident_bytes());
    let start = processor_time();
    assert_eq!(context.index().len(), PACKS);
    let open = processor_time() - start;
    let found = candidates(&packs).unwrap();
    let known: Vec<Known> = found
        .iter()
        .map(|candidate| context.index().known(&candidate.canonical, &candidate.stamp).unwrap())
        .collect();
    let restart = processor_time() - start;
    let (read, resident) = (bytes_read() - read_before, resident_bytes() - resident_before);
    assert!(known.iter().all(|known| { known.outcome == Outcome::Admitted }));

    let index_bytes = fs::metadata(context.cache.folder().join(INDEX_FILE)).unwrap().len();
    let a_pack = resident / PACKS as u64;
    eprintln!(
        "{PACKS} packs: scan {first_scan:?}, index of {index_bytes} bytes opened in {open:?}, restart {restart:?}, \
         {read} bytes read, {a_pack} bytes of memory a pack"
    );
    // The index itself, once; no library and no manifest.
    assert!(read < index_bytes + (64 << 10), "{read} bytes read");
    assert!(a_pack < 4096, "{a_pack}");
    let limit = Duration::from_millis(300);
    assert!(first_scan < limit && open < limit, "{first_scan:?}, {open:?}");
}

/// Folders with manifests of their own, whose other files are one file each.
fn lay_out_many(packs: &Path, one: &Path) {
    let manifest = fs::read_to_string(one.join("pack.toml")).unwrap();
    for number in 0..PACKS {
        let folder = packs.join(format!("pack-{number}"));
        fs::create_dir_all(&folder).unwrap();
        for file in ["libfixture_side_network.so", "weights.safetensors"] {
            fs::hard_link(one.join(file), folder.join(file)).unwrap();
        }
        let own = manifest
            .replace("fixture.side-network", &format!("fixture.side-network-{number}"))
            .replace("name = \"side-network\"", &format!("name = \"side-network-{number}\""));
        fs::write(folder.join("pack.toml"), own).unwrap();
    }
}

fn remember(candidate: &Candidate, context: &LoadContext) {
    let bytes = fs::read(candidate.canonical.join("pack.toml")).unwrap();
    let manifest = PackManifest::parse_bytes(&bytes).unwrap();
    let weights = manifest.weights.as_ref().unwrap().sha256;
    let generation = Generation::new(
        &Sha256::of_bytes(&bytes),
        &manifest.library.as_ref().unwrap().sha256,
        Some(&weights),
    );
    let warnings = vec!["a warning of some length, as an inspection of a library gives it".to_owned()];
    let signer = Some("signed by `somebody`, whose key is known".to_owned());
    let summary = PackSummary::new(&manifest, bytes.len(), warnings, signer).into();
    let known = Known { generation, summary, outcome: Outcome::Admitted, refused_by: None, archive: None };
    context.index().remember(&candidate.canonical, &candidate.stamp, known);
    let graph = Sha256::of_bytes(b"graph");
    let passed = ProbeOutcome::Passed { graph, unload: Unload::Unloaded };
    context.index().remember_probe(context.probe_key(&manifest), passed);
}

/// Bytes that this process has read from files.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

/// Time that this thread has had a processor: what it waits for one says nothing of its work. `/proc` counts it in ticks of
/// milliseconds.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}
