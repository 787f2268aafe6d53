//! What a prune does about parity, after the round: makes what is missing, and takes away what is of no use any more.
//!
//! Parity is outside of the epoch protocol: nothing relies on it, and whatever is done here may be broken off anywhere. The
//! next prune finds by the names and sizes of what there is how to go on.

use std::collections::{BTreeSet, HashSet};

use crate::backend::ObjectKey;
use crate::error::{Error, Result};
use crate::format::ObjectKind;
use crate::format::parity::Member;
use crate::monitor::{Monitor, Problem};
use crate::names;
use crate::parity::{group, inside};
use crate::protocol::Name;
use crate::repair::mend::{Judge, Stored, Survey};
use crate::repo::{Reader, Repository, View, parallel, sync_those_that_open};

/// Bytes of objects that are read at a time.
const READ_BYTES: u64 = 64 << 20;

/// What was done about parity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParityTally {
    /// Objects that got parity inside.
    pub made: u64,
    /// Groups of objects that got parity across them.
    pub groups: u64,
    /// Sizes of the new parity objects added up.
    pub bytes: u64,
    /// Parity objects that were deleted.
    pub deleted: u64,
}

/// Sees to it that there is as much parity as is set.
///
/// # Errors
///
/// If the store fails; [`Error::Interrupted`] if the monitor says so. Damaged objects are reported, and left without.
pub(super) fn maintain(reader: &Reader, monitor: &dyn Monitor) -> Result<ParityTally> {
    monitor.stage("parity");
    let (repo, percent) = (reader.repo(), reader.repo().parity().percent());
    let survey = Survey::covered(&**repo.backend(), percent)?;
    let mut work = Work { repo, percent, monitor, done: ParityTally::default() };
    work.make_inside(&survey)?;
    if percent == 0 {
        let optional = survey.inside.iter().filter(|object| !object.claim.kind.is_vital());
        let optional = optional.map(|object| names::parity_of(&object.key));
        work.delete(optional.chain(survey.groups.iter().map(|(meta, ..)| meta.key.clone())))?;
        return Ok(work.done);
    }
    let counted = Counted::new(reader, repo.load_view(monitor)?)?;
    let void = Survey::without(&survey.inside, &survey.objects).filter(|object| counted.is_void(object));
    work.delete(void.map(|object| names::parity_of(&object.key)))?;
    work.regroup(&survey, &counted)?;
    Ok(work.done)
}

/// What counts, so that what is lost can be told from what was deleted.
struct Counted {
    view: View,
    /// Packs that the index names.
    packs: HashSet<Name>,
    segments: HashSet<Name>,
}

impl Counted {
    fn new(reader: &Reader, view: View) -> Result<Self> {
        // The index may still name what the round has deleted.
        sync_those_that_open(reader.repo(), reader.index(), view.segments.clone())?;
        let mut packs = HashSet::new();
        reader.index().packs(|_, epoch, id, _| {
            packs.insert((epoch, id));
        })?;
        let segments = view.segments.iter().map(|segment| (segment.epoch, segment.id)).collect();
        Ok(Self { view, packs, segments })
    }

    /// Whether an object belongs to a sealed epoch and is no part of what counts.
    fn is_void(&self, object: &Stored) -> bool {
        let Some(id) = object.claim.id else { return false };
        let name = (object.claim.epoch, id);
        let counts = match object.claim.kind {
            ObjectKind::Pack => self.packs.contains(&name),
            ObjectKind::Segment => self.segments.contains(&name),
            ObjectKind::Snapshot => self.view.sealed.iter().any(|snapshot| (snapshot.epoch, snapshot.id) == name),
            _ => true,
        };
        !counts && self.view.head.is_some_and(|(sealed, _)| name.0 <= sealed)
    }

