//! A fixed story, killed before and after every call to the store. (No backend lets an object become visible in part.)

use std::sync::Arc;

use super::world::{Tree, World, thorough};
use super::{forget, trees};
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ErrorKind};
use crate::error::Result;
use crate::repo::SnapshotName;

/// What was reported to the user so far.
type Reported = Vec<(SnapshotName, Tree)>;

/// A step of the story. Reports snapshots only once they are reported to the user.
type Step = fn(&World, &mut Reported) -> Result<()>;

fn backup(number: usize) -> impl Fn(&World, &mut Reported) -> Result<()> {
    move |world, reported| {
        let tree = trees()[number].clone();
        reported.push((world.backup(&tree)?, tree));
        Ok(())
    }
}

fn drop_first_two(world: &World, reported: &mut Reported) -> Result<()> {
    // From the first call on nobody can rely on them.
    let names: Vec<SnapshotName> = reported.drain(..2).map(|(name, _)| name).collect();
    forget(&world.repo, &names)
}

const STORY: [Step; 7] = [
    |world, reported| backup(0)(world, reported),
    |world, reported| backup(1)(world, reported),
    |world, reported| backup(2)(world, reported),
    drop_first_two,
    |world, _| world.prune(&thorough()).map(drop),
    |world, reported| backup(0)(world, reported),
    |world, _| world.prune(&thorough()).map(drop),
];

#[derive(Clone, Copy, Debug)]
enum Kill {
    Before,
    After,
}

/// Runs a step on a copy of the world, killed at call `at`. `None` if the step has fewer calls.
fn killed(start: &World, step: Step, reported: &Reported, at: usize, kill: Kill) -> Option<(World, Reported)> {
    let world = start.copy();
    let fault = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let through = world.through(Arc::clone(&fault) as _).unwrap();
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
    Some((world, reported))
}

/// Everything that was reported is there; the repository is in order; a prune by somebody else comes to its end, after which
/// that still holds, and another backup works.
fn assert_survived(world: &World, reported: &Reported, what: &str) {
    for (name, tree) in reported {
        assert_eq!(world.contents(name).as_ref().ok(), Some(tree), "{what}: {name:?}");
    }
    assert_eq!(world.check(), [], "{what}");
    world.prune(&thorough()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let next = world.backup(&trees()[1]).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(world.contents(&next).unwrap(), trees()[1], "{what}");
    for (name, tree) in reported {
        assert_eq!(world.contents(name).as_ref().ok(), Some(tree), "{what}, after a prune: {name:?}");
    }
    assert_eq!(world.check(), [], "{what}, after a prune");
    let idle = world.prune(&thorough()).and_then(|_| world.prune(&thorough())).unwrap();
    assert_eq!((idle.sealed, idle.deleted.packs), (None, 0), "{what}: a prune converges");
}

#[test]
fn every_call_to_the_store_is_a_place_to_die() {
    let (mut world, mut reported) = (World::new(), Reported::new());
    let mut points = 0;
    for (number, step) in STORY.into_iter().enumerate() {
        for kill in [Kill::Before, Kill::After] {
            for at in 0.. {
                let Some((dead, said)) = killed(&world, step, &reported, at, kill) else { break };
                assert_survived(&dead, &said, &format!("step {number}, {kill:?} call {at}"));
                points += 1;
            }
        }
        world = world.copy();
        step(&world, &mut reported).unwrap();
    }
    assert!(points > 200, "{points}");
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
