//! Repair by parity: damaged and lost objects get back the very bytes that they had.
//!
//! This is the only place where an object is ever replaced, and only by bytes that have the hash which its name is, or, for
//! config and epoch objects, that authenticate. It may be broken off at any time, and run beside anything else.

use super::mend::{Judge, Mender, Stored, Survey, is_there};
use super::{go_on, report};
use crate::backend::{Backend, ErrorKind, ObjectMeta};
use crate::error::{Error, Result};
use crate::format::config::{Config, MAX_CONFIG};
use crate::format::pack::MAX_PACK;
use crate::id::{Epoch, ObjectId};
use crate::monitor::{Collector, Counter, Monitor};
use crate::names;
use crate::parity::{Found, group, inside};
use crate::repo::{Repository, parallel};

/// Bytes of objects that are read at a time.
const READ_BYTES: u64 = 64 << 20;

/// What was found, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParityRepair {
    /// Objects that were read, parity included.
    pub objects: u64,
    /// Their sizes added up.
    pub bytes: u64,
    /// Objects whose bytes are not what they should be.
    pub damaged: u64,
    /// Objects that are not in the store though their parity is.
    pub missing: u64,
    /// Damaged and missing objects that were brought back (or could be).
    pub mended: u64,
    /// Parity objects that are damaged.
    pub damaged_parity: u64,
    /// Those that were made anew (or would be).
    pub remade_parity: u64,
    /// Objects that have no parity yet.
    pub unprotected: u64,
}

impl ParityRepair {
    /// Damaged and missing objects that parity cannot bring back.
    #[must_use]
    pub fn lost(&self) -> u64 {
        (self.damaged + self.missing).saturating_sub(self.mended)
    }
}

/// Reads every object that parity covers, brings back what is damaged or missing, and then makes damaged parity anew. What
/// cannot be brought back is a problem for the monitor. Memory: about 200 bytes for each object, and 64 MiB.
///
/// # Errors
///
/// [`Error::Invalid`] if there is no parity; [`Error::Interrupted`] if the monitor says so; if the store fails.
pub fn parity(repo: &Repository, dry_run: bool, monitor: &dyn Monitor) -> Result<ParityRepair> {
    repo.check_writable()?;
    run(&**repo.backend(), Judge::Keys(repo), dry_run, monitor)
}

/// The same without a password: config and epoch objects cannot be brought back then, since their names do not tell what they
/// should be.
///
/// # Errors
///
/// As [`parity`].
pub fn stored_parity(backend: &dyn Backend, dry_run: bool, monitor: &dyn Monitor) -> Result<ParityRepair> {
    let config = match backend.read(&names::config(), MAX_CONFIG).map_err(Error::from) {
        Err(error) if !error.is_local() => return Err(error),
        config => config.ok(),
    };
    run(backend, Judge::Host(config.and_then(|bytes| Config::peek(&bytes).ok())), dry_run, monitor)
}

fn run(backend: &dyn Backend, judge: Judge<'_>, dry_run: bool, monitor: &dyn Monitor) -> Result<ParityRepair> {
    let mut survey = Survey::new(backend)?;
    let narrow = survey.narrow();
    if survey.inside.is_empty() && survey.groups.is_empty() {
        return Err(Error::Invalid("there is no parity here; 'prune --parity 5%' makes some".into()));
    }
    if narrow {
        monitor.note("only keys, configuration and seals have parity here; 'prune --parity 5%' makes it for all the rest".into());
    }
    let mut repair =
        Repair { mender: Mender::new(backend, judge), backend, judge, dry_run, monitor, done: ParityRepair::default() };
    repair.objects(&survey)?;
    repair.insides(&survey)?;
    repair.groups(&survey)?;
    backend.barrier()?;
    repair.done.unprotected = survey.unprotected();
    Ok(repair.done)
}

struct Repair<'a> {
    mender: Mender<'a>,
    backend: &'a dyn Backend,
    judge: Judge<'a>,
    dry_run: bool,
    monitor: &'a dyn Monitor,
    done: ParityRepair,
}

/// An object that is to be brought back, and what is wrong with it.
struct Bad {
    object: Stored,
    fault: Option<String>,
}

