//! Repositories in memory that lose things, and what is made of the rest.

use std::fs;

use super::*;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::{Backend, ErrorKind, ObjectKey};
use crate::check::{self, CheckLevel};
use crate::copy::tests::world::{World, noise, objects, read_all, reader, snapshots as list_snapshots};
use crate::format::pack::BlobKind;
use crate::monitor::Collector;

fn options() -> RepairOptions {
    RepairOptions { program: "test".into(), level: Level::Zstd(1), dry_run: false, cache_dir: None }
}

fn dry() -> RepairOptions {
    RepairOptions { dry_run: true, ..options() }
}

/// Two snapshots of some files, small and large.
fn filled() -> World {
    let world = World::new();
    for i in 0..60 {
        world.write(&format!("small/{i}"), &noise(i, 20_000));
    }
    world.write("big", &noise(1000, 3_000_000));
    world.backup(1000);
    world.write("new", &noise(1001, 500_000));
    world.backup(2000);
    world
}

/// Findings of a check, down to every byte.
fn errors(world: &World) -> Vec<String> {
    let monitor = Arc::new(Collector::default());
    let report = check::run(&world.repo, None, &CheckLevel::ReadData, &(Arc::clone(&monitor) as _)).expect("checks");
    let problems = monitor.problems();
    assert!(report.errors >= problems.len() as u64);
    problems.into_iter().map(|p| format!("{}: {}", p.subject, p.message)).collect()
}

fn monitor() -> (Arc<Collector>, Arc<dyn Monitor>) {
    let collector = Arc::new(Collector::default());
    (Arc::clone(&collector), collector as _)
}

fn keys(world: &World, folder: &str) -> Vec<ObjectKey> {
    let mut found = Vec::new();
    world.backend.list(folder, &mut |meta| found.push(meta.key)).expect("lists");
    found.sort();
    found
}

#[test]
fn an_index_that_is_gone_comes_back_from_the_packs() {
    for damage in [false, true] {
        let world = filled();
        let before: Vec<_> = list_snapshots(&world.repo).iter().map(|s| read_all(&world.repo, s)).collect();
        let blobs = reader(&world.repo).index().len();
        for key in keys(&world, "index/") {
            if damage {
                world.flip(&key, &(0..4000));
            } else {
                world.backend.delete(&key).expect("deletes");
            }
        }
        assert_eq!(reader(&world.repo).index().len(), 0);
        assert!(!errors(&world).is_empty());
        let (heard, to) = monitor();
        let would = index(&world.repo, &dry(), &to).expect("looks");
        assert_eq!((would.segments_written, would.blobs_added), (0, blobs));
        assert_eq!(heard.problems().len(), if damage { 2 } else { 0 }, "{:?}", heard.problems());
        let done = index(&world.repo, &options(), &to).expect("repairs");
        assert_eq!((done.segments_written, done.blobs_added, done.unreadable_packs), (1, blobs, 0));
        assert_eq!(done.unreadable_segments, if damage { 2 } else { 0 });
        assert_eq!(errors(&world), Vec::<String>::new());
        let after: Vec<_> = list_snapshots(&world.repo).iter().map(|s| read_all(&world.repo, s)).collect();
        assert!(before == after);
        // Nobody is bothered any more, and there is nothing left to do.
        let (heard, to) = monitor();
        let again = index(&world.repo, &options(), &to).expect("repairs");
        assert_eq!((again.packs_added, again.segments_written, heard.problems()), (0, 0, vec![]));
    }
}

#[test]
fn a_pack_without_a_directory_is_named() {
    let world = filled();
    for key in keys(&world, "index/") {
        world.backend.delete(&key).expect("deletes");
    }
    let pack = keys(&world, "packs/").remove(0);
    let size = usize::try_from(world.backend.size(&pack).expect("size")).expect("small");
    world.flip(&pack, &(size - 20..size));
    let (heard, to) = monitor();
    let done = index(&world.repo, &options(), &to).expect("repairs");
    assert_eq!((done.unreadable_packs, heard.problems().len()), (1, 1));
    assert_eq!(heard.problems()[0].subject, pack.to_string());
}

