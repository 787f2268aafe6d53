//! Rounds of maintenance over real repositories: what stays, what goes, and what interrupting, racing and damaging does.

mod damage;
mod kill;
mod locks;
mod parity;
mod policy;
mod power;
mod tamper;
mod world;

use std::sync::Arc;

use self::world::{Tree, World, noise, thorough, tree};
use super::{PruneOptions, forget, undelete};
use crate::backend::Backend;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::codec::Level;
use crate::error::Error;
use crate::monitor::Collector;
use crate::protocol::{self, Rules, Store};
use crate::repair::{self, RepairOptions};
use crate::repo::{EpochStore, Reader, SnapshotName};

/// Three trees: most of the first one's files are gone in the last.
fn trees() -> [Tree; 3] {
    [
        tree(&[("a", 1, 200_000), ("b", 2, 30_000), ("c", 3, 100_000)]),
        tree(&[("a", 4, 90_000), ("b", 2, 30_000), ("c", 3, 100_000)]),
        tree(&[("b", 2, 30_000), ("d", 5, 50_000)]),
    ]
}

fn three_backups() -> (World, [Tree; 3], Vec<SnapshotName>) {
    let (world, trees) = (World::new(), trees());
    let names = trees.iter().map(|tree| world.backup(tree).unwrap()).collect();
    (world, trees, names)
}

fn sorted(names: &[SnapshotName]) -> Vec<SnapshotName> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

#[test]
fn what_is_forgotten_goes_and_the_rest_stays() {
    let (world, trees, names) = three_backups();
    let before = world.bytes("packs/");
    forget(&world.repo, &names[..2]).unwrap();
    assert_eq!(world.snapshots(), names[2..]);
    let outcome = world.prune(&thorough()).unwrap();
    assert_eq!((outcome.sealed, outcome.plan.snapshots, outcome.plan.forgotten), (Some(0), 1, 2));
    assert!(outcome.plan.repack.packs > 0 && outcome.written.packs > 0 && outcome.deleted.packs > 0, "{outcome:?}");
    assert_eq!(world.snapshots(), names[2..]);
    assert_eq!(world.contents(&names[2]).unwrap(), trees[2]);
    assert_eq!(world.check(), []);
    assert!(world.bytes("packs/") < before / 2, "{} of {before}", world.bytes("packs/"));
    for folder in ["forget/", "sessions/"] {
        assert_eq!(world.bytes(folder), 0, "{folder}");
    }
    let mut snapshots = 0;
    world.store.list("snapshots/", &mut |_| snapshots += 1).unwrap();
    assert_eq!(snapshots, 1);
    // There is nothing left to do.
    let again = world.prune(&thorough()).unwrap();
    assert_eq!((again.sealed, again.deleted.packs), (None, 0));
    // And life goes on.
    let next = world.backup(&trees[0]).unwrap();
    assert_eq!(next.epoch, 1);
    assert_eq!(world.contents(&next).unwrap(), trees[0]);
    assert_eq!(world.contents(&names[2]).unwrap(), trees[2]);
}

#[test]
fn a_dry_run_changes_nothing_and_a_limit_is_kept() {
    let (world, trees, names) = three_backups();
    forget(&world.repo, &names[..2]).unwrap();
    let before = world.bytes("");
    let plan = world.prune(&PruneOptions { dry_run: true, ..thorough() }).unwrap().plan;
    assert!(plan.repack.packs > 0 && plan.delete.packs > 0, "{plan:?}");
    assert_eq!(world.bytes(""), before);
    let outcome = world.prune(&PruneOptions { max_repack: Some(0), ..thorough() }).unwrap();
    assert_eq!((outcome.plan.repack.packs, outcome.written.packs), (0, 0));
    assert!(outcome.deleted.packs > 0 && outcome.plan.unused_after > 0);
    let lazy = world.prune(&PruneOptions { max_unused: None, ..thorough() }).unwrap();
    assert_eq!(lazy.plan.repack.packs, 0);
    assert_eq!(world.contents(&names[2]).unwrap(), trees[2]);
    assert_eq!(world.check(), []);
}

#[test]
fn what_only_a_running_backup_may_want_is_left_for_two_epochs() {
    let (world, trees, names) = three_backups();
    let patient = PruneOptions { now: false, ..thorough() };
    // Packs and segments without a snapshot, as an interrupted backup leaves them.
    for key in [crate::repo::names::snapshot(&names[0]), crate::repo::names::snapshot(&names[1])] {
        world.store.delete(&key).unwrap();
    }
    let first = world.prune(&patient).unwrap();
    assert!(first.plan.spared.packs > 0 && first.plan.delete.packs == 0, "{first:?}");
    let mut spared = Vec::new();
    for seed in 10..14 {
        let mut more = trees[2].clone();
        more.insert("e".into(), noise(seed, 2000));
        world.backup(&more).unwrap();
        spared.push(world.prune(&patient).unwrap().plan.delete.packs);
    }
    assert_eq!(spared[0], 0, "{spared:?}");
    assert!(spared.iter().sum::<u64>() > 0, "{spared:?}");
    assert_eq!(world.contents(&names[2]).unwrap(), trees[2]);
    assert_eq!(world.check(), []);
}

