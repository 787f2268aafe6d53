//! Objects by their names, without any key: for hosts that keep a repository and may not read it.

use super::parity::{damaged, mendable};
use crate::backend::{Backend, ErrorKind};
use crate::error::{Error, Result};
use crate::format::config::{Config, MAX_CONFIG};
use crate::monitor::{Counter, Monitor, Problem};
use crate::names;
use crate::repair::mend::{Judge, Stored, Survey};
use crate::repo::{Repository, parallel};

/// Bytes of objects that are read at a time.
const READ_BYTES: u64 = 64 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredReport {
    /// Objects that belong to a repository.
    pub objects: u64,
    /// Their sizes added up.
    pub bytes: u64,
    /// Those whose bytes are not what their names say, and those that are lost though their parity is there.
    pub damaged: u64,
    /// Damaged and lost objects that parity can bring back.
    pub mendable: u64,
    /// Objects with other names, which were not looked at.
    pub others: u64,
}

/// Reads every object and compares its bytes with the hash that its name is. Config and epoch objects, which have names of
/// another kind, must at least have the right header. Needs no password: it shows that what was stored is still there bit
/// for bit, but not that it is authentic, complete, or of any use. Memory: about 200 bytes per object, and 64 MiB.
///
/// # Errors
///
/// [`Error::NoRepository`] if there is no config; [`Error::Interrupted`] if the monitor says so; if the store fails.
pub fn stored_objects(backend: &dyn Backend, monitor: &dyn Monitor) -> Result<StoredReport> {
    let config = match backend.read(&names::config(), MAX_CONFIG) {
        Ok(bytes) => Some(bytes),
        Err(e) if matches!(e.kind, ErrorKind::NotFound | ErrorKind::NoStore) && !Repository::exists(backend)? => {
            return Err(Error::NoRepository { location: backend.location() });
        }
        Err(e) if e.kind == ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let judge = Judge::Host(config.and_then(|bytes| Config::peek(&bytes).ok()));
    let survey = Survey::new(backend)?;
    let sizes = |objects: &[Stored]| objects.iter().map(|object| object.size).sum::<u64>();
    let (inside, groups) = (sizes(&survey.inside), survey.groups.iter().map(|(meta, ..)| meta.size).sum::<u64>());
    let mut report = StoredReport {
        objects: (survey.objects.len() + survey.inside.len() + survey.groups.len()) as u64,
        bytes: sizes(&survey.objects) + inside + groups,
        others: survey.others,
        ..StoredReport::default()
    };
    monitor.expect(Counter::Bytes, report.bytes);
    let largest = survey.objects.iter().map(|object| object.size).max().unwrap_or(1).max(1);
    let threads = usize::try_from(READ_BYTES / largest).unwrap_or(1).clamp(1, backend.concurrency());
    let found = parallel::map(threads, &survey.objects, |object| {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let fault = judge.inspect(backend, object)?;
        monitor.count(Counter::Bytes, object.size);
        Ok(fault)
    });
    let mut bad = Vec::new();
    for (object, fault) in survey.objects.iter().zip(found) {
        if let Some(message) = fault? {
            monitor.problem(Problem { subject: object.key.to_string(), message });
            bad.push(object.clone());
        }
    }
    for object in survey.lost(backend)? {
        let message = "is not in the store, though its parity is".to_owned();
        monitor.problem(Problem { subject: object.key.to_string(), message });
        bad.push(object);
    }
    report.damaged = bad.len() as u64;
    for name in damaged(backend, &survey, |_| true, monitor)? {
        let message = "parity is damaged; 'repair parity' makes it anew".to_owned();
        monitor.problem(Problem { subject: name.to_string(), message });
        report.damaged += 1;
    }
    monitor.count(Counter::Bytes, inside + groups);
    if !(survey.inside.is_empty() && survey.groups.is_empty()) {
        report.mendable = mendable(backend, judge, &bad, monitor)?;
    }
    Ok(report)
}
