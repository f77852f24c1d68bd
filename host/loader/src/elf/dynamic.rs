//! The dynamic segment: what the dynamic loader will do with the library.

use object::{
    Endianness, elf,
    read::elf::{Dyn as _, FileHeader, ProgramHeader as _},
};

use super::Finding;

type Header = elf::FileHeader64<Endianness>;
type Segment = elf::ProgramHeader64<Endianness>;

/// Libraries that every Rust library needs, without their version suffixes.
const ALLOWED_LIBRARIES: &[&str] =
    &["libc.so", "libm.so", "libgcc_s.so", "libpthread.so", "libdl.so", "librt.so", "ld-linux"];

/// Frame registration and the standard library's argument capture.
const USUAL_CONSTRUCTORS: u64 = 2;

/// What the dynamic segment says.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    /// Names of the libraries it needs.
    pub(super) needed: Vec<String>,
    /// What speaks against it.
    pub(super) findings: Vec<Finding>,
}

/// Reads the segment that `ld.so` reads; the section table may say otherwise.
///
/// # Errors
/// What is damaged, in words.
pub(super) fn read(data: &[u8], segments: &[Segment], endian: Endianness) -> Result<Dynamic, String> {
    let mut tables = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_DYNAMIC);
    let Some(table) = tables.next() else {
        return Err("it has no dynamic segment".to_owned());
    };
    if tables.next().is_some() {
        return Err("it has two dynamic segments".to_owned());
    }
    let entries: Vec<_> = table
        .dynamic(endian, data)
        .ok()
        .flatten()
        .ok_or("the dynamic segment can't be read")?
        .iter()
        .map(|entry| (entry.d_tag(endian), entry.d_val(endian)))
        .take_while(|(tag, _)| *tag != elf::DT_NULL)
        .collect();
    let strings = string_table(data, segments, endian, &entries)?;
    let text = |offset: u64| {
        let bytes = usize::try_from(offset).ok().and_then(|offset| strings.get(offset..));
        let bytes = bytes.and_then(|bytes| bytes.split(|&byte| byte == 0).next());
        bytes
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .ok_or("a name lies outside the string table")
    };

    let mut result = Dynamic::default();
    for &(tag, value) in &entries {
        match tag {
            elf::DT_NEEDED => {
                let name = text(value)?;
                if !ALLOWED_LIBRARIES.iter().any(|allowed| name.starts_with(allowed)) {
                    result.findings.push(Finding::ForeignLibrary(name.clone()));
                }
                result.needed.push(name);
            }
            elf::DT_RPATH => result.findings.push(Finding::SearchPath(format!("RPATH {}", text(value)?))),
            elf::DT_RUNPATH => result.findings.push(Finding::SearchPath(format!("RUNPATH {}", text(value)?))),
            _ => result.findings.extend(link_flag(tag, value)),
        }
    }
    Ok(result)
}

fn link_flag(tag: elf::DynamicTag, value: u64) -> Option<Finding> {
    let constructors = value / size_of::<u64>() as u64;
    let flag = |text: &str| Some(Finding::LinkFlag(text.to_owned()));
    match tag {
        elf::DT_FLAGS_1 if value & elf::DF_1_NODELETE.0 != 0 => flag("-z nodelete, so it would never unload"),
        elf::DT_FLAGS if value & elf::DF_TEXTREL.0 != 0 => flag("text relocations"),
        elf::DT_TEXTREL => flag("text relocations"),
        elf::DT_AUDIT | elf::DT_DEPAUDIT => flag("an auditing library"),
        elf::DT_FILTER | elf::DT_AUXILIARY => flag("a filter, so it would stand in for another library"),
        elf::DT_PREINIT_ARRAYSZ if constructors > 0 => flag("constructors that only a program may have"),
        elf::DT_INIT_ARRAYSZ if constructors > USUAL_CONSTRUCTORS => {
            Some(Finding::Constructors { found: constructors, usual: USUAL_CONSTRUCTORS })
        }
        _ => None,
    }
}

fn string_table<'data>(
    data: &'data [u8],
    segments: &[Segment],
    endian: Endianness,
    entries: &[(elf::DynamicTag, u64)],
) -> Result<&'data [u8], String> {
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|&(_, value)| value);
    let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
        return Err("the dynamic segment names no string table".to_owned());
    };
    segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find_map(|segment| segment.data_range(endian, data, address, size).ok().flatten())
        .ok_or_else(|| "the string table lies outside the file".to_owned())
}

/// The header type all of this is about.
pub(super) fn parse_header(data: &[u8]) -> Result<(&Header, Endianness), Finding> {
    let not_loadable = |reason: String| Finding::NotLoadable(reason);
    let header = Header::parse(data).map_err(|_| not_loadable("no 64-bit ELF header".to_owned()))?;
    let endian = header.endian().map_err(|_| not_loadable("unknown byte order".to_owned()))?;
    if endian != Endianness::default() {
        return Err(not_loadable("the other byte order".to_owned()));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(not_loadable(format!("ELF type {}, expected a shared library", header.e_type(endian).0)));
    }
    let machine = header.e_machine(endian);
    let expected = if cfg!(target_arch = "x86_64") {
        elf::EM_X86_64
    } else if cfg!(target_arch = "aarch64") {
        elf::EM_AARCH64
    } else {
        // An unlisted machine: the note's target is compared anyway.
        machine
    };
    if machine != expected {
        return Err(not_loadable(format!("made for machine {}, this is machine {}", machine.0, expected.0)));
    }
    Ok((header, endian))
}
