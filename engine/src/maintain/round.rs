//! What the protocol asks of maintenance in a round: waiting (G3), and deciding what is deleted (G6).

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use super::bits::Bits;
use super::locks;
use super::mark::{Reference, walk};
use super::merge::merge;
use super::plan::{Plan, believe_listing, list_packs, missing_blob, read_roots};
use crate::backend::ObjectKey;
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::format::epoch::Close;
use crate::format::object;
use crate::format::pack::SegmentName;
use crate::format::snapshot;
use crate::id::Epoch;
use crate::index::Frozen;
use crate::monitor::Monitor;
use crate::protocol::{Decision, Maintainer, Name, Valid};
use crate::repo::{Reader, SnapshotName, names, now, sync_those_that_open};

/// Sessions that began longer ago are not waited for: they were broken off, or are in no hurry.
const STALE_SECONDS: i64 = 24 * 60 * 60;
/// Waits between two looks at the sessions.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What is known already when a round follows a plan of the same run.
pub(super) struct Known<'p, 'a> {
    pub(super) plan: &'p Plan<'a>,
    /// The segments on which the plan, and what was copied for it, rely.
    pub(super) segments: HashSet<SegmentName>,
    /// What was condemned in the end.
    pub(super) condemned: HashSet<Name>,
}

/// A round of this run.
pub(super) struct Round<'p, 'a> {
    pub(super) reader: &'p Reader,
    pub(super) known: Option<Known<'p, 'a>>,
    pub(super) drain: Duration,
    pub(super) monitor: &'p dyn Monitor,
    /// Locks are extended, however long they last.
    pub(super) extend_locks: bool,
    /// Bytes of the packs that were decided to be deleted, as the store lists them.
    pub(super) deleted: super::plan::Tally,
}

impl Maintainer for Round<'_, '_> {
    async fn drain(&mut self, epoch: Epoch) -> Result<()> {
        let (began, mut wait) = (Instant::now(), WAITS.0);
        while began.elapsed() < self.drain {
            let running = self.running(epoch)?;
            if running.is_empty() {
                return Ok(());
            }
            if wait == WAITS.0 {
                self.monitor.note(format!("waiting for running backups: {}", running.join(", ")));
            }
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(wait.min(self.drain.saturating_sub(began.elapsed())));
            wait = (wait * 2).min(WAITS.1);
        }
        Ok(())
    }

    async fn decide(&mut self, epoch: Epoch, close: &Close, valid: Valid) -> Result<Decision> {
        self.monitor.stage("deciding what is deleted");
        let repo = self.reader.repo();
        let unreadable = &self.reader.view().unreadable;
        let found = valid.segments.iter().filter(|segment| !unreadable.contains(segment)).copied().collect();
        let segments = sync_those_that_open(repo, self.reader.index(), found)?;
        let whole = segments.len() == valid.segments.len() && valid.gone.is_empty();
        let listed = list_packs(self.reader)?;
        let condemned: HashSet<Name> = close.condemned.iter().copied().collect();
        let marked = repo.load_view(self.monitor)?.damaged;
        if !whole {
            check_named(self.reader, epoch, &listed, |pack| condemned.contains(pack) || marked.contains(pack))?;
        }
        let (mut missing, mut damaged, mut going, mut packs) = (HashSet::new(), HashSet::new(), HashSet::new(), 0);
        let mut doubted = Vec::new();
        self.reader.index().packs(|ordinal, epoch, id, size| {
            packs += 1;
            let name = (epoch, id);
            if listed.get(&name) != Some(&size) {
                missing.insert(ordinal);
                if !marked.contains(&name) {
                    doubted.push((name, size));
                }
            }
            if marked.contains(&name) {
                damaged.insert(ordinal);
            }
            if condemned.contains(&name) {
                going.insert(ordinal);
            }
        })?;
        believe_listing(repo, &doubted, packs)?;
        let known = self.known.as_ref().filter(|known| {
            let counts: HashSet<&SegmentName> = segments.iter().collect();
            let same = whole
                && known.condemned == condemned
                && missing.is_subset(&known.plan.missing)
                && marked.is_subset(&self.reader.view().damaged);
            same && known.segments.iter().all(|segment| counts.contains(segment))
        });
        let mut rescue = Rescue {
            frozen: self.reader.index().freeze(),
            known: known.map(|k| k.plan),
            going,
            missing,
            damaged,
            kept: HashSet::new(),
        };
        rescue.search(self.reader, &valid.snapshots, self.monitor)?;
        let mut rescued = HashSet::new();
        let kept = rescue.kept;
        self.reader.index().packs(|ordinal, epoch, id, _| {
            if kept.contains(&ordinal) {
                rescued.insert((epoch, id));
            }
        })?;
        let deleted: Vec<Name> = close.condemned.iter().filter(|pack| !rescued.contains(*pack)).copied().collect();
        let going: HashSet<Name> = deleted.iter().copied().collect();
        let segments = merge(self.reader, epoch, &segments, &going)?;
        for size in deleted.iter().filter_map(|pack| listed.get(pack)) {
            self.deleted.packs += 1;
            self.deleted.bytes += size;
        }
        let locked = self.lock(&valid.snapshots, &segments, listed.keys().filter(|pack| !going.contains(*pack)))?;
        Ok(Decision { snapshots: valid.snapshots, segments, deleted, time: now(), locked })
    }
}