#[test]
fn the_next_backup_heals_what_a_pack_has_lost() {
    let world = filled();
    let before: Vec<_> = list_snapshots(&world.repo).iter().map(|s| read_all(&world.repo, s)).collect();
    let packs_with_data = world.packs(BlobKind::Data);
    let (key, frames) = packs_with_data.iter().max_by_key(|(_, frames)| frames.len()).expect("a pack");
    let (gone, _) = packs_with_data.iter().find(|(other, _)| other != key).expect("another pack");
    world.flip(key, &frames[0]);
    world.backend.delete(gone).expect("deletes");
    let (heard, to) = monitor();
    let would = packs(&world.repo, &Which::All, &dry(), &to).expect("looks");
    let done = packs(&world.repo, &Which::All, &options(), &to).expect("repairs");
    assert_eq!((done.damaged_packs, done.missing_packs), (1, 1));
    assert_eq!((would.blobs_saved, would.blobs_lost, would.packs_written), (done.blobs_saved, done.blobs_lost, 0));
    assert!(done.blobs_lost > 0 && (frames.len() == 1 || done.blobs_saved > 0), "{done:?}");
    assert_eq!(heard.problems().len(), 4);
    // Files are lost until they are backed up again; then the old snapshots are whole, too.
    assert!(errors(&world).iter().any(|e| e.contains("blobs are in no pack that is there")));
    let (heard, outcome) = world.try_backup(3000);
    assert_eq!(heard.problems(), []);
    assert!(outcome.files_changed > 0 && outcome.data_blobs > 0, "{outcome:?}");
    assert_eq!(errors(&world), Vec::<String>::new());
    let after: Vec<_> = list_snapshots(&world.repo).iter().map(|s| read_all(&world.repo, s)).collect();
    assert!(before[..] == after[..2]);
    let (heard, to) = monitor();
    let again = packs(&world.repo, &Which::All, &options(), &to).expect("repairs");
    assert_eq!((again.blobs_saved, again.blobs_lost, heard.problems()), (0, 0, vec![]));
}

#[test]
fn what_is_intact_in_a_pack_without_its_end_is_saved() {
    let world = filled();
    let before: Vec<_> = list_snapshots(&world.repo).iter().map(|s| read_all(&world.repo, s)).collect();
    for (key, frames) in world.packs(BlobKind::Data).into_iter().chain(world.packs(BlobKind::Node)) {
        let bytes = world.backend.read(&key, u64::MAX).expect("reads");
        world.backend.overwrite(&key, bytes.slice(..frames.last().expect("a frame").end));
    }
    let (_, to) = monitor();
    let name = keys(&world, "packs/")[0].to_string();
    assert!(packs(&world.repo, &Which::Named(vec!["xyz".into()]), &dry(), &to).is_err());
    let done = packs(&world.repo, &Which::Named(vec![name]), &options(), &to).expect("repairs");
    assert_eq!((done.blobs_lost, done.blobs_saved), (0, reader(&world.repo).index().len() / 2));
    assert_eq!(errors(&world), Vec::<String>::new());
    let after: Vec<_> = list_snapshots(&world.repo).iter().map(|s| read_all(&world.repo, s)).collect();
    assert!(before == after);
}

#[test]
fn snapshots_are_repaired_without_what_is_lost() {
    let world = filled();
    let all = list_snapshots(&world.repo);
    let (key, frames) = world.packs(BlobKind::Data).remove(0);
    world.flip(&key, &frames[0]);
    let (_, to) = monitor();
    packs(&world.repo, &Which::All, &options(), &to).expect("repairs");
    let (heard, to) = monitor();
    let would = snapshots(&world.repo, &dry(), &to).expect("looks");
    assert!(would.repairs.iter().all(|r| r.repaired.is_none()));
    let done = snapshots(&world.repo, &options(), &to).expect("repairs");
    assert_eq!((done.snapshots, done.repairs.len()), (2, would.repairs.len()));
    assert!(!done.repairs.is_empty());
    let now = list_snapshots(&world.repo);
    assert_eq!(now.len(), all.len() + done.repairs.len());
    for repair in &done.repairs {
        let find = |name| now.iter().find(|s| s.name == name).expect("is there");
        let (old, new) = (find(repair.damaged), find(repair.repaired.expect("repaired")));
        assert_eq!(new.snapshot.tags, ["tag", REPAIRED_TAG]);
        assert_eq!((new.snapshot.time, &new.snapshot.paths), (old.snapshot.time, &old.snapshot.paths));
        assert_eq!(old.snapshot.totals.entries - repair.lost, new.snapshot.totals.entries);
        assert_eq!(read_all(&world.repo, new).len() as u64, new.snapshot.totals.entries);
        let named = heard.problems().iter().filter(|p| p.subject.starts_with('/')).count() as u64;
        assert_eq!(named, 2 * done.repairs.iter().map(|r| r.lost).sum::<u64>());
    }
    let (_, to) = monitor();
    let again = snapshots(&world.repo, &options(), &to).expect("repairs");
    assert_eq!((again.repairs.len(), again.repaired_before), (0, done.repairs.len() as u64));
    // Whole ones are left alone.
    let whole = filled();
    let (heard, to) = monitor();
    let stored = objects(&*whole.backend);
    assert_eq!(snapshots(&whole.repo, &options(), &to).expect("looks").repairs, []);
    assert_eq!((heard.problems(), objects(&*whole.backend)), (vec![], stored));
}

