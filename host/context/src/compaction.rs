//! Files of blocks rewritten without those that no text asks for: of turns that were taken back, of texts
//! that another session went on with.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::ContextError;
use crate::block_file::{BlockFile, OpenedFile, Place};
use crate::saved_turn::TurnHead;
use crate::session_folder::{SessionFolder, UNFINISHED};
use crate::token_chain::{Identity, TokenChain};

/// Less than this is not worth a rewrite, bytes.
const LEAST_GAIN: u64 = 1 << 20;

/// Joins the files that only this session has into one, where more than a quarter of their bytes is asked for
/// by nobody. Returns the bytes that are free now.
pub(crate) fn compact(folder: &SessionFolder) -> Result<u64, ContextError> {
    let Some((head, tokens)) = TurnHead::read_text(&folder.turn())? else { return Ok(0) };
    let identity = Identity::new(&head.base, &head.options);
    let mut chain = TokenChain::new(identity, head.options.block_tokens);
    chain.extend(&tokens);
    let mut files: Vec<(PathBuf, BlockFile)> = Vec::new();
    let mut live: BTreeMap<(u32, String, u32), (usize, Place)> = BTreeMap::new();
    let mut total = 0;
    for path in folder.block_files()? {
        let OpenedFile::Sound(file) = BlockFile::open(&path, &identity)? else { continue };
        if file.links()? > 1 {
            continue;
        }
        let walked = file.walk(|head, place| {
            if chain.hash(head.index) == Some(&head.chain) {
                live.insert((head.index, head.stream, head.layer), (files.len(), place));
            }
        })?;
        total += walked.end - BlockFile::first_offset();
        files.push((path, file));
    }
    let gain = total - live.values().map(|(_, place)| u64::from(place.bytes)).sum::<u64>();
    if gain < LEAST_GAIN || gain <= total / 4 {
        return Ok(0);
    }
    let unfinished = folder.path().join(format!("{UNFINISHED}cold"));
    let written = write(&unfinished, &identity, &files, live.values());
    if let Err(error) = written {
        fs::remove_file(&unfinished).ok();
        return Err(error);
    }
    let own = folder.own_blocks();
    let name = if files.iter().any(|(path, _)| *path == own) { own } else { folder.new_shared_blocks() };
    fs::rename(&unfinished, &name).map_err(ContextError::write(&name))?;
    for (path, _) in files.iter().filter(|(path, _)| *path != name) {
        fs::remove_file(path).map_err(ContextError::write(path))?;
    }
    Ok(gain)
}

/// Records are copied as they are, checksums and all: what is damaged stays so and is found when it is read.
fn write<'a>(
    path: &std::path::Path,
    identity: &Identity,
    files: &[(PathBuf, BlockFile)],
    records: impl Iterator<Item = &'a (usize, Place)>,
) -> Result<(), ContextError> {
    let new = BlockFile::create(path, identity)?;
    let mut end = BlockFile::first_offset();
    for &(file, place) in records {
        let record = files[file].1.read(place, place.bytes)?;
        new.add(&record, end)?;
        end += record.len() as u64;
    }
    new.sync()
}
