//! Power failures and kills under a local store: the calls of a fixed story are recorded, and the file system is looked at
//! as it may be after each of them.

mod cache;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use self::cache::{Cache, Image};
use super::world::{Tree, World, thorough};
use super::{forget, trees};
use crate::backend::Backend;
use crate::backend::local::{Change, LocalBackend};
use crate::backend::mem::MemBackend;
use crate::codec::Level;
use crate::crypto::password::Cost;
use crate::format::slot::Note;
use crate::id::ObjectId;
use crate::monitor::Collector;
use crate::repair::{self, RepairOptions, Which};
use crate::repo::{Repository, SnapshotName, now};

const COST: Cost = Cost { memory: 8, passes: 1, lanes: 1 };
/// Random sets of survivors after each call.
const THROWS: u64 = 20;

/// What the user was told.
#[derive(Clone, Default)]
struct Reported {
    /// There is a repository.
    initialized: bool,
    snapshots: Vec<(SnapshotName, Tree)>,
    /// Passwords that may open it, and one that must not.
    passwords: Vec<&'static [u8]>,
    refused: Option<&'static [u8]>,
    /// Something has damaged a pack.
    damaged: bool,
}

/// The calls of the story, and what had been reported before which of them.
struct Story {
    _dir: TempDir,
    root: std::path::PathBuf,
    calls: Vec<Change>,
    reports: Vec<(usize, Reported)>,
}

impl Story {
    fn reported_at(&self, call: usize) -> &Reported {
        &self.reports.iter().rev().find(|(from, _)| *from <= call).unwrap().1
    }

    fn play() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (local, record) = LocalBackend::recorded(dir.path().join("a/store"));
        let backend: Arc<dyn Backend> = Arc::new(local);
        let mut reports = vec![(0, Reported::default())];
        let mut said = Reported { passwords: vec![b"x"], ..Reported::default() };
        let mut report = |said: &Reported| reports.push((record.lock().unwrap().len(), said.clone()));
        let repo = World::make(Arc::clone(&backend), &World::options()).unwrap();
        let world = World { store: Arc::new(MemBackend::new()), repo };
        said.initialized = true;
        report(&said);
        for tree in trees() {
            said.snapshots.push((world.backup(&tree).unwrap(), tree));
            report(&said);
        }
        // From the first call on nobody can rely on them.
        let gone: Vec<SnapshotName> = said.snapshots.drain(..2).map(|(name, _)| name).collect();
        report(&said);
        forget(&world.repo, &gone).unwrap();
        assert!(world.prune(&thorough()).unwrap().plan.repack.packs > 0);
        said.passwords = vec![b"x", b"y"];
        report(&said);
        let note = Note { created: now(), origin: String::new(), label: String::new() };
        world.repo.change_password(b"y", COST, &note).unwrap();
        (said.passwords, said.refused) = (vec![b"y".as_slice()], Some(b"x".as_slice()));
        report(&said);
        let world = World { repo: Arc::new(Repository::open(backend, b"y").unwrap()), ..world };
        said.damaged = true;
        report(&said);
        damage_a_pack(&world, &dir.path().join("a/store"), &record);
        let options = RepairOptions { program: "test".into(), level: Level::Zstd(1), dry_run: false, cache_dir: None };
        let repaired = repair::packs(&world.repo, &Which::All, &options, &(Arc::new(Collector::default()) as _)).unwrap();
        assert_eq!((repaired.damaged_packs, repaired.blobs_lost), (1, 0));
        let tree = trees()[0].clone();
        said.snapshots.push((world.backup(&tree).unwrap(), tree));
        report(&said);
        world.prune(&thorough()).unwrap();
        said.damaged = false;
        report(&said);
        let calls = record.lock().unwrap().clone();
        Self { root: dir.path().to_owned(), _dir: dir, calls, reports }
    }
}

