//! What is damaged, half done or on its way must neither be taken for a loss nor stop maintenance for good.

use std::sync::Arc;
use std::time::Duration;

use super::world::{World, thorough, tree};
use super::{PruneOptions, forget};
use crate::backend::Backend;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::codec::Level;
use crate::format::epoch::{Close, EpochRole};
use crate::monitor::{Collector, Monitor};
use crate::protocol::{self, Store};
use crate::repair::{self, RepairOptions};
use crate::repo::{EpochStore, Reader, Repository, SnapshotName, names};
use crate::snapshot;

fn repair_options() -> RepairOptions {
    RepairOptions { program: "test".into(), level: Level::Zstd(1), dry_run: false, cache_dir: None }
}

#[test]
fn a_backup_that_ends_between_the_lists_is_whole() {
    let (world, tree) = (World::new(), tree(&[("a", 1, 20_000)]));
    let faults = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let through = world.through(Arc::clone(&faults) as _).unwrap();
    faults.forget_calls();
    faults.inject(Rule::new(Method::List, Fault::Delay(Duration::from_millis(300))).key("snapshots/").times(1));
    let view = std::thread::scope(|scope| {
        let view = scope.spawn(|| through.repo.load_view(&Collector::default()));
        while !faults.calls().contains(&(Method::List, "snapshots/".to_owned())) {
            std::thread::sleep(Duration::from_millis(1));
        }
        world.backup(&tree).unwrap();
        view.join().unwrap().unwrap()
    });
    assert_eq!((view.snapshots.len(), view.segments.is_empty()), (1, false), "the snapshot is seen with its segments");
    // The same holds for the view and for G5 in a prune.
    faults.forget_calls();
    assert_eq!(through.prune(&thorough()).unwrap().sealed, Some(0));
    let calls = faults.calls();
    let sealed = calls.iter().position(|(m, key)| *m == Method::Create && key.ends_with(".seal")).unwrap();
    let lists = calls[..sealed].iter().filter(|(m, key)| *m == Method::List && (key == "snapshots/" || key == "index/"));
    let lists: Vec<&str> = lists.map(|(_, key)| key.as_str()).collect();
    assert!(lists.len() >= 4 && lists.chunks(2).all(|pair| pair == ["snapshots/", "index/"]), "{lists:?}");
}

#[test]
fn while_an_epoch_is_unfinished_nothing_is_taken_for_lost() {
    let (world, tree) = (World::new(), tree(&[("a", 1, 20_000)]));
    world.backup(&tree).unwrap();
    let monitor = Collector::default();
    let store = EpochStore::new(&world.repo, &monitor);
    let close = Close { run: [9; 16], condemned: vec![], previous: None };
    assert!(protocol::run(store.create_close(0, &close)).unwrap());
    assert!(protocol::run(store.create_mark(0, EpochRole::Fence)).unwrap());
    let before = world.bytes("");
    let heard: Arc<dyn Monitor> = Arc::new(Collector::default());
    let refused = repair::snapshots(&world.repo, &repair_options(), &heard).unwrap_err();
    assert!(refused.to_string().contains("run 'prune' first"), "{refused}");
    let refused = world.prune(&PruneOptions { dry_run: true, ..thorough() }).unwrap_err();
    assert!(refused.to_string().contains("run 'prune' first"), "{refused}");
    assert_eq!(world.bytes(""), before);
    assert_eq!(world.prune(&thorough()).unwrap().resumed, [0]);
    assert_eq!(repair::snapshots(&world.repo, &repair_options(), &heard).unwrap().repairs, []);
    assert_eq!(world.check(), []);
}

#[test]
fn a_snapshot_that_is_missing_can_be_given_up() {
    for missing in [true, false] {
        let world = World::new();
        let files = |seed| tree(&[("a", seed, 20_000)]);
        let names: Vec<SnapshotName> = (1..4).map(|seed| world.backup(&files(seed)).unwrap()).collect();
        world.prune(&thorough()).unwrap();
        let key = names::snapshot(&names[0]);
        if missing {
            world.store.delete(&key).unwrap();
        } else {
            world.store.overwrite(&key, b"x".to_vec());
        }
        let monitor = Collector::default();
        let view = world.repo.load_view(&monitor).unwrap();
        assert_eq!(snapshot::list(&world.repo, &view, &monitor).unwrap().len(), 2);
        assert_eq!(monitor.problems().len(), 1);
        assert_eq!(monitor.problems()[0].subject, key.to_string());
        let refused = world.prune(&thorough()).unwrap_err();
        assert!(refused.to_string().contains("forget it"), "{refused}");
        forget(&world.repo, &names[..1]).unwrap();
        world.prune(&thorough()).unwrap();
        assert_eq!(world.contents(&names[2]).unwrap(), files(3));
        assert_eq!(world.check(), []);
    }
}

#[test]
fn packs_known_to_be_lost_do_not_stop_a_prune() {
    let world = World::new();
    let files = |seed| tree(&[("a", seed, 20_000)]);
    let mut names: Vec<SnapshotName> = (1..4).map(|seed| world.backup(&files(seed)).unwrap()).collect();
    let mut lost = Vec::new();
    world.store.list("packs/", &mut |meta| lost.push(meta.key)).unwrap();
    names.extend((4..6).map(|seed| world.backup(&files(seed)).unwrap()));
    lost.iter().for_each(|key| world.store.delete(key).unwrap());
    forget(&world.repo, &names[..3]).unwrap();
    let refused = world.prune(&thorough()).unwrap_err();
    assert!(refused.to_string().contains("repair packs"), "{refused}");
    let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
    assert!(repair::packs(&world.repo, &repair::Which::Listed, &repair_options(), &monitor).unwrap().missing_packs >= 3);
    assert!(world.prune(&thorough()).unwrap().sealed.is_some());
    assert_eq!(world.contents(&names[4]).unwrap(), files(5));
    assert_eq!(world.check(), []);
}