impl Repair<'_> {
    /// Finds what is damaged or missing, and brings it back.
    fn objects(&mut self, survey: &Survey) -> Result<()> {
        let sizes = |objects: &[Stored]| objects.iter().map(|object| object.size).sum::<u64>();
        let groups = survey.groups.iter().map(|(meta, ..)| meta.size).sum::<u64>();
        self.done.bytes = sizes(&survey.objects) + sizes(&survey.inside) + groups;
        self.done.objects = (survey.objects.len() + survey.inside.len() + survey.groups.len()) as u64;
        self.monitor.expect(Counter::Bytes, self.done.bytes);
        self.monitor.stage("reading");
        let lost = survey.lost(self.backend)?;
        self.done.missing = lost.len() as u64;
        let mut bad: Vec<Bad> = lost.into_iter().map(|object| Bad { object, fault: None }).collect();
        let found = self.each(&survey.objects, |object| self.judge.inspect(self.backend, object))?;
        for (object, fault) in survey.objects.iter().zip(found) {
            if fault.is_some() {
                self.done.damaged += 1;
                bad.push(Bad { object: object.clone(), fault });
            }
        }
        self.monitor.stage("repairing");
        // What comes back may be what another one lacks.
        while !bad.is_empty() {
            let before = bad.len();
            let mut left = Vec::new();
            for one in bad {
                go_on(self.monitor)?;
                if !self.one(&one)? {
                    left.push(one);
                }
            }
            bad = left;
            if bad.len() == before {
                break;
            }
        }
        for Bad { object, fault } in bad {
            let state = fault.unwrap_or_else(|| "is not in the store".to_owned());
            report(self.monitor, object.key.as_str(), format!("{state}; parity cannot bring it back{}", self.hint(&object)));
        }
        Ok(())
    }

    fn hint(&self, object: &Stored) -> &'static str {
        match self.judge {
            Judge::Host(_) if object.claim.id.is_none() => " without the password",
            _ => "",
        }
    }

    /// Brings one object back, if parity can.
    fn one(&mut self, bad: &Bad) -> Result<bool> {
        let Stored { key, claim, .. } = &bad.object;
        let Some(bytes) = self.mender.rebuild(key, claim)? else { return Ok(false) };
        if !self.dry_run {
            match &bad.fault {
                Some(_) => self.backend.replace(key, bytes)?,
                // Somebody else may have stored it meanwhile.
                None => match self.backend.create(key, bytes) {
                    Err(e) if e.kind != ErrorKind::AlreadyExists => return Err(e.into()),
                    _ => {}
                },
            }
        }
        self.done.mended += 1;
        let state = bad.fault.as_deref().unwrap_or("is not in the store");
        let outcome = if self.dry_run { "parity can bring it back" } else { "brought back by parity" };
        self.monitor.note(format!("{key}: {state}; {outcome}"));
        Ok(true)
    }

    /// Makes damaged parity inside of objects anew.
    fn insides(&mut self, survey: &Survey) -> Result<()> {
        if let Judge::Keys(repo) = self.judge {
            // How much parity is set is in the last seal.
            repo.load_any_view(&Collector::default())?;
        }
        let bad = self.each(&survey.inside, |object| {
            let found = Found::read(self.backend, &object.key, &object.claim)?;
            // Maintenance may have deleted it.
            Ok(!found.is_some_and(|found| found.is_whole()) && is_there(self.backend, &names::parity_of(&object.key))?)
        })?;
        let keys: Vec<&Stored> = survey.inside.iter().zip(bad).filter(|(_, bad)| *bad).map(|(object, _)| object).collect();
        for object in keys {
            go_on(self.monitor)?;
            self.done.damaged_parity += 1;
            let name = names::parity_of(&object.key);
            let Some(bytes) = self.parity_inside(object)? else {
                report(self.monitor, name.as_str(), "is damaged; the next 'prune' makes it anew".to_owned());
                continue;
            };
            if !self.dry_run {
                self.backend.replace(&name, bytes.into())?;
            }
            self.done.remade_parity += 1;
        }
        Ok(())
    }

    /// As much parity as there was, or else as much as is set.
    fn parity_inside(&self, object: &Stored) -> Result<Option<Vec<u8>>> {
        let bytes = match self.backend.read(&object.key, MAX_PACK).map_err(Error::from) {
            Ok(bytes) => bytes,
            Err(error) if error.is_local() => return Ok(None),
            Err(error) => return Err(error),
        };
        let (Some(repo), None) = (self.judge.repo(), self.judge.fault(&object.claim, &bytes)) else { return Ok(None) };
        let set = match self.judge {
            Judge::Keys(repo) => repo.parity().percent_for(object.claim.kind),
            Judge::Host(_) => None,
        };
        let found = Found::read(self.backend, &object.key, &object.claim)?;
        let count = found.map(|found| found.parity_shards()).or(set.map(|percent| inside::count(bytes.len() as u64, percent)));
        match count {
            Some(count) => inside::make(repo, &object.claim, &bytes, count),
            None => Ok(None),
        }
    }

    /// Makes damaged parity of groups anew.
    fn groups(&mut self, survey: &Survey) -> Result<()> {
        let whole = |meta: &ObjectMeta, id: &ObjectId| match self.backend.read(&meta.key, meta.size) {
            Ok(bytes) => Ok(ObjectId::of(&bytes) == *id),
            // Maintenance has deleted it.
            Err(e) if e.kind == ErrorKind::NotFound => Ok(true),
            Err(e) => Err(Error::from(e)).or_else(|e| if e.is_local() { Ok(false) } else { Err(e) }),
        };
        let mut bad: Vec<&(ObjectMeta, Epoch, ObjectId)> = Vec::new();
        for group in &survey.groups {
            go_on(self.monitor)?;
            if !whole(&group.0, &group.2)? {
                bad.push(group);
            }
            self.monitor.count(Counter::Bytes, group.0.size);
        }
        for (meta, _, id) in bad {
            self.done.damaged_parity += 1;
            let remade = match group::remake(self.backend, &meta.key, meta.size) {
                Err(error) if error.is_local() => None,
                remade => remade?.filter(|bytes| ObjectId::of(bytes) == *id),
            };
            match remade {
                Some(bytes) if !self.dry_run => self.backend.replace(&meta.key, bytes.into())?,
                Some(_) => {}
                None => {
                    let message = "is damaged, and so is what it was made of; 'prune' makes new parity of what is left";
                    report(self.monitor, meta.key.as_str(), message.to_owned());
                    continue;
                }
            }
            self.done.remade_parity += 1;
        }
        Ok(())
    }

    /// Does `look` for all objects, several at a time.
    fn each<R: Send>(&self, objects: &[Stored], look: impl Fn(&Stored) -> Result<R> + Sync) -> Result<Vec<R>> {
        let largest = objects.iter().map(|object| object.size).max().unwrap_or(1).max(1);
        let threads = usize::try_from(READ_BYTES / largest).unwrap_or(1).clamp(1, self.backend.concurrency());
        let found = parallel::map(threads, objects, |object| {
            go_on(self.monitor)?;
            let found = look(object)?;
            self.monitor.count(Counter::Bytes, object.size);
            Ok(found)
        });
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
