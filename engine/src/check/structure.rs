//! Index segments as they are in the store, and the packs that they name, by listing.

use std::collections::{HashMap, HashSet};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Check, CheckReport};
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::object::FormatError;
use crate::format::pack::{Directory, PackRecord, SegmentName, parse_header};
use crate::id::{Epoch, ObjectId};
use crate::index::Index;
use crate::monitor::lock;
use crate::repo::{View, load_segment, names};

/// Directory of the temporary index, below that of the cache.
pub(super) const DIRECTORY: &str = "check";

/// A pack as the index names it. There is one of these per pack in memory: about 72 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownPack {
    pub(super) epoch: Epoch,
    pub(super) id: ObjectId,
    pub(super) size: u64,
    /// Of header and directory.
    pub(super) fingerprint: Fingerprint,
}

/// Stands for a header and a directory.
pub(super) type Fingerprint = [u8; 16];

/// The fingerprint of a pack's header and directory.
pub(super) fn fingerprint(header: &[u8], directory: &Directory) -> Result<Fingerprint, FormatError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(&directory.to_bytes()?);
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    Ok(out)
}

/// An index of this check's own, made of the segments in the store, and the packs it names, sorted.
pub(super) struct Built {
    pub(super) index: Index,
    pub(super) packs: Vec<KnownPack>,
    /// Whether every segment could be read.
    pub(super) complete: bool,
    /// Segments that are damaged or missing, and how.
    pub(super) damaged: Vec<(SegmentName, String)>,
    /// Whether some are missing: a newer seal may have replaced them.
    pub(super) is_missing_some: bool,
    dir: Option<PathBuf>,
}

impl Drop for Built {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            // A file left behind is taken away by the next check.
            drop(Index::discard(dir));
            drop(std::fs::remove_dir(dir));
        }
    }
}

