//! Repair: what can still be read of a damaged repository is made whole again, and what cannot is named.
//!
//! [`parity`] puts back what can be computed, bit for bit. Else nothing is ever deleted or replaced: [`index`] reads the directories of packs that no segment names; [`packs`] stores what
//! can be read of damaged packs again, and marks those so that nothing new refers to them: the next backup then stores
//! what was in them from the files as they are. [`snapshots`] writes a copy of each snapshot that has lost something,
//! without that. All of it keeps to the writers' protocol (`docs/format.md`, "Writing"), may run beside backups, and may be
//! broken off and begun again.

mod index;
pub(crate) mod mend;
mod packs;
mod parity;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use index::{IndexRepair, index};
pub use packs::{PacksRepair, Which, packs};
pub use parity::{ParityRepair, parity, stored_parity};
pub use snapshots::{SnapshotRepair, SnapshotsRepair, snapshots};

use crate::codec::Level;
use crate::error::{Error, Result};
use crate::format::epoch::EpochRole;
use crate::format::pack::{PackRecord, SegmentName};
use crate::format::segment;
use crate::id::{Epoch, ObjectId};
use crate::monitor::{Monitor, Problem};
use crate::protocol::{self, Store as _};
use crate::repo::{EpochStore, Reader, Repository, names};

/// Tag of snapshots that repair has written.
pub const REPAIRED_TAG: &str = "repaired";
/// So begins the origin of such a snapshot; the id of the damaged one follows.
pub(crate) const REPAIR_ORIGIN: &str = "repair of ";

/// How often a repair is begun again because maintenance has closed the epoch that it wrote under.
const MAX_ROUNDS: usize = 10;
/// A segment is written when it has this many blobs.
const SEGMENT_BLOBS: usize = 128 * 1024;

/// How to repair.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Name and version of the program.
    pub program: String,
    /// Compression of what is stored again.
    pub level: Level,
    /// Only tell what is wrong.
    pub dry_run: bool,
    /// Where the index cache lives; in memory without one.
    pub cache_dir: Option<PathBuf>,
}

/// A pack's name.
type PackName = (Epoch, ObjectId);

/// Names and sizes of all packs in the store: about 80 bytes each.
fn list_packs(repo: &Repository) -> Result<HashMap<PackName, u64>> {
    let mut listed = HashMap::new();
    repo.backend().list("packs/", &mut |meta| {
        listed.extend(names::parse_epoch_id(&meta.key, "packs").map(|name| (name, meta.size)));
    })?;
    Ok(listed)
}

/// Opens the repository as a writer does.
fn open(repo: &Arc<Repository>, options: &RepairOptions, monitor: &dyn Monitor) -> Result<Reader> {
    Reader::open_for_writing(Arc::clone(repo), options.cache_dir.as_deref(), &[], monitor)
}

/// As [`open`], but a local cache does not stand in for segments.
fn open_verified(repo: &Arc<Repository>, options: &RepairOptions, monitor: &dyn Monitor) -> Result<Reader> {
    Reader::open_verified(Arc::clone(repo), options.cache_dir.as_deref(), false, monitor)
}

/// Runs rounds until one was not overtaken by maintenance: `round` says whether its epoch still stood at its end.
fn rounds<T>(mut round: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..MAX_ROUNDS {
        if let Some(done) = round()? {
            return Ok(done);
        }
    }
    Err(Error::Invalid("maintenance has overtaken this repair again and again; run it again later".into()))
}

/// Fails once the user wants to stop.
fn go_on(monitor: &dyn Monitor) -> Result<()> {
    if monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
}

fn report(monitor: &dyn Monitor, subject: impl Into<String>, message: String) {
    let subject = subject.into();
    monitor.problem(Problem { subject, message });
}

/// Collects what the index is to say of packs, and writes a segment whenever there is enough.
struct SegmentWriter<'a> {
    reader: &'a Reader,
    packs: Vec<PackRecord>,
    blobs: usize,
    written: u64,
}

impl<'a> SegmentWriter<'a> {
    fn new(reader: &'a Reader) -> Self {
        Self { reader, packs: Vec::new(), blobs: 0, written: 0 }
    }

    fn add(&mut self, pack: PackRecord) -> Result<()> {
        if self.blobs + pack.directory.blobs.len() > SEGMENT_BLOBS {
            self.flush()?;
        }
        self.blobs += pack.directory.blobs.len();
        self.packs.push(pack);
        Ok(())
    }

    /// Writes what there is. The packs named must be in the store.
    fn flush(&mut self) -> Result<()> {
        let packs = std::mem::take(&mut self.packs);
        self.blobs = 0;
        if packs.is_empty() {
            return Ok(());
        }
        let (repo, epoch) = (self.reader.repo(), self.reader.view().epoch);
        repo.backend().barrier()?;
        let bytes =
            segment::seal(&repo.keys().index, repo.id(), epoch, &packs).map_err(|e| Error::damaged("a new index segment", e))?;
        let name = SegmentName { epoch, id: ObjectId::of(&bytes) };
        repo.backend().create(&names::segment(&name), bytes.into())?;
        self.reader.index().add(name, &packs)?;
        self.written += 1;
        Ok(())
    }

    /// Writes the last segment; whether all of them count, since the epoch's fence does not stand yet (W8).
    fn commit(mut self, monitor: &dyn Monitor) -> Result<Option<u64>> {
        self.flush()?;
        if self.written == 0 {
            return Ok(Some(0));
        }
        let (repo, epoch) = (self.reader.repo(), self.reader.view().epoch);
        repo.backend().barrier()?;
        let fenced = protocol::run(EpochStore::new(repo, monitor).has_mark(epoch, EpochRole::Fence))?;
        Ok((!fenced).then_some(self.written))
    }
}
