//! What a prune does about parity: makes it, keeps it up to date, and takes it away.

use super::world::{Tree, World, thorough, tree};
use crate::backend::fault::{FaultBackend, Method};
use crate::backend::{Backend, ObjectKey};
use crate::maintain::{PruneOptions, forget};
use crate::monitor::Collector;
use crate::names;
use crate::repair::parity as repair_parity;
use std::sync::Arc;

fn with(percent: u8) -> PruneOptions {
    PruneOptions { parity: Some(percent), ..thorough() }
}

fn keys(world: &World, prefix: &str) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    world.store.list(prefix, &mut |meta| keys.push(meta.key)).unwrap();
    keys
}

/// Every object has parity, and no parity is without its object.
fn assert_covered(world: &World) {
    let all = keys(world, "");
    let objects: Vec<_> = all.iter().filter(|key| names::parse(key).is_some()).collect();
    for key in &objects {
        assert!(all.contains(&names::parity_of(key)), "{key} has no parity");
    }
    let inside = all.iter().filter(|key| key.as_str().starts_with("parity/") && !key.as_str().starts_with("parity/groups/"));
    assert_eq!(inside.count(), objects.len());
    assert_eq!(world.check(), []);
}

/// The few objects that all else hangs on have parity, and no others.
fn assert_only_vital(world: &World) {
    let is_vital = |key: &&ObjectKey| names::parse(key).is_some_and(|claim| claim.kind.is_vital());
    let vital: Vec<_> = keys(world, "").iter().filter(is_vital).map(names::parity_of).collect();
    assert_eq!(keys(world, "parity/"), vital);
}

/// Trees that differ by one file.
fn growing(count: u64) -> Vec<Tree> {
    (1..=count).map(|n| (1..=n).flat_map(|seed| tree(&[(&format!("f{seed}"), seed, 300_000)])).collect()).collect()
}

#[test]
fn parity_is_made_later_and_goes_on_by_itself() {
    let world = World::new();
    let trees = growing(3);
    world.backup(&trees[0]).unwrap();
    let outcome = world.prune(&with(10)).unwrap();
    assert!(outcome.sealed.is_some() && outcome.parity.made >= 4 && outcome.parity.groups == 1, "{:?}", outcome.parity);
    assert_covered(&world);
    // Another process learns it from the seal; a prune without a word about it keeps it.
    let other = world.through(Arc::clone(&world.store) as _).unwrap();
    let last = other.backup(&trees[1]).unwrap();
    assert_covered(&other);
    let outcome = other.prune(&thorough()).unwrap();
    assert_eq!((outcome.parity.made, outcome.parity.groups), (0, 1));
    assert_covered(&other);
    assert_eq!(keys(&world, "parity/groups/").len(), 1, "the smaller group is replaced");
    // Nothing is left to do.
    let outcome = other.prune(&thorough()).unwrap();
    assert_eq!((outcome.sealed, outcome.parity), (None, Default::default()));
    assert_eq!(other.contents(&last).unwrap(), trees[1]);
}

#[test]
fn what_is_deleted_takes_its_parity_along_and_groups_are_made_anew() {
    let world = World::new();
    let trees = growing(4);
    let names: Vec<_> = trees.iter().map(|tree| world.backup(tree).unwrap()).collect();
    world.prune(&with(50)).unwrap();
    let before = keys(&world, "parity/groups/");
    assert!(before.len() > 1);
    let only = world.backup(&tree(&[("f4", 4, 300_000)])).unwrap();
    forget(&world.repo, &names).unwrap();
    let outcome = world.prune(&thorough()).unwrap();
    assert!(outcome.deleted.packs > 0 && outcome.parity.deleted > 0, "{outcome:?}");
    assert_covered(&world);
    let group = keys(&world, "parity/groups/");
    assert!(!group.is_empty() && group != before);
    for key in keys(&world, "packs/0").into_iter().chain(keys(&world, "index/")) {
        let bytes = world.store.read(&key, u64::MAX).unwrap();
        world.store.delete(&key).unwrap();
        assert_eq!(repair_parity(&world.repo, false, &Collector::default()).unwrap().mended, 1, "{key}");
        assert_eq!(world.store.read(&key, u64::MAX).unwrap(), bytes);
    }
    assert_eq!(world.contents(&only).unwrap().len(), 1);
}

