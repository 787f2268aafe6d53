//! Who acts on the model's store: the protocol's own steps, with the model's answers to what they leave open.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::model::{
    self, Code, EPOCHS, NO_TIME, Op, Packs, Reply, code, code_of, name_of, pack_mask, pack_names, segment_code, union,
};
use crate::error::{Error, Result};
use crate::format::epoch::{Close, EpochRole, Seal};
use crate::format::pack::SegmentName;
use crate::format::snapshot::SnapshotName;
use crate::id::{Epoch, ObjectId};
use crate::protocol::{
    self, Commit, Decision, Folder, Maintainer, Marks, Name, Request, Rules, Store, Target, Valid, View, Writer,
};

/// An actor's way to the store. It replays the replies that it was given, then stops at the next call.
#[derive(Clone)]
pub(super) struct Port(Rc<Inner>);

struct Inner {
    log: RefCell<Vec<Reply>>,
    at: Cell<usize>,
    pending: RefCell<Option<Op>>,
}

impl Port {
    pub(super) fn new(log: Vec<Reply>) -> Self {
        Self(Rc::new(Inner { log: RefCell::new(log), at: Cell::new(0), pending: RefCell::default() }))
    }

    /// The call that waits for a reply.
    pub(super) fn pending(&self) -> Option<Op> {
        self.0.pending.borrow().clone()
    }

    /// Answers it.
    pub(super) fn reply(&self, reply: Reply) {
        *self.0.pending.borrow_mut() = None;
        self.0.log.borrow_mut().push(reply);
    }

    async fn call(&self, op: Op) -> Reply {
        poll_fn(|_| {
            let at = self.0.at.get();
            if let Some(reply) = self.0.log.borrow().get(at) {
                self.0.at.set(at + 1);
                return Poll::Ready(reply.clone());
            }
            *self.0.pending.borrow_mut() = Some(op.clone());
            Poll::Pending
        })
        .await
    }

    async fn yes(&self, op: Op) -> bool {
        matches!(self.call(op).await, Reply::Yes(true))
    }

    async fn names(&self, folder: Folder) -> Vec<Code> {
        let (mut all, mut after) = (Vec::new(), None);
        while let Reply::Names(page, more) = self.call(Op::List(folder, after)).await {
            after = page.last().copied();
            all.extend(page);
            if !more {
                break;
            }
        }
        all
    }

    /// One of `options`.
    async fn choose<T: Copy>(&self, options: &[T]) -> Option<T> {
        match options {
            [] => None,
            [only] => Some(*only),
            several => match self.call(Op::Choose(u8::try_from(several.len()).expect("few"))).await {
                Reply::Number(n) => several.get(usize::from(n)).copied(),
                _ => None,
            },
        }
    }
}

fn seal_id(epoch: Epoch) -> ObjectId {
    name_of(code(epoch, 0xabc, 0)).1
}

impl Store for Port {
    async fn list_epochs(&self) -> Result<Marks> {
        let Reply::Marks(bits) = self.call(Op::Epochs).await else { return Ok(Marks::new()) };
        let mut marks = Marks::new();
        for (role, bits) in EpochRole::ALL.into_iter().zip(bits) {
            for epoch in (0..EPOCHS as Epoch).filter(|e| bits >> e & 1 == 1) {
                marks.entry(epoch).or_default().insert(role);
            }
        }
        Ok(marks)
    }

    async fn list(&self, folders: &[Folder]) -> Result<Vec<Vec<Name>>> {
        let mut lists = Vec::new();
        for folder in folders {
            lists.push(self.names(*folder).await.into_iter().map(name_of).collect());
        }
        Ok(lists)
    }

    async fn requests(&self) -> Result<Vec<Request>> {
        let Reply::Names(names, _) = self.call(Op::Requests).await else { return Ok(Vec::new()) };
        Ok(names.into_iter().map(|c| (name_of(c).1, vec![name_of(c)])).collect())
    }

