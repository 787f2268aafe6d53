use std::sync::Arc;

use super::*;
use crate::backend::mem::MemBackend;
use crate::format::ObjectKind;
use crate::format::parity::Member;
use crate::id::{ObjectId, RepoId};

const REPO: RepoId = RepoId([4; 16]);

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn store(percent: u8) -> (Arc<MemBackend>, ParityStore) {
    let inner = Arc::new(MemBackend::new());
    let store = ParityStore::new(Arc::clone(&inner) as _, REPO, Arc::new(Setting::new(percent)));
    (inner, store)
}

fn put(store: &dyn Backend, seed: u64, length: usize) -> (ObjectKey, Vec<u8>) {
    let bytes = noise(seed, length);
    let key = names::pack(1, &ObjectId::of(&bytes));
    store.create(&key, bytes.clone().into()).expect("creates");
    (key, bytes)
}

#[test]
fn a_store_with_parity_is_a_store() {
    // With any parity, that shows in listings.
    crate::backend::suite::run(&|| Box::new(store(0).1));
}

#[test]
fn the_latest_seal_decides_unless_this_process_does() {
    let setting = Setting::new(5);
    assert_eq!((setting.percent(), setting.to_seal()), (5, None));
    setting.note_seal(2, Some(10));
    setting.note_seal(1, Some(20));
    assert_eq!((setting.percent(), setting.to_seal()), (10, Some(10)));
    setting.note_seal(3, None);
    assert_eq!(setting.percent(), 5);
    setting.choose(0);
    setting.note_seal(4, Some(7));
    assert_eq!((setting.percent(), setting.sealed(), setting.to_seal()), (0, 7, Some(0)));
}

#[test]
fn parity_comes_and_goes_with_its_object() {
    let (inner, store) = store(5);
    let (key, _) = put(&store, 1, 1000);
    let session = names::session(1, &ObjectId([1; 32]));
    store.create(&session, Bytes::from_static(b"x")).expect("creates");
    store.create(&ObjectKey::new("probe/x").expect("a key"), Bytes::from_static(b"x")).expect("creates");
    assert_eq!(inner.len(), 4);
    assert!(inner.size(&names::parity_of(&key)).expect("is there") > 1000);
    store.delete(&key).expect("deletes");
    assert_eq!(inner.len(), 2);
}

#[test]
fn keys_and_requests_never_come_back_though_parity_is_off_here() {
    let (inner, store) = store(0);
    for key in [names::slot(&ObjectId([1; 32])), names::forget(&ObjectId([1; 32]))] {
        inner.overwrite(&key, b"x".to_vec());
        inner.overwrite(&names::parity_of(&key), b"x".to_vec());
        store.delete(&key).expect("deletes");
    }
    assert!(inner.is_empty());
}

#[test]
fn an_object_of_a_name_that_was_lost_gets_parity_of_its_own() {
    let (inner, store) = store(5);
    let key = names::epoch(1, names::EpochRole::Seal);
    for body in [b"first".to_vec(), b"second".to_vec()] {
        store.create(&key, body.clone().into()).expect("creates");
        inner.delete(&key).expect("deletes");
        assert_eq!(rebuild(&*inner, &key).expect("reads").expect("is rebuilt"), body);
    }
}

#[test]
fn as_many_shards_as_parity_has_come_back_and_no_more() {
    let (inner, store) = store(10);
    for (seed, length) in [(1, 1), (2, 5000), (3, 65_536), (4, 65_537), (5, 700_000), (6, 3_000_000)] {
        let (key, good) = put(&store, seed, length);
        let shards = length.div_ceil(MAX_SHARD);
        let count = inside::count(length as u64, 10);
        assert_eq!(inner.size(&names::parity_of(&key)).expect("is there"), inside::expected_size(length as u64, 10));
        assert_eq!(count, shards.div_ceil(10));
        for damaged in 0..=shards.min(count + 1) {
            let mut bad = good.clone();
            for shard in 0..damaged {
                let at = (shard * 7 % shards) * MAX_SHARD;
                bad[at] ^= 0x10;
            }
            inner.overwrite(&key, bad);
            let rebuilt = rebuild(&*inner, &key).expect("reads");
            assert_eq!(rebuilt.is_some(), damaged <= count, "{damaged} of {shards} with {count}");
            assert!(rebuilt.is_none_or(|bytes| bytes == good));
        }
        inner.overwrite(&key, good[..(shards - count.min(shards)) * MAX_SHARD].to_vec());
        assert_eq!(rebuild(&*inner, &key).expect("reads").expect("a tail comes back"), good);
        inner.delete(&key).expect("deletes");
        assert_eq!(rebuild(&*inner, &key).expect("reads").is_some(), shards == 1, "small ones are copied");
    }
}

