//! A file on its way to a server.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};

use compat::store::{StoreError, StoreErrorKind, UNFINISHED, Upload};

use super::{Remote, is_plain_name};
use crate::error::Failure;
use crate::spool::{Spool, Spooling};

pub(super) fn start(remote: &Remote, name: &str) -> Result<Box<dyn Upload>, Failure> {
    if !is_plain_name(name) || name.starts_with(UNFINISHED) {
        return Err(Failure::new(StoreErrorKind::Unusable, "no name for a file"));
    }
    let spooling = Spooling::start()?;
    Ok(Box::new(RemoteUpload { remote: remote.clone(), name: name.to_owned(), spooling }))
}

struct RemoteUpload {
    remote: Remote,
    name: String,
    spooling: Spooling,
}

impl Write for RemoteUpload {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.spooling.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.spooling.flush()
    }
}

impl Upload for RemoteUpload {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let Self { remote, name, spooling } = *self;
        let outcome = spooling.finish().and_then(|spool| put(&remote, &spool, &name));
        outcome.map_err(|failure| failure.at(&remote.location, &name))
    }
}

fn put(remote: &Remote, spool: &Spool, name: &str) -> Result<(), Failure> {
    // Others that put the same file must not write into ours.
    let unfinished = format!("{UNFINISHED}{:016x}", RandomState::new().hash_one(name));
    let protocol = &remote.protocol;
    remote.sizes().remove(name);
    let once = || match protocol.put(spool, name, &unfinished) {
        Err(failure) if failure.kind == StoreErrorKind::NoStore => {
            protocol.make_folder()?;
            protocol.put(spool, name, &unfinished)
        }
        outcome => outcome,
    };
    let outcome = remote.patience.attempt(remote.patience.attempts, None, once);
    match &outcome {
        Ok(()) => drop(remote.sizes().insert(name.to_owned(), spool.size())),
        Err(_) => protocol.clear(&unfinished),
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use compat::store::{Store, StoredFile, Target};

    use super::*;
    use crate::options::Options;
    use crate::remote::{Protocol, Started};

    /// Notes what it is asked, and fails as the script says.
    #[derive(Debug, Default)]
    struct Scripted {
        failures: Mutex<Vec<StoreErrorKind>>,
        asked: Mutex<Vec<String>>,
    }

    impl Scripted {
        fn note(&self, what: String) -> Result<(), Failure> {
            self.asked.lock().unwrap().push(what);
            match self.failures.lock().unwrap().pop() {
                None => Ok(()),
                Some(kind) => Err(Failure::new(kind, "scripted")),
            }
        }
    }

    impl Protocol for Scripted {
        fn concurrency(&self) -> usize {
            1
        }

        fn list(&self) -> Result<Vec<StoredFile>, Failure> {
            let named = |name: &str| StoredFile { name: name.to_owned(), size: Some(1) };
            Ok(vec![named("f"), named(".deduplicity-0123456789abcdef")])
        }

        fn start(&self, _: &str, _: u64, size: Option<u64>) -> Result<Started, Failure> {
            self.asked.lock().unwrap().push(format!("start {size:?}"));
            Ok(Started { reader: Box::new(io::repeat(b'x').take(size.unwrap_or(0))), size })
        }

        fn put(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
            assert!(unfinished.starts_with(UNFINISHED) && unfinished.len() == UNFINISHED.len() + 16);
            let mut bytes = Vec::new();
            file.reader().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, file.size());
            self.note(format!("put {name} {}", file.size()))
        }

        fn remove(&self, name: &str) -> Result<(), Failure> {
            self.note(format!("remove {name}"))
        }

        fn make_folder(&self) -> Result<(), Failure> {
            self.note("folder".to_owned())
        }

        fn clear(&self, _: &str) {
            self.asked.lock().unwrap().push("clear".to_owned());
        }
    }

    /// What is asked of a protocol that fails as `failures` say, in order, and the kind of failure that comes out of it.
    fn put_over(failures: &[StoreErrorKind]) -> (Vec<String>, Option<StoreErrorKind>) {
        let (protocol, remote) = scripted(failures);
        let mut upload = remote.create("f").unwrap();
        upload.write_all(b"abc").unwrap();
        let outcome = upload.finish();
        (protocol.asked.lock().unwrap().clone(), outcome.err().map(|error| error.kind))
    }

    fn scripted(failures: &[StoreErrorKind]) -> (Arc<Scripted>, Remote) {
        let failures = Mutex::new(failures.iter().rev().copied().collect());
        let protocol = Arc::new(Scripted { failures, ..Scripted::default() });
        let mut remote = Remote::new("test://".into(), protocol.clone(), &Options { attempts: 3, ..Options::default() });
        remote.patience.first_wait = Duration::from_millis(1);
        (protocol, remote)
    }

    #[test]
    fn sends_the_whole_again() {
        use StoreErrorKind::{Denied, NoStore, Unreachable};
        let put = "put f 3";
        assert_eq!(put_over(&[]), (vec![put.into()], None));
        assert_eq!(put_over(&[Unreachable]), (vec![put.into(); 2], None));
        let (asked, kind) = put_over(&[Unreachable; 3]);
        assert_eq!((asked, kind), (vec![put.into(), put.into(), put.into(), "clear".into()], Some(Unreachable)));
        assert_eq!(put_over(&[Denied]), (vec![put.into(), "clear".into()], Some(Denied)));
        assert_eq!(put_over(&[NoStore]), (vec![put.into(), "folder".into(), put.into()], None));
        let (asked, kind) = put_over(&[NoStore, Denied]);
        assert_eq!((asked, kind), (vec![put.into(), "folder".into(), "clear".into()], Some(Denied)));
    }

    #[test]
    fn knows_the_new_size_and_lists_nothing_unfinished() {
        let (protocol, remote) = scripted(&[]);
        let names: Vec<_> = remote.list().unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["f"]);
        let mut upload = remote.create("f").unwrap();
        upload.write_all(b"xx").unwrap();
        upload.finish().unwrap();
        let mut text = String::new();
        remote.open("f").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "xx");
        remote.remove("f").unwrap();
        remote.open("f").unwrap();
        assert_eq!(*protocol.asked.lock().unwrap(), ["put f 2", "start Some(2)", "remove f", "start None"]);
    }

    #[test]
    fn what_is_missing_is_removed() {
        use StoreErrorKind::{Denied, NoStore, NotFound, Unreachable};
        for (failure, succeeds) in [(NotFound, true), (NoStore, true), (Unreachable, true), (Denied, false)] {
            let (_, remote) = scripted(&[failure]);
            assert_eq!(remote.remove("f").is_ok(), succeeds, "{failure:?}");
        }
    }

    #[test]
    fn odd_names_are_not_put() {
        let (protocol, remote) = scripted(&[]);
        for name in ["", ".", "..", "a/b", "a\r\nDELE f", ".deduplicity-x"] {
            assert_eq!(remote.create(name).map(drop).unwrap_err().kind, StoreErrorKind::Unusable, "{name:?}");
        }
        remote.remove("a\r\nDELE f").unwrap();
        assert!(protocol.asked.lock().unwrap().is_empty());
    }
}