    async fn read_close(&self, epoch: Epoch) -> Result<Option<Close>> {
        let Reply::Close(Some(close)) = self.call(Op::ReadClose(epoch)).await else { return Ok(None) };
        let previous = epoch.checked_sub(1).map(seal_id);
        Ok(Some(Close { run: [close.run; 16], condemned: pack_names(close.condemned), previous }))
    }

    async fn read_seal(&self, epoch: Epoch) -> Result<Option<(ObjectId, Seal)>> {
        let Reply::Seal(Some(seal)) = self.call(Op::ReadSeal(epoch)).await else { return Ok(None) };
        let segment = |c: Code| SegmentName { epoch: model::epoch_of(c), id: name_of(c).1 };
        let seal = Seal {
            previous: epoch.checked_sub(1).map(seal_id),
            snapshots: seal.snapshots.into_iter().map(name_of).collect(),
            segments: seal.segments.into_iter().map(segment).collect(),
            deleted: pack_names(seal.deleted),
            time: NO_TIME,
            forgotten: Vec::new(),
            locked: None,
        };
        Ok(Some((seal_id(epoch), seal)))
    }

    async fn has_mark(&self, epoch: Epoch, role: EpochRole) -> Result<bool> {
        Ok(self.yes(Op::HasMark(epoch, role)).await)
    }

    async fn create_close(&self, epoch: Epoch, close: &Close) -> Result<bool> {
        let close = model::Close { run: close.run[0], condemned: pack_mask(&close.condemned) };
        Ok(self.yes(Op::CreateClose(epoch, close)).await)
    }

    async fn create_seal(&self, epoch: Epoch, seal: &Seal) -> Result<bool> {
        let seal = model::Seal {
            snapshots: seal.snapshots.iter().map(code_of).collect(),
            segments: seal.segments.iter().map(segment_code).collect(),
            deleted: pack_mask(&seal.deleted),
        };
        Ok(self.yes(Op::CreateSeal(epoch, seal)).await)
    }

    async fn create_mark(&self, epoch: Epoch, role: EpochRole) -> Result<bool> {
        Ok(self.yes(Op::CreateMark(epoch, role)).await)
    }

    async fn delete(&self, target: &Target) -> Result<()> {
        let op = match target {
            Target::Object(Folder::Packs, name) => Op::DeletePack(u16::try_from(code_of(name) & 0xf).expect("4 bits")),
            Target::Object(Folder::Index, name) => Op::DeleteSegment(code_of(name)),
            Target::Object(Folder::Snapshots, name) => Op::DeleteSnapshot(code_of(name)),
            Target::Request(id) => Op::DeleteRequest(code_of(&(0, *id))),
            // Advice only: not in the model.
            Target::Sessions(_) => return Ok(()),
        };
        self.call(op).await;
        Ok(())
    }
}

/// An actor: begins in a state, acts, and ends (`None`) or goes on in another state, with nothing else remembered.
pub(super) type Actor = Rc<dyn Fn(Port, u32) -> Pin<Box<dyn Future<Output = Option<u32>>>>>;

/// Epochs that a model goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) epochs: Epoch,
    /// How often a writer begins anew after a fence.
    pub(super) attempts: u32,
    /// Whether maintenance copies the blob to a new pack before it condemns the old ones.
    pub(super) repacks: bool,
}

async fn look(port: &Port, rules: &Rules) -> View {
    loop {
        if let Ok(Some(view)) = protocol::view(port, rules).await {
            return view;
        }
    }
}