#[test]
fn damaged_parity_does_what_it_still_can() {
    let (inner, store) = store(20);
    let (key, good) = put(&store, 1, 10 * MAX_SHARD);
    let name = names::parity_of(&key);
    let parity = inner.read(&name, u64::MAX).expect("reads").to_vec();
    let mut bad = good.clone();
    bad[5] ^= 1;
    inner.overwrite(&key, bad);
    let claim = names::parse(&key).expect("a pack");
    let end = parity.len();
    for flip in [0, 20, 45, 70, 100, 150, 500, 66_000, end - 1, end - 50, end - 100, end - 300] {
        let mut flipped = parity.clone();
        flipped[flip] ^= 4;
        inner.overwrite(&name, flipped);
        let found = Found::read(&*inner, &key, &claim).expect("reads").expect("one end is left");
        assert!(!found.is_whole(), "byte {flip}");
        assert_eq!(rebuild(&*inner, &key).expect("reads").expect("is rebuilt"), good, "byte {flip}");
    }
    for length in [0, 1, 63, 64, 400, 500, 66_000, end - 66_000, end - 1] {
        inner.overwrite(&name, parity[..length].to_vec());
        let rebuilt = rebuild(&*inner, &key).expect("reads");
        assert_eq!(rebuilt.is_some(), length >= 66_000, "{length} bytes");
        assert!(!Found::read(&*inner, &key, &claim).expect("reads").is_some_and(|found| found.is_whole()), "{length} bytes");
    }
    inner.overwrite(&name, parity);
    assert!(Found::read(&*inner, &key, &claim).expect("reads").expect("is there").is_whole());
    // Of another object.
    let (other, _) = put(&store, 2, 100);
    inner.overwrite(&name, inner.read(&names::parity_of(&other), u64::MAX).expect("reads"));
    assert!(rebuild(&*inner, &key).expect("reads").is_none());
}

/// Objects without parity inside, and the group's parity over them.
type Stored = (ObjectKey, Vec<u8>);

fn group_of(sizes: &[usize]) -> (Arc<MemBackend>, Vec<Stored>, ObjectKey) {
    let inner = Arc::new(MemBackend::new());
    let objects: Vec<_> = sizes.iter().enumerate().map(|(n, size)| put(&*inner, n as u64, *size)).collect();
    let member = |bytes: &Vec<u8>| Member { kind: ObjectKind::Pack, epoch: 1, size: bytes.len() as u64, id: ObjectId::of(bytes) };
    let members: Vec<Member> = objects.iter().map(|(_, bytes)| member(bytes)).collect();
    let made = group::make(&*inner, REPO, 7, members.clone()).expect("is made");
    let key = names::group(7, &ObjectId::of(&made));
    let size = made.len() as u64;
    inner.overwrite(&key, made.clone());
    assert_eq!(group::members(&*inner, &key, size).expect("reads"), Some(members));
    assert_eq!(group::remake(&*inner, &key, size).expect("reads"), Some(made));
    (inner, objects, key)
}

#[test]
fn a_group_brings_back_any_one_of_its_members() {
    let (inner, objects, group) = group_of(&[1_300_000, 1_200_001, 65_536, 1, 1_300_000]);
    for (key, good) in &objects {
        inner.delete(key).expect("deletes");
        assert_eq!(&group::rebuild(&*inner, &group, key).expect("reads").expect("is rebuilt"), good, "{key}");
        inner.overwrite(key, good.clone());
    }
    let (first, second) = (&objects[0], &objects[4]);
    inner.delete(&first.0).expect("deletes");
    inner.delete(&second.0).expect("deletes");
    assert!(group::rebuild(&*inner, &group, &first.0).expect("reads").is_none(), "two are too many");
    assert!(group::make(&*inner, REPO, 7, group::members(&*inner, &group, 2_000_000).expect("reads").expect("reads")).is_err());
}

#[test]
fn a_group_mends_what_is_damaged_in_different_places() {
    let (inner, objects, group) = group_of(&[1_300_000, 1_250_000]);
    for (number, (key, good)) in objects.iter().enumerate() {
        let mut bad = good.clone();
        for shard in (number..19).step_by(2) {
            bad[shard * MAX_SHARD + 77] ^= 1;
        }
        inner.overwrite(key, bad);
    }
    for (key, good) in &objects {
        assert_eq!(&group::rebuild(&*inner, &group, key).expect("reads").expect("is rebuilt"), good);
    }
    // One place too many.
    inner.overwrite(&objects[0].0, vec![0; 1_300_000]);
    assert!(group::rebuild(&*inner, &group, &objects[0].0).expect("reads").is_none());
}

#[test]
fn parity_is_as_large_as_its_percent() {
    assert_eq!([1, 3, 5, 6, 10, 34, 50, 51, 100].map(group::members_for), [20, 20, 20, 16, 10, 2, 2, 1, 1]);
    let size = 16 << 20;
    assert_eq!([1, 5, 100].map(|percent| inside::count(size, percent)), [3, 13, 256]);
    assert!(inside::expected_size(size, 5) < size * 6 / 100);
}

/// Golden vectors: what was written once has to be of use for as long as its repository lives.
#[test]
fn parity_objects_stay_as_they_are() {
    let (inner, store) = store(5);
    let mut made = Vec::new();
    let members = [(1, 200_000), (2, 70_001)].map(|(seed, length)| {
        let (key, bytes) = put(&store, seed, length);
        made.push(inner.read(&names::parity_of(&key), u64::MAX).expect("parity").to_vec());
        Member { kind: ObjectKind::Pack, epoch: 1, size: length as u64, id: ObjectId::of(&bytes) }
    });
    made.push(group::make(&*inner, REPO, 1, members.to_vec()).expect("a group"));
    let made: Vec<String> = made.iter().map(|bytes| ObjectId::of(bytes).short()).collect();
    assert_eq!(made, GOLDEN);
}

const GOLDEN: [&str; 3] = ["b9587aba", "44b94617", "370ca8a9"];
