//! A prune: carry on with what another run has left, plan, copy, and a round of the protocol.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::forget::{forget, superseded};
use super::locks;
use super::parity::{self, ParityTally};
use super::plan::{Plan, PlanReport, Tally, plan};
use super::repack::{Repacked, repack, verify};
use super::round::{Known, Round};
use crate::crypto::random_bytes;
use crate::error::{Error, Result};
use crate::format::config::MAX_PARITY;
use crate::format::epoch::{Close, Seal};
use crate::id::Epoch;
use crate::monitor::Monitor;
use crate::protocol::{self, Name, Rules};
use crate::repo::{EpochStore, Reader, Repository, SnapshotName, count_unnamed, names};

/// How often to begin again because another maintenance run was faster.
const MAX_TRIES: u32 = 8;
/// Longest wait before the second try; each later one may wait twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Part of the repository, in percent, that may stay unused; no limit without it.
    pub max_unused: Option<f64>,
    /// Most bytes of packs to copy from.
    pub max_repack: Option<u64>,
    /// Does not wait for running backups, and takes what they may have stored and nothing refers to yet. That is safe: they
    /// store again what is gone.
    pub now: bool,
    /// Parity that objects get from now on, in percent of their size, at most 100; 0 takes away what there is. Without it,
    /// as it was.
    pub parity: Option<u8>,
    /// Only plans.
    pub dry_run: bool,
    /// The caller answers for it that no other maintenance runs: for stores that cannot create an object exclusively.
    pub exclusive: bool,
    /// Locks on objects are extended, even if they last long enough.
    pub extend_locks: bool,
    /// How long to wait for running backups.
    pub drain: Duration,
    /// Where the index cache lives; in memory without one.
    pub cache_dir: Option<PathBuf>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused: Some(5.0),
            max_repack: None,
            now: false,
            parity: None,
            dry_run: false,
            exclusive: false,
            extend_locks: false,
            drain: Duration::from_secs(10 * 60),
            cache_dir: None,
        }
    }
}

impl PruneOptions {
    /// Bytes that may stay unused beside so many used ones.
    pub(super) fn allowed_unused(&self, used: u64) -> u64 {
        let Some(percent) = self.max_unused.filter(|percent| *percent < 100.0) else { return u64::MAX };
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let allowed = (used as f64 * percent.max(0.0) / (100.0 - percent)) as u64;
        allowed
    }

