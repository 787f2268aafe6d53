//! The store of the model: what there is, what one call does to it, and what must always hold.
//!
//! One blob is needed, and any number of packs may hold it. Names carry what an object says: a segment's the packs in it, so
//! that a state is small and two equal states are the same.

use std::collections::BTreeSet;

use crate::entry::Timestamp;
use crate::format::epoch::EpochRole;
use crate::format::pack::SegmentName;
use crate::id::{Epoch, ObjectId};
use crate::protocol::{Folder, Name};

/// Epochs of a model, at most.
pub(super) const EPOCHS: usize = 3;

/// An object's name: epoch (4 bits), tag (12 bits), a number or a set of packs (16 bits).
pub(super) type Code = u32;

/// A set of packs, one bit each.
pub(super) type Packs = u16;

pub(super) fn code(epoch: Epoch, tag: u32, low: u16) -> Code {
    u32::try_from(epoch).expect("small") << 28 | tag << 16 | u32::from(low)
}

pub(super) fn epoch_of(code: Code) -> Epoch {
    u64::from(code >> 28)
}

/// The packs that a segment names.
pub(super) fn packs_of(segment: Code) -> Packs {
    u16::try_from(segment & 0xffff).expect("16 bits")
}

pub(super) fn name_of(code: Code) -> Name {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&code.to_le_bytes());
    (epoch_of(code), ObjectId(id))
}

pub(super) fn code_of(name: &Name) -> Code {
    let [a, b, c, d, ..] = name.1.0;
    Code::from_le_bytes([a, b, c, d])
}

pub(super) fn pack_name(number: u16) -> Name {
    name_of(code(0, 0, number))
}

pub(super) fn pack_mask(names: &[Name]) -> Packs {
    names.iter().fold(0, |mask, name| mask | 1 << (code_of(name) & 0xf))
}

pub(super) fn pack_names(mask: Packs) -> Vec<Name> {
    (0..16).filter(|n| mask >> n & 1 == 1).map(pack_name).collect()
}

pub(super) fn segment_code(name: &SegmentName) -> Code {
    code_of(&(name.epoch, name.id))
}

pub(super) fn union(segments: impl IntoIterator<Item = Code>) -> Packs {
    segments.into_iter().fold(0, |mask, segment| mask | packs_of(segment))
}

