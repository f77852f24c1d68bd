//! What the inspector sees in real libraries, and that nothing it is given makes it fall.

use std::{fs, hint::black_box, sync::OnceLock, time::Instant};

use fixture_packs::library;
use modularbase_loader::{Finding, inspect_library};
use proptest::prelude::*;

fn general() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| fs::read(library("general")).unwrap())
}

#[test]
fn a_plain_pack_has_a_note_three_libraries_and_no_findings() {
    let elf = inspect_library(general());
    assert_eq!(elf.findings, []);
    let note = elf.note.unwrap();
    assert_eq!((note.abi_major, note.opset, note.target.as_str()), (1, 1, pack_abi::TARGET));
    assert!(note.rustc.starts_with("rustc "), "{}", note.rustc);
    assert!(elf.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", elf.needed);
    assert!(elf.imports.iter().any(|name| name == "malloc"));
    let start = Instant::now();
    black_box(inspect_library(black_box(general())));
    eprintln!("inspection: {} us", start.elapsed().as_micros());
}

#[test]
fn threads_are_noted_and_sockets_are_refused_before_anything_runs() {
    let findings = |name: &str| inspect_library(&fs::read(library(name)).unwrap());
    let threads = findings("keeps-thread");
    assert_eq!(threads.refusals().count(), 0);
    assert!(threads.warnings().any(|warning| warning.to_string().contains("start threads")));
    let network = findings("networked");
    assert!(network.refusals().any(|refusal| refusal.to_string().contains("use the network")));
}

#[test]
fn another_major_version_is_seen_without_loading() {
    let elf = inspect_library(&fs::read(library("other-major")).unwrap());
    assert!(elf.findings.contains(&Finding::AbiMajor { expected: 1, found: 2 }), "{:?}", elf.findings);
}

#[test]
fn a_library_cut_off_anywhere_is_refused() {
    let whole = general();
    for length in (0..1024).chain((1024..whole.len()).step_by(1021)).chain(whole.len() - 64..whole.len()) {
        let elf = inspect_library(&whole[..length]);
        assert!(elf.refusals().next().is_some(), "cut to {length} of {} bytes", whole.len());
    }
}

#[test]
fn files_that_are_no_packs_are_refused_in_words() {
    let first = |bytes: &[u8]| inspect_library(bytes).findings[0].to_string();
    assert!(first(b"").contains("not an ELF"));
    assert!(first(b"#!/bin/sh\nexit 0\n").contains("not an ELF"));
    let program = fs::read(env!("CARGO_BIN_EXE_pack-probe")).unwrap();
    let elf = inspect_library(&program);
    assert!(elf.findings.contains(&Finding::NoteMissing), "{:?}", elf.findings);
    assert!(elf.findings.contains(&Finding::NoExport));
    // 32 bits, the other byte order, an object file, another machine.
    for (offset, byte, word) in
        [(4, 1, "64-bit"), (5, 2, "byte order"), (16, 1, "ELF type"), (18, 40, "machine 40")]
    {
        let mut bytes = general().to_vec();
        bytes[offset] = byte;
        assert!(first(&bytes).contains(word), "{}", first(&bytes));
    }
}

#[test]
fn an_executable_stack_is_refused() {
    const PT_GNU_STACK: [u8; 4] = 0x6474_e551_u32.to_le_bytes();
    let mut bytes = general().to_vec();
    let header = bytes[..4096].windows(4).position(|window| window == PT_GNU_STACK).unwrap();
    bytes[header + 4] |= 1;
    let elf = inspect_library(&bytes);
    assert!(
        elf.refusals().any(|refusal| refusal.to_string().contains("executable stack")),
        "{:?}",
        elf.findings
    );
}

#[test]
fn dynamic_entries_that_keep_a_library_or_lead_elsewhere_are_refused() {
    // Rewrites an entry of the dynamic section to another tag and value.
    let patched = |from: u64, to: u64, value: u64| {
        let mut bytes = general().to_vec();
        let entry = dynamic_entry(&bytes, from);
        bytes[entry..entry + 8].copy_from_slice(&to.to_le_bytes());
        bytes[entry + 8..entry + 16].copy_from_slice(&value.to_le_bytes());
        inspect_library(&bytes).findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    const FLAGS_1: u64 = 0x6fff_fffb;
    const RELA_COUNT: u64 = 0x6fff_fff9;
    assert!(patched(FLAGS_1, FLAGS_1, 0x9).contains("nodelete"));
    assert!(patched(RELA_COUNT, 15, 1).contains("RPATH"));
    assert!(patched(RELA_COUNT, 29, 1).contains("RUNPATH"));
    assert!(patched(RELA_COUNT, 22, 0).contains("text relocations"));
    assert!(patched(RELA_COUNT, 0x6fff_fefc, 1).contains("auditing"));
    assert!(patched(RELA_COUNT, 1, 1).contains("needs the library"));
    assert!(patched(27, 27, 8 * 5).contains("it runs 5 functions when it is opened"));
}

#[test]
fn a_symbol_that_is_unique_in_the_process_is_refused() {
    const DYNAMIC_SYMBOLS: u32 = 11;
    const GNU_UNIQUE: u8 = 10;
    let mut bytes = general().to_vec();
    let (symbols, _) = section(&bytes, DYNAMIC_SYMBOLS);
    let info = &mut bytes[symbols + 24 + 4]; // of the first symbol that is one
    *info = GNU_UNIQUE << 4 | *info & 0xf;
    let elf = inspect_library(&bytes);
    assert!(elf.refusals().any(|refusal| matches!(refusal, Finding::UniqueSymbol(_))), "{:?}", elf.findings);
}

#[test]
fn a_segment_that_is_writable_and_executable_is_refused() {
    const LOAD: u32 = 1;
    const EXECUTE: u32 = 1;
    let mut bytes = general().to_vec();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let code = (64..4096)
        .step_by(56)
        .find(|&at| word(&bytes, at) == LOAD && word(&bytes, at + 4) & EXECUTE != 0)
        .unwrap();
    bytes[code + 4] |= 2;
    let elf = inspect_library(&bytes);
    assert!(elf.refusals().any(|refusal| refusal.to_string().contains("writable and executable")));
}

#[test]
fn the_notes_opset_target_and_text_are_checked() {
    let at = |needle: &[u8]| general().windows(needle.len()).position(|window| window == needle).unwrap();
    let note = at(b"MODULARBASE\0");
    let with = |offset: usize, patch: &[u8]| {
        let mut bytes = general().to_vec();
        bytes[note + offset..note + offset + patch.len()].copy_from_slice(patch);
        let elf = inspect_library(&bytes);
        elf.refusals().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert!(with(12, &9u32.to_le_bytes()).contains("built for ABI 9"));
    assert_eq!(with(16, &9u32.to_le_bytes()), ""); // a newer minor version is welcome
    assert!(with(24, &2u32.to_le_bytes()).contains("opset 2, this host knows opsets up to 1"));
    assert!(with(24, &0u32.to_le_bytes()).contains("opset 0"));
    assert!(with(28, b"riscv64").contains("built for riscv64unknown-linux-gnu"));
    assert!(with(28, &[0xff]).contains("malformed"));
    assert!(with(0, b"SOMEBODYELSE").contains("no pack note"));
}

/// Offset of the dynamic entry with that tag.
fn dynamic_entry(bytes: &[u8], tag: u64) -> usize {
    const DYNAMIC: u32 = 6;
    let (start, size) = section(bytes, DYNAMIC);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (start..start + size).step_by(16).find(|&entry| word(entry) == tag).unwrap()
}

/// Offset and size of the first section of that type.
fn section(bytes: &[u8], kind: u32) -> (usize, usize) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (sections, count) =
        (word(40) as usize, u16::from_le_bytes(bytes[60..62].try_into().unwrap()) as usize);
    let header = (0..count).map(|index| sections + index * 64);
    let header = header.into_iter().find(|&at| bytes[at + 4..at + 8] == kind.to_le_bytes()).unwrap();
    (word(header + 24) as usize, word(header + 32) as usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_never_make_the_inspector_fall(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..40),
        in_headers in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = general().to_vec();
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Half of the cases hit the headers and tables at the front, where damage does most.
        let reach = if in_headers { bytes.len().min(4096) } else { bytes.len() };
        for (index, bit) in flips.iter().filter(|_| reach > 0) {
            bytes[index.index(reach)] ^= 1 << bit;
        }
        black_box(inspect_library(&bytes));
    }

    #[test]
    fn arbitrary_bytes_behind_an_elf_header_never_make_the_inspector_fall(
        body in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = general()[..64].to_vec();
        bytes.extend(body);
        black_box(inspect_library(&bytes));
    }
}