#[test]
fn a_lost_catalog_node_costs_what_is_below_it() {
    let world = World::new();
    for i in 0..3000 {
        world.write(&format!("{:02}/{i}", i % 50), b"x");
    }
    world.backup(1000);
    let (key, frames) = world.packs(BlobKind::Node).remove(0);
    world.flip(&key, &frames[0]);
    let (_, to) = monitor();
    packs(&world.repo, &Which::All, &options(), &to).expect("repairs");
    let (heard, to) = monitor();
    let done = snapshots(&world.repo, &options(), &to).expect("repairs");
    let [repair] = &done.repairs[..] else { panic!("{done:?}") };
    let entries = list_snapshots(&world.repo).iter().map(|s| s.snapshot.totals.entries).min().expect("snapshots");
    assert!(entries < 3000 && repair.lost > 0);
    assert!(heard.problems().iter().any(|p| p.subject == "catalog"), "{:?}", heard.problems());
}

#[test]
fn a_repair_that_is_broken_off_goes_on() {
    let world = filled();
    let (key, frames) = world.packs(BlobKind::Data).remove(0);
    world.flip(&key, &frames[0]);
    let (gone, _) = world.packs(BlobKind::Data).pop().expect("a pack");
    world.backend.delete(&gone).expect("deletes");
    for key in keys(&world, "index/").into_iter().skip(1) {
        world.backend.delete(&key).expect("deletes");
    }
    let faults = Arc::new(FaultBackend::new(Arc::clone(&world.backend) as Arc<dyn Backend>));
    let repo = Arc::new(Repository::open(Arc::clone(&faults) as Arc<dyn Backend>, b"x").expect("opens"));
    let mut broken = 0;
    // Each time one object more gets through, until the whole repair does. (An announcement of a session may fail.)
    let done = loop {
        faults.heal();
        faults.inject(Rule::new(Method::Create, Fault::LostReply(ErrorKind::Denied)).times(1));
        let (_, to) = monitor();
        let all = || -> Result<SnapshotsRepair> {
            index(&repo, &options(), &to)?;
            packs(&repo, &Which::All, &options(), &to)?;
            snapshots(&repo, &options(), &to)
        };
        match all() {
            Ok(done) => break done,
            Err(_) => broken += 1,
        }
        assert!(broken < 50, "no end to it");
    };
    assert!(broken >= 2, "{broken}");
    assert!(done.repairs.len() as u64 + done.repaired_before > 0);
    for record in list_snapshots(&world.repo).iter().filter(|s| s.snapshot.tags.contains(&REPAIRED_TAG.to_owned())) {
        assert_eq!(read_all(&world.repo, record).len() as u64, record.snapshot.totals.entries);
    }
    fs::read_dir(world.path("")).expect("the files are untouched");
    let (_, outcome) = world.try_backup(4000);
    assert_eq!(outcome.problems, 0);
    assert_eq!(errors(&world), Vec::<String>::new());
}

#[test]
fn a_repair_under_a_fence_is_done_again() {
    use crate::format::ObjectKind;
    use crate::format::epoch::{Close, seal_close, seal_mark};
    use crate::repo::names::EpochRole;

    let world = filled();
    for key in keys(&world, "index/") {
        world.backend.delete(&key).expect("deletes");
    }
    // Maintenance closes and fences epoch 0 while the repair reads packs: its first segment comes too late.
    let (epochs, id) = (&world.repo.keys().epochs, world.repo.id());
    let close = Close { run: [1; 16], condemned: vec![], previous: None };
    let put = |role, bytes: Vec<u8>| world.backend.create(&names::epoch(0, role), bytes.into()).expect("creates");
    let faults = Arc::new(FaultBackend::new(Arc::clone(&world.backend) as Arc<dyn Backend>));
    let repo = Arc::new(Repository::open(Arc::clone(&faults) as Arc<dyn Backend>, b"x").expect("opens"));
    faults.inject(Rule::new(Method::ReadRange, Fault::Delay(std::time::Duration::from_millis(300))).times(1));
    let (_, to) = monitor();
    let done = std::thread::scope(|scope| {
        let repair = scope.spawn(|| index(&repo, &options(), &to));
        while faults.calls_of(Method::ReadRange) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        put(EpochRole::Close, seal_close(epochs, id, 0, &close).expect("seals"));
        put(EpochRole::Fence, seal_mark(epochs, ObjectKind::Fence, id, 0).expect("seals"));
        repair.join().expect("no panic")
    });
    assert!(done.expect("repairs").packs_added > 0);
    assert!(keys(&world, "index/").iter().any(|key| key.as_str().starts_with("index/0000000001/")));
}
