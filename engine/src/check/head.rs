//! Config, key slots, epoch objects: what everything else hangs on.

use std::collections::BTreeMap;

use super::{Check, CheckReport};
use crate::error::{Error, Result};
use crate::format::config::{Config, MAX_CONFIG};
use crate::format::object::{self, FormatError};
use crate::format::slot::{self, SLOT_LEN};
use crate::format::{ObjectKind, epoch};
use crate::id::{Epoch, ObjectId};
use crate::monitor::Collector;
use crate::repo::View;
use crate::repo::names::{self, EpochRole};

/// Seals that are in order, by their epoch.
pub(super) type Seals = BTreeMap<Epoch, ObjectId>;

/// Checks all of it but the view.
pub(super) fn check(check: &Check<'_>, report: &mut CheckReport) -> Result<Seals> {
    check.monitor.stage("keys and configuration");
    config(check)?;
    report.keys = keys(check)?;
    epochs(check)
}

/// Loads the view, with what is alarming about it. What it reports of epoch objects has been reported already.
pub(super) fn view(check: &Check<'_>) -> Result<(View, Option<Error>)> {
    let quiet = Collector::default();
    let (view, alarm) = check.repo.load_any_view(&quiet)?;
    for problem in quiet.problems().into_iter().filter(|p| !p.subject.starts_with("epochs/")) {
        check.problem(problem.subject, problem.message);
    }
    Ok((view, alarm))
}

fn config(check: &Check<'_>) -> Result<()> {
    let object = names::config();
    let bytes = match check.repo.backend().read(&object, MAX_CONFIG) {
        Ok(bytes) => bytes,
        Err(e) => return check.absorb(&object, e.into()),
    };
    match Config::parse(&check.repo.keys().config, &bytes) {
        Ok(config) if config == *check.repo.config() => {}
        Ok(_) => check.problem(&object, "is another one than when the repository was opened"),
        Err(e) => check.problem(&object, e),
    }
    Ok(())
}

/// Reads all slots of this repository; returns how many are in order.
fn keys(check: &Check<'_>) -> Result<u64> {
    let mut ids = Vec::new();
    check.repo.backend().list("keys/", &mut |meta| ids.extend(names::parse_id(&meta.key, "keys")))?;
    let (mut good, mut current) = (0, false);
    for id in ids {
        let object = names::slot(&id);
        current |= id == *check.repo.slot();
        let note = check.repo.read_named(&object, &id, SLOT_LEN as u64).and_then(|bytes| {
            slot::read_note(check.repo.id(), &check.repo.keys().meta, &bytes).map_err(|e| match e {
                // Left by an init that was broken off.
                FormatError::Repository => Error::Invalid(String::new()),
                e => Error::damaged(&object, e),
            })
        });
        match note {
            Ok(_) => good += 1,
            Err(Error::Invalid(_)) => {}
            Err(e) => check.absorb(&object, e)?,
        }
    }
    if !current {
        check.problem(names::slot(check.repo.slot()), "is the key slot that this repository was opened with, and is gone");
    }
    Ok(good)
}

/// What is known of an epoch.
#[derive(Default)]
struct Marks {
    roles: Vec<EpochRole>,
    /// Name that the seal's bytes give, and the seal before as it says.
    seal: Option<(ObjectId, Option<ObjectId>)>,
    /// The seal before as the close says.
    close: Option<Option<ObjectId>>,
}

fn epochs(check: &Check<'_>) -> Result<Seals> {
    let mut marks: BTreeMap<Epoch, Marks> = BTreeMap::new();
    check.repo.backend().list("epochs/", &mut |meta| {
        if let Some((epoch, role)) = names::parse_epoch_role(&meta.key) {
            marks.entry(epoch).or_default().roles.push(role);
        }
    })?;
    for (epoch, known) in &mut marks {
        check.go_on()?;
        for role in known.roles.clone() {
            if let Err(e) = read_mark(check, *epoch, role, known) {
                check.absorb(names::epoch(*epoch, role), e)?;
            }
        }
    }
    chain(check, &marks);
    Ok(marks.into_iter().filter_map(|(epoch, known)| Some((epoch, known.seal?.0))).collect())
}

fn read_mark(check: &Check<'_>, e: Epoch, role: EpochRole, known: &mut Marks) -> Result<()> {
    let object = names::epoch(e, role);
    let (key, repo) = (&check.repo.keys().epochs, check.repo.id());
    let bytes = check.repo.backend().read(&object, object::MAX_SIZE)?;
    let result = match role {
        EpochRole::Close => epoch::open_close(key, repo, e, &bytes).map(|close| known.close = Some(close.previous)),
        EpochRole::Seal => {
            epoch::open_seal(key, repo, e, &bytes).map(|(seal, _)| known.seal = Some((ObjectId::of(&bytes), seal.previous)))
        }
        EpochRole::Fence => epoch::open_mark(key, ObjectKind::Fence, repo, e, &bytes),
        EpochRole::Done => epoch::open_mark(key, ObjectKind::Done, repo, e, &bytes),
    };
    result.map_err(|error| Error::damaged(&object, error))
}

/// Every seal and close names the seal before; the latest epoch that was sealed has all that belongs to it.
fn chain(check: &Check<'_>, marks: &BTreeMap<Epoch, Marks>) {
    for (epoch, known) in marks {
        let before = epoch.checked_sub(1).and_then(|e| marks.get(&e)).and_then(|m| m.seal).map(|(id, _)| id);
        if *epoch > 0 && before.is_none() {
            let gap = known.seal.is_some() && !marks.get(&(epoch - 1)).is_some_and(|m| m.roles.contains(&EpochRole::Seal));
            if gap {
                check.problem(names::epoch(epoch - 1, EpochRole::Seal), "is missing, though there are later ones");
            }
            continue;
        }
        if known.seal.is_some_and(|(_, previous)| previous != before) {
            check.problem(names::epoch(*epoch, EpochRole::Seal), "does not follow the seal before it: the history was replaced");
        }
        if known.close.is_some_and(|previous| previous != before) {
            check.problem(names::epoch(*epoch, EpochRole::Close), "does not follow the seal before it: the history was replaced");
        }
    }
    let sealed = |m: &Marks| m.roles.iter().any(|r| matches!(r, EpochRole::Seal | EpochRole::Done));
    let Some((epoch, latest)) = marks.iter().rev().find(|(_, m)| sealed(m)) else { return };
    for role in [EpochRole::Close, EpochRole::Fence, EpochRole::Seal] {
        if !latest.roles.contains(&role) {
            check.problem(names::epoch(*epoch, role), "is missing, though later objects of its epoch are there");
        }
    }
}
