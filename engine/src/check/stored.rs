//! Objects by their names, without any key: for hosts that keep a repository and may not read it.

use crate::backend::{Backend, ErrorKind, ObjectKey};
use crate::error::{Error, Result};
use crate::format::config::{Config, MAX_CONFIG};
use crate::format::{ObjectKind, object};
use crate::id::{Epoch, ObjectId, RepoId};
use crate::monitor::{Counter, Monitor, Problem};
use crate::repo::names::{self, EpochRole};
use crate::repo::parallel;

/// Bytes of objects that are read at a time.
const READ_BYTES: u64 = 64 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredReport {
    /// Objects that belong to a repository.
    pub objects: u64,
    /// Their sizes added up.
    pub bytes: u64,
    /// Those whose bytes are not what their names say.
    pub damaged: u64,
    /// Objects with other names, which were not looked at.
    pub others: u64,
}

/// What a name says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// The hash of its bytes.
    Hash(ObjectId),
    /// Its kind, and the epoch in its header.
    Kind(ObjectKind, Option<Epoch>),
}

/// An object to be read.
struct Job {
    key: ObjectKey,
    size: u64,
    claim: Claim,
}

/// Reads every object and compares its bytes with the hash that its name is. Config and epoch objects, which have names of
/// another kind, must at least have the right header. Needs no password: it shows that what was stored is still there bit
/// for bit, but not that it is authentic, complete, or of any use. Memory: about 200 bytes per object, and 64 MiB.
///
/// # Errors
///
/// [`Error::NoRepository`] if there is no config; [`Error::Interrupted`] if the monitor says so; if the store fails.
pub fn stored_objects(backend: &dyn Backend, monitor: &dyn Monitor) -> Result<StoredReport> {
    let config = backend.read(&names::config(), MAX_CONFIG).map_err(|e| match e.kind {
        ErrorKind::NotFound | ErrorKind::NoStore => Error::NoRepository { location: backend.location() },
        _ => e.into(),
    })?;
    let repo = Config::peek(&config).ok();
    let (mut jobs, mut report) = (Vec::new(), StoredReport::default());
    backend.list("", &mut |meta| match claim(&meta.key) {
        Some(claim) => jobs.push(Job { key: meta.key, size: meta.size, claim }),
        None => report.others += 1,
    })?;
    jobs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    report.objects = jobs.len() as u64;
    report.bytes = jobs.iter().map(|job| job.size).sum();
    monitor.expect(Counter::Bytes, report.bytes);
    let largest = jobs.iter().map(|job| job.size).max().unwrap_or(1).max(1);
    let threads = usize::try_from(READ_BYTES / largest).unwrap_or(1).clamp(1, backend.concurrency());
    let found = parallel::map(threads, &jobs, |job| -> Result<bool> {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let fault = fault(backend, job, repo)?;
        monitor.count(Counter::Bytes, job.size);
        Ok(fault.is_some_and(|message| {
            monitor.problem(Problem { subject: job.key.to_string(), message });
            true
        }))
    });
    for damaged in found {
        report.damaged += u64::from(damaged?);
    }
    Ok(report)
}

fn claim(key: &ObjectKey) -> Option<Claim> {
    if *key == names::config() {
        return Some(Claim::Kind(ObjectKind::Config, None));
    }
    if let Some((epoch, role)) = names::parse_epoch_role(key) {
        let kind = match role {
            EpochRole::Close => ObjectKind::Close,
            EpochRole::Fence => ObjectKind::Fence,
            EpochRole::Seal => ObjectKind::Seal,
            EpochRole::Done => ObjectKind::Done,
        };
        return Some(Claim::Kind(kind, Some(epoch)));
    }
    let by_epoch = ["packs", "index", "snapshots", "sessions"].iter().find_map(|folder| names::parse_epoch_id(key, folder));
    let flat = || ["keys", "forget", "damaged"].iter().find_map(|folder| names::parse_id(key, folder));
    by_epoch.map(|(_, id)| id).or_else(flat).map(Claim::Hash)
}

/// What is wrong with an object.
fn fault(backend: &dyn Backend, job: &Job, repo: Option<RepoId>) -> Result<Option<String>> {
    let bytes = match backend.read(&job.key, job.size).map_err(Error::from) {
        Ok(bytes) => bytes,
        // Maintenance, or the end of a session.
        Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => return Ok(None),
        Err(Error::Backend(e)) if matches!(e.kind, ErrorKind::Corrupt | ErrorKind::Other) => return Ok(Some(e.message)),
        Err(error) => return Err(error),
    };
    Ok(match job.claim {
        Claim::Hash(id) if ObjectId::of(&bytes) == id => None,
        Claim::Hash(_) => Some("its bytes do not have the hash that its name says (damaged or replaced)".to_owned()),
        Claim::Kind(kind, epoch) => match object::Header::parse(&bytes, kind) {
            Err(e) => Some(e.to_string()),
            Ok(header) if repo.is_some_and(|repo| repo != header.repo) => Some("belongs to another repository".to_owned()),
            Ok(header) if epoch.is_some_and(|epoch| epoch != header.epoch) => Some("belongs to another epoch".to_owned()),
            Ok(_) => None,
        },
    })
}
