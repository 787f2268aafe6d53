//! From one repository in memory into another.

pub(crate) mod world;

use std::fs;
use std::os::unix::fs::{FileExt, symlink};

use rustix::fs::{XattrFlags, setxattr};
use world::{World, noise, objects, read_all, reader, repository, snapshots};

use super::*;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ErrorKind};
use crate::format::pack::BlobKind;
use crate::monitor::{Collector, Counter};

fn options() -> CopyOptions {
    CopyOptions { program: "test".into(), level: Level::Zstd(1), dry_run: false, cache_dir: None }
}

/// Copies everything; what became of each snapshot, and the monitor.
fn copy(from: &Arc<Repository>, to: &Arc<Repository>) -> (Result<Vec<Copied>>, Arc<Collector>) {
    let collector = Arc::new(Collector::default());
    let mut all = Vec::new();
    let mut done = |_: &SnapshotRecord, copied: &Copied| {
        all.push(copied.clone());
        Ok(())
    };
    let wanted = snapshots(from);
    let result = run(to, &reader(from), &wanted, &options(), &(Arc::clone(&collector) as _), &mut done);
    (result.map(|()| all), collector)
}

/// Every kind of file that has content.
fn fill(world: &World) {
    world.write("empty", b"");
    world.write("a/b/deep", b"deep");
    world.write("big", &noise(1, 5_000_000));
    for i in 0..200 {
        world.write(&format!("many/{i}"), &noise(i + 10, 10 + i as usize * 70));
    }
    symlink("/nowhere/at all", world.path("link")).expect("symlink");
    let sparse = fs::File::create(world.path("sparse")).expect("creates");
    sparse.write_all_at(&noise(2, 300_000), 5 << 20).expect("writes");
    sparse.write_all_at(b"end", 20 << 20).expect("writes");
    sparse.set_len(30 << 20).expect("extends");
    fs::File::create(world.path("hole")).and_then(|f| f.set_len(7 << 20)).expect("hole");
    for (old, new) in [("big", "a/big2"), ("many/7", "many/7b")] {
        fs::hard_link(world.path(old), world.path(new)).expect("hard link");
    }
    for name in ["empty", "a", "many/5"] {
        let _ = setxattr(world.path(name), "user.test", b"value", XattrFlags::empty());
    }
}

#[test]
fn copies_equal_their_snapshots_and_a_second_copy_adds_nothing() {
    let world = World::new();
    fill(&world);
    world.backup(1000);
    world.write("many/7", b"changed");
    world.write("new", &noise(77, 100_000));
    fs::remove_file(world.path("many/9")).expect("removes");
    world.backup(2000);
    let store = Arc::new(MemBackend::new());
    let to = repository(Arc::clone(&store) as Arc<dyn Backend>);
    let (copied, monitor) = copy(&world.repo, &to);
    let copied = copied.expect("copies");
    assert_eq!(monitor.problems(), []);
    let [Copied::New(first), Copied::New(second)] = &copied[..] else { panic!("{copied:?}") };
    assert!(first.added_bytes > 5_000_000, "{first:?}");
    // The second one reads only what changed.
    assert!(second.added_bytes < 300_000 && second.files_new == 3, "{second:?}");
    let (theirs, ours) = (snapshots(&world.repo), snapshots(&to));
    assert_eq!(ours.len(), 2);
    for (a, b) in theirs.iter().zip(&ours) {
        let fields = |r: &SnapshotRecord| {
            let s = r.snapshot.clone();
            (s.time, s.host, s.user, s.paths, s.tags, s.totals, s.problems, s.kind)
        };
        assert_eq!(fields(a), fields(b));
        assert_eq!(b.snapshot.origin.as_deref(), Some(&*origin(world.repo.id(), a)));
        let (before, after) = (read_all(&world.repo, a), read_all(&to, b));
        assert!(before.len() > 200 && before == after);
    }
    let stored = objects(&*store);
    let (again, monitor) = copy(&world.repo, &to);
    assert!(again.expect("copies").iter().all(|c| matches!(c, Copied::Present(_))));
    assert_eq!((stored, monitor.counted(Counter::Bytes)), (objects(&*store), 0));
    // Copies that come back, or go on, are known to be the same.
    let (back, _) = copy(&to, &world.repo);
    assert!(back.expect("copies").iter().all(|c| matches!(c, Copied::Present(_))));
    let third = repository(Arc::new(MemBackend::new()));
    assert!(copy(&to, &third).0.expect("copies").iter().all(|c| matches!(c, Copied::New(_))));
    assert!(copy(&world.repo, &third).0.expect("copies").iter().all(|c| matches!(c, Copied::Present(_))));
}

