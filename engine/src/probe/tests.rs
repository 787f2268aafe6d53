use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::backend::ObjectMeta;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::local::LocalBackend;
use crate::backend::mem::MemBackend;
use crate::monitor::Collector;

const SMALLER: ProbeOptions = ProbeOptions { rounds: 4, large: 300_000 };

/// How a store goes wrong that fails no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Takes any name again.
    Overwrites,
    /// Says that it stored every object, and keeps the first.
    AllWin,
    /// Listings lag behind: without what was stored last.
    ListsLate,
    /// Listings name what was deleted.
    ListsDeleted,
    /// Keeps what is deleted.
    NeverDeletes,
    /// A range is the whole.
    IgnoresRanges,
}

#[derive(Debug)]
struct Liar {
    lie: Lie,
    inner: MemBackend,
    deleted: Mutex<Vec<ObjectKey>>,
    exclusive: AtomicBool,
}

fn liar(lie: Lie) -> Liar {
    Liar { lie, inner: MemBackend::new(), deleted: Mutex::default(), exclusive: AtomicBool::new(false) }
}

impl Backend for Liar {
    fn location(&self) -> String {
        "liar:".to_owned()
    }
    fn concurrency(&self) -> usize {
        4
    }
    fn prepare(&self) -> Result<(), BackendError> {
        Ok(())
    }
    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        match self.lie {
            Lie::Overwrites => self.inner.overwrite(key, body),
            Lie::AllWin => drop(self.inner.create(key, body)),
            _ => return self.inner.create(key, body),
        }
        Ok(())
    }
    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.inner.replace(key, body)
    }
    fn create_is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::Relaxed)
    }
    fn assume_exclusive(&self, exclusive: bool) {
        self.exclusive.store(exclusive, Ordering::Relaxed);
    }
    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        self.inner.read(key, max)
    }
    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        if self.lie == Lie::IgnoresRanges {
            return self.inner.read(key, u64::MAX).map(|b| b.slice(..length.min(b.len())));
        }
        self.inner.read_range(key, offset, length)
    }
    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        self.inner.size(key)
    }
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        let mut found = Vec::new();
        self.inner.list(prefix, &mut |meta| found.push(meta))?;
        if self.lie == Lie::ListsLate {
            found.retain(|meta| !meta.key.as_str().ends_with("-2"));
        }
        if self.lie == Lie::ListsDeleted {
            found.extend(lock(&self.deleted).iter().map(|key| ObjectMeta { key: key.clone(), size: 1 }));
        }
        found.into_iter().for_each(each);
        Ok(())
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        lock(&self.deleted).push(key.clone());
        if self.lie == Lie::NeverDeletes { Ok(()) } else { self.inner.delete(key) }
    }
    fn barrier(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

fn broken(report: &ProbeReport) -> Vec<Promise> {
    report.findings.iter().filter(|f| f.broken.is_some()).map(|f| f.promise).collect()
}

#[test]
fn good_stores_keep_all_promises_and_nothing_is_left() {
    let memory = MemBackend::new();
    let report = run(&memory, &SMALLER, &Collector::default()).unwrap();
    assert_eq!((broken(&report), report.findings.len()), (vec![], 6));
    assert!(report.is_usable() && memory.is_empty() && report.left_behind.is_empty());
    assert_eq!(report.large.map(|l| l.0), Some(300_000));

    let dir = tempfile::tempdir().unwrap();
    let disk = LocalBackend::new(dir.path());
    let report = run(&disk, &SMALLER, &Collector::default()).unwrap();
    assert_eq!(broken(&report), []);
    assert!(report.clock_ahead.is_some_and(|s| s.abs() < 5.0), "{:?}", report.clock_ahead);
    assert!(report.create.median > Duration::ZERO && report.create.worst >= report.create.median);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left behind");
    disk.barrier().unwrap();
}

#[test]
fn every_broken_promise_is_noticed() {
    for (lie, promise) in [
        (Lie::Overwrites, Promise::Create),
        (Lie::AllWin, Promise::Create),
        (Lie::ListsLate, Promise::List),
        (Lie::ListsDeleted, Promise::List),
        (Lie::NeverDeletes, Promise::Delete),
        (Lie::IgnoresRanges, Promise::Ranges),
    ] {
        let store = liar(lie);
        let report = run(&store, &SMALLER, &Collector::default()).unwrap();
        let found = broken(&report);
        assert!(found.contains(&promise), "{lie:?}: {:?}", report.findings);
        let more = matches!(lie, Lie::NeverDeletes | Lie::IgnoresRanges);
        assert!(found.len() == 1 || more, "{lie:?}: {:?}", report.findings);
        assert_eq!(store.create_is_exclusive(), promise != Promise::Create);
        assert_eq!(report.is_usable(), matches!(promise, Promise::Create | Promise::Delete) && lie != Lie::NeverDeletes);
    }
}

#[test]
fn failing_calls_are_findings_but_the_first() {
    for (rule, promise) in [
        (Rule::new(Method::ReadRange, Fault::Cut(3)), Promise::Ranges),
        (Rule::new(Method::Read, Fault::Flip(3)), Promise::Read),
        (Rule::new(Method::List, Fault::Error(ErrorKind::Denied)), Promise::List),
        (Rule::new(Method::Create, Fault::Error(ErrorKind::NoSpace)).key("large"), Promise::Large),
        (Rule::new(Method::Create, Fault::Error(ErrorKind::Other)).key("race").times(1), Promise::Create),
    ] {
        let memory = Arc::new(MemBackend::new());
        let store = FaultBackend::new(memory.clone());
        store.inject(rule);
        let report = run(&store, &SMALLER, &Collector::default()).unwrap();
        assert!(broken(&report).contains(&promise), "{promise:?}: {:?}", report.findings);
        assert!(memory.is_empty());
    }
    let store = FaultBackend::new(Arc::new(MemBackend::new()));
    store.inject(Rule::new(Method::Create, Fault::Error(ErrorKind::NoStore)));
    assert!(matches!(run(&store, &SMALLER, &Collector::default()), Err(Error::Backend(e)) if e.kind == ErrorKind::NoStore));
}

#[test]
fn what_cannot_be_deleted_is_named() {
    let store = FaultBackend::new(Arc::new(MemBackend::new()));
    store.inject(Rule::new(Method::Delete, Fault::Error(ErrorKind::Denied)));
    let report = run(&store, &SMALLER, &Collector::default()).unwrap();
    assert_eq!(broken(&report), [Promise::Delete]);
    assert_eq!(report.left_behind.len(), SMALLER.rounds + 3);
    assert!(create_is_exclusive(&liar(Lie::NeverDeletes)).is_ok(), "a store that says it deleted is believed here");
}

#[test]
fn an_interrupted_probe_cleans_up() {
    let memory = MemBackend::new();
    let monitor = Collector::default();
    monitor.cancel();
    assert!(matches!(run(&memory, &SMALLER, &monitor), Err(Error::Interrupted)));
    assert!(memory.is_empty());
}

#[test]
fn exclusiveness_is_found_out_once() {
    let store = FaultBackend::new(Arc::new(liar(Lie::None)));
    assert!(create_is_exclusive(&store).unwrap());
    let calls = store.calls_of(Method::Create);
    assert!(store.create_is_exclusive() && create_is_exclusive(&store).unwrap());
    assert_eq!((calls, store.calls_of(Method::Create)), (9, 9));
    let store = liar(Lie::Overwrites);
    assert!(!create_is_exclusive(&store).unwrap() && !store.create_is_exclusive());
    let store = FaultBackend::new(Arc::new(liar(Lie::None)));
    store.inject(Rule::new(Method::Create, Fault::Error(ErrorKind::Timeout)).times(1));
    assert!(create_is_exclusive(&store).is_err());
}
