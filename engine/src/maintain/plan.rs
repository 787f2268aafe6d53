//! G1: what to delete, what to copy out of packs that hold little else, and what to leave.

use std::collections::{HashMap, HashSet};

use super::bits::Bits;
use super::mark::{Root, walk};
use super::prune::PruneOptions;
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::snapshot::SnapshotKind;
use crate::id::BlobId;
use crate::index::{Frozen, Numbered};
use crate::monitor::Monitor;
use crate::protocol::Name;
use crate::repo::{Reader, Repository, SnapshotName, names, parallel};

/// Smaller packs than this part of the target are merged when there are many.
const SMALL: u64 = 4;
/// So many.
const MANY: usize = 16;
/// More than one pack in so many missing means that the listing, not the repository, is to be doubted.
const MOST_MISSING: usize = 5;
/// So many of those are asked for by name.
const ASKED_FOR: usize = 16;

/// A number of packs and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packs.
    pub packs: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// What a prune is going to do. Bytes that are used or not are estimates: what a blob takes in a compressed frame has no
/// exact answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanReport {
    /// Snapshots that stay.
    pub snapshots: u64,
    /// Snapshots that go.
    pub forgotten: u64,
    /// All packs in the store.
    pub all: Tally,
    /// Bytes in packs that something needs.
    pub used: u64,
    /// Bytes in packs that nothing needs.
    pub unused: u64,
    /// Packs to be deleted because nothing in them is needed.
    pub delete: Tally,
    /// Packs that no index segment names, to be deleted.
    pub orphans: Tally,
    /// Packs whose needed blobs are copied before they are deleted.
    pub repack: Tally,
    /// About what the copies take.
    pub copied: u64,
    /// Packs that nothing refers to, left because a running backup may still want them.
    pub spared: Tally,
    /// Packs that the index names and that are gone, though nothing needs them.
    pub missing: u64,
    /// Bytes that nothing needs and that stay.
    pub unused_after: u64,
}

/// What is known of a pack.
#[derive(Clone, Copy, Debug)]
struct PackUse {
    name: Name,
    size: u64,
    present: bool,
    /// Marked as damaged: what else holds a blob is to be preferred.
    damaged: bool,
    /// Bytes of all blobs, uncompressed.
    total: u64,
    /// Of needed blobs.
    needed: u64,
    /// Of needed blobs that are nowhere else.
    unique: u64,
    /// Of needed blobs that are to stay in this pack.
    live: u64,
    /// Some blob was needed by a snapshot that is forgotten.
    freed: bool,
}

impl PackUse {
    /// About how many bytes of the pack are needed.
    fn used(&self) -> u64 {
        let used = u128::from(self.size) * u128::from(self.live) / u128::from(self.total.max(1));
        u64::try_from(used).unwrap_or(self.size)
    }

    /// Needed part of the pack's content, in millionths.
    fn density(&self) -> u128 {
        u128::from(self.needed) * 1_000_000 / u128::from(self.total.max(1))
    }

    fn unused(&self) -> u64 {
        self.size - self.used().min(self.size)
    }
}

/// A plan, and what was found out on the way.
pub(super) struct Plan<'a> {
    pub(super) report: PlanReport,
    pub(super) frozen: Frozen<'a>,
    /// Entries of needed blobs, the first of each blob.
    pub(super) needed: Bits,
    /// Those among them that are nodes and whose blobs are marked, too.
    pub(super) read: Bits,
    /// Entries of needed blobs, that which is to stay of each blob.
    pub(super) kept: Bits,
    /// Snapshots for which that holds.
    pub(super) snapshots: HashSet<Name>,
    /// Ordinals of packs that are not in the store.
    pub(super) missing: HashSet<u32>,
    /// Packs to delete as they are.
    pub(super) delete: Vec<Name>,
    /// Ordinals of packs to delete once what is needed is copied.
    pub(super) repack: Vec<u32>,
}

struct Planner<'a> {
    reader: &'a Reader,
    options: &'a PruneOptions,
    monitor: &'a dyn Monitor,
    frozen: Frozen<'a>,
    packs: HashMap<u32, PackUse>,
    report: PlanReport,
}

