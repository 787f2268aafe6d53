//! A fixed story, killed before and after every call to the store. (No backend lets an object become visible in part.)

use std::sync::Arc;

use super::world::{Tree, World, thorough};
use super::{forget, trees};
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ErrorKind, ObjectKey};
use crate::codec::Level;
use crate::error::Result;
use crate::format::slot::Note;
use crate::monitor::{Collector, Monitor};
use crate::repair::{self, RepairOptions, Which};
use crate::repo::{Repository, SnapshotName, now};

/// What was reported to the user so far.
#[derive(Clone)]
struct Reported {
    snapshots: Vec<(SnapshotName, Tree)>,
    /// Passwords that may open the repository; one that is not here must not.
    passwords: Vec<&'static [u8]>,
}

/// A step of the story. Reports something only once it is reported to the user.
type Step = fn(&World, &mut Reported) -> Result<()>;

/// What happens to the store before a step, without being killed.
type Harm = fn(&World);

fn backup(number: usize) -> impl Fn(&World, &mut Reported) -> Result<()> {
    move |world, reported| {
        let tree = trees()[number].clone();
        reported.snapshots.push((world.backup(&tree)?, tree));
        Ok(())
    }
}

fn drop_first_two(world: &World, reported: &mut Reported) -> Result<()> {
    // From the first call on nobody can rely on them.
    let names: Vec<SnapshotName> = reported.snapshots.drain(..2).map(|(name, _)| name).collect();
    forget(&world.repo, &names)
}

fn change_password(world: &World, reported: &mut Reported) -> Result<()> {
    reported.passwords = vec![b"x", b"y"];
    let note = Note { created: now(), origin: String::new(), label: String::new() };
    world.repo.change_password(b"y", World::options().cost, &note)?;
    reported.passwords = vec![b"y"];
    Ok(())
}

fn first(world: &World, prefix: &str) -> ObjectKey {
    let mut keys = Vec::new();
    world.store.list(prefix, &mut |meta| keys.push(meta.key)).unwrap();
    keys.swap_remove(0)
}

/// A bit in the last bytes of a pack, which only a repair reads.
fn damage_a_pack(world: &World) {
    let key = first(world, "packs/");
    let mut bytes = world.store.read(&key, u64::MAX).unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    world.store.overwrite(&key, bytes);
}

fn lose_a_segment(world: &World) {
    world.store.delete(&first(world, "index/")).unwrap();
}

fn options() -> RepairOptions {
    RepairOptions { program: "test".into(), level: Level::Zstd(1), dry_run: false, cache_dir: None }
}

fn monitor() -> Arc<dyn Monitor> {
    Arc::new(Collector::default())
}

fn repair_packs(world: &World) -> Result<()> {
    repair::packs(&world.repo, &Which::All, &options(), &monitor()).map(|done| assert_eq!(done.blobs_lost, 0))
}

fn repair_index(world: &World) -> Result<()> {
    repair::index(&world.repo, &options(), &monitor()).map(drop)
}

const STORY: [(Option<Harm>, Step); 12] = [
    (None, |world, reported| backup(0)(world, reported)),
    (None, |world, reported| backup(1)(world, reported)),
    (None, |world, reported| backup(2)(world, reported)),
    (None, drop_first_two),
    (None, |world, _| world.prune(&thorough()).map(drop)),
    (None, |world, reported| backup(0)(world, reported)),
    (None, |world, _| world.prune(&thorough()).map(drop)),
    (None, change_password),
    (Some(damage_a_pack), |world, _| repair_packs(world)),
    (None, |world, _| world.prune(&thorough()).map(drop)),
    (Some(lose_a_segment), |world, _| repair_index(world)),
    (None, |world, _| world.prune(&thorough()).map(drop)),
];

#[derive(Clone, Copy, Debug)]
enum Kill {
    Before,
    After,
}

/// The store of a world opened by somebody who was told so much.
fn open(store: &Arc<MemBackend>, backend: &Arc<dyn Backend>, reported: &Reported) -> World {
    let open = |password: &&[u8]| Repository::open(Arc::clone(backend), password).ok();
    let repo = reported.passwords.iter().find_map(open).expect("one of the passwords opens");
    World { store: Arc::clone(store), repo: Arc::new(repo) }
}

