//! Import: each backup set of an archive becomes a snapshot.
//!
//! A thread reads the volumes of a set in order and merges their members with the snapshot before it ([`merge`]); the engine's
//! backup takes the entries from there as from any source. Volumes are fetched, checked and decoded ahead ([`ahead`]).
//! Memory: 16 MiB of files that wait, 1 MiB of decoded data for each of six volumes (three of the next set), 8 MiB of stored data
//! that deltas refer to, and the engine's own.

pub(crate) mod ahead;
mod budget;
mod content;
mod expected;
pub(crate) mod fetch;
mod jobs;
mod merge;
mod output;
pub(crate) mod pipe;
mod plan;
mod planner;
mod set;
mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::bounded;
use engine::backup::{self, BackupOptions, BackupOutcome};
use engine::catalog::CatalogReader;
use engine::codec::Level;
use engine::content::StoredFiles;
use engine::entry::{EntrySource, Timestamp};
use engine::error::{Error, Result};
use engine::id::BlobId;
use engine::monitor::{Monitor, Problem};
use engine::repo::{Reader, Repository};
use engine::snapshot::{self, SnapshotRecord};

use self::ahead::Ahead;
use self::budget::Budget;
use self::expected::Expected;
use self::fetch::{Opener, Wanted, ends_import};
use self::jobs::JobBase;
use self::merge::{Before, Merge};
use self::output::{Output, Stop};
use self::plan::SetPlan;
use self::planner::Planned;
use self::source::{ImportSource, Item};
use crate::collection::{Collection, IgnoredReason, SetFile};
use crate::name::{NameError, Prefixes};
use crate::pgp::Keyring;
use crate::store::Store;
use crate::time::Time;

/// Tag of snapshots that something of the archive is missing from.
pub const PARTIAL: &str = "partial";

/// Bytes of small files that wait to be read.
const WAITING_BYTES: usize = 16 << 20;
/// Entries on their way.
const WAITING_ENTRIES: usize = 256;

/// Which sets are imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of one chain, counted from 1, the oldest first.
    Chain(usize),
    /// Those that make up the state at this time: the full set and its increments until then.
    Time(Time),
}

/// Where an archive is, and what opens it.
#[derive(Clone)]
pub struct Archive {
    /// Where its files are.
    pub store: Arc<dyn Store>,
    /// How their names begin.
    pub prefixes: Prefixes,
    /// What opens them.
    pub keyring: Arc<Keyring>,
    /// Fingerprint of the key that must have signed every encrypted file; unencrypted ones are refused then.
    pub required_signer: Option<String>,
}

/// What to import, and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Which sets.
    pub selection: Selection,
    /// Name of the machine; the archive's own without.
    pub host: Option<String>,
    /// Name of the user.
    pub user: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Name and version of the program.
    pub program: String,
    /// Compression.
    pub level: Level,
    /// Compare each snapshot with the archive's signatures.
    pub verify: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Where the index cache lives; in memory without one.
    pub cache_dir: Option<PathBuf>,
}

/// What became of a set.
#[derive(Clone, Debug)]
pub enum SetResult {
    /// It is a snapshot now.
    Imported(Box<BackupOutcome>),
    /// It was a snapshot already.
    Present(Box<SnapshotRecord>),
    /// It would be imported.
    Planned,
    /// It cannot be imported; why.
    Refused(String),
}

/// A set and what became of it.
#[derive(Clone, Debug)]
pub struct SetOutcome {
    /// When the backup was made, in seconds since 1970.
    pub time: i64,
    /// Whether it is a full one.
    pub full: bool,
    /// What became of it.
    pub result: SetResult,
    /// Paths compared with the archive's signatures, if that was asked for and could be done.
    pub verified: Option<u64>,
}