/// Makes a plan for the snapshots of the reader's view, less those in `dropped`.
pub(super) fn plan<'a>(
    reader: &'a Reader,
    dropped: &HashSet<SnapshotName>,
    options: &'a PruneOptions,
    monitor: &'a dyn Monitor,
) -> Result<Plan<'a>> {
    monitor.stage("looking for what is needed");
    let listed = list_packs(reader)?;
    let frozen = reader.index().freeze();
    let mut planner = Planner { reader, options, monitor, frozen, packs: HashMap::new(), report: PlanReport::default() };
    let orphans = planner.compare(listed)?;
    let view = reader.view();
    let names: Vec<SnapshotName> = view.snapshots.iter().filter(|s| !dropped.contains(s)).copied().collect();
    planner.report.snapshots = names.len() as u64;
    planner.report.forgotten = (view.forgotten.len() + view.snapshots.len() - names.len()) as u64;
    let roots = read_roots(reader, &names)?;
    let (needed, read) = planner.mark(&roots)?;
    let freed = planner.mark_freed(dropped, &needed)?;
    let kept = planner.weigh(&needed, freed.as_ref())?;
    let delete = planner.dead(&orphans);
    let repack = planner.choose();
    let gone = planner.packs.iter().filter(|(_, p)| !p.present);
    let missing = gone.map(|(ordinal, _)| *ordinal).collect();
    let snapshots = names.iter().map(|s| (s.epoch, s.id)).collect();
    Ok(Plan { report: planner.report, frozen: planner.frozen, needed, read, kept, snapshots, missing, delete, repack })
}

/// Lists all packs with their sizes.
pub(super) fn list_packs(reader: &Reader) -> Result<HashMap<Name, u64>> {
    let mut listed = HashMap::new();
    reader.repo().backend().list("packs/", &mut |meta| {
        listed.extend(names::parse_epoch_id(&meta.key, "packs").map(|name| (name, meta.size)));
    })?;
    Ok(listed)
}

/// Fails if so many packs are missing that the store's listing cannot be believed. Those marked as damaged are not to be among them:
/// a repair has found that they are gone.
pub(super) fn believe_listing(repo: &Repository, missing: &[(Name, u64)], packs: usize) -> Result<()> {
    let count = missing.len();
    if count <= packs / MOST_MISSING || count <= 1 {
        return Ok(());
    }
    let found = missing.iter().take(ASKED_FOR).find_map(|((epoch, id), size)| {
        let pack = names::pack(*epoch, id);
        repo.backend().size(&pack).is_ok_and(|found| found == *size).then_some(pack)
    });
    Err(match found {
        Some(pack) => Error::damaged(
            pack,
            format!(
                "is in the store, but not in its listing, like {count} of {packs} packs: its lists cannot be relied on; nothing is deleted"
            ),
        ),
        None => Error::damaged(
            "packs",
            format!(
                "{count} of {packs} packs that the index names are not in the store, or have another size; nothing is deleted: run \
                 'check', and 'repair packs' if they are lost"
            ),
        ),
    })
}

/// Reads snapshots; the roots of those that are not empty. One that cannot be read stops everything: what it needs is
/// unknown.
pub(super) fn read_roots(reader: &Reader, names: &[SnapshotName]) -> Result<Vec<Root>> {
    let repo = reader.repo();
    let read = parallel::map(repo.backend().concurrency(), names, |name| repo.read_snapshot(name));
    let mut roots = Vec::new();
    for (name, snapshot) in names.iter().zip(read).rev() {
        let snapshot = snapshot.map_err(|e| {
            let detail = match e {
                Error::Damaged { detail, .. } => detail,
                Error::Backend(e) if e.kind == ErrorKind::NotFound => "is missing".to_owned(),
                Error::Backend(e) if e.kind == ErrorKind::Corrupt => e.to_string(),
                e => return e,
            };
            let advice = "what it needs is unknown, so nothing is deleted: forget it if it cannot be mended";
            Error::damaged(names::snapshot(name), format!("{detail}; {advice}"))
        })?;
        roots.extend(snapshot.root.map(|root| (*name, root)));
    }
    Ok(roots)
}

/// Partial snapshots whose session has written a complete one.
pub(super) fn superseded_partials(repo: &Repository, names: &[SnapshotName]) -> Vec<SnapshotName> {
    let read = parallel::map(repo.backend().concurrency(), names, |name| repo.read_snapshot(name));
    let all: Vec<_> = names.iter().zip(read).filter_map(|(name, snapshot)| Some((*name, snapshot.ok()?))).collect();
    let complete: HashSet<[u8; 16]> =
        all.iter().filter(|(_, s)| s.kind == SnapshotKind::Complete).map(|(_, s)| s.session).collect();
    let partial = all.iter().filter(|(_, s)| s.kind == SnapshotKind::Partial && complete.contains(&s.session));
    partial.map(|(name, _)| *name).collect()
}