/// Reads every segment of the view. Those that cannot be read are reported and left out.
pub(super) fn build_index(check: &Check<'_>, cache_dir: Option<&Path>, view: &View) -> Result<Built> {
    check.monitor.stage("index");
    let dir = cache_dir.map(|dir| dir.join(DIRECTORY));
    // Without a directory, the index is in memory.
    let dir = dir.filter(|dir| DirBuilder::new().recursive(true).mode(0o700).create(dir).is_ok());
    if let Some(dir) = &dir {
        Index::discard(dir)?;
    }
    let index = Index::open(dir.as_deref(), check.repo.id())?;
    let mut built = Built { index, packs: Vec::new(), complete: true, damaged: Vec::new(), is_missing_some: false, dir };
    let (packs, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    built.index.sync(&view.segments, &|name: &SegmentName| {
        check.go_on()?;
        match load_segment(check.repo, name).and_then(|records| Ok((known_packs(check, name, &records)?, records))) {
            Ok((known, records)) => {
                lock(&packs).extend(known);
                Ok(records)
            }
            Err(error) => {
                lock(&failed).push((*name, error));
                Ok(Vec::new())
            }
        }
    })?;
    for (name, error) in std::mem::take(&mut *lock(&failed)) {
        built.complete = false;
        match error {
            Error::Damaged { detail, .. } => built.damaged.push((name, detail)),
            Error::Backend(e) if e.kind == ErrorKind::NotFound => {
                built.is_missing_some = true;
                built.damaged.push((name, "is not in the store".to_owned()));
            }
            Error::Interrupted => return Err(error),
            error => check.absorb(names::segment(&name), error)?,
        }
    }
    built.packs = std::mem::take(&mut *lock(&packs));
    unite(check, &mut built.packs);
    Ok(built)
}

fn known_packs(check: &Check<'_>, name: &SegmentName, records: &[PackRecord]) -> Result<Vec<KnownPack>> {
    let (key, repo) = (&check.repo.keys().data, check.repo.id());
    let damaged = |e: FormatError| Error::damaged(names::segment(name), e);
    let known = |record: &PackRecord| {
        let pack = names::pack(record.epoch, &record.id);
        match parse_header(key, &repo, &record.header) {
            Ok((length, _)) if length == record.header.len() => {}
            Ok(_) => check.problem(pack, "the index gives its header another length"),
            Err(e) => check.problem(pack, format_args!("its header in the index {e}")),
        }
        let fingerprint = fingerprint(&record.header, &record.directory).map_err(damaged)?;
        Ok(KnownPack { epoch: record.epoch, id: record.id, size: record.size, fingerprint })
    };
    records.iter().map(known).collect()
}

/// Sorts packs; those that several segments name must be the same in all of them.
fn unite(check: &Check<'_>, packs: &mut Vec<KnownPack>) {
    packs.sort_unstable_by_key(|p| (p.epoch, p.id));
    packs.dedup_by(|b, a| {
        let same = (a.epoch, a.id) == (b.epoch, b.id);
        if same && (a.size, a.fingerprint) != (b.size, b.fingerprint) {
            check.problem(names::pack(a.epoch, &a.id), "two index segments describe it differently");
        }
        same
    });
}

/// Packs in the store and in the index.
pub(super) struct Packs {
    /// Named by the index and in the store.
    pub(super) known: Vec<KnownPack>,
    /// Ordinals of packs that are not in the store.
    pub(super) missing: HashSet<u32>,
    /// In the store, but not in the index, with their sizes.
    pub(super) unreferenced: Vec<(Epoch, ObjectId, u64)>,
}

/// Lists the packs once and compares.
pub(super) fn compare_packs(check: &Check<'_>, view: &View, built: &Built, report: &mut CheckReport) -> Result<Packs> {
    check.monitor.stage("packs");
    check.go_on()?;
    let mut listed = HashMap::new();
    check.repo.backend().list("packs/", &mut |meta| {
        listed.extend(names::parse_epoch_id(&meta.key, "packs").map(|name| (name, meta.size)));
    })?;
    let (mut known, mut lost, mut marked) = (Vec::with_capacity(built.packs.len()), HashSet::new(), 0_u64);
    for pack in &built.packs {
        let name = (pack.epoch, pack.id);
        if view.damaged.contains(&name) {
            // Known already: it counts for nothing, in whatever state it is.
            listed.remove(&name);
            lost.insert(name);
            marked += 1;
            continue;
        }
        match listed.remove(&name) {
            None => {
                check.gone(names::pack(pack.epoch, &pack.id), "is not in the store, though the index names it");
                lost.insert(name);
                continue;
            }
            Some(size) if size != pack.size => {
                let message = format!("has {size} bytes instead of {}", pack.size);
                check.problem(names::pack(pack.epoch, &pack.id), message);
            }
            Some(_) => {}
        }
        known.push(*pack);
    }
    let mut missing = HashSet::new();
    if !lost.is_empty() {
        built.index.packs(|ordinal, epoch, id, _| {
            if lost.contains(&(epoch, id)) {
                missing.insert(ordinal);
            }
        })?;
    }
    let unreferenced: Vec<_> = listed.into_iter().map(|((epoch, id), size)| (epoch, id, size)).collect();
    report.packs = built.packs.len() as u64;
    report.unreferenced_packs = unreferenced.len() as u64;
    report.unreferenced_bytes = unreferenced.iter().map(|(.., size)| size).sum();
    if marked > 0 {
        check.monitor.note(format!("{marked} packs are marked as damaged by an earlier repair; nothing new refers to them"));
    }
    judge_segments(check, &built.damaged, unreferenced.is_empty());
    Ok(Packs { known, missing, unreferenced })
}

/// A damaged segment is a finding as long as there may be packs that only it named.
fn judge_segments(check: &Check<'_>, damaged: &[(SegmentName, String)], all_known: bool) {
    for (name, detail) in damaged {
        let object = names::segment(name);
        if all_known {
            check.monitor.note(format!("{object}: {detail}; but every pack is in another segment"));
        } else {
            check.problem(object, format_args!("{detail}; 'repair index' reads from the packs what it said"));
        }
    }
}

/// Compares the user's index cache with what the segments say, as far as it is up to date. A cache is no part of the
/// repository: one that differs is no finding, but is taken away so that it is made anew.
pub(super) fn compare_cache(check: &Check<'_>, cache_dir: Option<&Path>, view: &View, truth: &Index) {
    let Some(dir) = cache_dir else { return };
    let behind = |_: &SegmentName| Err(Error::Cache("not up to date".into()));
    let Ok(cache) = Index::open(cache_dir, check.repo.id()) else { return };
    if cache.is_persistent() && cache.sync(&view.segments, &behind).is_ok() && cache.len() != truth.len() {
        check.monitor.note("the local index cache did not agree with the repository; it will be made anew".into());
        drop(cache);
        drop(Index::discard(dir));
    }
}
