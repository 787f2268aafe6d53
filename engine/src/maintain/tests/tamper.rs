//! What whoever holds the store can do to it. Each of it is refused, or raises an alarm that says what happened; what is not
//! noticed at once does no harm.

use std::sync::Arc;

use tempfile::TempDir;

use super::world::{World, thorough, tree};
use super::{forget, trees};
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ObjectKey};
use crate::check::{self, CheckLevel};
use crate::error::{Error, Result};
use crate::format::pack::SegmentName;
use crate::monitor::{Collector, Problem};
use crate::repo::names::{self, EpochRole};
use crate::repo::{HeadName, Repository, SnapshotName, Watch, load_segment};
use crate::snapshot;

/// A machine that remembers what it has seen.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn watch(&self) -> Watch {
        Watch { dir: Some(self.0.path().to_owned()), ..Watch::default() }
    }

    /// The repository in a store as this machine opens it.
    fn on(&self, store: &Arc<MemBackend>) -> World {
        open(store, self.watch())
    }
}

fn open(store: &Arc<MemBackend>, watch: Watch) -> World {
    let repo = Repository::open(Arc::clone(store) as _, b"x").unwrap().watched(watch);
    World { store: Arc::clone(store), repo: Arc::new(repo) }
}

/// A store with an empty repository, and a machine.
fn begin() -> (Arc<MemBackend>, Machine) {
    (World::new().store, Machine::new())
}

fn keys(store: &MemBackend, prefix: &str) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    store.list(prefix, &mut |meta| keys.push(meta.key)).unwrap();
    keys
}

fn copy(store: &MemBackend) -> Arc<MemBackend> {
    let copy = Arc::new(MemBackend::new());
    put_back(&copy, store, "");
    copy
}

/// Adds what `old` has below a prefix.
fn put_back(store: &MemBackend, old: &MemBackend, prefix: &str) {
    for key in keys(old, prefix) {
        store.overwrite(&key, old.read(&key, u64::MAX).unwrap());
    }
}

fn swap(store: &MemBackend, a: &ObjectKey, b: &ObjectKey) {
    let (first, second) = (store.read(a, u64::MAX).unwrap(), store.read(b, u64::MAX).unwrap());
    store.overwrite(a, second);
    store.overwrite(b, first);
}

/// What the machine says when it looks at the repository.
#[track_caller]
fn alarm(world: &World) -> String {
    match world.repo.load_view(&Collector::default()) {
        Err(Error::Rollback(text) | Error::UnexpectedHead(text)) => text,
        other => panic!("no alarm: {other:?}"),
    }
}

#[track_caller]
fn assert_quiet(world: &World) {
    let monitor = Collector::default();
    world.repo.load_view(&monitor).unwrap();
    assert_eq!((monitor.problems(), monitor.notes()), (vec![], vec![]));
}

/// The snapshots that a list shows, and what it complains of.
fn listed(world: &World) -> (Vec<SnapshotName>, Vec<Problem>) {
    let monitor = Collector::default();
    let view = world.repo.load_view(&monitor).unwrap();
    let all = snapshot::list(&world.repo, &view, &monitor).unwrap();
    (all.into_iter().map(|record| record.name).collect(), monitor.problems())
}

#[track_caller]
fn assert_mentions(problems: &[Problem], object: &ObjectKey, what: &str) {
    let found = problems.iter().any(|p| p.subject == object.as_str() && p.message.contains(what));
    assert!(found, "{object}, {what}: {problems:?}");
}

#[test]
fn dropped_snapshots() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let own = trees().map(|tree| world.backup(&tree).unwrap());
    assert_quiet(&world);
    let object = names::snapshot(&own[1]);
    let before = copy(&store);
    store.delete(&object).unwrap();
    assert!(alarm(&world).contains(object.as_str()), "{}", alarm(&world));
    assert!(matches!(world.backup(&trees()[0]), Err(Error::Rollback(_))));
    assert!(matches!(world.prune(&thorough()), Err(Error::Rollback(_))));
    // Another machine does not know, and seals without it.
    Machine::new().on(&store).prune(&thorough()).unwrap();
    assert!(alarm(&world).contains("maintenance has not seen it"), "{}", alarm(&world));
    // Once sealed, it is missed by all.
    let store = before;
    let world = Machine::new().on(&store);
    world.prune(&thorough()).unwrap();
    store.delete(&object).unwrap();
    let stranger = Machine::new().on(&store);
    assert_mentions(&listed(&stranger).1, &object, "cannot be read");
    assert_mentions(&stranger.check(), &object, "not in the store");
    assert!(stranger.prune(&thorough()).is_err(), "nothing is deleted");
}