/// Turns a bit in the last bytes of a pack, which only a repair reads: as if the disk had done it.
fn damage_a_pack(world: &World, root: &Path, record: &std::sync::Mutex<Vec<Change>>) {
    let mut packs = Vec::new();
    world.repo.backend().list("packs/", &mut |meta| packs.push(meta.key)).unwrap();
    let path = root.join(packs[0].as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let directory = path.parent().unwrap().to_owned();
    let other = path.with_extension("damaged");
    let changes = [
        Change::Create(other.clone()),
        Change::Write(other.clone(), bytes),
        Change::SyncFile(other.clone()),
        Change::Rename(other, path),
        Change::SyncDirectory(directory),
    ];
    record.lock().unwrap().extend(changes);
}

/// What is wrong with what a crash has left.
fn verdict(image: &Image, reported: &Reported) -> Result<(), String> {
    let store = Arc::new(MemBackend::new());
    for (path, bytes) in &image.0 {
        let name = path.strip_prefix("a/store/").unwrap();
        store.overwrite(&crate::backend::ObjectKey::new(name).unwrap(), bytes.clone());
    }
    let there = Repository::exists(&*store).unwrap();
    if !there && !reported.initialized {
        return World::create(&store, None).map(drop).map_err(|e| e.to_string());
    }
    let open = |password: &[u8]| Repository::open(Arc::clone(&store) as _, password);
    if reported.refused.is_some_and(|old| open(old).is_ok()) {
        return Err("the old password still opens".into());
    }
    let passwords: &[&[u8]] = if reported.initialized { &reported.passwords } else { &[b"x"] };
    let opened = passwords.iter().find_map(|password| open(password).ok()).ok_or("no password opens")?;
    let world = World { store, repo: Arc::new(opened) };
    let whole = |when: &str| {
        for (name, tree) in &reported.snapshots {
            match world.contents(name) {
                Ok(found) if found == *tree => {}
                Ok(_) => return Err(format!("{when}: {name:?} has other content")),
                Err(e) => return Err(format!("{when}: {name:?}: {e}")),
            }
        }
        let problems = if reported.damaged { Vec::new() } else { world.check() };
        if problems.is_empty() { Ok(()) } else { Err(format!("{when}: {problems:?}")) }
    };
    whole("at once")?;
    let tree = &trees()[1];
    let next = world.backup(tree).map_err(|e| format!("next backup: {e}"))?;
    world.prune(&thorough()).map_err(|e| format!("next prune: {e}"))?;
    if world.contents(&next).as_ref().ok() != Some(tree) {
        return Err("the next backup has other content".into());
    }
    whole("after a prune")
}

/// Dice that a number sets going.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |sides| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % sides
    }
}

/// Images that were looked at, how many of them differ, and the first failures.
#[derive(Default)]
struct Tally {
    images: usize,
    seen: HashSet<(ObjectId, usize)>,
    failures: Vec<String>,
}

impl Tally {
    fn judge(&mut self, story: &Story, call: usize, what: &str, image: &Image) {
        self.images += 1;
        let reported = story.reports.iter().rposition(|(from, _)| *from <= call).unwrap();
        if self.seen.insert((image.hash(), reported))
            && let Err(why) = verdict(image, story.reported_at(call))
        {
            self.failures.push(format!("after {call} calls, {what}: {why}"));
        }
    }

    #[track_caller]
    fn assert_clean(&self) {
        let shown: Vec<&String> = self.failures.iter().take(5).collect();
        assert!(shown.is_empty(), "{} of {} images: {shown:#?}", self.failures.len(), self.seen.len());
    }
}

/// Crashes after every call of the story that `keep` does not leave out.
fn crashes(story: &Story, throws: u64, keep: impl Fn(&Change) -> bool) -> Tally {
    let (mut cache, mut tally) = (Cache::new(&story.root), Tally::default());
    for call in 0..=story.calls.len() {
        tally.judge(story, call, "with nothing that was not synced", &cache.crash(&mut |_| 0));
        for throw in 0..throws {
            let seed = call as u64 * 1000 + throw;
            tally.judge(story, call, &format!("throw {seed}"), &cache.crash(&mut dice(seed)));
        }
        match story.calls.get(call) {
            Some(change) if keep(change) => cache.apply(change),
            _ => {}
        }
    }
    tally
}

#[test]
fn power_failures_lose_nothing_that_was_reported() {
    let story = Story::play();
    let tally = crashes(&story, THROWS, |_| true);
    tally.assert_clean();
    println!("{} calls, {} images, {} different", story.calls.len(), tally.images, tally.seen.len());
    assert!(tally.images >= 5000, "{}", tally.images);
}

#[test]
fn every_call_to_the_file_system_is_a_place_to_die() {
    let story = Story::play();
    let (mut cache, mut tally) = (Cache::new(&story.root), Tally::default());
    for call in 0..=story.calls.len() {
        tally.judge(&story, call, "killed", &cache.crash(&mut |sides| sides - 1));
        let Some(change) = story.calls.get(call) else { break };
        if let Change::Write(path, bytes) = change {
            let mut from = 0;
            for end in [1, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
                cache.apply(&Change::Write(path.clone(), bytes[from..end].to_vec()));
                tally.judge(&story, call, &format!("killed at byte {end} of a write"), &cache.crash(&mut |sides| sides - 1));
                from = end;
            }
        } else {
            cache.apply(change);
        }
    }
    tally.assert_clean();
    println!("{} places, {} different images", tally.images, tally.seen.len());
}

/// The model would see it if syncing were forgotten.
#[test]
fn without_syncing_something_is_lost() {
    let story = Story::play();
    for (what, keep) in [
        ("files", (|change| !matches!(change, Change::SyncFile(_))) as fn(&Change) -> bool),
        ("directories", |change| !matches!(change, Change::SyncDirectory(_))),
    ] {
        assert!(!crashes(&story, 0, keep).failures.is_empty(), "{what}");
    }
}