/// Imports the sets of an archive that are selected and not imported yet, oldest first. `done` is called after each.
/// Trouble with single files and volumes goes to the monitor.
///
/// # Errors
///
/// If the archive cannot be listed or reached, nothing in it is selected, or the repository fails. What is imported by then
/// stays, and the next import goes on from there.
pub fn run(
    repo: &Arc<Repository>,
    archive: &Archive,
    options: &ImportOptions,
    monitor: &Arc<dyn Monitor>,
    done: &mut dyn FnMut(&SetOutcome) -> Result<()>,
) -> Result<()> {
    monitor.stage("reading the archive");
    let files = archive.store.list().map_err(|e| Error::Invalid(e.to_string()))?;
    let collection = Collection::new(files, &archive.prefixes);
    let opener = Arc::new(Opener::new(archive));
    let import = Import { repo, opener, options, monitor };
    import.notes(&collection);
    let present = import.present()?;
    let jobs = jobs::select(&collection, options.selection, &archive.store.location())?;
    let count = jobs.len();
    let planned = planner::start(jobs, &import.opener, present.keys().cloned().collect(), options.dry_run);
    let mut snapshots: Vec<Option<SnapshotRecord>> = Vec::with_capacity(count);
    for _ in 0..count {
        let gone = |_| Error::Invalid("the thread that plans the import is gone".into());
        let (outcome, snapshot) = import.one(planned.recv().map_err(gone)??, &snapshots, &present)?;
        snapshots.push(snapshot);
        done(&outcome)?;
    }
    Ok(())
}

/// Opens the signature file of a set.
pub(crate) fn open_signatures(archive: &Archive, file: &SetFile) -> Result<Box<dyn Read + Send>> {
    let opener = Opener::new(archive);
    let opened = opener.open(&Wanted::unlisted(file)).map_err(|e| ends_import(&e))?;
    Ok(opened.content)
}

struct Import<'a> {
    repo: &'a Arc<Repository>,
    opener: Arc<Opener>,
    options: &'a ImportOptions,
    monitor: &'a Arc<dyn Monitor>,
}

type Present = HashMap<String, SnapshotRecord>;