    fn validate(&self) -> Result<()> {
        if let Some(percent) = self.parity.filter(|percent| *percent > MAX_PARITY) {
            return Err(Error::Invalid(format!("{percent} % is no amount of parity: at most {MAX_PARITY}")));
        }
        match self.max_unused {
            Some(percent) if !(0.0..=100.0).contains(&percent) => {
                Err(Error::Invalid(format!("{percent} % is no share: it must be from 0 to 100")))
            }
            _ => Ok(()),
        }
    }
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOutcome {
    /// Rounds of other runs that were carried to their end first.
    pub resumed: Vec<Epoch>,
    /// The plan.
    pub plan: PlanReport,
    /// New packs.
    pub written: Tally,
    /// Deleted packs.
    pub deleted: Tally,
    /// What was done about parity.
    pub parity: ParityTally,
    /// The epoch that was sealed; none if there was nothing to do, or nothing was to be done.
    pub sealed: Option<Epoch>,
}

/// Deletes what no snapshot needs. `planned` sees the plan before anything is done.
///
/// Backups may run meanwhile. Whenever this is broken off, any machine can go on with it.
///
/// # Errors
///
/// [`Error::Damaged`] if something is missing or damaged that a snapshot needs: nothing is deleted then.
/// [`Error::Unsupported`] if the store or the repository does not allow maintenance by this program. [`Error::Invalid`] if this
/// only plans, and the maintenance of an epoch is unfinished.
pub fn prune(
    repo: &Arc<Repository>,
    options: &PruneOptions,
    monitor: &dyn Monitor,
    planned: &mut dyn FnMut(&PlanReport),
) -> Result<PruneOutcome> {
    options.validate()?;
    repo.check_maintainable(options.exclusive)?;
    if let Some(percent) = options.parity.filter(|_| !options.dry_run) {
        repo.parity().choose(percent);
    }
    let mut outcome = PruneOutcome::default();
    let store = EpochStore::new(repo, monitor);
    for tried in 0..MAX_TRIES {
        give_way(tried, monitor)?;
        if !options.dry_run
            && let Some((epoch, close)) = protocol::run(protocol::unfinished(&store))?
        {
            monitor.note(format!("carrying on with the maintenance of epoch {epoch}, which another run has left"));
            match resume(repo, options, monitor, epoch, &close) {
                Err(error)
                    if error.is_local() && protocol::run(protocol::unfinished(&store))?.is_none_or(|(e, _)| e != epoch) =>
                {
                    monitor.note(format!("another run has ended the maintenance of epoch {epoch} meanwhile"));
                }
                result => {
                    result?;
                    outcome.resumed.push(epoch);
                }
            }
            continue;
        }
        let reader = Reader::open_verified(Arc::clone(repo), options.cache_dir.as_deref(), false, monitor)?;
        if !options.dry_run && reader.view().unfinished.is_some() {
            continue;
        }
        // A real one has carried on with the epoch above.
        reader.view().check_settled()?;
        match attempt(&reader, options, monitor, planned, &mut outcome) {
            Ok(true) => {
                if !options.dry_run {
                    outcome.parity = parity::maintain(&reader, monitor)?;
                }
                return Ok(outcome);
            }
            Ok(false) => {}
            // What is gone is where the other run has put it.
            Err(error) if error.is_local() && has_moved_on(&reader, monitor)? => {
                monitor.note("another maintenance run was faster; beginning again".into());
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Invalid("other maintenance runs are faster again and again; try again later".into()))
}

/// Waits a random while, so that of runs that get into each other's way one comes through.
fn give_way(tried: u32, monitor: &dyn Monitor) -> Result<()> {
    let Some(doubled) = tried.checked_sub(1) else { return Ok(()) };
    let longest = FIRST_WAIT * (1 << doubled);
    std::thread::sleep(longest.mul_f64(f64::from(u16::from_le_bytes(random_bytes())) / f64::from(u16::MAX)));
    if monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Plans and goes through a round. `false` if another run has closed the epoch.
fn attempt(
    reader: &Reader,
    options: &PruneOptions,
    monitor: &dyn Monitor,
    planned: &mut dyn FnMut(&PlanReport),
    outcome: &mut PruneOutcome,
) -> Result<bool> {
    check_segments(reader)?;
    let dropped: HashSet<SnapshotName> = superseded(reader.repo(), reader.view()).into_iter().collect();
    let plan = plan(reader, &dropped, options, monitor)?;
    outcome.plan = plan.report.clone();
    planned(&outcome.plan);
    let locks = options.extend_locks || locks::is_due(reader.repo(), reader.view(), SystemTime::now());
    if options.dry_run || (!locks && is_idle(reader, &plan, &dropped)) {
        return Ok(true);
    }
    forget(reader.repo(), &dropped.into_iter().collect::<Vec<_>>())?;
    let Some((epoch, written, deleted)) = carry_out(reader, &plan, options, monitor)? else { return Ok(false) };
    (outcome.sealed, outcome.written, outcome.deleted) = (Some(epoch), written, deleted);
    Ok(true)
}

/// Whether maintenance has done something since the reader was opened.
fn has_moved_on(reader: &Reader, monitor: &dyn Monitor) -> Result<bool> {
    let (before, now) = (reader.view(), reader.repo().load_view(monitor)?);
    Ok((now.head, now.epoch) != (before.head, before.epoch) || now.unfinished.is_some())
}

/// Fails if segments cannot be read, unless all packs are in others, as after `repair index`: the next seal leaves them out then.
fn check_segments(reader: &Reader) -> Result<()> {
    let (repo, view) = (reader.repo(), reader.view());
    let Some(segment) = view.unreadable.first() else { return Ok(()) };
    if count_unnamed(repo, reader.index(), view)? == 0 {
        return Ok(());
    }
    let text = "cannot be read, so what is needed is not known; nothing is deleted: run 'check', and 'repair index'";
    Err(Error::damaged(names::segment(segment), text))
}

/// Whether a round would change nothing.
fn is_idle(reader: &Reader, plan: &Plan<'_>, dropped: &HashSet<SnapshotName>) -> bool {
    let view = reader.view();
    let sealed = view.head.map(|(epoch, _)| epoch);
    let confirmed = view.snapshots.iter().all(|s| view.sealed.contains(s));
    let indexed = view.segments.iter().all(|s| Some(s.epoch) <= sealed);
    let idle = plan.delete.is_empty() && plan.repack.is_empty() && dropped.is_empty() && view.forgotten.is_empty();
    let parity = reader.repo().parity();
    idle && confirmed && indexed && view.unreadable.is_empty() && parity.percent() == parity.sealed()
}

/// Carries on with an epoch that another run has left.
fn resume(repo: &Arc<Repository>, options: &PruneOptions, monitor: &dyn Monitor, epoch: Epoch, close: &Close) -> Result<Seal> {
    let reader = Reader::open_verified(Arc::clone(repo), options.cache_dir.as_deref(), true, monitor)?;
    let drain = if options.now { Duration::ZERO } else { options.drain };
    let mut round =
        Round { reader: &reader, known: None, drain, monitor, extend_locks: options.extend_locks, deleted: Tally::default() };
    protocol::run(protocol::finish(&EpochStore::new(repo, monitor), &mut round, epoch, close, &Rules::ALL))
}

/// Copies, closes the epoch, and goes through the round. `None` if another run has closed the epoch.
fn carry_out(
    reader: &Reader,
    plan: &Plan<'_>,
    options: &PruneOptions,
    monitor: &dyn Monitor,
) -> Result<Option<(Epoch, Tally, Tally)>> {
    let (repo, epoch) = (reader.repo(), reader.view().epoch);
    let Repacked { segments, emptied, written } = repack(reader, plan, monitor)?;
    let condemned: HashSet<Name> = plan.delete.iter().copied().chain(emptied).collect();
    verify(reader, plan, &condemned)?;
    let mut names: Vec<Name> = condemned.iter().copied().collect();
    names.sort_unstable();
    let close = Close { run: random_bytes(), condemned: names, previous: reader.view().head.map(|(_, id)| id) };
    let store = EpochStore::new(repo, monitor);
    if !protocol::run(protocol::close(&store, epoch, &close))? {
        return Ok(None);
    }
    let known = Known { plan, segments: reader.view().segments.iter().copied().chain(segments).collect(), condemned };
    let drain = if options.now { Duration::ZERO } else { options.drain };
    let mut round =
        Round { reader, known: Some(known), drain, monitor, extend_locks: options.extend_locks, deleted: Tally::default() };
    monitor.stage("deleting");
    protocol::run(protocol::finish(&store, &mut round, epoch, &close, &Rules::ALL))?;
    Ok(Some((epoch, written, round.deleted)))
}