#[test]
fn an_unreadable_segment_is_replaced_once_the_index_is_repaired() {
    for (sealed, gone) in [(true, false), (true, true), (false, false), (false, true)] {
        for cached in [true, false] {
            let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
            let cache_dir = cached.then(|| dir.path().to_owned());
            let options = PruneOptions { cache_dir: cache_dir.clone(), ..thorough() };
            let files = |seed| tree(&[("a", seed, 20_000), ("b", 9, 20_000)]);
            let names: Vec<SnapshotName> = (1..4).map(|seed| world.backup(&files(seed)).unwrap()).collect();
            if sealed {
                world.prune(&options).unwrap();
            }
            drop(Reader::open(Arc::clone(&world.repo), cache_dir.as_deref(), &Collector::default()).unwrap());
            let mut segment = None;
            world.store.list("index/", &mut |meta| segment = Some(meta.key)).unwrap();
            let segment = segment.unwrap();
            if gone {
                world.store.delete(&segment).unwrap();
            } else {
                let mut bytes = world.store.read(&segment, u64::MAX).unwrap().to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                world.store.overwrite(&segment, bytes);
            }
            forget(&world.repo, &names[..1]).unwrap();
            let refused = world.prune(&options).unwrap_err();
            assert!(refused.to_string().contains("repair index"), "{refused}");
            let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
            let repairing = RepairOptions { cache_dir, ..repair_options() };
            assert_eq!(repair::index(&world.repo, &repairing, &monitor).unwrap().segments_written, 1);
            assert!(world.prune(&options).unwrap().sealed.is_some());
            assert!(world.store.read(&segment, u64::MAX).is_err(), "it is gone");
            for (seed, name) in [(2, &names[1]), (3, &names[2])] {
                assert_eq!(world.contents(name).unwrap(), files(seed));
            }
            assert_eq!(world.check(), []);
        }
    }
}

/// The single objects that all else hangs on have a second copy in every repository.
#[test]
fn no_single_damaged_object_stops_a_repository_without_parity() {
    let files = tree(&[("a", 1, 20_000)]);
    let world = World::new();
    let name = world.backup(&files).unwrap();
    assert_eq!(world.prune(&thorough()).unwrap().sealed, Some(0));
    let mut vital = vec![names::config(), names::slot(world.repo.slot())];
    vital.extend([EpochRole::Close, EpochRole::Seal].map(|role| names::epoch(0, role)));
    for object in &vital {
        for harm in ["flip", "cut"] {
            let copy = world.copy_store();
            let right = copy.read(object, u64::MAX).unwrap();
            let mut bytes = right.to_vec();
            match harm {
                "flip" => bytes[right.len() / 2] ^= 4,
                _ => bytes.truncate(right.len() / 2),
            }
            copy.overwrite(object, bytes);
            let what = format!("{object}, {harm}");
            let hurt = World { repo: Arc::new(Repository::open(Arc::clone(&copy) as _, b"x").unwrap()), store: copy };
            assert_eq!(hurt.contents(&name).unwrap(), files, "{what}");
            let findings = hurt.check();
            assert!(findings.iter().any(|p| p.subject == object.as_str()), "{what}: {findings:?}");
            let mended = repair::parity(&hurt.repo, false, &Collector::default()).unwrap();
            assert_eq!((mended.damaged, mended.mended, mended.unprotected), (1, 1, 0), "{what}");
            assert_eq!(hurt.store.read(object, u64::MAX).unwrap(), right, "{what}");
            assert_eq!(hurt.check(), [], "{what}");
        }
        // Even before it is repaired, backups and maintenance go on.
        let copy = world.copy_store();
        copy.overwrite(object, b"junk".to_vec());
        let hurt = World { repo: Arc::new(Repository::open(Arc::clone(&copy) as _, b"x").unwrap()), store: copy };
        let next = hurt.backup(&tree(&[("b", 2, 20_000)])).unwrap();
        forget(&hurt.repo, &[name]).unwrap();
        assert_eq!(hurt.prune(&thorough()).unwrap().sealed, Some(1), "{object}");
        assert_eq!(hurt.contents(&next).unwrap().len(), 1, "{object}");
    }
}

#[test]
fn parity_of_what_is_vital_is_made_again() {
    let world = World::new();
    world.backup(&tree(&[("a", 1, 20_000)])).unwrap();
    world.prune(&thorough()).unwrap();
    let mut parity = Vec::new();
    world.store.list("parity/", &mut |meta| parity.push(meta.key)).unwrap();
    assert_eq!(parity.len(), 4, "{parity:?}");
    for (key, lost) in parity.iter().zip([true, false].into_iter().cycle()) {
        let right = world.store.read(key, u64::MAX).unwrap();
        if lost {
            world.store.delete(key).unwrap();
            assert_eq!(world.prune(&thorough()).unwrap().parity.made, 1, "{key}");
        } else {
            world.store.overwrite(key, b"junk".to_vec());
            assert_eq!(repair::parity(&world.repo, false, &Collector::default()).unwrap().remade_parity, 1, "{key}");
        }
        assert_eq!(world.store.read(key, u64::MAX).unwrap(), right, "{key}");
    }
    assert_eq!(world.prune(&thorough()).unwrap().parity, Default::default());
    assert_eq!(world.check(), []);
}