/// A writer of one snapshot. Its state: attempts so far, and packs of the attempt before.
pub(super) fn writer(number: u32, rules: Rules, bounds: Bounds) -> Actor {
    Rc::new(move |port, state| {
        Box::pin(async move {
            let (attempt, before) = (state >> 16, (state & 0xffff) as Packs);
            let mut view = look(&port, &rules).await;
            assert_eq!(view.damage, None);
            view.for_writing();
            if view.epoch >= bounds.epochs {
                return None;
            }
            let condemned =
                if rules.condemned_unusable { pack_mask(&view.condemned.iter().copied().collect::<Vec<_>>()) } else { 0 };
            let mut usable = union(view.segments.iter().map(segment_code)) & !condemned;
            if !rules.rebase_tests && before != 0 {
                usable = before;
            }
            let tag = number * 16 + attempt;
            let numbers: Vec<u16> = (0..16).filter(|n| usable >> n & 1 == 1).collect();
            let pack = match port.choose(&numbers).await {
                Some(pack) => pack,
                None => {
                    let Reply::Number(pack) = port.call(Op::CreatePack).await else { return None };
                    port.call(Op::CreateSegment(code(view.epoch, tag, 1 << pack))).await;
                    pack
                }
            };
            let finished = Finished { port: &port, pack, snapshot: code(view.epoch, tag, 0) };
            match protocol::commit(&port, &finished, view.epoch, &rules).await {
                Ok(Commit::Committed(name)) => {
                    port.call(Op::Report(code_of(&(name.epoch, name.id)))).await;
                    None
                }
                _ if attempt < bounds.attempts => Some((attempt + 1) << 16 | 1 << pack),
                _ => None,
            }
        })
    })
}

struct Finished<'a> {
    port: &'a Port,
    pack: u16,
    snapshot: Code,
}

impl Writer for Finished<'_> {
    async fn missing_packs(&self) -> Result<Vec<Name>> {
        let there = self.port.names(Folder::Packs).await;
        let own = model::pack_name(self.pack);
        Ok(if there.contains(&code_of(&own)) { Vec::new() } else { vec![own] })
    }

    async fn create_snapshot(&self) -> Result<SnapshotName> {
        self.port.call(Op::CreateSnapshot(self.snapshot)).await;
        let (epoch, id) = name_of(self.snapshot);
        Ok(SnapshotName { epoch, id })
    }
}

/// Maintenance, round after round.
pub(super) fn maintainer(number: u32, rules: Rules, bounds: Bounds) -> Actor {
    Rc::new(move |port, _| {
        Box::pin(async move {
            let mut round = ModelRound { port: &port, number, rules, skipped: BTreeSet::new() };
            let (epoch, close) = match protocol::unfinished(&port).await.ok()? {
                Some(found) => found,
                None => {
                    let (epoch, close, skipped) = plan(&port, number, &rules, bounds).await?;
                    if !protocol::close(&port, epoch, &close).await.ok()? {
                        return Some(0);
                    }
                    if !rules.forget_in_seal {
                        round.skipped = skipped;
                    }
                    (epoch, close)
                }
            };
            // Failing is stopping, until somebody tries again.
            drop(protocol::finish(&port, &mut round, epoch, &close, &rules).await);
            Some(0)
        })
    })
}

/// G1. Also the snapshots that are forgotten by then.
async fn plan(port: &Port, number: u32, rules: &Rules, bounds: Bounds) -> Option<(Epoch, Close, BTreeSet<Name>)> {
    let view = look(port, rules).await;
    if view.epoch >= bounds.epochs || view.unfinished.is_some() {
        return None;
    }
    let present = pack_mask(&port.names(Folder::Packs).await.into_iter().map(name_of).collect::<Vec<_>>());
    let known = union(view.segments.iter().map(segment_code));
    let (orphans, needed) = (present & !known, !view.snapshots.is_empty());
    let mut options = vec![0, orphans];
    if !needed {
        options.push(present);
    }
    for keep in (0..16).filter(|n| (known & present) >> n & 1 == 1) {
        options.push(present & !(1 << keep));
    }
    if bounds.repacks && needed && known & present != 0 {
        // Bit 15 stands for a copy that is made first.
        options.push(present | 1 << 15);
    }
    options.sort_unstable();
    options.dedup();
    let mut condemned = port.choose(&options).await?;
    if condemned >> 15 & 1 == 1 {
        let Reply::Number(pack) = port.call(Op::CreatePack).await else { return None };
        port.call(Op::CreateSegment(code(view.epoch, 0x40 + number, 1 << pack))).await;
        condemned &= !(1 << 15) & !(1 << pack);
    }
    let close = Close {
        run: [u8::try_from(number).ok()?; 16],
        condemned: pack_names(condemned),
        previous: view.epoch.checked_sub(1).map(seal_id),
    };
    Some((view.epoch, close, view.forgotten.iter().map(|s| (s.epoch, s.id)).collect()))
}

