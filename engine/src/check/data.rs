//! Packs read whole: name, header, directory, every frame, every blob.
//!
//! A few threads more than there are cores each read a pack and then work on it, so that reading goes on while the cores
//! decompress and hash. The bytes in memory are bounded, whatever the size of packs.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use super::rotation::Rotation;
use super::structure::{Fingerprint, Packs, fingerprint};
use super::{Check, CheckLevel, CheckReport, Share};
use crate::crypto::Key;
use crate::crypto::frames::PackCipher;
use crate::error::Result;
use crate::format::pack::{Directory, parse_header};
use crate::id::{Epoch, ObjectId};
use crate::monitor::{Counter, lock};
use crate::pack;
use crate::repo::names;

/// Bytes of packs in memory at a time; a single larger pack is read alone.
const MAX_BYTES: u64 = 96 << 20;

/// Beside a part of the packs whose turn it is, one by chance for so many of it,
const SURPRISE: usize = 10;
/// and at least so many.
const MIN_SURPRISE: usize = 10;

/// A pack to be read.
#[derive(Clone, Copy)]
struct Job {
    epoch: Epoch,
    id: ObjectId,
    size: u64,
    /// Of what the index says of it. Without, only name and directory are checked, and damage is no finding.
    expected: Option<Fingerprint>,
}