impl Import<'_> {
    /// All that has been imported, by what it was imported from.
    fn present(&self) -> Result<Present> {
        let view = self.repo.load_view(&**self.monitor)?;
        let all = snapshot::list(self.repo, &view, &**self.monitor)?;
        Ok(all.into_iter().filter_map(|record| Some((record.snapshot.origin.clone()?, record))).collect())
    }

    /// Files that look like the archive's and are not used.
    fn notes(&self, collection: &Collection) {
        for ignored in collection.ignored().iter().filter(|i| i.reason != IgnoredReason::Name(NameError::Foreign)) {
            self.monitor.note(format!("{}: {}", ignored.name, ignored.reason));
        }
        for lone in collection.lone_signatures() {
            self.monitor.note(format!("{}: signatures of a backup that is not there", lone.file.file.name));
        }
    }

    /// Imports a set, unless that was done before. Returns its snapshot, too.
    fn one(
        &self,
        planned: Planned,
        snapshots: &[Option<SnapshotRecord>],
        present: &Present,
    ) -> Result<(SetOutcome, Option<SnapshotRecord>)> {
        let plan = planned.plan.clone();
        let outcome = |result, verified| SetOutcome { time: plan.time, full: plan.full, result, verified };
        if let Some(why) = &plan.refused {
            self.monitor.problem(Problem { subject: plan.name.clone(), message: format!("not imported: {why}") });
            return Ok((outcome(SetResult::Refused(why.clone()), None), None));
        }
        if let Some(record) = present.get(&planned.origin) {
            return Ok((outcome(SetResult::Present(Box::new(record.clone())), None), Some(record.clone())));
        }
        if self.options.dry_run {
            return Ok((outcome(SetResult::Planned, None), None));
        }
        plan.notes.iter().for_each(|note| self.monitor.note(note.clone()));
        for problem in &plan.problems {
            self.monitor.problem(Problem { subject: plan.name.clone(), message: problem.clone() });
        }
        self.monitor.stage("importing");
        let before = match planned.base {
            JobBase::Job(number) => snapshots.get(number).and_then(Option::as_ref),
            JobBase::None | JobBase::Missing(_) => None,
        };
        let imported = self.import(planned, before.map(|record| record.snapshot.root))?;
        let verified = if self.options.verify { self.verify(&plan, &imported)? } else { None };
        let record = self.record(&imported)?;
        Ok((outcome(SetResult::Imported(Box::new(imported)), verified), Some(record)))
    }

    /// `root` is that of the snapshot before, if there is one.
    fn import(&self, planned: Planned, root: Option<Option<BlobId>>) -> Result<BackupOutcome> {
        let Planned { plan, origin, mut volumes, .. } = planned;
        let options = BackupOptions {
            time: Timestamp { seconds: plan.time, nanos: 0 },
            host: self.options.host.clone().or_else(|| plan.host.clone()).unwrap_or_default(),
            user: self.options.user.clone(),
            paths: vec![b".".to_vec()],
            tags: self.options.tags.clone(),
            incomplete_tag: Some(PARTIAL.to_owned()),
            origin: Some(origin),
            program: self.options.program.clone(),
            level: self.options.level,
            parent: None,
            dry_run: false,
            cache_dir: self.options.cache_dir.clone(),
        };
        let mut source = |reader: &Arc<Reader>| {
            let volumes = volumes.take().unwrap_or_else(|| Ahead::new(&self.opener, plan.files()));
            Ok(self.source(&plan, volumes, root, reader))
        };
        backup::run(self.repo, &mut source, &options, self.monitor)
    }

    /// Starts the thread that reads the set.
    fn source(&self, plan: &SetPlan, volumes: Ahead, root: Option<Option<BlobId>>, reader: &Arc<Reader>) -> Box<dyn EntrySource> {
        let (items, entries) = bounded(WAITING_ENTRIES);
        let (budget, lost) = (Budget::new(WAITING_BYTES), Arc::new(AtomicU64::new(plan.problems.len() as u64)));
        let source = ImportSource::new(entries, Arc::clone(&lost), Arc::clone(&budget));
        let output = Output { items: items.clone(), budget, lost, monitor: Arc::clone(self.monitor) };
        let (plan, opener, reader) = (plan.clone(), Arc::clone(&self.opener), Arc::clone(reader));
        let work = move || {
            let end = match read_set(&plan, volumes, root, &opener, &reader, output) {
                Ok(()) => Item::End,
                Err(Stop::Failed(error)) => Item::Failed(error),
                Err(Stop::Gone) => return,
            };
            // Whoever does not wait for the end does not need it.
            let _ = items.send(end);
        };
        // Without the thread the source says that it broke off.
        let _ = std::thread::Builder::new().name("import".into()).spawn(work);
        Box::new(source)
    }

    fn record(&self, imported: &BackupOutcome) -> Result<SnapshotRecord> {
        let name = imported.snapshot.ok_or_else(|| Error::Invalid("the import wrote no snapshot".into()))?;
        Ok(SnapshotRecord { name, snapshot: self.repo.read_snapshot(&name)?, sealed: false })
    }
}

fn read_set(
    plan: &SetPlan,
    volumes: Ahead,
    root: Option<Option<BlobId>>,
    opener: &Arc<Opener>,
    reader: &Arc<Reader>,
    output: Output,
) -> Result<(), Stop> {
    let before = match root {
        Some(root) => Some(Before::new(CatalogReader::new(reader, root)?)?),
        None => None,
    };
    let expected = Expected::new(opener, plan.signature.clone());
    let merge = Merge::new(output, before, StoredFiles::new(Arc::clone(reader)), expected, plan.unlisted.clone());
    set::read(&plan.name, &plan.parts, plan.unlisted.is_none(), volumes, merge).map(drop)
}
