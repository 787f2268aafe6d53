//! Bits that flip, objects that end early or are gone, at random: a check finds every one, and no wrong byte comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ObjectKey};
use crate::catalog::{CatalogAhead, Step};
use crate::check::{self, CheckLevel};
use crate::content::copy_to;
use crate::copy::tests::world::{World, noise, reader};
use crate::entry::{Content, Entry};
use crate::format::pack::{BlobKind, PackRecord, SegmentName};
use crate::format::segment;
use crate::id::ObjectId;
use crate::monitor::Collector;
use crate::repo::{Reader, Repository, load_segment, names};
use crate::snapshot;

/// What the snapshots hold, by their times and by path.
type Truth = BTreeMap<(i64, Vec<u8>), (Entry, Vec<u8>)>;

/// Random numbers that are the same in every run.
struct Chance(blake3::OutputReader);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % limit.max(1) as u64).expect("below a usize")
    }
}

/// Everything that can be read: each entry as it is, or an error.
fn read(repo: &Arc<Repository>, truth: Option<&Truth>) -> crate::error::Result<Truth> {
    let reader = Arc::new(Reader::open(Arc::clone(repo), None, &Collector::default())?);
    let mut found = Truth::new();
    for record in snapshot::list(repo, reader.view(), &Collector::default())? {
        let mut catalog = CatalogAhead::new(Arc::clone(&reader), record.snapshot.root)?;
        while let Some(step) = catalog.next_step()? {
            let Step::Entry(mut entry) = step else { continue };
            let mut bytes = Vec::new();
            let read = copy_to(&reader, &entry, &mut bytes);
            entry.content = Content::Empty;
            let path = (record.snapshot.time.seconds, entry.path.as_bytes().to_vec());
            if let Some(truth) = truth {
                let (right, content) = truth.get(&path).expect("no path appears that was never there");
                assert_eq!(*entry, *right);
                // What was written before an error is right, too.
                let as_far = if read.is_ok() { content.as_slice() } else { content.get(..bytes.len()).expect("not longer") };
                assert!(bytes == as_far, "wrong bytes of {}", entry.path.display());
            }
            if read.is_ok() {
                found.insert(path, (*entry, bytes));
            }
        }
    }
    Ok(found)
}

/// Does some harm; `None` if no check can see it.
fn harm(store: &MemBackend, key: &ObjectKey, body: &Bytes, chance: &mut Chance) -> Option<String> {
    match chance.below(4) {
        // The only copy of a snapshot's name is its object.
        0 if key.as_str().starts_with("snapshots/") => None,
        0 => {
            store.delete(key).expect("deletes");
            Some(format!("{key} is gone"))
        }
        1 => {
            let end = chance.below(body.len());
            store.overwrite(key, body.slice(..end));
            Some(format!("{key} ends after {end} of {} bytes", body.len()))
        }
        _ => {
            let bit = chance.below(body.len() * 8);
            let mut bytes = body.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            store.overwrite(key, bytes);
            Some(format!("{key}: bit {bit} of {} bytes is flipped", body.len()))
        }
    }
}

/// A sample in the suite; `DEDUPLICITY_ROT=10000` for the long run.
#[test]
fn all_harm_is_found_and_no_wrong_byte_is_read() {
    let trials: usize = std::env::var("DEDUPLICITY_ROT").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let world = World::new();
    for i in 0..30_u32 {
        world.write(&format!("{}/{i}", i % 5), &noise(i, 100 + 300 * i as usize));
    }
    world.write("text", "all work and no play ".repeat(3000).as_bytes());
    world.write("large", &noise(99, 400_000));
    world.backup(1000);
    world.write("more", &noise(100, 50_000));
    world.backup(2000);
    let truth = read(&world.repo, None).expect("reads");
    assert!(truth.len() > 70);
    let mut keys = Vec::new();
    world.backend.list("", &mut |meta| keys.push(meta.key)).expect("lists");
    keys.sort();
    let mut chance = Chance(blake3::Hasher::new().update(b"rot").finalize_xof());
    let (mut missed, mut whole) = (Vec::new(), 0);
    for _ in 0..trials {
        let key = &keys[chance.below(keys.len())];
        let body = world.backend.read(key, u64::MAX).expect("reads");
        if let Some(what) = harm(&world.backend, key, &body, &mut chance) {
            // Where it does not even open, the harm has been noticed.
            if let Ok(repo) = Repository::open(Arc::clone(&world.backend) as Arc<dyn Backend>, b"x").map(Arc::new) {
                let monitor: Arc<dyn crate::monitor::Monitor> = Arc::new(Collector::default());
                match check::run(&repo, None, &CheckLevel::ReadData, &monitor) {
                    // Parity that is missing gets a note.
                    Ok(report) if report.errors == 0 && !what.ends_with("is gone") => missed.push(what),
                    Ok(report) if report.errors == 0 && !key.as_str().starts_with("parity/") => missed.push(what),
                    _ => {}
                }
                whole += usize::from(read(&repo, Some(&truth)).is_ok_and(|found| found.len() == truth.len()));
            }
        }
        world.backend.overwrite(key, body);
    }
    assert!(missed.is_empty(), "{} of {trials} went unnoticed: {missed:?}", missed.len());
    // Harm to filler, notes and the like costs nothing: the test is no good if all or none of it does.
    assert!(whole > 0 && whole < trials, "{whole}");
    assert_eq!(read(&world.repo, Some(&truth)).expect("reads"), truth);
}

#[test]
fn a_node_with_another_copy_is_not_lost() {
    let world = World::new();
    for i in 0..2000_u32 {
        world.write(&format!("{}/{i}", i % 50), b"x");
    }
    world.backup(1000);
    let reader = reader(&world.repo);
    let (key, frames) = world.packs(BlobKind::Node).remove(0);
    let (_, id) = names::parse_epoch_id(&key, "packs").expect("a pack");
    let records = load_segment(&world.repo, &reader.view().segments[0]).expect("loads");
    let record = records.into_iter().find(|record| record.id == id).expect("is named");
    // The same pack under another epoch is another pack.
    let copy = PackRecord { epoch: 1, ..record };
    let other = names::pack(1, &id);
    world.backend.create(&other, world.backend.read(&key, u64::MAX).expect("reads")).expect("creates");
    let sealed = segment::seal(&world.repo.keys().index, world.repo.id(), 0, &[copy]).expect("seals");
    let name = SegmentName { epoch: 0, id: ObjectId::of(&sealed) };
    world.backend.create(&names::segment(&name), sealed.into()).expect("creates");
    let look = || {
        let monitor = Arc::new(Collector::default());
        let report = check::run(&world.repo, None, &CheckLevel::Structure, &(Arc::clone(&monitor) as _)).expect("checks");
        (report, monitor.problems())
    };
    let (whole, problems) = look();
    assert_eq!(problems, []);
    let mut noticed = 0;
    for key in [&key, &other] {
        let good = world.backend.read(key, u64::MAX).expect("reads");
        frames.iter().for_each(|frame| world.flip(key, frame));
        let (report, problems) = look();
        assert_eq!((report.nodes, report.entries), (whole.nodes, whole.entries));
        assert!(problems.iter().all(|p| p.message.contains(" 0 of ")), "{problems:?}");
        noticed += problems.len();
        world.backend.overwrite(key, good);
    }
    assert!(noticed > 0, "one of the two is asked first");
}