/// A thread's memory for one frame.
#[derive(Default)]
struct Scratch {
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

/// Reads the packs that `level` asks for.
pub(super) fn check(
    check: &Check<'_>,
    packs: &Packs,
    level: &CheckLevel,
    cache_dir: Option<&Path>,
    report: &mut CheckReport,
) -> Result<()> {
    let CheckLevel::Subset(Share::Next { of }) = level else { return read(check, &jobs(packs, level), report) };
    let rotation = Rotation::next(cache_dir, *of);
    let part = CheckLevel::Subset(Share::Part { number: rotation.number, of: *of });
    let mut chosen = jobs(packs, &part);
    let (chosen_ids, mut others): (HashSet<ObjectId>, _) =
        (chosen.iter().map(|job| job.id).collect(), jobs(packs, &CheckLevel::Subset(Share::Percent(100.0))));
    others.retain(|job| !chosen_ids.contains(&job.id));
    draw(&mut others, (chosen.len() / SURPRISE).max(MIN_SURPRISE));
    chosen.extend(others);
    read(check, &chosen, report)?;
    report.part = Some(rotation.number);
    if let Err(error) = rotation.done() {
        check.monitor.note(format!("cannot remember which part was read: {error}; the next check reads it again"));
    }
    Ok(())
}

/// Reads packs on several threads.
fn read(check: &Check<'_>, jobs: &[Job], report: &mut CheckReport) -> Result<()> {
    let total = jobs.iter().map(|job| job.size).sum();
    if jobs.is_empty() {
        return Ok(());
    }
    check.monitor.stage("data");
    check.monitor.expect(Counter::Packs, jobs.len() as u64);
    check.monitor.expect(Counter::Bytes, total);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = check.repo.backend().concurrency().clamp(1, cores * 2);
    let (budget, read) = (Budget::new(), Mutex::new((0, 0)));
    check.in_parallel(threads, jobs, |scratch: &mut Scratch, job| {
        let _permit = budget.take(job.size);
        let bytes = one(check, job, scratch)?;
        let mut read = lock(&read);
        *read = (read.0 + u64::from(bytes.is_some()), read.1 + bytes.unwrap_or(0));
        check.monitor.count(Counter::Packs, 1);
        check.monitor.count(Counter::Bytes, job.size);
        Ok(())
    })?;
    (report.packs_read, report.bytes_read) = *lock(&read);
    Ok(())
}

fn jobs(packs: &Packs, level: &CheckLevel) -> Vec<Job> {
    let mut jobs: Vec<Job> =
        packs.known.iter().map(|p| Job { epoch: p.epoch, id: p.id, size: p.size, expected: Some(p.fingerprint) }).collect();
    match level {
        CheckLevel::Structure | CheckLevel::Subset(Share::Next { .. }) => jobs.clear(),
        CheckLevel::ReadData => {
            jobs.extend(packs.unreferenced.iter().map(|(epoch, id, size)| Job {
                epoch: *epoch,
                id: *id,
                size: *size,
                expected: None,
            }));
        }
        CheckLevel::Subset(Share::Part { number, of }) => {
            jobs.retain(|job| {
                let first = job.id.0.first_chunk().map_or(0, |first| u32::from_le_bytes(*first));
                first % (*of).max(1) == number.saturating_sub(1)
            });
        }
        CheckLevel::Subset(Share::Percent(percent)) => sample(&mut jobs, *percent),
    }
    jobs
}

/// Keeps so many percent of the jobs, at least one.
fn sample(jobs: &mut Vec<Job>, percent: f64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let wanted = ((jobs.len() as f64 * percent / 100.0).round() as usize).clamp(1, jobs.len().max(1));
    draw(jobs, wanted);
}

/// Keeps so many of the jobs, by the first steps of a Fisher-Yates shuffle with a secret seed.
fn draw(jobs: &mut Vec<Job>, wanted: usize) {
    let mut chance = Key::random().prf(&[b"sample"]).finalize_xof();
    for at in 0..wanted.min(jobs.len()) {
        let mut bytes = [0; 8];
        chance.fill(&mut bytes);
        // The bias is below one in 2^40 for any number of packs there can be.
        let other = u64::from_le_bytes(bytes) % (jobs.len() - at) as u64;
        jobs.swap(at, at + usize::try_from(other).unwrap_or(0));
    }
    jobs.truncate(wanted);
}

/// Reads and checks one pack; returns its size if it could be read.
fn one(check: &Check<'_>, job: &Job, scratch: &mut Scratch) -> Result<Option<u64>> {
    let object = names::pack(job.epoch, &job.id);
    let bytes = match check.repo.backend().read(&object, job.size) {
        Ok(bytes) => bytes,
        // A running backup or maintenance may have removed it.
        Err(_) if job.expected.is_none() => return Ok(None),
        Err(error) => {
            check.absorb(&object, error.into())?;
            return Ok(None);
        }
    };
    let size = bytes.len() as u64;
    let found = inspect(check, job, &bytes, scratch);
    if found.is_empty() {
        return Ok(Some(size));
    }
    let found = found.join("; ");
    match job.expected {
        Some(_) => check.problem(&object, found),
        None => check.monitor.note(format!("{object}, which no index segment names: {found}")),
    }
    Ok(Some(size))
}

/// All that is wrong with a pack.
fn inspect(check: &Check<'_>, job: &Job, bytes: &[u8], scratch: &mut Scratch) -> Vec<String> {
    let mut found = Vec::new();
    if ObjectId::of(bytes) != job.id {
        found.push("its bytes do not have the hash that its name says".to_owned());
    }
    let (length, cipher) = match parse_header(&check.repo.keys().data, &check.repo.id(), bytes) {
        Ok(header) => header,
        Err(e) => {
            found.push(format!("its header {e}"));
            return found;
        }
    };
    let directory = match pack::open_directory(&cipher, bytes) {
        Ok(directory) => directory,
        Err(e) => {
            found.push(format!("its directory {e}"));
            return found;
        }
    };
    let Some(expected) = job.expected else { return found };
    if !fingerprint(bytes.get(..length).unwrap_or_default(), &directory).is_ok_and(|f| f == expected) {
        found.push("the index describes it differently".to_owned());
    }
    let mut next = 0;
    let (mut frames, mut blobs, mut first) = (0, 0, None);
    for (number, frame) in directory.frames.iter().enumerate() {
        let range = next..next + frame.blobs as usize;
        next = range.end;
        if let Err((bad, why)) = open(check, &cipher, &directory, (number, range), bytes, scratch) {
            (frames, blobs) = (frames + 1, blobs + bad);
            first.get_or_insert_with(|| format!("frame {number} {why}"));
        }
    }
    if let Some(first) = first {
        found.push(format!("{blobs} blobs in {frames} of {} frames are damaged (first: {first})", directory.frames.len()));
    }
    found
}

/// Opens a frame and checks its blobs, the range of them in the directory; else says how many are bad, and why.
fn open(
    check: &Check<'_>,
    cipher: &PackCipher,
    directory: &Directory,
    (number, range): (usize, std::ops::Range<usize>),
    bytes: &[u8],
    Scratch { sealed, plain }: &mut Scratch,
) -> Result<(), (usize, String)> {
    let all = range.len();
    let (Some(frame), Some(blobs)) = (directory.frames.get(number), directory.blobs.get(range)) else {
        return Err((all, "is not there".into()));
    };
    let found = bytes.get(frame.offset as usize..).and_then(|b| b.get(..frame.sealed as usize));
    sealed.clear();
    sealed.extend_from_slice(found.ok_or_else(|| (all, "lies outside of the pack".to_owned()))?);
    pack::open_frame(cipher, number as u64, frame, sealed, plain).map_err(|e| (all, e.to_string()))?;
    let (mut rest, mut bad) = (plain.as_slice(), 0);
    for blob in blobs {
        let Some((blob_bytes, after)) = rest.split_at_checked(blob.length as usize) else {
            return Err((all, "is too short for its blobs".into()));
        };
        rest = after;
        bad += usize::from(check.repo.keys().blob_id(blob_bytes) != blob.id);
    }
    if bad > 0 { Err((bad, "holds blobs that are not what their ids say".into())) } else { Ok(()) }
}

/// Bounds the bytes in memory.
struct Budget {
    left: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that may be in memory until this is dropped.
struct Permit<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    fn new() -> Self {
        Self { left: Mutex::new(MAX_BYTES), freed: Condvar::new() }
    }

    /// Waits until so many bytes, or all there are, may be used.
    fn take(&self, bytes: u64) -> Permit<'_> {
        let bytes = bytes.min(MAX_BYTES);
        let mut left = lock(&self.left);
        while *left < bytes {
            left = self.freed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        *left -= bytes;
        Permit { budget: self, bytes }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.budget.left) += self.bytes;
        self.budget.freed.notify_all();
    }
}