impl Planner<'_> {
    /// Packs of the index and of the store; returns those that no segment names.
    fn compare(&mut self, mut listed: HashMap<Name, u64>) -> Result<HashMap<Name, u64>> {
        listed.values().for_each(|size| self.report.all.add(*size));
        let (packs, marked) = (&mut self.packs, &self.reader.view().damaged);
        self.reader.index().packs(|ordinal, epoch, id, size| {
            let name = (epoch, id);
            let (present, damaged) = (listed.remove(&name) == Some(size), marked.contains(&name));
            let unknown = PackUse { name, size, present, damaged, total: 0, needed: 0, unique: 0, live: 0, freed: false };
            packs.insert(ordinal, unknown);
        })?;
        let missing: Vec<_> = packs.values().filter(|p| !p.present && !p.damaged).map(|p| (p.name, p.size)).collect();
        believe_listing(self.reader.repo(), &missing, packs.len())?;
        Ok(listed)
    }

    /// Marks what the snapshots need; also which nodes were read.
    fn mark(&self, roots: &[Root]) -> Result<(Bits, Bits)> {
        let (mut needed, mut read) = (Bits::new(self.frozen.len()), Bits::new(self.frozen.len()));
        walk(self.reader, roots, self.monitor, &mut |reference| {
            let Some((number, _)) = self.frozen.find(reference.id, &|_| true)? else {
                return Err(missing_blob(reference.id, reference.snapshot));
            };
            needed.set(number);
            // What is data here may be a node there, so that a mark does not tell whether a node was read.
            Ok(reference.is_node && read.set(number))
        })?;
        Ok((needed, read))
    }

    /// Marks what only forgotten snapshots need. Those that cannot be read are passed over.
    fn mark_freed(&self, dropped: &HashSet<SnapshotName>, needed: &Bits) -> Result<Option<Bits>> {
        let view = self.reader.view();
        if self.options.now || view.forgotten.is_empty() && dropped.is_empty() {
            return Ok(None);
        }
        let (mut freed, mut read) = (Bits::new(self.frozen.len()), Bits::new(self.frozen.len()));
        for name in view.forgotten.iter().chain(dropped) {
            let roots = read_roots(self.reader, std::slice::from_ref(name)).unwrap_or_default();
            let walked = walk(self.reader, &roots, self.monitor, &mut |reference| {
                let Some((number, _)) = self.frozen.find(reference.id, &|_| true)? else { return Ok(false) };
                freed.set(number);
                Ok(reference.is_node && !needed.get(number) && read.set(number))
            });
            if let Err(e @ Error::Interrupted) = walked {
                return Err(e);
            }
        }
        Ok(Some(freed))
    }

    /// Adds up each pack, and decides for every needed blob which copy stays: one in a pack that has to stay anyway, and of
    /// those the one with the least waste.
    fn weigh(&mut self, needed: &Bits, freed: Option<&Bits>) -> Result<Bits> {
        let (packs, frozen) = (&mut self.packs, &self.frozen);
        let mut lost = 0_u64;
        frozen.blobs(|_, copies| {
            let is_needed = copies.iter().any(|(number, _)| needed.get(*number));
            let is_freed = freed.is_some_and(|freed| copies.iter().any(|(number, _)| freed.get(*number)));
            let is = |at: u32, what: fn(&PackUse) -> bool| packs.get(&at).is_some_and(what);
            let mut present: Vec<&Numbered> = copies.iter().filter(|(_, at)| is(at.pack, |p| p.present)).collect();
            if present.iter().any(|(_, at)| is(at.pack, |p| !p.damaged)) {
                present.retain(|(_, at)| is(at.pack, |p| !p.damaged));
            }
            for (_, at) in copies {
                if let Some(pack) = packs.get_mut(&at.pack) {
                    pack.total += u64::from(at.length);
                    pack.needed += if is_needed { u64::from(at.length) } else { 0 };
                    pack.freed |= is_freed;
                }
            }
            match present.as_slice() {
                [] => lost += u64::from(is_needed),
                [(_, at)] if is_needed => {
                    if let Some(pack) = packs.get_mut(&at.pack) {
                        pack.unique += u64::from(at.length);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        if lost > 0 {
            return Err(Error::damaged(
                "packs",
                format!("{lost} blobs that snapshots need are in no pack that is there; nothing is deleted: run 'check'"),
            ));
        }
        let mut kept = Bits::new(frozen.len());
        frozen.blobs(|_, copies| {
            if copies.iter().any(|(number, _)| needed.get(*number)) {
                let present = copies.iter().filter(|(_, at)| packs.get(&at.pack).is_some_and(|p| p.present));
                let worth = |ordinal: u32| {
                    let pack = packs.get(&ordinal);
                    let (sound, stays) = (pack.is_some_and(|p| !p.damaged), pack.is_some_and(|p| p.unique > 0));
                    (sound, stays, pack.map(PackUse::density), std::cmp::Reverse(ordinal))
                };
                let best = present.max_by_key(|(_, at)| worth(at.pack));
                if let Some((number, at)) = best {
                    kept.set(*number);
                    if let Some(pack) = packs.get_mut(&at.pack) {
                        pack.live += u64::from(at.length);
                    }
                }
            }
            Ok(())
        })?;
        Ok(kept)
    }

    /// Packs that can go as they are.
    fn dead(&mut self, orphans: &HashMap<Name, u64>) -> Vec<Name> {
        let (epoch, now) = (self.reader.view().epoch, self.options.now);
        // A running or interrupted backup may still want what it has stored in this epoch and the one before.
        let recent = |name: &Name| name.0 + 1 >= epoch && !now;
        let mut dead = Vec::new();
        for pack in self.packs.values().filter(|p| p.live == 0) {
            if !pack.present {
                self.report.missing += 1;
            } else if recent(&pack.name) && !pack.freed {
                self.report.spared.add(pack.size);
                continue;
            } else {
                self.report.delete.add(pack.size);
            }
            dead.push(pack.name);
        }
        for (name, size) in orphans {
            if recent(name) || name.0 > epoch {
                self.report.spared.add(*size);
            } else {
                self.report.orphans.add(*size);
                dead.push(*name);
            }
        }
        dead.sort_unstable();
        dead
    }

    /// Packs to copy from: those with the largest unneeded share, until little enough is left; and small ones, if there are
    /// many.
    fn choose(&mut self) -> Vec<u32> {
        let mut live: Vec<(u32, PackUse)> = self.packs.iter().filter(|(_, p)| p.live > 0).map(|(o, p)| (*o, *p)).collect();
        live.sort_by_key(|(ordinal, p)| {
            (std::cmp::Reverse(u128::from(p.unused()) * 1_000_000 / u128::from(p.size.max(1))), *ordinal)
        });
        self.report.used = live.iter().map(|(_, p)| p.used()).sum();
        let mut unused: u64 = live.iter().map(|(_, p)| p.unused()).sum();
        self.report.unused = unused + self.report.delete.bytes + self.report.spared.bytes + self.report.orphans.bytes;
        let limit = self.options.allowed_unused(self.report.used);
        let small_size = u64::from(self.reader.repo().config().pack_target) / SMALL;
        let small = live.iter().filter(|(_, p)| p.size < small_size).count();
        let mut chosen = Vec::new();
        for (ordinal, pack) in live {
            // What is needed of a damaged pack is nowhere else, and may be what is damaged.
            if pack.damaged {
                continue;
            }
            let wasteful = unused > limit && pack.live < pack.total;
            if !wasteful && (small < MANY || pack.size >= small_size) {
                continue;
            }
            if self.report.repack.bytes.saturating_add(pack.size) > self.options.max_repack.unwrap_or(u64::MAX) {
                continue;
            }
            unused -= pack.unused().min(unused);
            self.report.repack.add(pack.size);
            self.report.copied += pack.used();
            chosen.push(ordinal);
        }
        self.report.unused_after = unused + self.report.spared.bytes;
        chosen
    }
}

/// A needed blob that no segment names.
pub(super) fn missing_blob(id: &BlobId, snapshot: &SnapshotName) -> Error {
    Error::damaged(
        names::snapshot(snapshot),
        format!(
            "blob {id}, which it needs, is missing; nothing is deleted: run 'check' and 'repair index', and forget the snapshot if it \
             cannot be mended"
        ),
    )
}
