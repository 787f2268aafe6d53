//! What is left at the target of a set that fails.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::*;
use crate::name::FileName;
use crate::time::Time;

/// A target that has what was put there but does not say so of manifests, and may refuse to remove some files.
#[derive(Clone, Debug, Default)]
struct Deaf {
    names: Arc<Mutex<BTreeSet<String>>>,
    kept: &'static str,
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
        self.0.names.lock().expect("lock").insert(self.1.clone());
        if self.1.ends_with("manifest") { Err(Deaf::error(&self.1)) } else { Ok(()) }
    }
}

fn write(target: &Deaf) -> String {
    let (options, times) = (options(Sealing::Gzip), SetTimes::Full(Time::new(1_700_000_000).expect("a time")));
    let set = SetWriter::new(target, &options, times).expect("starts");
    set.finish().expect_err("no answer").to_string()
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
