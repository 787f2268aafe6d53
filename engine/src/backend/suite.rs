//! Conformance tests: every sentence of the [`Backend`] contract, for every backend and every wrapper.
//!
//! Panics at the first thing that is not so. What the contract leaves open (order of listings, whether a name can be
//! taken twice) is left open here. What only a crash shows is not tested here.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Backend, ErrorKind, ObjectKey};

type Test = (&'static str, fn(&dyn Backend));

/// Runs all tests. `make` gives a store that is new and empty each time and that [`Backend::prepare`] can make usable.
///
/// # Panics
///
/// When the store does not keep the contract.
pub fn run(make: &dyn Fn() -> Box<dyn Backend>) {
    let tests: [Test; 13] = [
        ("basics", basics),
        ("names", names),
        ("create_twice", create_twice),
        ("create_race", create_race),
        ("replace", replace),
        ("ranges", ranges),
        ("size_limit", size_limit),
        ("missing", missing),
        ("delete", delete),
        ("prefixes", prefixes),
        ("long_listing", long_listing),
        ("large", large),
        ("concurrent", concurrent),
    ];
    for (name, test) in tests {
        let store = make();
        store.prepare().unwrap_or_else(|e| panic!("prepare for {name}: {e}"));
        assert_eq!(listing(&*store, ""), BTreeMap::new(), "not empty before {name}");
        test(&*store);
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap_or_else(|| panic!("bad key in the suite: {name}"))
}

/// Bytes that differ from place to place and from seed to seed.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

fn put(store: &dyn Backend, name: &str, body: &Bytes) {
    store.create(&key(name), body.clone()).unwrap_or_else(|e| panic!("create: {e}"));
}

fn get(store: &dyn Backend, name: &str) -> Bytes {
    store.read(&key(name), 1 << 30).unwrap_or_else(|e| panic!("read: {e}"))
}

fn listing(store: &dyn Backend, prefix: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let listed = store.list(prefix, &mut |meta| {
        let twice = found.insert(meta.key.to_string(), meta.size);
        assert!(twice.is_none(), "{} listed twice", meta.key);
    });
    listed.unwrap_or_else(|e| panic!("list: {e}"));
    found
}

fn kind<T>(result: Result<T, super::BackendError>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind)
}

fn basics(store: &dyn Backend) {
    store.prepare().expect("a second prepare is no error");
    assert!(store.concurrency() >= 1);
    assert!(!store.location().is_empty());
    for length in [0, 1, 4095, 4096, 100_000] {
        let (name, body) = (format!("size-{length}"), pattern(length, 1));
        put(store, &name, &body);
        assert!(get(store, &name) == body, "{length} bytes came back changed");
        assert_eq!(store.size(&key(&name)).expect("size"), length as u64);
    }
    store.barrier().expect("barrier");
    store.barrier().expect("a barrier with nothing to do");
    assert_eq!(listing(store, "").len(), 5);
}

fn names(store: &dyn Backend) {
    for bad in ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".a", "a/.b", "A", "a b", "a\\b", "ä", "a\0b", "a%20"] {
        assert!(ObjectKey::new(bad).is_none(), "{bad:?} taken for a key");
    }
    assert!(ObjectKey::new("x".repeat(129)).is_none());
    assert!(ObjectKey::new(format!("{}/{}", "x".repeat(128), "y".repeat(127))).is_none());
    let longest = format!("{}/{}", "x".repeat(128), "y".repeat(126));
    let names = ["c", "a-b_c.d", "0", "a..b", "deep/er/and/deep/er/and/er", "packs/0000000000/ab.cd", &longest];
    for name in names {
        put(store, name, &pattern(10, name.len() as u64));
    }
    for name in names {
        assert!(get(store, name) == pattern(10, name.len() as u64), "{name}");
    }
    let found = listing(store, "");
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        sorted
    });
}

