//! The index against a model, and with its file damaged in every way that comes to mind.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::format::pack::{BlobEntry, BlobKind, Compression, Directory, FrameEntry};

mod damage;

pub(super) const REPO: RepoId = RepoId([0x11; 16]);

pub(super) fn blob(number: u64) -> BlobId {
    BlobId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// A pack with these blobs, three to a frame.
fn pack(seed: u64, blobs: &[u64]) -> PackRecord {
    let length = |number: u64| u32::try_from(number % 1000 + 1).unwrap();
    let frame = |blobs: &[u64]| FrameEntry {
        offset: 64,
        sealed: 100,
        raw: blobs.iter().map(|number| length(*number)).sum(),
        compression: Compression::Zstd,
        kind: BlobKind::Data,
        blobs: u32::try_from(blobs.len()).unwrap(),
    };
    let directory = Directory {
        frames: blobs.chunks(3).map(frame).collect(),
        blobs: blobs.iter().map(|number| BlobEntry { id: blob(*number), length: length(*number) }).collect(),
    };
    let id = ObjectId::of(&seed.to_le_bytes());
    PackRecord { epoch: 3, id, size: 32 << 20, header: seed.to_le_bytes().to_vec(), directory }
}

pub(super) fn name(number: u64) -> SegmentName {
    SegmentName { epoch: 4, id: ObjectId::of(&number.to_le_bytes()) }
}

/// Segment `number`: two packs of its own, and one that the next segment has too.
pub(super) fn segment(number: u64, size: u64) -> Vec<PackRecord> {
    let blobs = |from: u64, count: u64| (from..from + count).collect::<Vec<_>>();
    vec![
        pack(number * 10, &blobs(number * size, size)),
        pack(number * 10 + 1, &blobs(number * size + size / 2, size)),
        pack(1_000_000 + number, &blobs(1_000_000 + number * 5, 5)),
        pack(1_000_001 + number, &blobs(1_000_005 + number * 5, 5)),
    ]
}

type Place = (ObjectId, u32, u32, u32);

fn expected<'a>(segments: impl Iterator<Item = &'a Vec<PackRecord>>) -> BTreeMap<BlobId, BTreeSet<Place>> {
    let mut places: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for record in segments.flatten() {
        let mut entries = Vec::new();
        entry::append(0, record, &mut entries).unwrap();
        for entry in &entries {
            let at = location(entry);
            places.entry(BlobId(*id_of(entry))).or_default().insert((record.id, at.frame, at.offset, at.length));
        }
    }
    places
}

/// All places of a blob, found by refusing every one.
fn places(index: &Index, id: &BlobId) -> Result<BTreeSet<Place>> {
    let packs = RefCell::new(BTreeSet::new());
    let refuse = |pack| {
        packs.borrow_mut().insert(pack);
        false
    };
    assert_eq!(index.locate(id, &refuse)?, None);
    let mut places = BTreeSet::new();
    for wanted in packs.into_inner() {
        let at = index.locate(id, &|pack| pack == wanted)?.expect("it was there a moment ago");
        places.insert((index.pack(at.pack)?.id, at.frame, at.offset, at.length));
    }
    Ok(places)
}

/// Whether the index answers exactly as these segments say.
pub(super) fn compare(index: &Index, segments: &BTreeMap<u64, Vec<PackRecord>>, absent: &[u64]) -> Result<()> {
    let expected = expected(segments.values());
    for (id, expected) in &expected {
        assert_eq!(&places(index, id)?, expected);
    }
    for number in absent {
        if !expected.contains_key(&blob(*number)) {
            assert_eq!(places(index, &blob(*number))?, BTreeSet::new());
        }
    }
    let ids: BTreeSet<_> = segments.values().flatten().map(|record| record.id).collect();
    let mut listed = BTreeSet::new();
    index.packs(|_, epoch, id, size| {
        assert_eq!((epoch, size), (3, 32 << 20));
        listed.insert(id);
    })?;
    assert_eq!(listed, ids);
    Ok(())
}

pub(super) fn sync(index: &Index, segments: &BTreeMap<u64, Vec<PackRecord>>) -> Result<()> {
    let valid: Vec<_> = segments.keys().map(|number| name(*number)).collect();
    index.sync(&valid, &|wanted| {
        let found = segments.iter().find(|(number, _)| name(**number) == *wanted);
        Ok(found.expect("only valid segments are asked for").1.clone())
    })
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    Sync(BTreeSet<u64>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..16).prop_map(Step::Add),
        2 => proptest::collection::btree_set(0_u64..16, 0..16).prop_map(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_as_the_model(steps in proptest::collection::vec(step(), 1..24), size in 1_u64..220) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(Some(dir.path()), REPO).unwrap();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(number) => {
                    index.add(name(number), &segment(number, size)).unwrap();
                    model.insert(number, segment(number, size));
                }
                Step::Sync(numbers) => {
                    model = numbers.into_iter().map(|number| (number, segment(number, size))).collect();
                    sync(&index, &model).unwrap();
                }
                Step::Reopen => {
                    drop(index);
                    index = Index::open(Some(dir.path()), REPO).unwrap();
                }
            }
            prop_assert!(index.is_persistent());
        }
        // Packs of segments that are gone stay until the next change by sync.
        sync(&index, &model).unwrap();
        compare(&index, &model, &[0, 7, 1_000_000, 5_000_000]).unwrap();
    }
}

