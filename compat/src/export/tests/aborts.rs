//! What is left at the target of a set that fails.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use std::time::{Duration, Instant};

use engine::path::EntryPath;

use super::*;
use crate::name::FileName;
use crate::tar::Header;
use crate::time::Time;

/// A target that has what was put there but does not say so of some files, may refuse to remove some, and takes a first volume
/// only when the second is being made.
#[derive(Clone, Debug)]
struct Deaf {
    names: Arc<Mutex<BTreeSet<String>>>,
    begun: Arc<Mutex<BTreeSet<String>>>,
    unanswered: &'static str,
    kept: &'static str,
}

impl Default for Deaf {
    fn default() -> Self {
        Self { names: Arc::default(), begun: Arc::default(), unanswered: "manifest", kept: "" }
    }
}

struct Put(Deaf, String);

impl Deaf {
    fn error(name: &str) -> StoreError {
        let message = "no answer".to_owned();
        StoreError { kind: StoreErrorKind::Unreachable, location: "deaf".into(), name: name.into(), message }
    }

    fn names(&self) -> Vec<String> {
        self.names.lock().expect("lock").iter().cloned().collect()
    }
}

impl Store for Deaf {
    fn location(&self) -> String {
        "deaf".to_owned()
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        Ok(self.names().into_iter().map(|name| StoredFile { name, size: None }).collect())
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Err(Self::error(name))
    }
}

impl Target for Deaf {
    fn create(&self, name: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.begun.lock().expect("lock").insert(name.to_owned());
        Ok(Box::new(Put(self.clone(), name.to_owned())))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        if !self.kept.is_empty() && name.contains(self.kept) {
            return Err(Self::error(name));
        }
        self.names.lock().expect("lock").remove(name);
        Ok(())
    }
}

impl Write for Put {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for Put {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let (target, name) = (&self.0, &self.1);
        let is_begun = |volume| target.begun.lock().expect("lock").iter().any(|name| name.contains(volume));
        let waits_since = Instant::now();
        while name.contains("vol1") && target.unanswered != "manifest" && !is_begun("vol2") {
            assert!(waits_since.elapsed() < Duration::from_secs(20), "the second volume is made only afterwards");
            std::thread::sleep(Duration::from_millis(1));
        }
        target.names.lock().expect("lock").insert(name.clone());
        if !target.unanswered.is_empty() && name.contains(target.unanswered) { Err(Deaf::error(name)) } else { Ok(()) }
    }
}

fn times() -> SetTimes {
    SetTimes::Full(Time::new(1_700_000_000).expect("a time"))
}

fn write(target: &Deaf) -> String {
    let options = options(Sealing::Gzip);
    let set = SetWriter::new(target, &options, times()).expect("starts");
    set.finish().expect_err("no answer").to_string()
}

/// A set of three volumes.
fn write_volumes(target: &Deaf) -> Result<SetTotals, Error> {
    let options = ExportOptions { volume_size: 100_000, ..options(Sealing::Plain) };
    let mut set = SetWriter::new(target, &options, times())?;
    let header = Header { name: b"snapshot/f".to_vec(), size: 60_000, ..Header::default() };
    for _ in 0..3 {
        if let Err(error) = set.member(&header, &[7; 60_000], &EntryPath::new(&b"f"[..]).expect("a path"), None) {
            return Err(set.abort(error));
        }
    }
    set.finish()
}

#[test]
fn a_manifest_whose_answer_was_lost_is_taken_back_with_its_set() {
    let target = Deaf::default();
    write(&target);
    assert_eq!(target.names(), [""; 0]);
}

#[test]
fn while_the_manifest_stays_so_does_its_set() {
    let target = Deaf { kept: "manifest", ..Deaf::default() };
    let text = write(&target);
    assert!(text.contains("manifest may be there"), "{text}");
    let names = target.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| crate::name::classify(name, &Prefixes::default()).is_ok_and(|n: FileName| !n.partial)));
}

#[test]
fn what_stays_without_a_manifest_is_named() {
    let target = Deaf { kept: "vol1", ..Deaf::default() };
    let text = write(&target);
    assert!(text.contains("could not be removed: duplicity-full.20231114T221320Z.vol1.difftar.gz"), "{text}");
    assert_eq!(target.names().len(), 1);
}

#[test]
fn a_volume_is_made_while_the_one_before_goes_to_its_target() {
    let target = Deaf { unanswered: "", ..Deaf::default() };
    assert_eq!(write_volumes(&target).expect("writes").volumes, 3);
    assert_eq!(target.names().len(), 5);
}

#[test]
fn a_volume_that_fails_on_its_way_ends_the_set() {
    let target = Deaf { unanswered: "vol1", ..Deaf::default() };
    let text = write_volumes(&target).expect_err("no answer").to_string();
    assert!(text.contains("vol1") && text.contains("no answer"), "{text}");
    assert_eq!(target.names(), [""; 0]);
    assert!(!target.begun.lock().expect("lock").iter().any(|name| name.contains("manifest")));
}
