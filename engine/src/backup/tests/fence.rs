//! Maintenance ends the epoch under which a backup writes.

use super::*;
use crate::maintain::{PruneOptions, prune};

/// Somebody closes epoch 0 and raises its fence, and dies.
fn fence(world: &World) {
    let (keys, id) = (world.repo.keys(), world.repo.id());
    let close = seal_close(&keys.epochs, id, 0, &Close { run: [1; 16], condemned: vec![], previous: None }).expect("seals");
    let fence = seal_mark(&keys.epochs, ObjectKind::Fence, id, 0).expect("seals");
    world.backend.create(&names::epoch(0, EpochRole::Close), close.into()).expect("creates");
    world.backend.create(&names::epoch(0, EpochRole::Fence), fence.into()).expect("creates");
}

/// Somebody else carries on with it.
fn seal(world: &World) {
    maintain(world, None);
}

fn maintain(world: &World, max_unused: Option<f64>) {
    let repo = Repository::open(Arc::clone(&world.backend) as _, b"x").expect("opens");
    let options = PruneOptions { now: true, max_unused, ..PruneOptions::default() };
    prune(&Arc::new(repo), &options, &Collector::default(), &mut |_| {}).expect("prunes");
}

/// Does something before the entry of a number is handed out.
struct Meanwhile(Box<dyn EntrySource>, u32, World, fn(&World));

impl EntrySource for Meanwhile {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        self.1 = self.1.wrapping_sub(1);
        if self.1 == 0 {
            (self.3)(&self.2);
        }
        self.0.next_entry()
    }
}

/// Backs up a tree; before an entry of the first round something happens. The outcome, and the number of rounds.
fn backup_while(world: &World, tree: &Tree, entry: u32, event: fn(&World)) -> (BackupOutcome, u32) {
    let mut rounds = 0;
    let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
    let mut source = |_: &Arc<Reader>| {
        rounds += 1;
        let at = if rounds == 1 { entry } else { 0 };
        Ok(Box::new(Meanwhile(world.source(tree), at, world.clone(), event)) as Box<dyn EntrySource>)
    };
    let outcome = run(&world.repo, &mut source, &world.options(), &monitor).expect("moves on");
    (outcome, rounds)
}

/// Files of 1 MB whose bytes begin with a letter and cannot be compressed.
fn megabytes(numbers: std::ops::Range<u32>, first: u8, seed: u32) -> Tree {
    let file = |n: u32| {
        let mut bytes = vec![0; 1_000_000];
        let hasher = blake3::Hasher::new().update(&n.to_le_bytes()).update(&seed.to_le_bytes()).finalize_xof();
        { hasher }.fill(&mut bytes);
        bytes[0] = first;
        (format!("{n:04}"), bytes)
    };
    numbers.map(file).collect()
}

fn bytes_of_packs(world: &World) -> u64 {
    let mut sum = 0;
    world.backend.list("packs/", &mut |meta| sum += meta.size).expect("lists");
    sum
}

#[test]
fn a_fence_makes_the_backup_move_on_and_lose_nothing() {
    let (world, tree) = (World::new(), tree());
    let (outcome, rounds) = backup_while(&world, &tree, 1, fence);
    assert_eq!(rounds, 2);
    let name = outcome.snapshot.expect("committed");
    assert_eq!(name.epoch, 1);
    assert_eq!(world.contents(&name), tree);
}

/// A snapshot that met the fence counts if the seal names it: nothing is done twice.
#[test]
fn a_backup_that_meets_the_fence_with_its_last_step_waits_for_the_seal() {
    let (world, tree) = (World::new(), tree());
    std::thread::scope(|scope| {
        let maintenance = scope.spawn(|| {
            while world.objects("snapshots/").is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            seal(&world);
        });
        let (outcome, rounds) = backup_while(&world, &tree, 1, fence);
        maintenance.join().expect("maintains");
        assert_eq!(rounds, 1);
        let name = outcome.snapshot.expect("committed");
        assert_eq!(name.epoch, 0);
        assert!(world.repo.load_view(&Collector::default()).expect("view").sealed.contains(&name));
        assert_eq!(world.contents(&name), tree);
        assert_eq!(world.objects("snapshots/").len(), 1);
    });
}

/// What is stored again is bounded by what is stored between two segments, however much follows.
#[test]
fn a_long_backup_notices_the_fence_before_its_end() {
    let world = World::new();
    let tree = megabytes(0..100, b'a', 1);
    let (outcome, rounds) = backup_while(&world, &tree, 40, |world| {
        fence(world);
        seal(world);
    });
    assert_eq!(rounds, 2);
    let stored = bytes_of_packs(&world);
    assert!(stored < 150_000_000, "{stored}");
    assert_eq!(world.contents(&outcome.snapshot.expect("committed")), tree);
}

/// The round that is broken off has not seen the rest: that is compared with the parent.
#[test]
fn after_a_fence_files_that_have_not_changed_are_not_read() {
    let world = World::new();
    let before: Tree = megabytes(0..70, b'a', 1).into_iter().chain(megabytes(70..90, b'u', 1)).collect();
    world.backup(&before).expect("first");
    let mut now = megabytes(0..70, b'b', 2);
    for name in (70..90).map(|n| format!("{n:04}")) {
        let mut bytes = vec![0; 1_000_000];
        bytes[..10].copy_from_slice(b"unreadable");
        now.insert(name, bytes);
    }
    let (outcome, rounds) = backup_while(&world, &now, 20, |world| {
        fence(world);
        seal(world);
    });
    assert_eq!((rounds, outcome.problems), (2, 0));
    let found = world.contents(&outcome.snapshot.expect("committed"));
    assert!(found.iter().all(|(name, bytes)| bytes == if name.as_str() < "0070" { &now[name] } else { &before[name] }));
}

/// Maintenance that comes again and again, and takes what nothing refers to yet, does not keep a backup from its end.
#[test]
fn a_backup_gets_on_however_often_maintenance_comes() {
    let (world, done) = (World::new(), AtomicUsize::new(0));
    let tree = megabytes(0..100, b'a', 1);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 0.. {
                // So that there is something to seal.
                let other = World { opened: Arc::default(), ..world.clone() };
                other.backup(&megabytes(100..101, b'a', seed)).expect("another one");
                maintain(&other, Some(0.0));
                if done.load(Ordering::Relaxed) > 0 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let outcome = world.backup(&tree);
        done.store(1, Ordering::Relaxed);
        outcome.expect("comes to its end")
    });
    let name = outcome.snapshot.expect("committed");
    assert_eq!(world.contents(&name), tree);
    let session = |name: &SnapshotName| world.repo.read_snapshot(name).expect("reads").session;
    let view = world.repo.load_view(&Collector::default()).expect("view");
    let own = view.snapshots.iter().filter(|other| session(other) == session(&name));
    let superseded = crate::maintain::superseded(&world.repo, &view);
    assert_eq!(own.filter(|name| !superseded.contains(name)).collect::<Vec<_>>(), [&name], "partial ones are superseded");
}
