//! Damage of every kind to every object of small repositories: all of it is found, none of it ends the check.

mod rot;
mod sample;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

use self::sample::{Sample, noise};
use super::*;
use crate::backend::Backend;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::format::pack::BlobKind;
use crate::format::{segment, snapshot};
use crate::id::ObjectId;
use crate::monitor::Counter;
use crate::repo::{InitOptions, SnapshotName, load_segment, names};

fn mentions(problems: &[Problem], text: &str) -> bool {
    problems.iter().any(|p| p.subject.contains(text) || p.message.contains(text))
}

#[test]
fn a_whole_repository_has_no_findings() {
    let sample = Sample::small();
    let (report, problems) = sample.check(CheckLevel::ReadData);
    assert_eq!(problems, []);
    assert_eq!((report.keys, report.snapshots, report.unreferenced_packs), (1, 2, 0));
    assert_eq!(report.packs_read, report.packs);
    assert!(report.nodes >= 3 && report.blobs > 50 && report.segments >= 2, "{report:?}");
    sample.seal();
    assert_eq!(sample.check(CheckLevel::ReadData), (report, vec![]));
}

#[test]
fn an_empty_repository_is_whole() {
    let sample = Sample::new(0);
    let expected = CheckReport { keys: 1, ..CheckReport::default() };
    assert_eq!(sample.check(CheckLevel::ReadData), (expected.clone(), vec![]));
    assert_eq!(sample.check(CheckLevel::Subset(Share::Percent(1.0))), (expected, vec![]));
}

#[test]
fn every_lost_object_is_noticed() {
    let sample = Sample::small();
    sample.seal();
    // Whether maintenance is done is nothing that a repository can lack; the next maintenance says so again. It makes parity that
    // is missing, too, which gets a note.
    let may_lack = |key: &&crate::backend::ObjectKey| key.as_str().ends_with(".done") || key.as_str().starts_with("parity/");
    for key in sample.objects("").iter().filter(|key| !may_lack(key)) {
        sample.expect_found(key, None, CheckLevel::Structure, "deleted");
    }
    sample.assert_clean();
}

#[test]
fn every_truncation_is_noticed() {
    let sample = Sample::small();
    sample.seal();
    for key in sample.objects("") {
        let good = sample.bytes(&key);
        let lengths = [0, 1, 9, 63, 64, 95, 96, 200, good.len() / 2, good.len() - 64, good.len() - 17, good.len() - 1];
        for length in lengths.into_iter().filter(|l| *l < good.len()) {
            sample.expect_found(&key, Some(good[..length].to_vec()), CheckLevel::Structure, &format!("cut to {length}"));
            sample.expect_found(&key, Some(good[..length].to_vec()), CheckLevel::ReadData, &format!("cut to {length}"));
        }
        let longer = [&good[..], b"x"].concat();
        sample.expect_found(&key, Some(longer), CheckLevel::Structure, "lengthened");
    }
    sample.assert_clean();
}

#[test]
fn every_flip_is_noticed() {
    let sample = Sample::small();
    sample.seal();
    for key in sample.objects("") {
        let good = sample.bytes(&key);
        let ends = (0..110).chain(good.len().saturating_sub(80)..good.len());
        for byte in ends.chain((0..good.len()).step_by(good.len() / 20 + 1)).filter(|byte| *byte < good.len()) {
            let mut bad = good.clone();
            bad[byte] ^= 1 << (byte % 8);
            sample.expect_found(&key, Some(bad), CheckLevel::ReadData, &format!("byte {byte}"));
        }
    }
    sample.assert_clean();
}

#[test]
fn objects_in_each_others_place_are_noticed() {
    let sample = Sample::small();
    sample.seal();
    let other = Sample::small();
    for folder in ["packs/", "index/", "snapshots/", "keys/", "epochs/"] {
        let keys = sample.objects(folder);
        let strange =
            other.objects(folder).iter().map(|key| other.bytes(key)).chain([sample.bytes(&names::config())]).collect::<Vec<_>>();
        for (i, key) in keys.iter().enumerate() {
            let neighbour = (keys.len() > 1).then(|| sample.bytes(&keys[(i + 1) % keys.len()]));
            for bad in strange.iter().cloned().chain(neighbour) {
                sample.expect_found(key, Some(bad), CheckLevel::ReadData, "replaced");
            }
        }
    }
    sample.assert_clean();
}