#[test]
fn forgotten_snapshots_raise_no_alarm() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let own = trees().map(|tree| world.backup(&tree).unwrap());
    let other = Machine::new().on(&store);
    forget(&other.repo, &own[..1]).unwrap();
    assert_quiet(&world);
    for _ in 0..3 {
        other.prune(&thorough()).unwrap();
        other.backup(&trees()[0]).unwrap();
    }
    assert_quiet(&world);
    assert_quiet(&world);
}

#[test]
fn added_snapshots() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let own = trees().map(|tree| world.backup(&tree).unwrap());
    let foreign = World::new();
    let stranger = foreign.backup(&trees()[0]).unwrap();
    put_back(&store, &foreign.store, "snapshots/");
    let (names, problems) = listed(&world);
    assert!(!names.contains(&stranger), "{names:?}");
    assert_mentions(&problems, &names::snapshot(&stranger), "another repository");
    store.delete(&names::snapshot(&stranger)).unwrap();
    // One that was forgotten and pruned comes back: void for ever, under whatever epoch.
    let old = copy(&store);
    forget(&world.repo, &own[..1]).unwrap();
    world.prune(&thorough()).unwrap();
    put_back(&store, &old, "snapshots/");
    assert!(!listed(&world).0.contains(&own[0]));
    let again = names::snapshot(&SnapshotName { epoch: 1, ..own[0] });
    store.overwrite(&again, old.read(&names::snapshot(&own[0]), u64::MAX).unwrap());
    let (names, problems) = listed(&world);
    assert_eq!(names.len(), 2);
    assert_mentions(&problems, &again, "epoch");
}

#[test]
fn replaced_snapshots() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let own = trees().map(|tree| world.backup(&tree).unwrap());
    let [first, second] = [&own[0], &own[1]].map(names::snapshot);
    store.overwrite(&second, store.read(&first, u64::MAX).unwrap());
    let (names, problems) = listed(&world);
    assert!(names.contains(&own[0]) && !names.contains(&own[1]));
    assert_mentions(&problems, &second, "do not have the hash");
    assert!(world.contents(&own[1]).is_err());
}

#[test]
fn rolled_back_repositories() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let empty = copy(&store);
    let first = world.backup(&trees()[0]).unwrap();
    assert!(alarm(&machine.on(&empty)).contains(&first.id.to_string()));
    world.prune(&thorough()).unwrap();
    let head = || HeadName::short(world.repo.load_view(&Collector::default()).unwrap().head.unwrap());
    let (old, early) = (copy(&store), head());
    for seed in 1..3 {
        world.backup(&tree(&[("a", seed, 1000)])).unwrap();
        world.prune(&thorough()).unwrap();
    }
    let head = head();
    for (back, what) in [(&old, "latest seal is 0-"), (&empty, "has no seal")] {
        let text = alarm(&machine.on(back));
        assert!(text.contains(what) && text.contains(&head.to_string()), "{text}");
        // Somebody who was told the head knows as much as a machine that has seen it.
        let told = open(back, Watch { expected: Some(head.clone()), ..Watch::default() });
        assert!(alarm(&told).contains(what));
    }
    assert_quiet(&open(&store, Watch { expected: Some(head), ..Watch::default() }));
    assert_quiet(&open(&store, Watch { expected: Some(early), ..Watch::default() }));
    // Commands that look at keys only notice it, too.
    assert!(matches!(machine.on(&old).repo.check_head(&Collector::default()), Err(Error::Rollback(_))));
    // On purpose: noted once, and from then on that is how it is.
    let accepting = open(&old, Watch { accept: true, ..machine.watch() });
    let monitor = Collector::default();
    accepting.repo.load_view(&monitor).unwrap();
    assert_eq!(monitor.notes().len(), 1, "{:?}", monitor.notes());
    assert_quiet(&machine.on(&old));
    assert!(alarm(&machine.on(&empty)).contains("has no seal"));
}

