//! Stores that have lost or damaged something, and targets that change under our hands.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;
use crate::format::pack::BlobKind;
use crate::monitor::lock;
use crate::repo::names;

/// Frames of data in all packs: the pack, and offset and length of the sealed frame.
fn data_frames(world: &World) -> Vec<(ObjectKey, usize, usize)> {
    let reader = world.reader();
    let mut packs = Vec::new();
    reader.index().packs(|ordinal, _, _, _| packs.push(ordinal)).expect("packs");
    let mut found = Vec::new();
    for ordinal in packs {
        let pack = reader.index().pack(ordinal).expect("summary");
        for frame in pack.frames.iter().filter(|frame| frame.kind == BlobKind::Data) {
            found.push((names::pack(pack.epoch, &pack.id), frame.offset as usize, frame.sealed as usize));
        }
    }
    found
}

/// Flips a bit in the middle of a frame.
fn damage(world: &World, frame: &(ObjectKey, usize, usize)) {
    let mut bytes = world.backend.read(&frame.0, u64::MAX).expect("reads").to_vec();
    bytes[frame.1 + frame.2 / 2] ^= 1;
    world.backend.overwrite(&frame.0, bytes);
}

/// Many files in more than one frame, one file of many frames, and another name of that.
fn many() -> World {
    let world = World::new();
    for i in 0..40 {
        world.write(&format!("small/{i:02}"), &noise(i, 90_000));
    }
    world.write("big", &noise(99, 5_000_000));
    fs::hard_link(world.source("big"), world.source("name")).expect("hard link");
    world.backup();
    world
}

#[test]
fn a_damaged_frame_costs_exactly_the_files_that_need_it() {
    for limits in [Limits::default(), TINY] {
        let world = many();
        let frames = data_frames(&world);
        assert!(frames.len() > 3);
        let mut lost_in_all = 0;
        for frame in &frames {
            let good = world.backend.read(&frame.0, u64::MAX).expect("reads");
            damage(&world, frame);
            let (outcome, problems) = world.restore_with(&world.options(), &limits);
            let outcome = outcome.expect("goes on");
            assert_eq!(outcome.problems, problems.len() as u64);
            assert!(!problems.is_empty());
            let (source, target) = (see(&world.source("")), see(&world.target("")));
            let mut lost: Vec<_> = source.keys().filter(|path| !target.contains_key(*path)).collect();
            let mut named: Vec<_> = problems.iter().map(|p| Path::new(&p.subject)).collect();
            lost.sort();
            named.sort();
            assert_eq!(lost, named);
            assert!(problems.iter().all(|p| p.subject == "name" || p.message.contains("packs/")), "{problems:?}");
            assert!(target.iter().all(|(path, seen)| source.get(path) == Some(seen)));
            lost_in_all += lost.len();
            world.backend.overwrite(&frame.0, good);
            fs::remove_dir_all(world.target("")).expect("removes");
        }
        // Each small file lies in one frame, or in two where pieces were packed apart.
        assert!((40..=80 + 2 * frames.len()).contains(&lost_in_all), "{lost_in_all}");
    }
}

#[test]
fn a_file_that_cannot_be_replaced_in_full_stays() {
    let world = many();
    world.restore(&world.options());
    data_frames(&world).iter().for_each(|frame| damage(&world, frame));
    fs::write(world.target("big"), b"older").expect("writes");
    let (outcome, problems) = world.restore_with(&world.options(), &Limits::default());
    assert_eq!(outcome.expect("goes on").files, 0);
    assert_eq!(problems.len(), 42);
    assert_eq!(fs::read(world.target("big")).expect("reads"), b"older");
    let names = see(&world.target("")).len();
    assert_eq!(names, see(&world.source("")).len(), "nothing is left over");
}

#[test]
fn a_missing_pack_is_looked_for_once_and_then_costs_its_files() {
    let world = many();
    let frames = data_frames(&world);
    world.backend.delete(&frames[0].0).expect("deletes");
    let (outcome, problems) = world.restore_with(&world.options(), &Limits::default());
    outcome.expect("goes on");
    assert!(!problems.is_empty() && problems.len() < 42);
    assert!(problems.iter().any(|p| p.message.contains("no such object")), "{problems:?}");
}

/// Takes the index away and returns it.
fn hide_index(world: &World) -> Vec<(ObjectKey, Bytes)> {
    let mut keys = Vec::new();
    world.backend.list("index/", &mut |meta| keys.push(meta.key)).expect("lists");
    let take = |key: ObjectKey| {
        let bytes = world.backend.read(&key, u64::MAX).expect("reads");
        world.backend.delete(&key).expect("deletes");
        (key, bytes)
    };
    keys.into_iter().map(take).collect()
}