#[test]
fn undelete_works_until_the_seal() {
    let (world, trees, names) = three_backups();
    let monitor = Collector::default();
    forget(&world.repo, &names[..2]).unwrap();
    let undeleted = undelete(&world.repo, &names[..1], &monitor).unwrap();
    assert_eq!((undeleted.restored, undeleted.in_doubt), (names[..1].to_vec(), false));
    assert_eq!(world.snapshots(), sorted(&[names[0], names[2]]));
    assert!(matches!(undelete(&world.repo, &names[2..], &monitor), Err(Error::Snapshot(_))));
    world.prune(&thorough()).unwrap();
    assert_eq!(world.contents(&names[0]).unwrap(), trees[0]);
    let gone = undelete(&world.repo, &names[1..2], &monitor);
    assert!(gone.unwrap_err().to_string().contains("is gone"));
    assert_eq!(world.check(), []);
}

#[test]
fn a_request_taken_back_after_the_close_saves_the_snapshot() {
    let (world, trees, names) = three_backups();
    forget(&world.repo, &names[..2]).unwrap();
    // As a run would leave it that was broken off right after its close: everything else is condemned.
    let monitor = Collector::default();
    let store = EpochStore::new(&world.repo, &monitor);
    let mut condemned = Vec::new();
    world.store.list("packs/", &mut |m| condemned.extend(crate::repo::names::parse_epoch_id(&m.key, "packs"))).unwrap();
    let close = crate::format::epoch::Close { run: [9; 16], condemned: condemned.clone(), previous: None };
    assert!(protocol::run(store.create_close(0, &close)).unwrap());
    assert!(undelete(&world.repo, &names[..1], &monitor).unwrap().in_doubt);
    let outcome = world.prune(&thorough()).unwrap();
    assert_eq!(outcome.resumed, [0]);
    assert_eq!(world.snapshots(), sorted(&[names[0], names[2]]));
    assert_eq!(world.contents(&names[0]).unwrap(), trees[0]);
    assert_eq!(world.contents(&names[2]).unwrap(), trees[2]);
    assert_eq!(world.check(), []);
}