#[test]
fn a_blob_in_two_packs_is_found_in_the_usable_one() {
    let index = Index::open(None, REPO).unwrap();
    assert!(!index.is_persistent() && index.is_empty());
    index.add(name(1), &[pack(1, &[5, 6, 7, 8]), pack(2, &[8, 5])]).unwrap();
    assert_eq!(index.len(), 6);
    // Ordinals are dense and in the order in which packs came.
    let first = index.locate(&blob(8), &|pack| pack == 0).unwrap().unwrap();
    let second = index.locate(&blob(8), &|pack| pack == 1).unwrap().unwrap();
    assert_eq!(index.pack(first.pack).unwrap().id, pack(1, &[]).id);
    assert_eq!((first.frame, first.offset, first.length), (1, 0, 9));
    assert_eq!(index.pack(second.pack).unwrap().id, pack(2, &[]).id);
    assert_eq!((second.frame, second.offset, second.length), (0, 0, 9));
    assert_eq!(index.locate(&blob(8), &|_| false).unwrap(), None);
    assert_eq!(index.locate(&blob(9), &|_| true).unwrap(), None);
}

#[test]
fn ids_with_equal_fronts_are_told_apart_across_pages() {
    let numbered = |number: u32| {
        let mut id = [0x42; 32];
        id[28..].copy_from_slice(&number.to_le_bytes());
        BlobEntry { id: BlobId(id), length: number }
    };
    let blobs: Vec<_> = (0..3000).map(numbered).collect();
    let frame = FrameEntry { raw: u32::MAX, blobs: 3000, ..pack(1, &[1]).directory.frames[0] };
    let directory = Directory { frames: vec![frame], blobs: blobs.clone() };
    let index = Index::open(None, REPO).unwrap();
    index.add(name(1), &[PackRecord { directory, ..pack(1, &[]) }]).unwrap();
    for blob in &blobs {
        assert_eq!(index.locate(&blob.id, &|_| true).unwrap().unwrap().length, blob.length);
    }
    assert_eq!(index.locate(&BlobId([0x42; 32]), &|_| true).unwrap(), None);
}

#[test]
fn many_small_segments_make_few_runs() {
    let index = Index::open(None, REPO).unwrap();
    for number in 0..300 {
        index.add(name(number), &segment(number, 40)).unwrap();
        assert!(index.current.get().runs.len() <= 12);
    }
    index.add(name(400), &[]).unwrap();
    let loaded = AtomicBool::new(false);
    let valid: Vec<_> = (0..300).chain([400]).map(name).collect();
    index
        .sync(&valid, &|_| {
            loaded.store(true, Ordering::Relaxed);
            Ok(Vec::new())
        })
        .unwrap();
    assert!(!loaded.into_inner(), "all of them are held, the empty one too");
}

#[test]
fn look_ups_go_on_while_runs_are_merged() {
    let index = Index::open(None, REPO).unwrap();
    index.add(name(0), &segment(0, 500)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for number in 0..500 {
                        assert!(index.locate(&blob(number), &|_| true).unwrap().is_some());
                    }
                }
            });
        }
        for number in 1..60 {
            index.add(name(number), &segment(number, 300)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_page_cache_stays_within_its_bound() {
    let mut index = Index::open(None, REPO).unwrap();
    index.pages = PageCache::new(4);
    index.add(name(1), &segment(1, 5000)).unwrap();
    for number in 5000..10_000 {
        assert!(index.locate(&blob(number), &|_| true).unwrap().is_some());
        assert!(index.pages.bytes() <= 4 * PAGE_ENTRIES * ENTRY);
    }
    assert!(index.pages.bytes() > 2 * PAGE_ENTRIES * ENTRY);
}

#[test]
fn errors_of_the_caller_pass_through_and_leave_the_index_usable() {
    let index = Index::open(None, REPO).unwrap();
    let valid: Vec<_> = (0..20).map(name).collect();
    let failed = index.sync(&valid, &|wanted| {
        if *wanted == name(13) { Err(Error::Interrupted) } else { Ok(segment(1, 10)) }
    });
    assert!(matches!(failed, Err(Error::Interrupted)));
    let mut crooked = pack(1, &[1, 2, 3]);
    crooked.directory.frames[0].blobs = 4;
    assert!(matches!(index.add(name(30), &[crooked.clone()]), Err(Error::Damaged { .. })));
    crooked.directory.frames[0].blobs = 2;
    assert!(matches!(index.add(name(30), &[crooked]), Err(Error::Damaged { .. })));
    let model = BTreeMap::from([(2, segment(2, 50))]);
    sync(&index, &model).unwrap();
    compare(&index, &model, &[1, 2, 3]).unwrap();
}

/// Else packs that are deleted long since would count as known, and as missing.
#[test]
fn packs_of_dropped_segments_go_though_a_sync_was_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Index::open(Some(dir.path()), REPO).unwrap();
    sync(&open(), &BTreeMap::from([(1, segment(1, 10)), (2, segment(2, 10))])).unwrap();
    assert!(open().sync(&[name(3)], &|_| Err(Error::Interrupted)).is_err());
    let index = open();
    sync(&index, &BTreeMap::from([(3, segment(3, 10))])).unwrap();
    let mut packs = BTreeSet::new();
    index
        .packs(|_, _, id, _| {
            packs.insert(id);
        })
        .unwrap();
    assert_eq!(packs, segment(3, 10).iter().map(|pack| pack.id).collect());
}
