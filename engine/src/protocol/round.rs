//! A round of maintenance: G0, and G2 to G8.

use std::collections::HashSet;

use super::{Folder, Name, Request, Rules, Store, Target, committed, has};
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::format::epoch::{Close, EpochRole, Seal};
use crate::format::pack::SegmentName;
use crate::id::{Epoch, ObjectId};

/// What will count once the epoch is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    /// Snapshots of the seal before and of this epoch, less those to forget.
    pub snapshots: Vec<Name>,
    /// Segments of the seal before and of this epoch.
    pub segments: Vec<SegmentName>,
    /// Segments of the seal before that are not in the store. What they named must be in others.
    pub gone: Vec<SegmentName>,
    /// Those to forget.
    pub forgotten: Vec<Name>,
}

/// What G6 comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Snapshots that the seal names: valid ones.
    pub snapshots: Vec<Name>,
    /// Segments that the seal names. They name all packs that the valid ones name, but the deleted ones.
    pub segments: Vec<SegmentName>,
    /// Packs to be deleted: condemned ones.
    pub deleted: Vec<Name>,
    /// When.
    pub time: Timestamp,
    /// Until when at least all of that is locked in the store, if it is.
    pub locked: Option<Timestamp>,
}

/// What a round leaves to its user.
#[allow(async_fn_in_trait, reason = "used within the crate only, on one thread")]
pub trait Maintainer {
    /// G3: gives running sessions of the epoch time to finish.
    async fn drain(&mut self, epoch: Epoch) -> Result<()>;
    /// G6: packs to delete are the condemned ones, less those that hold the only copy of something that the valid snapshots
    /// need. Merged segments, if any, are stored under `epoch`. Fails if segments are gone and others do not name their packs.
    async fn decide(&mut self, epoch: Epoch, close: &Close, valid: Valid) -> Result<Decision>;
}

/// The epoch that has a close and no done, with its close (G0).
///
/// # Errors
///
/// What the store returns; [`Error::Damaged`] for a close that is not authentic.
pub async fn unfinished<S: Store>(store: &S) -> Result<Option<(Epoch, Close)>> {
    let marks = store.list_epochs().await?;
    let Some((epoch, _)) = marks.iter().rev().find(|(_, roles)| roles.contains(&EpochRole::Close)) else { return Ok(None) };
    if has(&marks, *epoch, EpochRole::Done) && store.has_mark(*epoch, EpochRole::Done).await? {
        return Ok(None);
    }
    match store.read_close(*epoch).await? {
        Some(close) => Ok(Some((*epoch, close))),
        None => Err(squatted(*epoch, EpochRole::Close)),
    }
}

/// G2: closes an epoch. `false` if somebody else has closed it.
///
/// # Errors
///
/// What the store returns; [`Error::Damaged`] if something lies under the name that is no close.
pub async fn close<S: Store>(store: &S, epoch: Epoch, close: &Close) -> Result<bool> {
    if store.create_close(epoch, close).await? {
        return Ok(true);
    }
    match store.read_close(epoch).await? {
        Some(found) => Ok(found.run == close.run),
        None => Err(squatted(epoch, EpochRole::Close)),
    }
}

/// G3 to G8: carries a closed epoch to its end, from wherever it was left.
///
/// # Errors
///
/// What the store and the maintainer return; [`Error::Damaged`] if the history does not fit together. The epoch stays
/// unfinished then, which hinders no writer and no reader.
pub async fn finish<S: Store, M: Maintainer>(
    store: &S,
    maintainer: &mut M,
    epoch: Epoch,
    close: &Close,
    rules: &Rules,
) -> Result<Seal> {
    if let Some((_, seal)) = store.read_seal(epoch).await? {
        clean_up(store, epoch, &seal, &seal.deleted, rules).await?;
        return Ok(seal);
    }
    maintainer.drain(epoch).await?;
    // G4, G5
    let early = if rules.fence_before_list { None } else { Some(collect(store, epoch, close, rules).await?) };
    set_mark(store, epoch, EpochRole::Fence).await?;
    let collected = match early {
        Some(early) => Ok(early),
        None => collect(store, epoch, close, rules).await,
    };
    let decided = match collected {
        Ok(valid) => decide(store, maintainer, epoch, close, valid, rules).await,
        Err(error) => Err(error),
    };
    let (seal, own) = match decided {
        Ok(sealed) => sealed,
        // Somebody else is further on, and what was needed here is replaced or gone.
        Err(error) => match store.read_seal(epoch).await? {
            Some((_, seal)) => (seal.clone(), seal.deleted),
            None => return Err(error),
        },
    };
    let deleted = if rules.deleted_by_seal { &seal.deleted } else { &own };
    clean_up(store, epoch, &seal, deleted, rules).await?;
    Ok(seal)
}