    /// Whether parity across objects is made for this one, or would be if it were there.
    fn is_grouped(&self, kind: ObjectKind, name: &Name) -> bool {
        let sealed = self.view.head.is_some_and(|(sealed, _)| name.0 <= sealed);
        sealed
            && match kind {
                ObjectKind::Pack => self.packs.contains(name) && !self.view.is_barred(name),
                ObjectKind::Segment => self.segments.contains(name),
                _ => false,
            }
    }
}

struct Work<'a> {
    repo: &'a Repository,
    percent: u8,
    monitor: &'a dyn Monitor,
    done: ParityTally,
}

impl Work<'_> {
    fn delete(&mut self, keys: impl Iterator<Item = ObjectKey>) -> Result<()> {
        for key in keys {
            self.go_on()?;
            self.repo.backend().delete(&key)?;
            self.done.deleted += 1;
        }
        Ok(())
    }

    fn go_on(&self) -> Result<()> {
        if self.monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Parity inside of objects that have none, or another amount.
    fn make_inside(&mut self, survey: &Survey) -> Result<()> {
        let lacks = |object: &&Stored| {
            let found = survey.inside.binary_search_by(|other| other.key.cmp(&object.key));
            let size = found.ok().and_then(|at| survey.inside.get(at)).map(|parity| parity.size);
            object.is_protected() && size != Some(inside::expected_size(object.size, self.percent))
        };
        let todo: Vec<&Stored> = survey.objects.iter().filter(lacks).collect();
        let largest = todo.iter().map(|object| object.size).max().unwrap_or(1).max(1);
        let threads = usize::try_from(READ_BYTES / largest).unwrap_or(1).clamp(1, self.repo.backend().concurrency());
        for made in parallel::map(threads, &todo, |object| self.make_one(object)) {
            if let Some(bytes) = made? {
                self.done.made += 1;
                self.done.bytes += bytes;
            }
        }
        Ok(())
    }

    /// The size of the new parity; `None` if the object is not as it should be.
    fn make_one(&self, object: &Stored) -> Result<Option<u64>> {
        self.go_on()?;
        let backend = self.repo.backend();
        let bytes = match backend.read(&object.key, object.size).map_err(Error::from) {
            Ok(bytes) => bytes,
            Err(error) if error.is_local() => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(fault) = Judge::Keys(self.repo).fault(&object.claim, &bytes) {
            self.damaged(&object.key, &fault);
            return Ok(None);
        }
        let count = inside::count(object.size, self.percent);
        let Some(made) = inside::make(self.repo.id(), &object.claim, &bytes, count)? else { return Ok(None) };
        let size = made.len() as u64;
        backend.replace(&names::parity_of(&object.key), made.into())?;
        Ok(Some(size))
    }

    fn damaged(&self, object: &ObjectKey, fault: &str) {
        let message = format!("{fault}, so no parity can be made of it: run 'check'");
        self.monitor.problem(Problem { subject: object.to_string(), message });
    }

    /// Parity across groups of packs and segments that the last seal knows.
    fn regroup(&mut self, survey: &Survey, counted: &Counted) -> Result<()> {
        let most = group::members_for(self.percent);
        let mut groups = self.load_groups(survey, counted)?;
        // Full ones first: a smaller one whose members they have is not needed any more.
        groups.sort_unstable_by_key(|group| (group.state, usize::MAX - group.members.len(), group.key.clone()));
        let (mut grouped, mut small, mut drop) = (BTreeSet::new(), Vec::new(), Vec::new());
        for group in groups {
            let count = group.members.len();
            match group.state {
                State::Needed => grouped.extend(group.members),
                State::Whole if count == most && !group.members.is_subset(&grouped) => grouped.extend(group.members),
                State::Whole if count < most && !group.members.is_subset(&grouped) => small.push(group),
                State::Whole | State::Void => drop.push(group),
            }
        }
        let in_small: BTreeSet<&ObjectKey> = small.iter().flat_map(|group| &group.members).collect();
        let candidates = survey.objects.iter().filter(|object| {
            let name = object.claim.id.map(|id| (object.claim.epoch, id));
            name.is_some_and(|name| counted.is_grouped(object.claim.kind, &name)) && !grouped.contains(&object.key)
        });
        let mut loose: Vec<&Stored> = candidates.collect();
        if small.len() <= 1 && loose.iter().all(|object| in_small.contains(&object.key)) {
            return self.delete(drop.into_iter().map(|group| group.key));
        }
        // Objects of about the same size, since the parity is as large as the largest.
        loose.sort_by_key(|object| (u64::MAX - object.size, object.key.clone()));
        let mut complete = true;
        for members in loose.chunks(most) {
            let same =
                |group: &Group| group.members.len() == members.len() && members.iter().all(|m| group.members.contains(&m.key));
            match small.iter().position(same) {
                Some(at) => std::mem::drop(small.swap_remove(at)),
                None => complete &= self.make_group(members, counted)?,
            }
        }
        if complete {
            self.delete(drop.into_iter().chain(small).map(|group| group.key))?;
        }
        Ok(())
    }

    /// `false` if a member is not as it should be.
    fn make_group(&mut self, objects: &[&Stored], counted: &Counted) -> Result<bool> {
        self.go_on()?;
        let (repo, backend) = (self.repo, self.repo.backend());
        let epoch = counted.view.head.map_or(0, |(epoch, _)| epoch);
        let member = |object: &&Stored| {
            let (kind, epoch) = (object.claim.kind, object.claim.epoch);
            object.claim.id.map(|id| Member { kind, epoch, size: object.size, id })
        };
        let made = match group::make(&**backend, repo.id(), epoch, objects.iter().filter_map(member).collect()) {
            Err(Error::Damaged { object, detail }) => {
                let message = format!("{detail}, so its group gets no parity: run 'check'");
                self.monitor.problem(Problem { subject: object, message });
                return Ok(false);
            }
            // Deleted meanwhile, or not to be read.
            Err(error) if error.is_local() => return Ok(false),
            made => made?,
        };
        self.done.groups += 1;
        self.done.bytes += made.len() as u64;
        backend.replace(&names::group(epoch, &crate::id::ObjectId::of(&made)), made.into())?;
        Ok(true)
    }

    fn load_groups(&self, survey: &Survey, counted: &Counted) -> Result<Vec<Group>> {
        let backend = self.repo.backend();
        let read =
            parallel::map(backend.concurrency(), &survey.groups, |(meta, ..)| group::members(&**backend, &meta.key, meta.size));
        let mut groups = Vec::with_capacity(survey.groups.len());
        for ((meta, ..), members) in survey.groups.iter().zip(read) {
            groups.push(Group::new(meta.key.clone(), members?.unwrap_or_default(), survey, counted));
        }
        Ok(groups)
    }
}

/// Parity across objects, as it is in the store.
struct Group {
    key: ObjectKey,
    members: BTreeSet<ObjectKey>,
    state: State,
}

/// Of how much use a group is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// All members are there.
    Whole,
    /// Members are lost, and may come back by it.
    Needed,
    /// Members were deleted, or it cannot be told who they are.
    Void,
}

impl Group {
    fn new(key: ObjectKey, members: Vec<Member>, survey: &Survey, counted: &Counted) -> Self {
        let mut state = if members.is_empty() { State::Void } else { State::Whole };
        let mut keys = BTreeSet::new();
        for member in members {
            let Some(key) = names::protected(member.kind, member.epoch, &member.id) else { continue };
            let found = survey.objects.binary_search_by(|object| object.key.cmp(&key)).ok();
            let there = found.and_then(|at| survey.objects.get(at)).is_some_and(|object| object.size == member.size);
            state = state.max(match counted.is_grouped(member.kind, &(member.epoch, member.id)) {
                false => State::Void,
                true if there => State::Whole,
                true => State::Needed,
            });
            keys.insert(key);
        }
        Self { key, members: keys, state }
    }
}
