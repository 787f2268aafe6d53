//! What counts at one moment: W1 to W3.

use std::collections::HashSet;

use super::{Marks, Name, Request, Rules, Store, committed, has};
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::format::epoch::{EpochRole, Seal};
use crate::format::pack::SegmentName;
use crate::format::snapshot::SnapshotName;
use crate::id::{Epoch, ObjectId};

/// What counts, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The epoch that a writer writes under: the smallest one without a close.
    pub epoch: Epoch,
    /// The latest seal: its epoch and the hash of the object.
    pub head: Option<(Epoch, ObjectId)>,
    /// Hash of the seal before it, as it says.
    pub before: Option<ObjectId>,
    /// Snapshots that it has left out because they were to be forgotten.
    pub dropped: Vec<Name>,
    /// Until when at least the store keeps all that it needs, as it says.
    pub locked: Option<Timestamp>,
    /// Packs that may disappear: nothing new may refer to them.
    pub condemned: HashSet<Name>,
    /// Packs that a repair has found damaged or missing: nothing new may refer to them either, but they do not disappear.
    /// The protocol does not look for them, whoever loads a view does.
    pub damaged: HashSet<Name>,
    /// Segments that count and cannot be read; whoever reads them puts them here.
    pub unreadable: Vec<SegmentName>,
    /// Index segments that count.
    pub segments: Vec<SegmentName>,
    /// Those among them that a writer must do without (W3): of an epoch whose fence stands and that no seal ends yet.
    pub fenced: HashSet<SegmentName>,
    /// Snapshots that count and are not forgotten.
    pub snapshots: Vec<SnapshotName>,
    /// Those among them that the latest seal names; the others are committed, but no seal confirms them yet.
    pub sealed: HashSet<SnapshotName>,
    /// Snapshots that count still, but are to go with the next seal.
    pub forgotten: Vec<SnapshotName>,
    /// The requests that say so, and any others that are there.
    pub requests: Vec<Request>,
    /// An epoch that has a close and no done: maintenance runs, or was broken off.
    pub unfinished: Option<Epoch>,
    /// What is wrong with the sequence of epochs; nothing may be written until it is mended.
    pub damage: Option<String>,
}

impl View {
    /// Whether nothing new may refer to a pack.
    #[must_use]
    pub fn is_barred(&self, pack: &Name) -> bool {
        self.condemned.contains(pack) || self.damaged.contains(pack)
    }

    /// Fails while an epoch is closed and not done. Once its fence stands, its snapshots count, but a writer does without its
    /// segments, so that intact snapshots would look damaged to it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], with the epoch.
    pub fn check_settled(&self) -> Result<()> {
        match self.unfinished {
            None => Ok(()),
            Some(epoch) => Err(Error::Invalid(format!(
                "maintenance of epoch {epoch} is unfinished, so what snapshots have lost cannot be told: run 'prune' first"
            ))),
        }
    }

    /// Leaves out the segments that a writer must do without.
    pub fn for_writing(&mut self) {
        let fenced = &self.fenced;
        self.segments.retain(|segment| !fenced.contains(segment));
    }
}

/// Only the latest seal, and nothing else of what counts: for commands that do not need it.
///
/// # Errors
///
/// What the store returns.
pub async fn head<S: Store>(store: &S) -> Result<View> {
    let marks = store.list_epochs().await?;
    let Some((epoch, id, seal)) = latest_seal(store, &marks).await? else { return Ok(View::default()) };
    Ok(View { head: Some((epoch, id)), before: seal.previous, dropped: seal.forgotten, ..View::default() })
}

