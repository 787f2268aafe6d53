//! Sets planned and opened ahead: while one is imported, the next one's manifest is read and its first volumes are decoded.

use std::collections::HashSet;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use engine::error::Result;

use super::ahead::Ahead;
use super::fetch::Opener;
use super::jobs::{Job, JobBase};
use super::plan::{Base, SetPlan, plan};

/// A set, ready to be imported.
pub(super) struct Planned {
    pub plan: SetPlan,
    /// What it builds on.
    pub base: JobBase,
    /// The same whenever the same set is imported.
    pub origin: String,
    /// Its volumes; none if it will not be read.
    pub volumes: Option<Ahead>,
}

/// Starts planning. The sets come in the order of the jobs; an error is the last thing that comes. Those whose origin is
/// `present` are not opened, nor is any if `only_plan`.
pub(super) fn start(
    jobs: Vec<Job>,
    opener: &Arc<Opener>,
    present: HashSet<String>,
    only_plan: bool,
) -> Receiver<Result<Planned>> {
    let (tx, planned) = bounded(0);
    let opener = Arc::clone(opener);
    let work = move || {
        let mut bases: Vec<Base> = Vec::with_capacity(jobs.len());
        for job in jobs {
            let base = base(job.base, &bases);
            let planned = plan(&job.set, &base, &opener).map(|plan| {
                let origin = plan.origin(&base);
                let is_read = plan.refused.is_none() && !only_plan && !present.contains(&origin);
                let volumes = is_read.then(|| Ahead::new(&opener, plan.files()));
                Planned { plan, base: job.base, origin, volumes }
            });
            let failed = match &planned {
                Ok(planned) => {
                    bases.push(next_base(planned));
                    false
                }
                Err(_) => true,
            };
            if tx.send(planned).is_err() || failed {
                return;
            }
        }
    };
    // Without the thread nothing comes, which the caller notices.
    let _ = std::thread::Builder::new().name("planner".into()).spawn(work);
    planned
}

fn base(job: JobBase, bases: &[Base]) -> Base {
    match job {
        JobBase::None => Base::default(),
        JobBase::Job(number) => bases.get(number).cloned().unwrap_or_default(),
        JobBase::Missing(time) => {
            Base { missing: Some(format!("the backup of {time}, which it builds on, is missing")), ..Base::default() }
        }
    }
}

/// What a set on this one builds on.
fn next_base(planned: &Planned) -> Base {
    match planned.plan.refused {
        Some(_) => {
            let missing = Some(format!("the backup that it builds on ({}) could not be imported", planned.plan.name));
            Base { missing, ..Base::default() }
        }
        None => Base { origin: planned.origin.clone(), missing: None },
    }
}