/// Where segments do not open: fails unless those that do name all packs of earlier epochs, but for those that nothing may
/// refer to anyway.
fn check_named(reader: &Reader, epoch: Epoch, listed: &HashMap<Name, u64>, barred: impl Fn(&Name) -> bool) -> Result<()> {
    let mut known = HashSet::new();
    reader.index().packs(|_, epoch, id, _| {
        known.insert((epoch, id));
    })?;
    match listed.keys().find(|pack| pack.0 < epoch && !known.contains(pack) && !barred(pack)) {
        None => Ok(()),
        Some((epoch, id)) => {
            let text = "is in no segment that can be read; nothing is deleted: run 'check'";
            Err(Error::damaged(names::pack(*epoch, id), text))
        }
    }
}

impl Round<'_, '_> {
    /// Extends the locks of all that stays, if it is time; until when it is locked at least. Packs that no segment names yet may
    /// be of a running backup, whose snapshot will rely on them.
    fn lock<'n>(
        &self,
        snapshots: &[Name],
        segments: &[SegmentName],
        packs: impl Iterator<Item = &'n Name>,
    ) -> Result<Option<Timestamp>> {
        let (repo, view) = (self.reader.repo(), self.reader.view());
        if !self.extend_locks && !locks::is_due(repo, view, SystemTime::now()) {
            return Ok(view.locked);
        }
        let mut objects: Vec<ObjectKey> = packs.map(|(epoch, id)| names::pack(*epoch, id)).collect();
        objects.extend(segments.iter().map(names::segment));
        objects.extend(snapshots.iter().map(|(epoch, id)| names::snapshot(&SnapshotName { epoch: *epoch, id: *id })));
        locks::extend(repo, objects, self.monitor)
    }

    /// Who announced a session in an epoch and has not taken it back.
    fn running(&self, epoch: Epoch) -> Result<Vec<String>> {
        let repo = self.reader.repo();
        let mut ids = Vec::new();
        repo.backend().list("sessions/", &mut |meta| {
            ids.extend(names::parse_epoch_id(&meta.key, "sessions").filter(|(e, _)| *e == epoch));
        })?;
        let mut owners = Vec::new();
        for (epoch, id) in ids {
            // One that is gone or cannot be read is nothing to wait for.
            let Ok(bytes) = repo.backend().read(&names::session(epoch, &id), object::MAX_SIZE) else { continue };
            let Ok(session) = snapshot::open_session(&repo.keys().meta, repo.id(), epoch, &bytes) else { continue };
            if now().seconds.saturating_sub(session.started.seconds) < STALE_SECONDS {
                owners.push(session.owner);
            }
        }
        Ok(owners)
    }
}

/// Looks for condemned packs that hold the only copy of something needed.
struct Rescue<'p, 'a> {
    frozen: Frozen<'p>,
    known: Option<&'p Plan<'a>>,
    /// Ordinals of packs that are to be deleted.
    going: HashSet<u32>,
    missing: HashSet<u32>,
    /// Marked as damaged: no reason to delete another pack.
    damaged: HashSet<u32>,
    /// Those that were to be deleted, but are needed.
    kept: HashSet<u32>,
}

impl Rescue<'_, '_> {
    fn search(&mut self, reader: &Reader, snapshots: &[Name], monitor: &dyn Monitor) -> Result<()> {
        let is_new = |name: &&Name| self.known.is_none_or(|plan| !plan.snapshots.contains(*name));
        let new = snapshots.iter().filter(is_new).map(|(epoch, id)| SnapshotName { epoch: *epoch, id: *id });
        let roots = read_roots(reader, &new.collect::<Vec<_>>())?;
        let (mut checked, mut read) = (Bits::new(self.frozen.len()), Bits::new(self.frozen.len()));
        walk(reader, &roots, monitor, &mut |reference| {
            let found = self.frozen.find(reference.id, &|_| true)?;
            let Some((number, _)) = found else { return Err(missing_blob(reference.id, reference.snapshot)) };
            let (safe, below) = self.is_planned(&reference)?;
            if !safe && checked.set(number) {
                self.keep(&reference)?;
            }
            Ok(reference.is_node && !below && read.set(number))
        })
    }

    /// Whether the plan knows that a blob is stored where it stays; and whether that holds for all below it.
    fn is_planned(&self, reference: &Reference<'_>) -> Result<(bool, bool)> {
        let Some(plan) = self.known else { return Ok((false, false)) };
        let Some((number, _)) = plan.frozen.find(reference.id, &|_| true)? else { return Ok((false, false)) };
        Ok((plan.needed.get(number), plan.read.get(number)))
    }

    /// Sees to it that some pack that holds the blob stays.
    fn keep(&mut self, reference: &Reference<'_>) -> Result<()> {
        let there = |pack: u32| !self.missing.contains(&pack);
        let sound = |pack: u32| there(pack) && !self.damaged.contains(&pack);
        let stays = |pack: u32| sound(pack) && !self.going.contains(&pack);
        if self.frozen.find(reference.id, &stays)?.is_some() {
            return Ok(());
        }
        let found = match self.frozen.find(reference.id, &sound)? {
            None => self.frozen.find(reference.id, &there)?,
            found => found,
        };
        let Some((_, at)) = found else { return Err(missing_blob(reference.id, reference.snapshot)) };
        self.going.remove(&at.pack);
        self.kept.insert(at.pack);
        Ok(())
    }
}