#[test]
fn forked_repositories() {
    let (store, here) = begin();
    let there = Machine::new();
    here.on(&store).backup(&trees()[0]).unwrap();
    let fork = copy(&store);
    here.on(&store).prune(&thorough()).unwrap();
    there.on(&fork).prune(&thorough()).unwrap();
    let seal = names::epoch(0, EpochRole::Seal);
    assert!(alarm(&here.on(&fork)).contains(seal.as_str()));
    // Nor does it help to let the other one's history grow.
    for seed in 1..4 {
        there.on(&fork).backup(&tree(&[("a", seed, 1000)])).unwrap();
        there.on(&fork).prune(&thorough()).unwrap();
    }
    let text = alarm(&here.on(&fork));
    assert!(text.contains(seal.as_str()) && text.contains("history was replaced"), "{text}");
    // A snapshot says which seal its writer knew.
    here.on(&store).backup(&trees()[1]).unwrap();
    let fork = copy(&store);
    for key in keys(&fork, "epochs/") {
        fork.delete(&key).unwrap();
    }
    let merged = open(&fork, Watch::default());
    let own = keys(&fork, "snapshots/0000000001/");
    let text = "its writer saw a seal of epoch 0 that is not there";
    assert!(merged.check().iter().any(|p| p.subject == own[0].as_str() && p.message.contains(text)), "{:?}", merged.check());
}

/// Opens; by which object's parity, if by any.
fn opened(store: &Arc<MemBackend>) -> Result<Vec<ObjectKey>> {
    Repository::open(Arc::clone(store) as _, b"x").map(|repo| repo.opened_by_parity().to_vec())
}

/// A foreign key is never taken: the right one's parity is, and without that, nothing opens.
#[test]
fn swapped_keys() {
    let (store, machine) = begin();
    machine.on(&store).backup(&trees()[0]).unwrap();
    let (other, slot) = (World::new(), keys(&store, "keys/").remove(0));
    let foreign = keys(&other.store, "keys/").remove(0);
    let mut bytes = other.store.read(&foreign, u64::MAX).unwrap().to_vec();
    let foreign = bytes.clone();
    // With the right repository id, the slot's seal is wrong.
    bytes[16..32].copy_from_slice(&store.read(&names::config(), u64::MAX).unwrap()[16..32]);
    for (bad, parity) in [(&foreign, true), (&bytes, true), (&foreign, false), (&bytes, false)] {
        store.overwrite(&slot, bad.clone());
        if parity {
            assert_eq!(opened(&store).unwrap(), std::slice::from_ref(&slot));
        } else {
            store.delete(&names::parity_of(&slot)).unwrap();
            let refused = opened(&store).unwrap_err();
            assert!(matches!(refused, Error::Damaged { .. } | Error::WrongPassword { .. }), "{refused}");
        }
    }
}

#[test]
fn swapped_configurations() {
    let (store, _) = begin();
    let (config, parity) = (names::config(), names::parity_of(&names::config()));
    let good = store.read(&config, u64::MAX).unwrap();
    let copy = store.read(&parity, u64::MAX).unwrap();
    store.overwrite(&config, World::new().store.read(&config, u64::MAX).unwrap());
    assert_eq!(opened(&store).unwrap(), std::slice::from_ref(&config));
    // A foreign one with its parity.
    store.overwrite(&parity, World::new().store.read(&parity, u64::MAX).unwrap());
    assert!(opened(&store).is_err());
    for at in 64..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        store.overwrite(&config, bytes);
        store.overwrite(&parity, copy.clone());
        assert_eq!(opened(&store).unwrap(), std::slice::from_ref(&config), "byte {at}");
        store.delete(&parity).unwrap();
        assert!(matches!(opened(&store), Err(Error::Damaged { object, .. }) if object == "config"), "byte {at}");
    }
    store.overwrite(&config, good);
    assert!(opened(&store).unwrap().is_empty());
}

#[test]
fn replayed_packs() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let own = trees().map(|tree| world.backup(&tree).unwrap());
    let old = copy(&store);
    forget(&world.repo, &own[..2]).unwrap();
    world.prune(&thorough()).unwrap();
    put_back(&store, &old, "packs/");
    let report = check::run(&world.repo, None, &CheckLevel::ReadData, &(Arc::new(Collector::default()) as _)).unwrap();
    assert!(report.errors == 0 && report.unreferenced_packs > 0, "{report:?}");
    assert_eq!(world.contents(&own[2]).unwrap(), trees()[2]);
    world.prune(&thorough()).unwrap();
    assert_eq!(keys(&store, "packs/0000000000/").len() as u64, world.prune(&thorough()).unwrap().plan.all.packs);
    // An older pack in the place of another one is not taken for it.
    let packs = keys(&store, "packs/");
    let other = keys(&old, "packs/").into_iter().find(|key| !packs.contains(key)).unwrap();
    let replayed = old.read(&other, u64::MAX).unwrap();
    for pack in &packs {
        store.overwrite(pack, replayed.clone());
    }
    assert!(world.contents(&own[2]).is_err());
    let problems = world.check();
    assert!(packs.iter().all(|key| problems.iter().any(|p| p.subject == key.as_str())), "{problems:?}");
}