#[test]
fn a_lost_segment_shows_in_files_and_a_lost_pack_too() {
    let sample = Sample::small();
    for folder in ["index/", "packs/"] {
        let mut named = false;
        for key in sample.objects(folder) {
            let good = sample.bytes(&key);
            sample.store.delete(&key).unwrap();
            let problems = sample.check(CheckLevel::Structure).1;
            named |= mentions(&problems, "/large") && mentions(&problems, "in no pack that is there");
            sample.store.overwrite(&key, good);
        }
        assert!(named, "{folder}: the file with lost blobs is named");
    }
}

#[test]
fn messages_about_one_snapshot_are_limited() {
    let sample = Sample::new(2000);
    sample.back_up();
    assert!(sample.check(CheckLevel::ReadData).0.entries > 2000);
    let view = sample.repo.load_view(&Collector::default()).unwrap();
    for name in &view.segments {
        for record in load_segment(&sample.repo, name).unwrap() {
            if record.directory.frames[0].kind == BlobKind::Data {
                sample.store.delete(&names::pack(record.epoch, &record.id)).unwrap();
            }
        }
    }
    let (report, problems) = sample.check(CheckLevel::Structure);
    assert!(report.errors > 1900 && problems.len() < 100, "{report:?}, {} messages", problems.len());
    assert!(mentions(&problems, "more files have missing blobs"));
}

#[test]
fn shared_nodes_are_read_once() {
    let sample = Sample::new(3000);
    sample.back_up();
    let (once, _) = sample.check(CheckLevel::Structure);
    assert!(once.nodes > 4);
    fs::write(sample.tree.path().join("f01500"), b"changed").unwrap();
    sample.back_up();
    let (twice, problems) = sample.check(CheckLevel::Structure);
    assert_eq!(problems, []);
    assert!(twice.nodes <= once.nodes + 4, "{once:?} {twice:?}");
}

#[test]
fn parts_cover_all_packs_and_a_sample_is_never_empty() {
    let sample = Sample::new(2000);
    for i in 0..6 {
        fs::write(sample.tree.path().join("large"), noise(700 << 10, i)).unwrap();
        sample.back_up();
    }
    let all = sample.check(CheckLevel::ReadData).0;
    assert!(all.packs >= 6);
    let parts = (1..=3).map(|number| sample.check(CheckLevel::Subset(Share::Part { number, of: 3 })).0);
    let (packs, bytes) = parts.fold((0, 0), |sum, r| (sum.0 + r.packs_read, sum.1 + r.bytes_read));
    assert_eq!((packs, bytes), (all.packs, all.bytes_read));
    let read = |p: f64| sample.check(CheckLevel::Subset(Share::Percent(p))).0.packs_read;
    assert_eq!(read(0.001), 1);
    assert_eq!(read(50.0), all.packs.div_ceil(2));
    assert_eq!(read(100.0), all.packs);
    let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
    let memory = tempfile::tempdir().unwrap();
    let next = || run(&sample.repo, Some(memory.path()), &CheckLevel::Subset(Share::Next { of: 3 }), &monitor).unwrap();
    let mut turns = [next(), next(), next()].map(|report| {
        assert!(report.errors == 0 && report.packs_read >= 10, "some are read by chance: {report:?}");
        report.part
    });
    turns.sort_unstable();
    assert_eq!(turns, [Some(1), Some(2), Some(3)]);
    for share in [
        Share::Next { of: 0 },
        Share::Part { number: 0, of: 3 },
        Share::Part { number: 4, of: 3 },
        Share::Percent(0.0),
        Share::Percent(f64::NAN),
        Share::Percent(101.0),
    ] {
        assert!(matches!(run(&sample.repo, None, &CheckLevel::Subset(share), &monitor), Err(Error::Invalid(_))), "{share:?}");
    }
}