fn create_twice(store: &dyn Backend) {
    let (old, new) = (pattern(100, 1), pattern(100, 2));
    put(store, "taken", &old);
    let second = store.create(&key("taken"), new.clone());
    if store.create_is_exclusive() {
        assert_eq!(kind(second), Some(ErrorKind::AlreadyExists));
        assert!(get(store, "taken") == old, "the old object was touched");
        let empty = store.create(&key("taken"), Bytes::new());
        assert_eq!(kind(empty), Some(ErrorKind::AlreadyExists));
    } else if let Err(error) = second {
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        assert!(get(store, "taken") == old);
    } else {
        assert!(get(store, "taken") == new);
    }
}

fn replace(store: &dyn Backend) {
    for (round, length) in [100, 5, 100_000, 0].into_iter().enumerate() {
        let body = pattern(length, round as u64);
        store.replace(&key("mended/a"), body.clone()).unwrap_or_else(|e| panic!("replace: {e}"));
        assert!(get(store, "mended/a") == body);
    }
    assert_eq!(listing(store, "").into_iter().collect::<Vec<_>>(), [("mended/a".to_owned(), 0)]);
}

fn create_race(store: &dyn Backend) {
    for round in 0..4 {
        let name = format!("race/{round}");
        let outcomes: Vec<(u64, Option<ErrorKind>)> = std::thread::scope(|scope| {
            let name = &name;
            let writers: Vec<_> =
                (0..8).map(|n| scope.spawn(move || (n, kind(store.create(&key(name), pattern(50_000, n)))))).collect();
            writers.into_iter().map(|w| w.join().expect("writer")).collect()
        });
        let winners: Vec<u64> = outcomes.iter().filter(|(_, e)| e.is_none()).map(|(n, _)| *n).collect();
        assert!(outcomes.iter().all(|(_, e)| matches!(e, None | Some(ErrorKind::AlreadyExists))), "{outcomes:?}");
        let body = get(store, &name);
        assert!(winners.iter().any(|n| body == pattern(50_000, *n)), "the object is no winner's");
        assert!(!store.create_is_exclusive() || winners.len() == 1, "{} winners", winners.len());
    }
}

fn ranges(store: &dyn Backend) {
    let body = pattern(10_000, 3);
    put(store, "ranged", &body);
    let read = |offset, length| store.read_range(&key("ranged"), offset, length);
    for (offset, length) in [(0, 1), (0, 10_000), (9_999, 1), (5_000, 2_345), (1, 9_999), (4_096, 4_096), (77, 0)] {
        let bytes = read(offset as u64, length).unwrap_or_else(|e| panic!("{length} bytes from {offset}: {e}"));
        assert!(bytes == body[offset..offset + length], "{length} bytes from {offset} are wrong");
    }
    for (offset, length) in [(0, 10_001), (9_999, 2), (10_000, 1), (20_000, 1), (u64::MAX, 1), (u64::MAX - 5, 10)] {
        assert_eq!(kind(read(offset, length)), Some(ErrorKind::Corrupt), "{length} bytes from {offset}");
    }
    put(store, "empty", &Bytes::new());
    assert_eq!(kind(store.read_range(&key("empty"), 0, 1)), Some(ErrorKind::Corrupt));
}

fn size_limit(store: &dyn Backend) {
    let body = pattern(5_000, 4);
    put(store, "limited", &body);
    assert!(store.read(&key("limited"), 5_000).expect("exactly as large as allowed") == body);
    assert_eq!(kind(store.read(&key("limited"), 4_999)), Some(ErrorKind::Corrupt));
    assert_eq!(kind(store.read(&key("limited"), 0)), Some(ErrorKind::Corrupt));
    put(store, "empty", &Bytes::new());
    assert!(store.read(&key("empty"), 0).expect("nothing of nothing").is_empty());
}

fn missing(store: &dyn Backend) {
    put(store, "there/one", &pattern(10, 5));
    for name in ["gone", "there/two", "there", "not/there/at/all", "there/one-and-a-half"] {
        assert_eq!(kind(store.read(&key(name), 9)), Some(ErrorKind::NotFound), "read of {name}");
        assert_eq!(kind(store.read_range(&key(name), 0, 1)), Some(ErrorKind::NotFound), "range of {name}");
        assert_eq!(kind(store.size(&key(name))), Some(ErrorKind::NotFound), "size of {name}");
    }
    let error = store.read(&key("gone"), 9).expect_err("missing");
    assert_eq!(error.key, "gone");
    assert!(!error.is_temporary() && !error.message.contains('\n'));
    assert!(error.to_string().starts_with(&store.location()), "{error}");
}