/// Runs a step on a copy of the store, killed at call `at`. `None` if the step has fewer calls.
fn killed(start: &World, step: Step, reported: &Reported, at: usize, kill: Kill) -> Option<(World, Reported)> {
    let store = start.copy_store();
    let fault = Arc::new(FaultBackend::new(Arc::clone(&store) as _));
    let through = open(&store, &(Arc::clone(&fault) as _), reported);
    fault.forget_calls();
    match kill {
        Kill::Before => {}
        Kill::After => fault.inject(Rule::new(Method::Any, Fault::LostReply(ErrorKind::Other)).skip(at).times(1)),
    }
    fault.inject(Rule::new(Method::Any, Fault::Error(ErrorKind::Other)).skip(at));
    let mut reported = reported.clone();
    let result = step(&through, &mut reported);
    let calls = fault.calls_of(Method::Any);
    if calls <= at {
        result.unwrap();
        return None;
    }
    Some((open(&store, &(Arc::clone(&store) as _), &reported), reported))
}

/// Everything that was reported is there; the repository is in order; a prune by somebody else comes to its end, after which
/// that still holds, and another backup works. What had been harmed before is mended first.
fn assert_survived(world: &World, reported: &Reported, mend: fn(&World) -> Result<()>, what: &str) {
    let there = |when: &str| {
        for (name, tree) in &reported.snapshots {
            assert_eq!(world.contents(name).as_ref().ok(), Some(tree), "{what}, {when}: {name:?}");
        }
        assert_eq!(world.check(), [], "{what}, {when}");
    };
    let old = Repository::open(Arc::clone(&world.store) as _, b"x").is_ok();
    assert!(!old || reported.passwords.contains(&b"x".as_slice()), "{what}: the old password still opens");
    mend(world).unwrap_or_else(|e| panic!("{what}: {e}"));
    there("at once");
    world.prune(&thorough()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let next = world.backup(&trees()[1]).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(world.contents(&next).unwrap(), trees()[1], "{what}");
    there("after a prune");
    let idle = world.prune(&thorough()).and_then(|_| world.prune(&thorough())).unwrap();
    assert_eq!((idle.sealed, idle.deleted.packs), (None, 0), "{what}: a prune converges");
}

/// Repairs whatever can have been harmed in the story, and removes the remains.
fn mend(world: &World) -> Result<()> {
    repair_index(world)?;
    repair_packs(world)?;
    world.prune(&thorough()).map(drop)
}

#[test]
fn every_call_to_the_store_is_a_place_to_die() {
    let mut world = World::new();
    let mut reported = Reported { snapshots: Vec::new(), passwords: vec![b"x"] };
    let (mut points, mut harmed) = (0, false);
    for (number, (harm, step)) in STORY.into_iter().enumerate() {
        if let Some(harm) = harm {
            harm(&world);
            harmed = true;
        }
        let mend: fn(&World) -> Result<()> = if harmed { mend } else { |_| Ok(()) };
        let deaths = |kill| {
            let mut at = 0;
            while let Some((dead, said)) = killed(&world, step, &reported, at, kill) {
                assert_survived(&dead, &said, mend, &format!("step {number}, {kill:?} call {at}"));
                at += 1;
            }
            at
        };
        points += std::thread::scope(|scope| {
            let after = scope.spawn(|| deaths(Kill::After));
            deaths(Kill::Before) + after.join().expect("every death was survived")
        });
        let store = world.copy_store();
        world = open(&store, &(Arc::clone(&store) as _), &reported);
        step(&world, &mut reported).unwrap();
    }
    assert_eq!(world.check(), [], "the story ends well");
    assert!(points > 400, "{points}");
    println!("{points} points");
}

#[test]
fn init_can_be_broken_off_and_repeated() {
    for at in 0..20 {
        let store = Arc::new(MemBackend::new());
        let fault = Arc::new(FaultBackend::new(Arc::clone(&store) as Arc<dyn Backend>));
        fault.inject(Rule::new(Method::Any, Fault::Error(ErrorKind::Other)).skip(at));
        let first = World::create(&store, Some(Arc::clone(&fault)));
        let world = match first {
            Ok(world) => world.through(Arc::clone(&store) as _).unwrap(),
            // Where the config is there already, the repository is.
            Err(_) => World::create(&store, None).unwrap_or_else(|_| World::new().through(Arc::clone(&store) as _).unwrap()),
        };
        let world = World { store: Arc::clone(&store), repo: world.repo };
        let tree = &trees()[1];
        assert_eq!(world.contents(&world.backup(tree).unwrap()).unwrap(), *tree, "{at}");
    }
}
