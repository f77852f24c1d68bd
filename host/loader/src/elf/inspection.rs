//! The inspection as a whole: structure, note, dynamic segment, symbols.

use object::{
    Endianness, elf,
    read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _},
};
use serde::{Deserialize, Serialize};

use super::{Finding, PackNote, Severity, dynamic, imports};

/// What a library's file tells, without loading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfInspection {
    /// Its note, if there is a sound one.
    pub note: Option<PackNote>,
    /// Libraries it needs.
    pub needed: Vec<String>,
    /// Functions it imports, sorted.
    pub imports: Vec<String>,
    /// What speaks against it, gravest first.
    pub findings: Vec<Finding>,
}

impl ElfInspection {
    /// The findings for which it is not opened.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity() == Severity::Refuse)
    }

    /// The findings that are only shown.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity() == Severity::Warn)
    }

    fn refused(finding: Finding) -> Self {
        Self { note: None, needed: Vec::new(), imports: Vec::new(), findings: vec![finding] }
    }
}

/// Inspects the bytes of a library. Damaged input gives findings, never a panic.
pub fn inspect_library(data: &[u8]) -> ElfInspection {
    let (header, endian) = match dynamic::parse_header(data) {
        Ok(parsed) => parsed,
        Err(finding) => return ElfInspection::refused(finding),
    };
    let file = match File::read(data, header, endian) {
        Ok(file) => file,
        Err(reason) => return ElfInspection::refused(Finding::Damaged(reason)),
    };
    let mut findings = file.memory_findings();
    let note = match file.note() {
        Ok(Some(note)) => {
            findings.extend(note_findings(&note));
            Some(note)
        }
        Ok(None) => {
            findings.push(Finding::NoteMissing);
            None
        }
        Err(reason) => {
            findings.push(Finding::NoteMalformed(reason));
            None
        }
    };
    let mut needed = Vec::new();
    match dynamic::read(data, file.segments, endian) {
        Ok(dynamic) => {
            needed = dynamic.needed;
            findings.extend(dynamic.findings);
        }
        Err(reason) => findings.push(Finding::Damaged(reason)),
    }
    let mut imports = Vec::new();
    match file.symbols() {
        Ok(symbols) => {
            imports = symbols.imports;
            findings.extend(symbols.findings);
        }
        Err(reason) => findings.push(Finding::Damaged(reason)),
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    ElfInspection { note, needed, imports, findings }
}

fn note_findings(note: &PackNote) -> Vec<Finding> {
    let host = pack_abi::AbiNote::current();
    let mut findings = Vec::new();
    if note.abi_major != host.abi_major {
        findings.push(Finding::AbiMajor { expected: host.abi_major, found: note.abi_major });
    }
    if note.opset == 0 || note.opset > pack_abi::OPSET {
        findings.push(Finding::Opset { newest: pack_abi::OPSET, found: note.opset });
    }
    if note.target != pack_abi::TARGET {
        findings.push(Finding::Target { expected: pack_abi::TARGET.to_owned(), found: note.target.clone() });
    }
    findings
}

struct File<'data> {
    data: &'data [u8],
    endian: Endianness,
    segments: &'data [elf::ProgramHeader64<Endianness>],
    sections: object::read::elf::SectionTable<'data, elf::FileHeader64<Endianness>>,
}

#[derive(Default)]
struct Symbols {
    imports: Vec<String>,
    findings: Vec<Finding>,
}

impl<'data> File<'data> {
    fn read(
        data: &'data [u8],
        header: &'data elf::FileHeader64<Endianness>,
        endian: Endianness,
    ) -> Result<Self, String> {
        let segments = header.program_headers(endian, data).map_err(|_| "the program headers are cut off")?;
        for segment in segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD) {
            let (offset, size) = segment.file_range(endian);
            in_file(data, offset, size, "a loaded segment")?;
            let memory = segment.p_memsz(endian);
            if memory < size || segment.p_vaddr(endian).checked_add(memory).is_none() {
                return Err("a loaded segment has an impossible size".to_owned());
            }
        }
        // The table stands at the end of the file, so it also tells a file that is still being copied.
        let sections = header.sections(endian, data).map_err(|_| "the section headers are cut off")?;
        if sections.is_empty() {
            return Err("it has no section headers; strip it with `strip`, not further".to_owned());
        }
        for section in sections.iter() {
            if let Some((offset, size)) = section.file_range(endian) {
                in_file(data, offset, size, "a section")?;
            }
        }
        Ok(Self { data, endian, segments, sections })
    }

    fn memory_findings(&self) -> Vec<Finding> {
        let endian = self.endian;
        let of = |kind| self.segments.iter().filter(move |segment| segment.p_type(endian) == kind);
        let executable =
            |segment: &elf::ProgramHeader64<Endianness>| segment.p_flags(endian).0 & elf::PF_X.0 != 0;
        let writable =
            |segment: &elf::ProgramHeader64<Endianness>| segment.p_flags(endian).0 & elf::PF_W.0 != 0;
        let mut findings = Vec::new();
        if of(elf::PT_GNU_STACK).next().is_none() || of(elf::PT_GNU_STACK).any(executable) {
            findings.push(Finding::ExecutableMemory("it asks for an executable stack".to_owned()));
        }
        if of(elf::PT_LOAD).any(|segment| executable(segment) && writable(segment)) {
            findings.push(Finding::ExecutableMemory("a segment is writable and executable".to_owned()));
        }
        findings
    }

    fn note(&self) -> Result<Option<PackNote>, String> {
        let mut found = None;
        for section in self.sections.iter() {
            if section.sh_type(self.endian) != elf::SHT_NOTE {
                continue;
            }
            let bytes = section.data(self.endian, self.data).map_err(|_| "it lies outside the file")?;
            if let Some(note) = PackNote::find(bytes)?
                && found.replace(note).is_some()
            {
                return Err("there are two of them; use export_pack! once".to_owned());
            }
        }
        Ok(found)
    }

    fn symbols(&self) -> Result<Symbols, String> {
        let endian = self.endian;
        let table = self
            .sections
            .symbols(endian, self.data, elf::SHT_DYNSYM)
            .map_err(|_| "the dynamic symbols can't be read")?;
        let mut symbols = Symbols::default();
        let mut exports_pack = false;
        for symbol in table.iter() {
            let name =
                table.symbol_name(endian, symbol).map_err(|_| "a symbol's name lies outside the file")?;
            let name = String::from_utf8_lossy(name).into_owned();
            if symbol.st_bind() == elf::STB_GNU_UNIQUE {
                symbols.findings.push(Finding::UniqueSymbol(name));
            } else if !symbol.is_undefined(endian) {
                exports_pack |= name == abi_stable::library::ROOT_MODULE_LOADER_NAME;
            } else if !name.is_empty() {
                symbols.findings.extend(imports::judge(&name));
                symbols.imports.push(name);
            }
        }
        if !exports_pack {
            symbols.findings.push(Finding::NoExport);
        }
        symbols.imports.sort();
        Ok(symbols)
    }
}

fn in_file(data: &[u8], offset: u64, size: u64, what: &str) -> Result<(), String> {
    match offset.checked_add(size) {
        Some(end) if end <= data.len() as u64 => Ok(()),
        _ => Err(format!(
            "{what} of {size} bytes at {offset} lies outside the {} bytes of the file",
            data.len()
        )),
    }
}
