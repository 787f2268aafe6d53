//! Locks: on what, until when, and who extends them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::locks::is_due;
use super::world::{World, thorough};
use super::{forget, trees};
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ErrorKind, ObjectKey};
use crate::error::Error;
use crate::format::config::{LockMode, Retention};
use crate::maintain::{PruneOptions, guaranteed_until, locked_until};
use crate::monitor::Collector;
use crate::repo::InitOptions;

const RETENTION: Retention = Retention { mode: LockMode::Governance, days: 30 };
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn options() -> InitOptions {
    InitOptions { retention: Some(RETENTION), ..World::options() }
}

fn locking() -> World {
    let store = Arc::new(MemBackend::locking());
    World { repo: World::make(Arc::clone(&store) as _, &options()).unwrap(), store }
}

fn extending() -> PruneOptions {
    PruneOptions { extend_locks: true, ..thorough() }
}

/// All objects, and until when each is locked.
fn locks(store: &MemBackend) -> BTreeMap<ObjectKey, Option<SystemTime>> {
    let mut locks = BTreeMap::new();
    let mut keys = Vec::new();
    store.list("", &mut |meta| keys.push(meta.key)).unwrap();
    for key in keys {
        let until = store.locked_until(&key).unwrap();
        locks.insert(key, until);
    }
    locks
}

#[test]
fn what_lasts_is_locked_as_it_is_stored() {
    let world = locking();
    let name = world.backup(&trees()[0]).unwrap();
    forget(&world.repo, &[name]).unwrap();
    let found = locks(&world.store);
    let until = SystemTime::now() + 30 * DAY;
    for (key, lock) in &found {
        let close = lock.is_some_and(|lock| lock < until && lock + Duration::from_secs(600) > until);
        assert_eq!(close, !key.as_str().starts_with("forget/"), "{key}: {lock:?}");
    }
    for folder in ["config", "keys/", "packs/", "index/", "snapshots/", "forget/"] {
        assert!(found.keys().any(|key| key.as_str().starts_with(folder)), "{folder}");
    }
}

#[test]
fn a_prune_extends_what_stays_and_nothing_else() {
    let world = locking();
    let names = trees().map(|tree| world.backup(&tree).unwrap());
    forget(&world.repo, &names[..2]).unwrap();
    let before = locks(&world.store);
    let outcome = world.prune(&extending()).unwrap();
    assert!(outcome.deleted.packs > 0);
    let after = locks(&world.store);
    for (key, lock) in &before {
        match after.get(key) {
            Some(later) => assert!(later > lock, "{key}"),
            None => assert_eq!(world.store.locked_until(key).unwrap(), *lock, "{key} was deleted"),
        }
    }
    let view = world.repo.load_view(&Collector::default()).unwrap();
    let guaranteed = guaranteed_until(&world.repo, &view).unwrap();
    assert!(after.values().all(|lock| lock.is_some_and(|lock| lock >= guaranteed)), "{after:?}");
    assert_eq!(locked_until(&world.repo, &view, &view.snapshots).unwrap(), [Some(guaranteed)]);
    assert_eq!(world.contents(&names[2]).unwrap(), trees()[2]);
}

#[test]
fn locks_are_extended_when_half_of_the_time_is_over() {
    let world = locking();
    world.backup(&trees()[0]).unwrap();
    let due =
        |days: u32| is_due(&world.repo, &world.repo.load_view(&Collector::default()).unwrap(), SystemTime::now() + days * DAY);
    assert!(!due(14) && due(15));
    let fault = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let through = world.through(Arc::clone(&fault) as _).unwrap();
    assert_eq!(through.prune(&thorough()).unwrap().sealed, Some(0));
    assert_eq!(fault.calls_of(Method::Lock), 0, "not before");
    assert!(!due(14) && due(15));
    // There is nothing else to do, and yet this is a round of its own.
    assert_eq!(through.prune(&thorough()).unwrap().sealed, None);
    assert_eq!(through.prune(&extending()).unwrap().sealed, Some(1));
    let first = fault.calls_of(Method::Lock);
    assert!(first > 0 && !due(14) && due(15));
    // A later round without an extension promises no more than the one before.
    world.backup(&trees()[1]).unwrap();
    let promised = |world: &World| world.repo.load_view(&Collector::default()).unwrap().locked;
    let before = promised(&world);
    assert_eq!(through.prune(&thorough()).unwrap().sealed, Some(2));
    assert_eq!((fault.calls_of(Method::Lock), promised(&world)), (first, before));
}

#[test]
fn an_extension_that_fails_promises_nothing() {
    let world = locking();
    let name = world.backup(&trees()[0]).unwrap();
    let fault = Arc::new(FaultBackend::new(Arc::clone(&world.store) as _));
    let through = world.through(Arc::clone(&fault) as _).unwrap();
    fault.inject(Rule::new(Method::Lock, Fault::Error(ErrorKind::Denied)).key("packs/"));
    assert!(matches!(through.prune(&extending()), Err(Error::Backend(e)) if e.kind == ErrorKind::Denied));
    assert_eq!(world.repo.load_view(&Collector::default()).unwrap().locked, None);
    fault.heal();
    through.prune(&extending()).unwrap();
    assert_eq!(world.contents(&name).unwrap(), trees()[0]);
}

#[test]
fn stores_that_cannot_lock_are_refused() {
    let store = Arc::new(MemBackend::new());
    let refused = World::make(Arc::clone(&store) as _, &options()).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported(text) if text.contains("cannot lock objects")), "{refused}");
    assert!(store.is_empty());
    // One that takes a lock and does not keep it.
    let fault = Arc::new(FaultBackend::new(Arc::new(MemBackend::locking())));
    fault.inject(Rule::new(Method::Lock, Fault::Error(ErrorKind::Unsupported)));
    assert!(World::make(Arc::clone(&fault) as _, &options()).is_err());
    assert!(fault.size(&crate::repo::names::config()).is_err());
    // A repository that was copied to where there are no locks can be read.
    let world = locking();
    let name = world.backup(&trees()[0]).unwrap();
    let copy = world.copy();
    assert_eq!(copy.contents(&name).unwrap(), trees()[0]);
    let refused = copy.backup(&trees()[1]).unwrap_err();
    assert!(refused.to_string().contains("'copy' its snapshots"), "{refused}");
}