#[test]
fn unreferenced_packs_are_no_finding() {
    let sample = Sample::small();
    let key = names::pack(0, &ObjectId([7; 32]));
    sample.store.create(&key, vec![0; 70_000].into()).unwrap();
    let monitor = Arc::new(Collector::default());
    let report = run(&sample.repo, None, &CheckLevel::ReadData, &(Arc::clone(&monitor) as _)).unwrap();
    assert_eq!((report.errors, report.unreferenced_packs, report.unreferenced_bytes), (0, 1, 70_000));
    assert_eq!(monitor.notes().len(), 1, "{:?}", monitor.notes());
    assert_eq!(monitor.counted(Counter::Packs), report.packs + 1);
}

/// Objects that authenticate, and are wrong all the same: only a faulty writer makes them.
#[test]
fn authentic_contradictions_are_noticed() {
    let sample = Sample::small();
    let (keys, id) = (sample.repo.keys(), sample.repo.id());
    let view = sample.repo.load_view(&Collector::default()).unwrap();
    let mut records = load_segment(&sample.repo, &view.segments[0]).unwrap();
    let blobs = &mut records[0].directory.blobs;
    blobs[0].id.0[0] ^= 1;
    let bytes = segment::seal(&keys.index, id, 0, &records).unwrap();
    let segment = names::segment(&crate::format::pack::SegmentName { epoch: 0, id: ObjectId::of(&bytes) });
    sample.store.create(&segment, bytes.into()).unwrap();
    let (_, problems) = sample.check(CheckLevel::Structure);
    assert!(mentions(&problems, "describe it differently"), "{problems:?}");
    sample.store.delete(&segment).unwrap();

    let mut liar = sample.repo.read_snapshot(&view.snapshots[0]).unwrap();
    liar.totals.entries += 1;
    let bytes = snapshot::seal(&keys.meta, id, 0, &liar).unwrap();
    let name = SnapshotName { epoch: 0, id: ObjectId::of(&bytes) };
    sample.store.create(&names::snapshot(&name), bytes.into()).unwrap();
    let (_, problems) = sample.check(CheckLevel::Structure);
    assert!(mentions(&problems, &name.id.to_string()) && mentions(&problems, "entries instead of"), "{problems:?}");
    sample.store.delete(&names::snapshot(&name)).unwrap();
    sample.assert_clean();
}

#[test]
fn what_maintenance_replaced_meanwhile_is_no_finding() {
    let sample = Sample::small();
    let check = Check {
        repo: &sample.repo,
        monitor: &Collector::default(),
        errors: AtomicU64::new(0),
        gone: Mutex::default(),
        bad: Mutex::default(),
    };
    let view = sample.repo.load_view(&Collector::default()).unwrap();
    check.gone("packs/x", "is not in the store");
    assert!(!check.settle(&view).unwrap());
    assert_eq!(check.errors.load(Ordering::Relaxed), 1);
    sample.seal();
    check.gone("packs/y", "is not in the store");
    assert!(check.settle(&view).unwrap());
    assert_eq!(check.errors.load(Ordering::Relaxed), 1);
}

#[test]
fn a_bad_sector_is_a_finding_and_a_lost_connection_an_error() {
    let sample = Sample::small();
    let store = Arc::new(FaultBackend::new(Arc::clone(&sample.store) as _));
    let repo = Arc::new(Repository::open(Arc::clone(&store) as _, b"secret").unwrap());
    let check = || {
        let monitor = Arc::new(Collector::default());
        (run(&repo, None, &CheckLevel::ReadData, &(Arc::clone(&monitor) as _)), monitor.problems())
    };
    for folder in ["packs/", "index/", "snapshots/", "keys/", "config"] {
        store.inject(Rule::new(Method::Read, Fault::Error(ErrorKind::Other)).key(folder));
        let (report, problems) = check();
        assert!(report.unwrap().errors > 0 && mentions(&problems, folder), "{folder}: {problems:?}");
        store.heal();
        store.inject(Rule::new(Method::Read, Fault::Error(ErrorKind::Timeout)).key(folder));
        assert!(matches!(check().0, Err(Error::Backend(_))), "{folder}");
        store.heal();
    }
    store.inject(Rule::new(Method::List, Fault::Error(ErrorKind::Other)).key("packs/"));
    assert!(matches!(check().0, Err(Error::Backend(_))));
    store.heal();
    store.inject(Rule::new(Method::ReadRange, Fault::Flip(50)));
    assert!(check().0.unwrap().errors > 0);
    store.heal();
    assert_eq!(check().0.unwrap().errors, 0);
    assert_eq!(store.calls().iter().filter(|(m, _)| matches!(m, Method::Create | Method::Delete)).count(), 0);
}

