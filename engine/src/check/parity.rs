//! Parity: what it can bring back, and whether it is in order itself.

use super::{Check, CheckLevel, CheckReport};
use crate::backend::{Backend, ErrorKind, ObjectKey};
use crate::error::{Error, Result};
use crate::format::ObjectKind;
use crate::id::ObjectId;
use crate::monitor::{Monitor, lock};
use crate::names;
use crate::parity::Found;
use crate::repair::mend::{Judge, Mender, Stored, Survey, is_there};

/// Looks at parity; at the bytes of what is not vital only where all bytes are read.
pub(super) fn check(check: &Check<'_>, level: &CheckLevel, report: &mut CheckReport) -> Result<()> {
    check.monitor.stage("parity");
    let backend = &**check.repo.backend();
    let survey = Survey::covered(backend, check.repo.parity().percent())?;
    for object in survey.lost(backend)? {
        // Most have been found by others who miss them.
        if !lock(&check.bad).contains(object.key.as_str()) {
            check.problem(&object.key, "is not in the store, though its parity is");
        }
    }
    let mut bad: Vec<Stored> = Vec::new();
    for subject in lock(&check.bad).iter() {
        let key = ObjectKey::new(subject.as_str());
        let object = key.and_then(|key| names::parse(&key).map(|claim| Stored { key, claim, size: 0 }));
        bad.extend(object.filter(|object| survey.may_have(object)));
    }
    let all = *level == CheckLevel::ReadData;
    for name in damaged(backend, &survey, |kind| all || kind.is_vital(), check.monitor)? {
        check.problem(name, "parity is damaged; 'repair parity' makes it anew");
    }
    let unprotected = survey.unprotected();
    if unprotected > 0 {
        check.monitor.note(format!("{unprotected} objects have no parity yet; the next 'prune' makes it"));
    }
    report.mendable = mendable(backend, Judge::Keys(check.repo), &bad, check.monitor)?;
    Ok(())
}

/// How many of these objects parity can bring back; says so.
pub(super) fn mendable(backend: &dyn Backend, judge: Judge<'_>, bad: &[Stored], monitor: &dyn Monitor) -> Result<u64> {
    let mut mender = Mender::new(backend, judge);
    let mut count = 0_u64;
    for object in bad {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        count += u64::from(mender.rebuild(&object.key, &object.claim)?.is_some());
    }
    if !bad.is_empty() {
        let hint = if count > 0 { ": run 'repair parity'" } else { "" };
        monitor.note(format!("parity can bring back {count} of {} damaged or missing objects{hint}", bad.len()));
    }
    Ok(count)
}

/// Names of the parity objects that are not as they were made, inside of objects of the kinds `of`, and across packs.
pub(super) fn damaged(
    backend: &dyn Backend,
    survey: &Survey,
    of: impl Fn(ObjectKind) -> bool,
    monitor: &dyn Monitor,
) -> Result<Vec<ObjectKey>> {
    let go_on = || if monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) };
    let mut damaged = Vec::new();
    for object in survey.inside.iter().filter(|object| of(object.claim.kind)) {
        go_on()?;
        let name = names::parity_of(&object.key);
        let whole = Found::read(backend, &object.key, &object.claim)?.is_some_and(|found| found.is_whole());
        // Maintenance may have deleted it.
        if !whole && is_there(backend, &name)? {
            damaged.push(name);
        }
    }
    for (meta, _, id) in survey.groups.iter().filter(|_| of(ObjectKind::Pack)) {
        go_on()?;
        match backend.read(&meta.key, meta.size).map_err(Error::from) {
            Ok(bytes) if ObjectId::of(&bytes) == *id => {}
            // Maintenance has deleted it.
            Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => {}
            Err(error) if !error.is_local() => return Err(error),
            _ => damaged.push(meta.key.clone()),
        }
    }
    Ok(damaged)
}