#[test]
fn a_lost_pack_keeps_its_parity_until_it_is_back() {
    let world = World::new();
    for tree in growing(3) {
        world.backup(&tree).unwrap();
    }
    world.prune(&with(20)).unwrap();
    let parity = keys(&world, "parity/");
    let lost = keys(&world, "packs/").remove(0);
    world.store.delete(&lost).unwrap();
    // It refuses to go on where something is missing, or has nothing to do: in no case is parity thrown away.
    drop(world.prune(&thorough()));
    let now = keys(&world, "parity/");
    assert!(parity.iter().all(|key| now.contains(key)));
    assert_eq!(repair_parity(&world.repo, false, &Collector::default()).unwrap().mended, 1);
    assert_covered(&world);
}

#[test]
fn another_amount_replaces_what_there_is_and_none_takes_it_away() {
    let world = World::new();
    for tree in growing(3) {
        world.backup(&tree).unwrap();
    }
    world.prune(&with(10)).unwrap();
    let small = world.bytes("parity/packs/");
    world.prune(&with(100)).unwrap();
    assert!(world.bytes("parity/packs/") > 2 * small);
    let packs = keys(&world, "packs/").len() + keys(&world, "index/").len();
    assert_eq!(keys(&world, "parity/groups/").len(), packs, "a copy of each");
    assert_covered(&world);
    let outcome = world.prune(&with(0)).unwrap();
    assert!(outcome.parity.deleted > 0 && outcome.sealed.is_some());
    assert_only_vital(&world);
    let other = world.through(Arc::clone(&world.store) as _).unwrap();
    other.backup(&tree(&[("new", 9, 1000)])).unwrap();
    assert_only_vital(&world);
    assert_eq!(world.check(), []);
}

#[test]
fn parity_that_is_missing_or_of_nothing_is_noticed() {
    let world = World::new();
    world.backup(&growing(1)[0]).unwrap();
    world.prune(&with(10)).unwrap();
    let pack = keys(&world, "packs/").remove(0);
    world.store.delete(&names::parity_of(&pack)).unwrap();
    // Of a pack that a process deleted which did not know that there is parity.
    let gone = names::parity_of(&names::pack(0, &crate::id::ObjectId([3; 32])));
    world.store.overwrite(&gone, b"whatever".to_vec());
    world.store.overwrite(&names::group(0, &crate::id::ObjectId([4; 32])), b"whatever".to_vec());
    let outcome = world.prune(&thorough()).unwrap();
    assert_eq!((outcome.parity.made, outcome.parity.deleted), (1, 2));
    assert_covered(&world);
}

#[test]
fn a_repository_without_parity_makes_few_calls_for_it() {
    let world = World::new();
    let trees = growing(2);
    world.backup(&trees[0]).unwrap();
    let faulty = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let other = world.through(Arc::clone(&faulty) as _).unwrap();
    let name = other.backup(&trees[1]).unwrap();
    forget(&other.repo, &[name]).unwrap();
    other.prune(&thorough()).unwrap();
    let for_parity: Vec<_> = faulty.calls().into_iter().filter(|(_, key)| key.starts_with("parity/")).collect();
    // A key or a request that is deleted may have parity unknown to this process.
    let is_due = |(method, key): &&(Method, String)| match method {
        Method::Delete => key.starts_with("parity/forget/"),
        Method::Create => key.starts_with("parity/epochs/"),
        Method::List => key == "parity/",
        _ => false,
    };
    assert_eq!(for_parity.iter().find(|call| !is_due(call)), None);
    assert_eq!(for_parity.iter().filter(|(method, _)| *method == Method::Create).count(), 2);
    assert_eq!(faulty.calls().iter().filter(|(method, key)| *method == Method::List && key.is_empty()).count(), 0);
}
