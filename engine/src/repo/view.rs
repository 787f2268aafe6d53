//! What counts in a repository at one moment: steps W1 to W3 of the writer's side of the epoch protocol.
//!
//! Epoch objects that do not authenticate are reported and ignored: whoever can write to the store must not be able to
//! stop writers with forged ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Repository;
use super::names::{self, EpochRole, SnapshotName};
use super::parallel;
use crate::backend::{ErrorKind, ObjectKey, ObjectMeta};
use crate::error::{Error, Result};
use crate::format::pack::SegmentName;
use crate::format::{ObjectKind, epoch, object, snapshot};
use crate::id::{Epoch, ObjectId};
use crate::monitor::{Monitor, Problem};

/// How often a view is begun anew because maintenance moved on meanwhile.
const MAX_ROUNDS: usize = 20;

/// What counts, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The epoch that a writer writes under: the smallest one without a close.
    pub epoch: Epoch,
    /// The latest seal: its epoch and the hash of the object.
    pub head: Option<(Epoch, ObjectId)>,
    /// Packs that may disappear: nothing new may refer to them.
    pub condemned: HashSet<(Epoch, ObjectId)>,
    /// Packs that a repair has found damaged or missing: nothing new may refer to them either, but they do not disappear.
    pub damaged: HashSet<(Epoch, ObjectId)>,
    /// Segments that count and cannot be read.
    pub unreadable: Vec<SegmentName>,
    /// Index segments that count.
    pub segments: Vec<SegmentName>,
    /// Those among them that a writer must do without (W3): of an epoch whose fence stands and that no seal ends yet.
    pub fenced: HashSet<SegmentName>,
    /// Snapshots that count and are not forgotten.
    pub snapshots: Vec<SnapshotName>,
    /// Those among them that the latest seal names; the others are committed, but no seal confirms them yet.
    pub sealed: HashSet<SnapshotName>,
    /// What is wrong with the sequence of epochs; nothing may be written until it is mended.
    pub damage: Option<String>,
}

impl View {
    /// Whether nothing new may refer to a pack.
    #[must_use]
    pub fn is_barred(&self, pack: &(Epoch, ObjectId)) -> bool {
        self.condemned.contains(pack) || self.damaged.contains(pack)
    }
}

type PackNames = HashSet<(Epoch, ObjectId)>;
type Marks = BTreeMap<Epoch, BTreeSet<EpochRole>>;

