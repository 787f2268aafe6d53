use std::io;
use std::time::Duration;

use super::resuming::PROGRESS;
use super::*;

/// Serves `0, 1, 2, ...`, and breaks off as the script says: after so many bytes of each attempt.
#[derive(Debug)]
struct Flaky {
    size: u64,
    tells_size: bool,
    cuts: Mutex<Vec<u64>>,
    starts: Mutex<Vec<u64>>,
    ends_quietly: bool,
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Protocol for Flaky {
    fn concurrency(&self) -> usize {
        0
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        let named = |name: &str| StoredFile { name: name.to_owned(), size: Some(self.size) };
        Ok([named("f"), named("a\nb"), named(".."), named("x/y")].into())
    }

    fn start(&self, name: &str, offset: u64, _: Option<u64>) -> Result<Started, Failure> {
        if name != "f" {
            return Err(Failure::not_found());
        }
        self.starts.lock().unwrap().push(offset);
        let bytes: Vec<u8> = (offset..self.size).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let bytes = io::Cursor::new(bytes);
        let cut = self.cuts.lock().unwrap().pop();
        let reader: Box<dyn Read + Send> = match cut {
            None => Box::new(bytes),
            Some(n) if self.ends_quietly => Box::new(bytes.take(n)),
            Some(n) => Box::new(bytes.take(n).chain(Broken)),
        };
        Ok(Started { reader, size: self.tells_size.then_some(self.size) })
    }

    fn put(&self, _: &Spool, _: &str, _: &str) -> Result<(), Failure> {
        Err(Failure::new(StoreErrorKind::Denied, "read only"))
    }

    fn remove(&self, _: &str) -> Result<(), Failure> {
        Err(Failure::not_found())
    }
}

fn store(size: u64, cuts: &[u64]) -> (Arc<Flaky>, Remote) {
    let flaky = Flaky {
        size,
        tells_size: true,
        cuts: Mutex::new(cuts.iter().rev().copied().collect()),
        starts: Mutex::default(),
        ends_quietly: false,
    };
    with(flaky)
}

fn with(flaky: Flaky) -> (Arc<Flaky>, Remote) {
    let flaky = Arc::new(flaky);
    let mut remote = Remote::new("test://".into(), flaky.clone(), &Options { attempts: 6, ..Options::default() });
    remote.patience.first_wait = Duration::from_millis(1);
    remote.patience.longest_wait = Duration::from_millis(2);
    (flaky, remote)
}

fn read(store: &Remote) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open("f").unwrap().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn whole(size: u64) -> Vec<u8> {
    (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn goes_on_where_it_broke_off() {
    let (flaky, store) = store(1000, &[0, 100, 50]);
    assert_eq!(read(&store).unwrap(), whole(1000));
    assert_eq!(*flaky.starts.lock().unwrap(), [0, 0, 100, 150]);
}

#[test]
fn an_end_before_the_end_is_a_break() {
    let (flaky, store) = store(1000, &[100]);
    let flaky = Flaky { ends_quietly: true, cuts: Mutex::new(vec![100]), starts: Mutex::default(), ..*flaky };
    drop(store);
    let (flaky, store) = with(flaky);
    assert_eq!(read(&store).unwrap(), whole(1000));
    assert_eq!(*flaky.starts.lock().unwrap(), [0, 100]);
}

#[test]
fn gives_up_without_progress_with_the_reason_inside() {
    let (flaky, store) = store(1000, &[0; 20]);
    let error = read(&store).unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<StoreError>().unwrap();
    assert_eq!((inner.kind, inner.name.as_str()), (StoreErrorKind::Unreachable, "f"));
    assert_eq!(flaky.starts.lock().unwrap().len(), 6);
}

#[test]
fn progress_renews_patience() {
    let (_, store) = store(20 * PROGRESS, &[PROGRESS; 19]);
    assert_eq!(read(&store).unwrap(), whole(20 * PROGRESS));
}

#[test]
fn a_break_after_the_last_byte_does_not_matter() {
    let (flaky, store) = store(100, &[100]);
    assert_eq!(read(&store).unwrap(), whole(100));
    assert_eq!(flaky.starts.lock().unwrap().len(), 1);
}

#[test]
fn the_listing_counts() {
    let (flaky, store) = store(100, &[]);
    let names: Vec<_> = store.list().unwrap().into_iter().map(|f| f.name).collect();
    assert_eq!(names, ["f"]);
    store.sizes.lock().unwrap().insert("f".into(), 99);
    let error = store.open("f").err().unwrap();
    assert!(error.message.contains("100 bytes now"), "{error}");
    let (_, store) = with(Flaky { tells_size: false, cuts: Mutex::default(), starts: Mutex::default(), ..*flaky });
    store.sizes.lock().unwrap().insert("f".into(), 99);
    assert!(read(&store).unwrap_err().to_string().contains("more bytes"));
}

#[test]
fn odd_names_are_not_there() {
    let (flaky, store) = store(1, &[]);
    for name in ["", ".", "..", "a/b", "a\r\nDELE f", "g"] {
        assert_eq!(store.open(name).err().unwrap().kind, StoreErrorKind::NotFound, "{name:?}");
    }
    assert!(flaky.starts.lock().unwrap().is_empty());
}