fn delete(store: &dyn Backend) {
    put(store, "a/one", &pattern(10, 6));
    put(store, "a/two", &pattern(10, 7));
    store.delete(&key("a/one")).expect("delete");
    store.delete(&key("a/one")).expect("delete what is gone");
    store.delete(&key("never/was")).expect("delete what never was");
    assert_eq!(kind(store.size(&key("a/one"))), Some(ErrorKind::NotFound));
    assert_eq!(listing(store, "").keys().collect::<Vec<_>>(), ["a/two"]);
    put(store, "a/one", &pattern(20, 8));
    assert!(get(store, "a/one") == pattern(20, 8), "an old body came back");
}

fn prefixes(store: &dyn Backend) {
    for name in ["a/1", "a/2", "a/b/3", "a-/4", "a0/5", "b/6", "ab/7", "top"] {
        put(store, name, &pattern(name.len(), 9));
    }
    let names = |prefix: &str| listing(store, prefix).into_keys().collect::<Vec<_>>();
    assert_eq!(names("a/"), ["a/1", "a/2", "a/b/3"]);
    assert_eq!(names("a/b/"), ["a/b/3"]);
    assert_eq!(names("b/"), ["b/6"]);
    assert_eq!(names("c/"), [""; 0]);
    assert_eq!(names("a/b/c/"), [""; 0]);
    assert_eq!(names(""), ["a-/4", "a/1", "a/2", "a/b/3", "a0/5", "ab/7", "b/6", "top"]);
    assert_eq!(listing(store, "a/").get("a/b/3"), Some(&5));
}

/// More objects than one page of any listing holds.
fn long_listing(store: &dyn Backend) {
    const COUNT: usize = 2_100;
    let name = |n: usize| format!("many/{:02x}/{n:05}", n % 256);
    let failed: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|first| {
                let write = move |n: usize| kind(store.create(&key(&name(n)), pattern(n % 7, 1)));
                scope.spawn(move || (first..COUNT).step_by(8).filter(|n| write(*n).is_some()).count())
            })
            .collect();
        writers.into_iter().map(|w| w.join().expect("writer")).sum()
    });
    assert_eq!(failed, 0);
    put(store, "other/1", &Bytes::new());
    let found = listing(store, "many/");
    assert_eq!(found.len(), COUNT);
    assert!((0..COUNT).all(|n| found.get(&name(n)) == Some(&(n as u64 % 7))));
    assert_eq!(listing(store, "").len(), COUNT + 1);
    store.delete(&key(&name(1_234))).expect("delete");
    assert_eq!(listing(store, "many/").len(), COUNT - 1);
}

fn large(store: &dyn Backend) {
    let body = pattern(8 << 20, 10);
    put(store, "large", &body);
    assert!(get(store, "large") == body, "8 MiB came back changed");
    let middle = store.read_range(&key("large"), 4_000_001, 2_000_003).expect("range");
    assert!(middle == body[4_000_001..6_000_004]);
    let ragged = pattern((3 << 20) + 17, 11);
    put(store, "ragged", &ragged);
    assert!(get(store, "ragged") == ragged);
    assert_eq!(kind(store.read(&key("large"), 100)), Some(ErrorKind::Corrupt));
}

/// Several threads at once, each seeing its own work and a listing that is whole.
fn concurrent(store: &dyn Backend) {
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            scope.spawn(move || {
                for n in 0..10 {
                    let name = format!("t{thread}/{n}");
                    let body = pattern(30_000, thread * 100 + n);
                    put(store, &name, &body);
                    assert!(listing(store, &format!("t{thread}/")).contains_key(&name), "{name} is not listed");
                    assert!(get(store, &name) == body);
                    let part = store.read_range(&key(&name), 10_000, 1_000).expect("range");
                    assert!(part == body[10_000..11_000]);
                    if n % 2 == 0 {
                        store.delete(&key(&name)).expect("delete");
                    }
                }
                store.barrier().expect("barrier");
            });
        }
    });
    assert_eq!(listing(store, "").len(), 30);
}