#[test]
fn it_stops_when_asked() {
    let sample = Sample::small();
    let monitor = Arc::new(Collector::default());
    monitor.cancel();
    assert!(matches!(run(&sample.repo, None, &CheckLevel::ReadData, &(monitor as _)), Err(Error::Interrupted)));
}

#[test]
fn the_cache_is_compared_and_left_alone() {
    let (sample, cache) = (Sample::small(), tempfile::tempdir().unwrap());
    let monitor = Arc::new(Collector::default());
    let check = || run(&sample.repo, Some(cache.path()), &CheckLevel::Structure, &(Arc::clone(&monitor) as _)).unwrap();
    assert_eq!(check().errors, 0);
    drop(crate::repo::Reader::open(Arc::clone(&sample.repo), Some(cache.path()), &*monitor).unwrap());
    let held = fs::read(cache.path().join("index.redb")).unwrap();
    assert!(!held.is_empty());
    assert_eq!(check().errors, 0);
    assert!(cache.path().join("index.redb").exists() && !cache.path().join(structure::DIRECTORY).exists());
    assert_eq!(monitor.notes(), Vec::<String>::new());
    let view = sample.repo.load_view(&*monitor).unwrap();
    let index = crate::index::Index::open(Some(cache.path()), sample.repo.id()).unwrap();
    index.sync(&view.segments[..0], &|_| Ok(vec![])).unwrap();
    index.sync(&view.segments, &|_| Ok(vec![])).unwrap();
    drop(index);
    assert_eq!(check().errors, 0);
    assert_eq!(monitor.notes().len(), 1);
    assert!(!cache.path().join("index.redb").exists());
}

/// `cargo test --release -p deduplicity-engine check::tests::speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn speed() {
    let store = Arc::new(MemBackend::new());
    let repo = Arc::new(Repository::create(Arc::clone(&store) as _, b"secret", &InitOptions::default()).unwrap());
    let sample = Sample { store, repo, tree: tempfile::tempdir().unwrap() };
    let words: Vec<Vec<u8>> = (0..4096).map(|i| crate::id::to_hex(&noise(3, i)).into_bytes()).collect();
    for i in 0..512_u64 {
        let picks = noise(1 << 18, i);
        let text: Vec<u8> =
            picks.chunks_exact(2).flat_map(|c| words[usize::from(u16::from_le_bytes([c[0], c[1]])) % 4096].clone()).collect();
        fs::write(sample.tree.path().join(format!("f{i}")), &text[..512 << 10]).unwrap();
    }
    sample.back_up();
    for level in [CheckLevel::Structure, CheckLevel::ReadData] {
        let (start, used) = (Instant::now(), cpu_ticks());
        let (report, problems) = sample.check(level);
        assert_eq!(problems, []);
        println!("{level:?}: {:?}, {} ms of CPU, {report:?}", start.elapsed(), (cpu_ticks() - used) * 10);
    }
}

/// Hundredths of a second that this process has used, on a machine that others use too.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ');
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_sealed_segment_that_is_gone_is_forgiven_once_others_name_its_packs() {
    let sample = Sample::small();
    sample.seal();
    let segment = sample.objects("index/").remove(0);
    sample.store.delete(&segment).unwrap();
    assert!(mentions(&sample.check(CheckLevel::Structure).1, segment.as_str()));
    let collector = Arc::new(Collector::default());
    let monitor: Arc<dyn Monitor> = Arc::clone(&collector) as _;
    // Commands go on with what is left, and say so.
    let reader = crate::repo::Reader::open(Arc::clone(&sample.repo), None, &*monitor).unwrap();
    assert!(!reader.index().is_empty() && mentions(&collector.problems(), "repair index"));
    let options = crate::repair::RepairOptions {
        program: "test".into(),
        level: crate::codec::Level::Zstd(1),
        dry_run: false,
        cache_dir: None,
    };
    let done = crate::repair::index(&sample.repo, &options, &monitor).unwrap();
    assert_eq!((done.unreadable_segments, done.segments_written), (1, 1));
    sample.assert_clean();
}
