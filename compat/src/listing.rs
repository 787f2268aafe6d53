//! What duplicity's own commands tell of an archive: `collection-status` and `list-current-files`.

use std::io::{BufReader, Read};

use engine::error::{Error, Result};

use crate::collection::{BackupSet, Collection, Release, StatusOptions};
use crate::import::{Archive, open_signatures};
use crate::sigtar::{Merged, SigtarReader, list_line};
use crate::store::StoreError;
use crate::time::{Time, TimeZone};

/// The text of `collection-status` as stock 3.2 prints it. No file is opened.
///
/// # Errors
///
/// If the archive cannot be listed.
pub fn collection_status(archive: &Archive, zone: &TimeZone) -> Result<String, StoreError> {
    let collection = Collection::new(archive.store.list()?, &archive.prefixes);
    let (backend, archive_dir) = (archive.store.location(), "none: nothing is kept on this machine");
    Ok(collection.status(&StatusOptions { release: Release::V3_2, backend: &backend, archive_dir, zone }))
}

/// The lines of `list-current-files` at a time; each goes to `line`, with its end. Memory: one entry of each signature file.
///
/// # Errors
///
/// If the archive cannot be listed, has no backup, or a signature file of the chain is missing or damaged.
pub fn current_files(archive: &Archive, time: Time, zone: &TimeZone, line: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let location = archive.store.location();
    let files = archive.store.list().map_err(|e| Error::Invalid(e.to_string()))?;
    let collection = Collection::new(files, &archive.prefixes);
    let chain = collection.chain_at(time).ok_or_else(|| Error::Invalid(format!("{location}: no backup chains found")))?;
    let sets = chain.sets_at(time);
    let readers = sets.iter().map(|set| signatures(archive, set)).collect::<Result<Vec<_>>>()?;
    let mut merged = Merged::new(readers);
    loop {
        match merged.next() {
            Ok(Some(entry)) => line(&list_line(entry.header.mtime, &entry.path, zone))?,
            Ok(None) => return Ok(()),
            Err(error) => {
                let name = sets.get(error.index).and_then(|set| set.signature()).map_or("", |file| &file.file.name);
                return Err(Error::damaged(format!("{location}/{name}"), error));
            }
        }
    }
}

pub(crate) type Content = BufReader<Box<dyn Read + Send>>;

/// Opens the signature file of a set.
pub(crate) fn signatures(archive: &Archive, set: &BackupSet) -> Result<SigtarReader<Content>> {
    let missing =
        || Error::Invalid(format!("{}: the signature file of the {} is missing", archive.store.location(), set.times()));
    let file = set.signature().ok_or_else(missing)?;
    Ok(SigtarReader::new(BufReader::new(open_signatures(archive, file)?)))
}