#[test]
fn any_intact_copy_will_do() {
    let world = World::new();
    world.write("file", &noise(7, 90_000));
    let mut hidden = Vec::new();
    for _ in 0..3 {
        world.backup();
        hidden.extend(hide_index(&world));
    }
    hidden.into_iter().for_each(|(key, bytes)| world.backend.overwrite(&key, bytes));
    let copies = data_frames(&world);
    assert_eq!(copies.len(), 3);
    for intact in 0..3 {
        let good: Vec<_> = copies.iter().map(|frame| world.backend.read(&frame.0, u64::MAX).expect("reads")).collect();
        copies.iter().enumerate().filter(|(i, _)| *i != intact).for_each(|(_, frame)| damage(&world, frame));
        world.restore(&world.options());
        assert_eq!(see(&world.source("")), see(&world.target("")));
        copies.iter().zip(good).for_each(|(frame, bytes)| world.backend.overwrite(&frame.0, bytes));
        fs::remove_dir_all(world.target("")).expect("removes");
    }
}

/// A monitor that does something once, when a stage begins.
struct AtStage {
    collector: Collector,
    stage: &'static str,
    action: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    cancel: AtomicBool,
}

impl AtStage {
    fn new(stage: &'static str, action: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let (collector, action) = (Collector::default(), Mutex::new(Some(Box::new(action) as _)));
        Arc::new(Self { collector, stage, action, cancel: AtomicBool::new(false) })
    }
}

impl Monitor for AtStage {
    fn count(&self, counter: Counter, amount: u64) {
        self.collector.count(counter, amount);
        if self.stage == "bytes" && counter == Counter::Bytes {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
    fn expect(&self, counter: Counter, total: u64) {
        self.collector.expect(counter, total);
    }
    fn stage(&self, name: &'static str) {
        if name == self.stage
            && let Some(action) = lock(&self.action).take()
        {
            action();
        }
    }
    fn problem(&self, problem: Problem) {
        self.collector.problem(problem);
    }
    fn note(&self, text: String) {
        self.collector.note(text);
    }
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

fn run_watched(world: &World, watcher: &Arc<AtStage>, limits: &Limits) -> Result<RestoreOutcome> {
    let reader = world.reader();
    let root = world.repo.read_snapshot(&reader.view().snapshots[0]).expect("snapshot").root;
    let monitor: Arc<dyn Monitor> = Arc::clone(watcher) as _;
    run_with(&reader, root, &world.target(""), &world.options(), &monitor, limits)
}

#[test]
fn bytes_changed_after_writing_are_found() {
    let world = many();
    let (victim, other) = (world.target("big"), world.target("small/07"));
    let watcher = AtStage::new("verifying", move || {
        let file = fs::File::options().write(true).open(victim).expect("opens");
        file.write_all_at(b"!", 4_000_000).expect("writes");
        fs::File::options().write(true).open(other).expect("opens").set_len(17).expect("cuts");
    });
    let outcome = run_watched(&world, &watcher, &Limits::default()).expect("goes on");
    let mut problems = watcher.collector.problems();
    problems.sort_by(|a, b| a.subject.cmp(&b.subject));
    assert_eq!((outcome.problems, outcome.verified), (2, 39));
    assert!(problems[0].subject == "big" && problems[0].message.contains("differs"), "{problems:?}");
    assert!(problems[1].subject == "small/07" && problems[1].message.contains("17 bytes"), "{problems:?}");
}

#[test]
fn stopping_in_the_middle_leaves_no_partial_file() {
    let world = many();
    let watcher = AtStage::new("bytes", || {});
    let result = run_watched(&world, &watcher, &TINY);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    let (source, target) = (see(&world.source("")), see(&world.target("")));
    for (path, seen) in target.iter().filter(|(path, _)| world.target("").join(path).is_file()) {
        assert_eq!(source.get(path).map(|s| &s.content), Some(&seen.content), "{path:?}");
    }
    let outcome = world.restore(&RestoreOptions { overwrite: Overwrite::IfChanged, ..world.options() });
    assert!(outcome.files <= 42);
    assert_eq!(see(&world.target("")), source);
}

#[test]
fn a_repacked_store_is_noticed() {
    let world = many();
    let reader = world.reader();
    let first = reader.view().snapshots[0];
    // Another backup of the same data, as after maintenance has moved it: the reader's packs are gone.
    let old = world.packs();
    for (key, _) in &old {
        world.backend.delete(key).expect("deletes");
    }
    let mut segments = Vec::new();
    world.backend.list("index/", &mut |meta| segments.push(meta.key)).expect("lists");
    assert!(!segments.is_empty());
    for key in &segments {
        world.backend.delete(key).expect("deletes");
    }
    world.backup();
    // The catalog of the second backup: the first one's may be another, since directories above the source change.
    let view = world.reader().view().clone();
    let second = view.snapshots.iter().find(|name| **name != first).expect("a second snapshot");
    let root = world.repo.read_snapshot(second).expect("snapshot").root;
    let collector = Arc::new(Collector::default());
    let monitor: Arc<dyn Monitor> = Arc::clone(&collector) as _;
    let outcome = run(&reader, root, &world.target(""), &world.options(), &monitor).expect("restores");
    assert_eq!(collector.problems(), []);
    assert_eq!(outcome.files, 42);
    assert_eq!(see(&world.target("")), see(&world.source("")));
}