impl Repository {
    /// Looks at the store and says what counts. Damage in the sequence of epochs is reported; a writer must stop at it
    /// (see [`View::damage`]).
    pub fn load_view(&self, monitor: &dyn Monitor) -> Result<View> {
        for _ in 0..MAX_ROUNDS {
            match self.try_view(monitor) {
                Ok(Some(view)) => return Ok(view),
                Ok(None) => {}
                // A newer seal has replaced an object that was about to be read.
                Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Invalid("the repository's maintenance does not come to rest; try again later".into()))
    }

    fn try_view(&self, monitor: &dyn Monitor) -> Result<Option<View>> {
        // W1
        let marks = self.list_epochs()?;
        let mut view = self.current_epoch(&marks, monitor)?;
        // W2
        let seal = self.latest_seal(&marks, monitor)?;
        let sealed_epoch = seal.as_ref().map(|(e, ..)| *e);
        // Between the two looks at the epochs their order does not matter, so they go out together.
        let mut lists = parallel::map(self.backend.concurrency(), &["index", "snapshots"], |folder| self.list_under(folder));
        let snapshots = lists.pop().unwrap_or(Ok(Vec::new()))?;
        let segments = lists.pop().unwrap_or(Ok(Vec::new()))?;
        let segments: Vec<SegmentName> = segments.into_iter().map(|(epoch, id)| SegmentName { epoch, id }).collect();
        // W3
        let again = self.list_epochs()?;
        let sealed_meanwhile = again
            .iter()
            .any(|(e, m)| m.contains(&EpochRole::Seal) && sealed_epoch < Some(*e) && !marks_has(&marks, *e, EpochRole::Seal));
        if sealed_meanwhile {
            return Ok(None);
        }
        let after_seal = |e: Epoch| sealed_epoch.is_none_or(|s| e > s);
        let fenced = |e: Epoch| marks_has(&again, e, EpochRole::Fence);
        view.segments = segments.into_iter().filter(|s| after_seal(s.epoch)).collect();
        view.fenced = view.segments.iter().filter(|s| s.epoch < view.epoch && fenced(s.epoch)).copied().collect();
        view.damage = self.sequence_damage(&marks, view.epoch, sealed_epoch, monitor)?;
        let mut valid: Vec<SnapshotName> =
            snapshots.into_iter().filter(|(e, _)| after_seal(*e)).map(|(epoch, id)| SnapshotName { epoch, id }).collect();
        if let Some((epoch, id, seal)) = seal {
            view.head = Some((epoch, id));
            view.segments.extend(seal.segments);
            view.sealed = seal.snapshots.into_iter().map(|(epoch, id)| SnapshotName { epoch, id }).collect();
            valid.extend(&view.sealed);
        }
        let (forgotten, damaged) = self.requests(monitor)?;
        view.damaged = damaged;
        valid.retain(|s| !forgotten.contains(s));
        valid.sort_unstable();
        valid.dedup();
        view.snapshots = valid;
        view.segments.sort_unstable();
        view.segments.dedup();
        Ok(Some(view))
    }

    fn list_epochs(&self) -> Result<Marks> {
        let mut marks = Marks::new();
        self.backend.list("epochs/", &mut |meta| {
            if let Some((epoch, role)) = names::parse_epoch_role(&meta.key) {
                marks.entry(epoch).or_default().insert(role);
            }
        })?;
        Ok(marks)
    }

    fn list_under(&self, folder: &str) -> Result<Vec<(Epoch, ObjectId)>> {
        let mut found = Vec::new();
        self.backend.list(&format!("{folder}/"), &mut |meta| found.extend(names::parse_epoch_id(&meta.key, folder)))?;
        Ok(found)
    }

    /// The smallest epoch without an authentic close, and what those before it condemn and is not deleted yet.
    fn current_epoch(&self, marks: &Marks, monitor: &dyn Monitor) -> Result<View> {
        let mut view = View::default();
        while marks_has(marks, view.epoch, EpochRole::Close) {
            let is_done =
                marks_has(marks, view.epoch, EpochRole::Done) && self.mark_is_authentic(view.epoch, EpochRole::Done, monitor)?;
            if !is_done {
                let object = names::epoch(view.epoch, EpochRole::Close);
                let bytes = self.backend.read(&object, object::MAX_SIZE)?;
                match epoch::open_close(&self.keys.epochs, self.id(), view.epoch, &bytes) {
                    Ok(close) => view.condemned.extend(close.condemned),
                    Err(e) => {
                        report_forged(monitor, &object, &e);
                        break;
                    }
                }
            }
            view.epoch += 1;
        }
        Ok(view)
    }

    /// A fence, seal or done of an epoch that is still current, or a done without its seal, shows that a close or a seal was
    /// damaged or removed: a writer would work under the wrong epoch.
    fn sequence_damage(
        &self,
        marks: &Marks,
        current: Epoch,
        sealed: Option<Epoch>,
        monitor: &dyn Monitor,
    ) -> Result<Option<String>> {
        for (epoch, roles) in marks {
            let too_early = *epoch >= current
                && roles.contains(&EpochRole::Fence)
                && self.mark_is_authentic(*epoch, EpochRole::Fence, monitor)?;
            if too_early {
                return Ok(Some(format!(
                    "{}: there is a fence, but the close is missing or damaged",
                    names::epoch(*epoch, EpochRole::Close)
                )));
            }
            let unsealed = sealed < Some(*epoch)
                && roles.contains(&EpochRole::Done)
                && self.mark_is_authentic(*epoch, EpochRole::Done, monitor)?;
            if unsealed {
                return Ok(Some(format!(
                    "{}: the epoch is done, but its seal is missing or damaged",
                    names::epoch(*epoch, EpochRole::Seal)
                )));
            }
        }
        Ok(None)
    }

    fn latest_seal(&self, marks: &Marks, monitor: &dyn Monitor) -> Result<Option<(Epoch, ObjectId, epoch::Seal)>> {
        for (e, _) in marks.iter().rev().filter(|(_, roles)| roles.contains(&EpochRole::Seal)) {
            let object = names::epoch(*e, EpochRole::Seal);
            let bytes = self.backend.read(&object, object::MAX_SIZE)?;
            match epoch::open_seal(&self.keys.epochs, self.id(), *e, &bytes) {
                Ok(seal) => return Ok(Some((*e, ObjectId::of(&bytes), seal))),
                Err(error) => report_forged(monitor, &object, &error),
            }
        }
        Ok(None)
    }

    /// W8: whether the fence of an epoch stands.
    pub fn is_fenced(&self, epoch: Epoch, monitor: &dyn Monitor) -> Result<bool> {
        match self.mark_is_authentic(epoch, EpochRole::Fence, monitor) {
            Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => Ok(false),
            other => other,
        }
    }

    fn mark_is_authentic(&self, e: Epoch, role: EpochRole, monitor: &dyn Monitor) -> Result<bool> {
        let object = names::epoch(e, role);
        let kind = if role == EpochRole::Fence { ObjectKind::Fence } else { ObjectKind::Done };
        let bytes = self.backend.read(&object, object::MAX_SIZE)?;
        let result = epoch::open_mark(&self.keys.epochs, kind, self.id(), e, &bytes);
        if let Err(error) = &result {
            report_forged(monitor, &object, error);
        }
        Ok(result.is_ok())
    }

    /// Snapshots that somebody asked to forget, and packs that were found damaged.
    fn requests(&self, monitor: &dyn Monitor) -> Result<(HashSet<SnapshotName>, PackNames)> {
        let lists = parallel::map(self.backend.concurrency(), &["forget", "damaged"], |folder| -> Result<Vec<ObjectKey>> {
            let mut found = Vec::new();
            let mut each = |meta: ObjectMeta| found.extend(names::parse_id(&meta.key, folder).map(|_| meta.key));
            self.backend.list(&format!("{folder}/"), &mut each)?;
            Ok(found)
        });
        let mut objects = Vec::new();
        for list in lists {
            objects.extend(list?);
        }
        let read = parallel::map(self.backend.concurrency(), &objects, |object| self.backend.read(object, object::MAX_SIZE));
        let (mut forgotten, mut damaged) = (HashSet::new(), PackNames::new());
        for (object, bytes) in objects.into_iter().zip(read) {
            let (key, bytes) = (&self.keys.meta, bytes?);
            let opened = if object.as_str().starts_with("forget/") {
                let opened = snapshot::open_forget(key, self.id(), &bytes);
                opened.map(|names| forgotten.extend(names.into_iter().map(|(epoch, id)| SnapshotName { epoch, id })))
            } else {
                snapshot::open_damage(key, self.id(), &bytes).map(|names| damaged.extend(names))
            };
            if let Err(e) = opened {
                report_forged(monitor, &object, &e);
            }
        }
        Ok((forgotten, damaged))
    }
}

fn marks_has(marks: &Marks, epoch: Epoch, role: EpochRole) -> bool {
    marks.get(&epoch).is_some_and(|roles| roles.contains(&role))
}

fn report_forged(monitor: &dyn Monitor, object: &dyn std::fmt::Display, error: &object::FormatError) {
    monitor.problem(Problem { subject: object.to_string(), message: format!("{error}; ignored") });
}
