//! One backup set, read from its first volume to its last.

use engine::path::EntryPath;

use super::ahead::{Ahead, Volume};
use super::expected::{End, Range};
use super::fetch::{Wanted, ends_import};
use super::merge::{Broken, Merge};
use super::output::{Output, Stop};
use crate::member::Member;
use crate::tar::TarReader;

/// A volume as the manifest, or without one the store, lists it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub number: u32,
    /// None if it is missing.
    pub file: Option<Wanted>,
    /// The first and the last path in it, where known.
    pub paths: Option<(EntryPath, EntryPath)>,
}

impl Part {
    fn range(&self) -> Range {
        match &self.paths {
            Some((from, to)) => Range { from: Some(from.clone()), to: End::With(to.clone()) },
            None => Range { from: None, to: End::Last },
        }
    }
}

/// Reads all volumes of a set into the merge.
pub(super) fn read(set: &str, parts: &[Part], listed: bool, mut ahead: Ahead, mut merge: Merge<'_>) -> Result<Output, Stop> {
    for part in parts {
        let why = match &part.file {
            None => format!("volume {} is missing", part.number),
            Some(file) => match ahead.next() {
                None => format!("volume {} ({}) was not read", part.number, file.name),
                Some(Err(error)) if error.is_passing() => return Err(Stop::Failed(ends_import(&error))),
                Some(Err(error)) => format!("volume {} ({}): {error}", part.number, file.name),
                Some(Ok(volume)) => match read_volume(volume, &file.name, &mut merge) {
                    Ok(()) => continue,
                    Err(Broken::Stop(stop)) => return Err(stop),
                    Err(Broken::Volume(error)) => {
                        let why = format!("volume {} ({}): {error}", part.number, file.name);
                        // Up to here everything has been read.
                        let range = Range { from: None, ..part.range() };
                        missing(&mut merge, set, &range, &why, listed)?;
                        continue;
                    }
                },
            },
        };
        missing(&mut merge, set, &part.range(), &why, listed)?;
    }
    merge.finish()
}

fn missing(merge: &mut Merge<'_>, set: &str, range: &Range, why: &str, listed: bool) -> Result<(), Stop> {
    merge.output().lost(set, why);
    if listed {
        return merge.gap(range, why);
    }
    // What is missing shows when the next path is known.
    merge.break_off(why);
    Ok(())
}

fn read_volume(volume: Volume, name: &str, merge: &mut Merge<'_>) -> Result<(), Broken> {
    if volume.unprotected {
        merge.output().monitor.note(format!("{name}: encrypted without protection against changes, as very old archives are"));
    }
    let mut tar = TarReader::new(volume.content);
    loop {
        let header = match tar.next() {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(()),
            Err(error) if error.is_fatal() => return Err(Broken::Volume(std::io::Error::other(error))),
            Err(error) => {
                merge.bad_member(&error.name, &error.to_string())?;
                continue;
            }
        };
        match Member::parse(&header) {
            Ok(member) => merge.member(member, &header, &mut tar)?,
            Err(error) => merge.bad_member(&header.name, &error.to_string())?,
        }
    }
}