#[test]
fn backups_and_prunes_at_the_same_time_lose_nothing() {
    let world = World::new();
    let base = tree(&[("a", 1, 60_000), ("b", 2, 60_000), ("c", 3, 60_000)]);
    world.backup(&base).unwrap();
    let reported = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (world, base, reported) = (world.clone(), base.clone(), &reported);
            scope.spawn(move || {
                for round in 0..6 {
                    let mut tree = base.clone();
                    tree.insert("own".into(), noise(writer * 100 + round / 2, 20_000));
                    let name = world.backup(&tree).unwrap();
                    reported.lock().unwrap().push((name, tree));
                }
            });
        }
        for _ in 0..2 {
            let (world, reported) = (world.clone(), &reported);
            scope.spawn(move || {
                for round in 0..5 {
                    let victim = {
                        let mut reported = reported.lock().unwrap();
                        (round % 2 == 0 && reported.len() > 1).then(|| reported.remove(0))
                    };
                    if let Some((name, _)) = victim {
                        forget(&world.repo, &[name]).unwrap();
                    }
                    // Being overtaken by the other one is no harm.
                    match world.prune(&thorough()) {
                        Ok(_) | Err(Error::Invalid(_)) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
    });
    world.prune(&thorough()).unwrap();
    for (name, tree) in reported.into_inner().unwrap() {
        assert_eq!(world.contents(&name).unwrap(), tree, "{name:?}");
    }
    assert_eq!(world.check(), []);
    let view = world.repo.load_view(&Collector::default()).unwrap();
    assert!(view.damage.is_none() && view.epoch > 1);
}

#[test]
fn nothing_is_deleted_where_something_is_missing() {
    let (world, _, names) = three_backups();
    forget(&world.repo, &names[..1]).unwrap();
    let mut packs = Vec::new();
    world.store.list("packs/", &mut |meta| packs.push(meta.key)).unwrap();
    let mut segments = Vec::new();
    world.store.list("index/", &mut |meta| segments.push(meta.key)).unwrap();
    for key in packs.iter().chain(&segments).chain([&crate::repo::names::snapshot(&names[2])]) {
        let damaged = world.copy();
        damaged.store.delete(key).unwrap();
        let others = damaged.bytes("");
        match damaged.prune(&thorough()) {
            // What was needed by the forgotten snapshot only may be missing.
            Ok(outcome) => assert_eq!(damaged.check(), [], "{key}: {outcome:?}"),
            Err(Error::Damaged { .. }) => assert_eq!(damaged.bytes(""), others, "{key}"),
            Err(e) => panic!("{key}: {e}"),
        }
    }
}

#[test]
fn a_list_that_leaves_packs_out_is_told_from_lost_packs() {
    let (world, _, names) = three_backups();
    forget(&world.repo, &names[..1]).unwrap();
    let fault = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let through = world.through(Arc::clone(&fault) as _).unwrap();
    fault.inject(Rule::new(Method::List, Fault::Cut(0)).key("packs/"));
    let refused = through.prune(&thorough()).unwrap_err().to_string();
    assert!(refused.contains("is in the store, but not in its listing"), "{refused}");
    fault.heal();
    let mut packs = Vec::new();
    world.store.list("packs/", &mut |meta| packs.push(meta.key)).unwrap();
    for pack in packs {
        let whole = world.store.read(&pack, u64::MAX).unwrap();
        world.store.replace(&pack, whole.slice(..whole.len() / 2)).unwrap();
    }
    let refused = through.prune(&thorough()).unwrap_err().to_string();
    assert!(refused.contains("not in the store, or have another size"), "{refused}");
}

#[test]
fn a_reader_that_was_there_before_finds_what_was_moved() {
    let (world, trees, names) = three_backups();
    let reader = Reader::open(Arc::clone(&world.repo), None, &Collector::default()).unwrap();
    forget(&world.repo, &names[..2]).unwrap();
    world.prune(&thorough()).unwrap();
    assert_eq!(world::read_tree(&reader, &names[2]).unwrap(), trees[2]);
}

#[test]
fn a_prune_asks_the_store_for_few_lists() {
    let (world, _, names) = three_backups();
    forget(&world.repo, &names[..2]).unwrap();
    let fault = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let through = world.through(Arc::clone(&fault) as _).unwrap();
    fault.forget_calls();
    assert!(through.prune(&thorough()).unwrap().plan.repack.packs > 0);
    let lists: Vec<String> = fault.calls().into_iter().filter(|(m, _)| *m == Method::List).map(|(_, prefix)| prefix).collect();
    // Of packs, which are many, as few as there can be: for the plan and for the decision.
    assert_eq!(lists.iter().filter(|prefix| *prefix == "packs/").count(), 2, "{lists:?}");
    assert!(lists.len() + fault.calls_of(Method::Size) <= 30, "{lists:?}");
}

#[test]
fn segments_are_merged_and_none_is_lost() {
    let world = World::new();
    let mut tree = tree(&[("a", 1, 3000)]);
    for seed in 0..20 {
        tree.insert(format!("f{seed}"), noise(seed + 100, 3000));
        world.backup(&tree).unwrap();
    }
    let names = world.snapshots();
    let outcome = world.prune(&thorough()).unwrap();
    assert!(outcome.plan.repack.packs >= 16, "small packs are put together: {outcome:?}");
    let view = protocol::run(protocol::view(&EpochStore::new(&world.repo, &Collector::default()), &Rules::ALL)).unwrap().unwrap();
    assert_eq!(view.segments.len(), 1);
    assert_eq!(view.snapshots, names);
    assert_eq!(world.contents(names.iter().max_by_key(|n| world.repo.read_snapshot(n).unwrap().time).unwrap()).unwrap(), tree);
    assert_eq!(world.check(), []);
}

#[test]
fn a_damaged_pack_is_no_reason_to_delete_another() {
    let (world, tree) = (World::new(), tree(&[("a", 1, 200_000), ("b", 2, 30_000)]));
    let first = world.backup(&tree).unwrap();
    let mut packs = Vec::new();
    world.store.list("packs/", &mut |meta| packs.push((meta.size, meta.key))).unwrap();
    let (_, bad) = packs.into_iter().max_by_key(|(size, _)| *size).unwrap();
    let mut bytes = world.store.read(&bad, u64::MAX).unwrap().to_vec();
    bytes[1000] ^= 1;
    world.store.overwrite(&bad, bytes);
    let options = RepairOptions { program: "test".into(), level: Level::Zstd(1), dry_run: false, cache_dir: None };
    let repaired = repair::packs(&world.repo, &repair::Which::All, &options, &(Arc::new(Collector::default()) as _)).unwrap();
    assert_eq!(repaired.damaged_packs, 1);
    let second = world.backup(&tree).unwrap();
    world.prune(&thorough()).unwrap();
    assert_eq!(world.check(), []);
    assert!(world.store.read(&bad, u64::MAX).is_err(), "all that was in it is elsewhere");
    for name in [first, second] {
        assert_eq!(world.contents(&name).unwrap(), tree);
    }
}
