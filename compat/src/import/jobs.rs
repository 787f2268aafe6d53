//! Which sets are imported, in which order, and what each builds on.

use std::collections::HashMap;
use std::sync::Arc;

use engine::error::{Error, Result};

use super::Selection;
use crate::collection::{BackupSet, Chain, Collection};
use crate::time::Time;

/// A set to be imported.
pub(super) struct Job {
    pub set: Arc<BackupSet>,
    pub base: JobBase,
}

/// What a set builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobBase {
    /// Nothing: it is a full one.
    None,
    /// An earlier job, by its position.
    Job(usize),
    /// A set that is not there.
    Missing(Time),
}

/// The selected sets, each after the one that it builds on.
pub(super) fn select(collection: &Collection, selection: Selection, location: &str) -> Result<Vec<Job>> {
    let none = |what: &str| Error::Invalid(format!("{location}: {what}"));
    if collection.sets().is_empty() {
        return Err(none("no backup of duplicity is there; do its names begin with a --file-prefix?"));
    }
    let mut jobs = Jobs::default();
    match selection {
        Selection::All => {
            for chain in collection.chains() {
                jobs.chain(chain.sets());
            }
            for set in collection.superseded() {
                jobs.based(set);
            }
            for set in collection.orphans().iter().chain(collection.interrupted()) {
                jobs.based(set);
            }
        }
        Selection::Chain(number) => {
            let chains = collection.chains();
            let chain = number.checked_sub(1).and_then(|i| chains.get(i));
            let chain = chain.ok_or_else(|| none(&format!("there is no chain {number}; the last one is {}", chains.len())))?;
            jobs.chain(chain.sets());
            collection
                .superseded()
                .iter()
                .filter(|set| jobs.has(set.start_time()))
                .cloned()
                .collect::<Vec<_>>()
                .iter()
                .for_each(|set| jobs.based(set));
        }
        Selection::Time(time) => {
            let chain: &Chain = collection.chain_at(time).ok_or_else(|| none("there is no complete backup"))?;
            jobs.chain(chain.sets_at(time));
        }
    }
    Ok(jobs.jobs)
}

#[derive(Default)]
struct Jobs {
    jobs: Vec<Job>,
    ends: HashMap<Time, usize>,
}

impl Jobs {
    /// Sets each of which builds on the one before.
    fn chain(&mut self, sets: &[Arc<BackupSet>]) {
        for (number, set) in sets.iter().enumerate() {
            let base = if number == 0 { JobBase::None } else { JobBase::Job(self.jobs.len() - 1) };
            self.push(set, base);
        }
    }

    /// A set that builds on whichever ends where it starts.
    fn based(&mut self, set: &Arc<BackupSet>) {
        let base = match self.ends.get(&set.start_time()) {
            _ if set.is_full() => JobBase::None,
            Some(job) => JobBase::Job(*job),
            None => JobBase::Missing(set.start_time()),
        };
        self.push(set, base);
    }

    fn push(&mut self, set: &Arc<BackupSet>, base: JobBase) {
        self.ends.entry(set.end_time()).or_insert(self.jobs.len());
        self.jobs.push(Job { set: Arc::clone(set), base });
    }

    fn has(&self, end: Time) -> bool {
        self.ends.contains_key(&end)
    }
}