/// G5: what counts. Needs the fence.
async fn collect<S: Store>(store: &S, epoch: Epoch, close: &Close, rules: &Rules) -> Result<Valid> {
    let previous = match epoch.checked_sub(1) {
        None => None,
        Some(before) => {
            let found = store.read_seal(before).await?;
            let Some((id, seal)) = found else { return Err(squatted(before, EpochRole::Seal)) };
            if close.previous != Some(id) {
                let object = format!("epochs/{epoch:010}.close");
                return Err(Error::damaged(object, "does not follow the seal before it: the history was replaced"));
            }
            Some(seal)
        }
    };
    let (snapshots, index) = committed(store).await?;
    let there: HashSet<Name> = index.iter().copied().collect();
    let (mut segments, mut valid) = previous.map_or_else(Default::default, |seal| (seal.segments, seal.snapshots));
    let gone = if rules.complete { segments.extract_if(.., |s| !there.contains(&(s.epoch, s.id))).collect() } else { Vec::new() };
    segments.extend(index.iter().filter(|(e, _)| *e == epoch).map(|(epoch, id)| SegmentName { epoch: *epoch, id: *id }));
    valid.extend(snapshots.iter().filter(|(e, _)| *e == epoch));
    let requested: HashSet<Name> = store.requests().await?.into_iter().flat_map(|(_, names)| names).collect();
    segments.sort_unstable();
    segments.dedup();
    valid.sort_unstable();
    valid.dedup();
    let (forgotten, snapshots) = valid.into_iter().partition(|name| requested.contains(name));
    Ok(Valid { snapshots, segments, gone, forgotten })
}

/// G6 and G7: the seal that ends the epoch, this one or another's, and what this one would delete.
async fn decide<S: Store, M: Maintainer>(
    store: &S,
    maintainer: &mut M,
    epoch: Epoch,
    close: &Close,
    valid: Valid,
    rules: &Rules,
) -> Result<(Seal, Vec<Name>)> {
    let (replaced, forgotten) = (valid.segments.clone(), valid.forgotten.clone());
    let decision = maintainer.decide(epoch, close, valid).await?;
    let condemned: HashSet<&Name> = close.condemned.iter().collect();
    if decision.deleted.iter().any(|pack| !condemned.contains(pack)) {
        return Err(Error::Invalid("a pack that is not condemned was about to be deleted; nothing is done".into()));
    }
    if !rules.delete_after_seal {
        for segment in replaced.iter().filter(|s| !decision.segments.contains(s)) {
            store.delete(&Target::Object(Folder::Index, (segment.epoch, segment.id))).await?;
        }
    }
    let own = decision.deleted.clone();
    let seal = Seal {
        previous: close.previous,
        snapshots: decision.snapshots,
        segments: if rules.merged_by_seal { decision.segments } else { Vec::new() },
        deleted: decision.deleted,
        time: decision.time,
        forgotten,
        locked: decision.locked,
    };
    if store.create_seal(epoch, &seal).await? {
        return Ok((seal, own));
    }
    match store.read_seal(epoch).await? {
        Some((_, seal)) => Ok((seal, own)),
        None => Err(squatted(epoch, EpochRole::Seal)),
    }
}

/// G8: deletes what the seal permits.
async fn clean_up<S: Store>(store: &S, epoch: Epoch, seal: &Seal, packs: &[Name], rules: &Rules) -> Result<()> {
    let mut lists = store.list(&[Folder::Index, Folder::Snapshots]).await?;
    let (snapshots, index) = (lists.pop().unwrap_or_default(), lists.pop().unwrap_or_default());
    let segments: HashSet<Name> = seal.segments.iter().map(|s| (s.epoch, s.id)).collect();
    let valid: HashSet<Name> = seal.snapshots.iter().copied().collect();
    for (folder, names, keep) in [(Folder::Index, index, &segments), (Folder::Snapshots, snapshots, &valid)] {
        for name in names.into_iter().filter(|name| name.0 <= epoch && !keep.contains(name)) {
            store.delete(&Target::Object(folder, name)).await?;
        }
    }
    for pack in packs {
        store.delete(&Target::Object(Folder::Packs, *pack)).await?;
    }
    set_mark(store, epoch, EpochRole::Done).await?;
    for request in carried_out(store.requests().await?, epoch, &valid, rules) {
        store.delete(&Target::Request(request)).await?;
    }
    store.delete(&Target::Sessions(epoch)).await
}

/// Requests that the seal has carried out. One that came later than the seal names snapshots that are still valid.
fn carried_out(requests: Vec<Request>, epoch: Epoch, valid: &HashSet<Name>, rules: &Rules) -> Vec<ObjectId> {
    let gone = |name: &Name| name.0 <= epoch && (!valid.contains(name) || !rules.requests_carried_out);
    requests.into_iter().filter(|(_, names)| names.iter().all(gone)).map(|(id, _)| id).collect()
}

async fn set_mark<S: Store>(store: &S, epoch: Epoch, role: EpochRole) -> Result<()> {
    if store.create_mark(epoch, role).await? || store.has_mark(epoch, role).await? { Ok(()) } else { Err(squatted(epoch, role)) }
}

fn squatted(epoch: Epoch, role: EpochRole) -> Error {
    let object = format!("epochs/{epoch:010}.{}", role.suffix());
    Error::damaged(object, "is missing, damaged or forged; maintenance stops, and nothing is deleted")
}