struct ModelRound<'a> {
    port: &'a Port,
    number: u32,
    rules: Rules,
    /// Snapshots that do not count as needed, though the seal may name them: a rule that is off.
    skipped: BTreeSet<Name>,
}

impl Maintainer for ModelRound<'_> {
    async fn drain(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }

    async fn decide(&mut self, epoch: Epoch, close: &Close, valid: Valid) -> Result<Decision> {
        let present = pack_mask(&self.port.names(Folder::Packs).await.into_iter().map(name_of).collect::<Vec<_>>());
        if !valid.gone.is_empty() {
            return Err(Error::Invalid("what they named is not known".into()));
        }
        let condemned = pack_mask(&close.condemned);
        let known = union(valid.segments.iter().map(segment_code));
        let is_needed = valid.snapshots.iter().any(|s| !self.skipped.contains(s));
        let mut deleted = condemned;
        if is_needed && self.rules.rescue && known & present & !condemned == 0 {
            let only = known & present & condemned;
            if only == 0 {
                return Err(Error::Invalid("needed, and nowhere".into()));
            }
            deleted &= !(1 << only.trailing_zeros());
        }
        let mut segments = valid.segments;
        if segments.len() > 1 || known & deleted != 0 {
            // Unless a seal has to name it, it would have to count by its epoch.
            let under = if self.rules.merged_by_seal { epoch } else { epoch + 1 };
            let merged = code(under, 0x80 + self.number, known & !deleted);
            if known & !deleted == 0 {
                segments.clear();
            } else {
                self.port.call(Op::CreateSegment(merged)).await;
                segments = vec![SegmentName { epoch: under, id: name_of(merged).1 }];
            }
        }
        Ok(Decision { snapshots: valid.snapshots, segments, deleted: pack_names(deleted), time: NO_TIME, locked: None })
    }
}

/// Asks to forget a snapshot.
pub(super) fn forgetter(snapshot: Code) -> Actor {
    Rc::new(move |port, _| {
        Box::pin(async move {
            port.call(Op::CreateRequest(snapshot)).await;
            None
        })
    })
}

/// Takes a request to forget back, and tells the user if it is certain that this came in time.
pub(super) fn undeleter(snapshot: Code, rules: Rules) -> Actor {
    Rc::new(move |port, _| {
        Box::pin(async move {
            let name = {
                let (epoch, id) = name_of(snapshot);
                SnapshotName { epoch, id }
            };
            if !look(&port, &rules).await.forgotten.contains(&name) {
                return None;
            }
            port.call(Op::Withdraw(snapshot)).await;
            let after = look(&port, &rules).await;
            if after.snapshots.contains(&name) && after.unfinished.is_none() {
                port.call(Op::Report(snapshot)).await;
            }
            None
        })
    })
}

/// Deletions and creations that a crash may leave on their way: they land at any later time, or never.
pub(super) fn may_be_late(op: &Op) -> bool {
    !matches!(
        op,
        Op::Epochs
            | Op::List(..)
            | Op::Requests
            | Op::ReadClose(_)
            | Op::ReadSeal(_)
            | Op::HasMark(..)
            | Op::Report(_)
            | Op::Choose(_)
    )
}