/// Looks at the store. `None` if maintenance moved on meanwhile, and the look must be taken again.
///
/// # Errors
///
/// What the store returns.
pub async fn view<S: Store>(store: &S, rules: &Rules) -> Result<Option<View>> {
    // W1
    let marks = store.list_epochs().await?;
    let seal = latest_seal(store, &marks).await?;
    let last = seal.as_ref().map(|(epoch, ..)| *epoch);
    let mut view = current_epoch(store, &marks, last).await?;
    // W2
    let (snapshots, segments) = committed(store).await?;
    // Requests go after the seal that carried them out, so a second look at the epochs comes after them.
    view.requests = store.requests().await?;
    // W3
    let again = if rules.second_look { store.list_epochs().await? } else { marks.clone() };
    let sealed_meanwhile = |(e, roles): (&Epoch, _)| {
        let roles: &std::collections::BTreeSet<EpochRole> = roles;
        roles.contains(&EpochRole::Seal) && last < Some(*e) && !has(&marks, *e, EpochRole::Seal)
    };
    if again.iter().any(sealed_meanwhile) {
        return Ok(None);
    }
    let open = |epoch: Epoch| last < Some(epoch) || !rules.void;
    let fenced = |epoch: Epoch| epoch < view.epoch && last < Some(epoch) && has(&again, epoch, EpochRole::Fence);
    view.segments = segments.into_iter().filter(|(e, _)| open(*e)).map(|(epoch, id)| SegmentName { epoch, id }).collect();
    view.fenced = view.segments.iter().filter(|s| fenced(s.epoch)).copied().collect();
    view.damage = sequence_damage(store, &marks, view.epoch, last).await?;
    let mut valid: Vec<_> = snapshots.into_iter().filter(|(e, _)| last < Some(*e)).collect();
    if let Some((epoch, id, seal)) = seal {
        view.head = Some((epoch, id));
        (view.before, view.dropped, view.locked) = (seal.previous, seal.forgotten, seal.locked);
        view.segments.extend(seal.segments);
        view.sealed = seal.snapshots.iter().map(|(epoch, id)| SnapshotName { epoch: *epoch, id: *id }).collect();
        valid.extend(seal.snapshots);
    }
    sort_out(&mut view, valid);
    Ok(Some(view))
}

/// Divides the valid snapshots into those that stay and those that are forgotten.
fn sort_out(view: &mut View, mut valid: Vec<Name>) {
    valid.sort_unstable();
    valid.dedup();
    let asked: HashSet<Name> = view.requests.iter().flat_map(|(_, names)| names).copied().collect();
    for (epoch, id) in valid {
        let list = if asked.contains(&(epoch, id)) { &mut view.forgotten } else { &mut view.snapshots };
        list.push(SnapshotName { epoch, id });
    }
    view.segments.sort_unstable();
    view.segments.dedup();
}

async fn latest_seal<S: Store>(store: &S, marks: &Marks) -> Result<Option<(Epoch, ObjectId, Seal)>> {
    for (epoch, _) in marks.iter().rev().filter(|(_, roles)| roles.contains(&EpochRole::Seal)) {
        if let Some((id, seal)) = store.read_seal(*epoch).await? {
            return Ok(Some((*epoch, id, seal)));
        }
    }
    Ok(None)
}

/// The smallest epoch without an authentic close, and what those before it condemn and is not deleted yet. Epochs before
/// that of the latest seal are done: none is closed before the one before is.
async fn current_epoch<S: Store>(store: &S, marks: &Marks, sealed: Option<Epoch>) -> Result<View> {
    let mut view = View::default();
    while has(marks, view.epoch, EpochRole::Close) {
        let epoch = view.epoch;
        if Some(epoch) >= sealed {
            let done = has(marks, epoch, EpochRole::Done) && store.has_mark(epoch, EpochRole::Done).await?;
            if !done {
                let Some(close) = store.read_close(epoch).await? else { break };
                view.condemned.extend(close.condemned);
                view.unfinished = Some(epoch);
            }
        }
        view.epoch += 1;
    }
    Ok(view)
}

/// A fence, seal or done of an epoch that is still current, or a done without its seal, shows that a close or a seal was
/// damaged or removed: a writer would work under the wrong epoch.
async fn sequence_damage<S: Store>(store: &S, marks: &Marks, current: Epoch, sealed: Option<Epoch>) -> Result<Option<String>> {
    if sealed >= Some(current) {
        return Ok(Some(format!("epochs/{current:010}.close: there is a later seal, but the close is missing or damaged")));
    }
    for (epoch, roles) in marks {
        let fenced = *epoch >= current && roles.contains(&EpochRole::Fence);
        if fenced && store.has_mark(*epoch, EpochRole::Fence).await? {
            return Ok(Some(format!("epochs/{epoch:010}.close: there is a fence, but the close is missing or damaged")));
        }
        let unsealed = sealed < Some(*epoch) && roles.contains(&EpochRole::Done);
        if unsealed && store.has_mark(*epoch, EpochRole::Done).await? {
            return Ok(Some(format!("epochs/{epoch:010}.seal: the epoch is done, but its seal is missing or damaged")));
        }
    }
    Ok(None)
}