#[test]
fn what_is_damaged_is_named_and_left_out() {
    let world = World::new();
    fill(&world);
    world.backup(1000);
    let (key, frames) = world.packs(BlobKind::Data).remove(0);
    world.flip(&key, &frames[0]);
    let to = repository(Arc::new(MemBackend::new()));
    let (copied, monitor) = copy(&world.repo, &to);
    let [Copied::New(outcome)] = &copied.expect("goes on")[..] else { panic!() };
    assert!(outcome.problems > 0 && outcome.problems == monitor.problems().len() as u64);
    assert!(monitor.problems().iter().all(|p| p.subject.starts_with('/')), "{:?}", monitor.problems());
    let copy = snapshots(&to).remove(0);
    assert_eq!(copy.snapshot.tags, ["tag", INCOMPLETE_TAG]);
    let lost = snapshots(&world.repo)[0].snapshot.totals.entries - copy.snapshot.totals.entries;
    assert_eq!(lost, outcome.problems);
    assert_eq!(read_all(&to, &copy).len() as u64, copy.snapshot.totals.entries);
}

#[test]
fn a_damaged_catalog_costs_what_lies_below_the_damage() {
    let world = World::new();
    for i in 0..3000 {
        world.write(&format!("{:02}/{i}", i % 50), b"x");
    }
    world.backup(1000);
    let nodes = world.packs(BlobKind::Node);
    let (key, frames) = nodes.iter().max_by_key(|(_, frames)| frames.len()).expect("a pack");
    world.flip(key, &frames[0]);
    let to = repository(Arc::new(MemBackend::new()));
    let (copied, monitor) = copy(&world.repo, &to);
    let [Copied::New(outcome)] = &copied.expect("goes on")[..] else { panic!() };
    let whole = snapshots(&world.repo)[0].snapshot.totals.entries;
    assert!(outcome.problems > 0 && !monitor.problems().is_empty());
    let is_root = outcome.totals.entries == 0;
    assert!(is_root || outcome.problems + outcome.totals.entries == whole, "{outcome:?} of {whole}");
}

#[test]
fn a_store_that_fails_ends_the_copy() {
    let world = World::new();
    fill(&world);
    world.backup(1000);
    let faults = Arc::new(FaultBackend::new(Arc::clone(&world.backend) as Arc<dyn Backend>));
    let from = Arc::new(Repository::open(Arc::clone(&faults) as Arc<dyn Backend>, b"x").expect("opens"));
    let to = repository(Arc::new(MemBackend::new()));
    let theirs = reader(&from);
    faults.inject(Rule::new(Method::ReadRange, Fault::Error(ErrorKind::Timeout)).key("packs/").skip(4));
    let wanted = snapshots(&world.repo);
    let result = run(&to, &theirs, &wanted, &options(), &(Arc::new(Collector::default()) as _), &mut |_, _| Ok(()));
    assert!(matches!(result, Err(Error::Backend(ref e)) if e.kind == ErrorKind::Timeout), "{result:?}");
    assert_eq!(snapshots(&to).len(), 0);
    faults.heal();
    let (copied, _) = copy(&world.repo, &to);
    assert!(copied.is_ok());
    assert_eq!(read_all(&world.repo, &wanted[0]), read_all(&to, &snapshots(&to)[0]));
}

#[test]
fn a_repository_is_not_copied_into_itself() {
    let world = World::new();
    world.write("x", b"x");
    world.backup(1);
    assert!(matches!(copy(&world.repo, &world.repo).0, Err(Error::Invalid(_))));
}