#[test]
fn swapped_names() {
    let (store, machine) = begin();
    let own = trees().map(|tree| machine.on(&store).backup(&tree).unwrap());
    for folder in ["packs/", "index/", "snapshots/"] {
        let store = copy(&store);
        let all = keys(&store, folder);
        for pair in all.windows(2) {
            swap(&store, &pair[0], &pair[1]);
        }
        let world = Machine::new().on(&store);
        let problems = world.check();
        for key in &all {
            assert!(problems.iter().any(|p| p.subject == key.as_str()), "{key}: {problems:?}");
        }
        for (name, tree) in own.iter().zip(trees()) {
            // What can be read is right.
            assert!(world.contents(name).map_or(true, |found| found == tree), "{folder}");
        }
    }
}

#[test]
fn late_segments() {
    let (store, machine) = begin();
    let world = machine.on(&store);
    let own = trees().map(|tree| world.backup(&tree).unwrap());
    let old = copy(&store);
    forget(&world.repo, &own[..2]).unwrap();
    world.prune(&thorough()).unwrap();
    let view = world.repo.load_view(&Collector::default()).unwrap();
    put_back(&store, &old, "index/");
    let again = world.repo.load_view(&Collector::default()).unwrap();
    assert_eq!(again.segments, view.segments, "what the seal does not name is void");
    // An earlier epoch's segment is none of a later one.
    let moved = ObjectKey::new(keys(&old, "index/")[0].as_str().replace("/0000000000/", "/0000000001/")).unwrap();
    store.overwrite(&moved, old.read(&keys(&old, "index/")[0], u64::MAX).unwrap());
    let (epoch, id) = names::parse_epoch_id(&moved, "index").unwrap();
    let refused = load_segment(&world.repo, &SegmentName { epoch, id }).map(drop).unwrap_err();
    assert!(refused.to_string().contains("epoch"), "{refused}");
    assert_eq!(world.check(), [], "nothing is missing without it");
    assert_eq!(world.contents(&own[2]).unwrap(), trees()[2]);
    let next = world.backup(&trees()[0]).unwrap();
    assert_eq!(world.contents(&next).unwrap(), trees()[0]);
}

/// Objects that somebody without the keys can put in the place of an epoch object: junk, another repository's, and an
/// earlier one of this repository.
fn forgeries(store: &MemBackend, role: EpochRole) -> [Vec<u8>; 3] {
    let other = World::new();
    other.backup(&trees()[0]).unwrap();
    other.prune(&thorough()).unwrap();
    let of = |store: &MemBackend| store.read(&names::epoch(0, role), u64::MAX).unwrap().to_vec();
    [vec![7; 4096], of(&other.store), of(store)]
}

#[test]
fn fake_fences_and_closes() {
    for role in [EpochRole::Fence, EpochRole::Close] {
        let (store, machine) = begin();
        let world = machine.on(&store);
        world.backup(&trees()[0]).unwrap();
        world.prune(&thorough()).unwrap();
        for forged in forgeries(&store, role) {
            let store = copy(&store);
            let (world, object) = (Machine::new().on(&store), names::epoch(1, role));
            store.overwrite(&object, forged);
            let monitor = Collector::default();
            let view = world.repo.load_view(&monitor).unwrap();
            assert!(view.epoch == 1 && view.damage.is_none(), "{role:?} {view:?}");
            assert_mentions(&monitor.problems(), &object, "ignored");
            // Writers go on; nothing is deleted until the forgery is away.
            let name = world.backup(&trees()[1]).unwrap();
            assert_eq!(world.contents(&name).unwrap(), trees()[1]);
            let before = keys(&store, "packs/");
            match world.prune(&thorough()) {
                Err(Error::Damaged { object: found, detail }) => {
                    assert!(found == object.as_str() && detail.contains("maintenance stops"), "{found}: {detail}");
                }
                other => panic!("{role:?}: {other:?}"),
            }
            assert!(before.iter().all(|key| store.size(key).is_ok()));
            store.delete(&object).unwrap();
            world.prune(&thorough()).unwrap();
            assert_eq!(world.contents(&name).unwrap(), trees()[1]);
            assert_eq!(world.check(), []);
        }
    }
}