pub(super) const NO_TIME: Timestamp = Timestamp { seconds: 0, nanos: 0 };

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Close {
    pub(super) run: u8,
    pub(super) condemned: Packs,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Seal {
    pub(super) snapshots: Vec<Code>,
    pub(super) segments: Vec<Code>,
    pub(super) deleted: Packs,
}

/// One call to the store, or something that the model has to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Op {
    Epochs,
    /// A page of a listing: what comes after a name.
    List(Folder, Option<Code>),
    Requests,
    ReadClose(Epoch),
    ReadSeal(Epoch),
    HasMark(Epoch, EpochRole),
    CreateClose(Epoch, Close),
    CreateSeal(Epoch, Seal),
    CreateMark(Epoch, EpochRole),
    CreatePack,
    CreateSegment(Code),
    CreateSnapshot(Code),
    CreateRequest(Code),
    DeletePack(u16),
    DeleteSegment(Code),
    DeleteSnapshot(Code),
    DeleteRequest(Code),
    /// The user takes a request back.
    Withdraw(Code),
    /// The user was told that a snapshot is there.
    Report(Code),
    /// One of so many possibilities.
    Choose(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Done,
    Yes(bool),
    Number(u16),
    Marks([u8; 4]),
    /// Names, and whether there are more.
    Names(Vec<Code>, bool),
    Close(Option<Close>),
    Seal(Option<Seal>),
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct World {
    pub(super) packs: Packs,
    pub(super) segments: BTreeSet<Code>,
    pub(super) snapshots: BTreeSet<Code>,
    pub(super) requests: BTreeSet<Code>,
    pub(super) closes: [Option<Close>; EPOCHS],
    pub(super) seals: [Option<Seal>; EPOCHS],
    pub(super) fences: u8,
    pub(super) done: u8,
    pub(super) next_pack: u16,
    /// Snapshots that were reported and not asked to be forgotten.
    pub(super) promised: BTreeSet<Code>,
    /// Snapshots that were asked to be forgotten.
    pub(super) unwanted: BTreeSet<Code>,
}

/// How the model's store behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// Names in a page of a listing.
    pub(super) page: usize,
    /// Whether a seal can be replaced: a rule that is off.
    pub(super) seals_replaced: bool,
    /// Whether what a seal does not name is void.
    pub(super) void: bool,
}

fn index(epoch: Epoch) -> usize {
    usize::try_from(epoch).expect("small")
}

impl World {
    /// A pack with the blob, and a segment that names it: what an interrupted backup leaves.
    pub(super) fn with_pack() -> Self {
        Self { packs: 1, segments: [code(0, 0xff, 1)].into(), next_pack: 1, ..Self::default() }
    }

    /// And a snapshot that was reported.
    pub(super) fn with_snapshot() -> Self {
        let first = code(0, 0xff, 0);
        Self { snapshots: [first].into(), promised: [first].into(), ..Self::with_pack() }
    }

    pub(super) fn apply(&mut self, op: &Op, habits: Habits) -> Reply {
        match op {
            Op::Epochs => {
                let bits = |there: &dyn Fn(usize) -> bool| (0..EPOCHS).fold(0_u8, |m, e| m | u8::from(there(e)) << e);
                let (closes, seals) = (bits(&|e| self.closes[e].is_some()), bits(&|e| self.seals[e].is_some()));
                Reply::Marks([closes, self.fences, seals, self.done])
            }
            Op::List(folder, after) => {
                let packs: BTreeSet<Code>;
                let all = match folder {
                    Folder::Index => &self.segments,
                    Folder::Snapshots => &self.snapshots,
                    Folder::Packs => {
                        packs = pack_names(self.packs).iter().map(code_of).collect();
                        &packs
                    }
                };
                let rest: Vec<Code> = all.iter().filter(|c| Some(**c) > *after).copied().collect();
                let page: Vec<Code> = rest.iter().take(habits.page).copied().collect();
                let more = page.len() < rest.len();
                Reply::Names(page, more)
            }
            Op::Requests => Reply::Names(self.requests.iter().copied().collect(), false),
            Op::ReadClose(e) => Reply::Close(self.closes.get(index(*e)).cloned().flatten()),
            Op::ReadSeal(e) => Reply::Seal(self.seals.get(index(*e)).cloned().flatten()),
            Op::HasMark(e, role) => Reply::Yes(self.marks(*role) >> e & 1 == 1),
            Op::CreateClose(e, close) => Reply::Yes(create(&mut self.closes[index(*e)], close)),
            Op::CreateSeal(e, seal) => {
                if habits.seals_replaced {
                    self.seals[index(*e)] = None;
                }
                Reply::Yes(create(&mut self.seals[index(*e)], seal))
            }
            Op::CreateMark(e, role) => {
                let new = self.marks(*role) >> e & 1 == 0;
                match role {
                    EpochRole::Fence => self.fences |= 1 << e,
                    _ => self.done |= 1 << e,
                }
                Reply::Yes(new)
            }
            Op::CreatePack => {
                let number = self.next_pack;
                self.next_pack += 1;
                self.packs |= 1 << number;
                Reply::Number(number)
            }
            Op::CreateSegment(c) => done(self.segments.insert(*c)),
            Op::CreateSnapshot(c) => done(self.snapshots.insert(*c)),
            Op::CreateRequest(c) => {
                self.promised.remove(c);
                self.unwanted.insert(*c);
                done(self.requests.insert(*c))
            }
            Op::DeletePack(n) => {
                self.packs &= !(1 << n);
                Reply::Done
            }
            Op::DeleteSegment(c) => done(self.segments.remove(c)),
            Op::DeleteSnapshot(c) => done(self.snapshots.remove(c)),
            Op::DeleteRequest(c) => done(self.requests.remove(c)),
            Op::Withdraw(c) => {
                self.unwanted.remove(c);
                done(self.requests.remove(c))
            }
            Op::Report(c) => done(self.promised.insert(*c)),
            Op::Choose(_) => Reply::Done,
        }
    }

    fn marks(&self, role: EpochRole) -> u8 {
        if role == EpochRole::Fence { self.fences } else { self.done }
    }

    /// Whether a call reads what can never change any more, so that it does not matter when it is made.
    pub(super) fn is_settled(&self, op: &Op, habits: Habits) -> bool {
        match op {
            Op::ReadClose(e) => self.closes[index(*e)].is_some(),
            Op::ReadSeal(e) => self.seals[index(*e)].is_some() && !habits.seals_replaced,
            Op::HasMark(e, role) => self.marks(*role) >> e & 1 == 1,
            _ => false,
        }
    }

    fn last_seal(&self) -> Option<(Epoch, &Seal)> {
        self.seals.iter().enumerate().rev().find_map(|(e, seal)| Some((e as Epoch, seal.as_ref()?)))
    }

    fn is_valid(&self, snapshot: Code) -> bool {
        let there = self.snapshots.contains(&snapshot);
        there && self.last_seal().is_none_or(|(e, seal)| epoch_of(snapshot) > e || seal.snapshots.contains(&snapshot))
    }

    /// What must hold in every state; else, what does not.
    pub(super) fn violation(&self, habits: Habits) -> Option<&'static str> {
        if self.promised.iter().any(|s| !self.is_valid(*s)) {
            return Some("a reported snapshot is void or gone");
        }
        let counts = |segment: &&Code| match self.last_seal() {
            Some((e, seal)) => epoch_of(**segment) > e || seal.segments.contains(*segment) || !habits.void,
            None => true,
        };
        let known = union(self.segments.iter().filter(counts).copied());
        // What a seal names is confirmed to everybody, though its writer may never have reported it.
        let sealed = self.last_seal().map_or(&[][..], |(_, seal)| &seal.snapshots);
        let needed = !self.promised.is_empty() || sealed.iter().any(|s| !self.unwanted.contains(s));
        if needed && known & self.packs == 0 {
            return Some("a needed blob is lost");
        }
        if self.unwanted.iter().any(|s| self.is_valid(*s) && !self.requests.contains(s)) {
            return Some("a forgotten snapshot is back");
        }
        None
    }
}

fn create<T: Clone>(slot: &mut Option<T>, value: &T) -> bool {
    let new = slot.is_none();
    slot.get_or_insert_with(|| value.clone());
    new
}

fn done(_: bool) -> Reply {
    Reply::Done
}
