//! Whatever is damaged within the limits comes back bit for bit; beyond them it is named, and nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::backend::ObjectKey;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::check::{self, CheckLevel};
use crate::copy::tests::world::{World, noise};
use crate::format::parity::MAX_SHARD;
use crate::maintain::{PruneOptions, prune};
use crate::monitor::Collector;

const PERCENT: u8 = 20;

type Store = BTreeMap<ObjectKey, Bytes>;

fn contents(backend: &dyn Backend) -> Store {
    let mut keys = Vec::new();
    backend.list("", &mut |meta| keys.push(meta.key)).expect("lists");
    keys.into_iter().map(|key| (key.clone(), backend.read(&key, u64::MAX).expect("reads"))).collect()
}

/// Objects of every kind, with parity inside and across.
fn world() -> World {
    let world = World::new();
    for i in 0..30_u32 {
        world.write(&format!("{}/{i}", i % 5), &noise(i, 1000 * i as usize));
    }
    world.write("large", &noise(99, 2_500_000));
    let first = world.backup(1000);
    let options = PruneOptions { parity: Some(PERCENT), now: true, ..PruneOptions::default() };
    let outcome = prune(&world.repo, &options, &Collector::default(), &mut |_| {}).expect("prunes");
    assert!(outcome.parity.made >= 5 && outcome.parity.groups > 0, "{:?}", outcome.parity);
    world.write("more", &noise(100, 400_000));
    world.backup(2000);
    crate::maintain::forget(&world.repo, &[first]).expect("forgets");
    let mark = crate::format::snapshot::seal_damage(&world.repo.keys().meta, world.repo.id(), &[(7, ObjectId([1; 32]))]);
    let mark = mark.expect("seals");
    world.repo.backend().create(&names::damage(&ObjectId::of(&mark)), mark.into()).expect("creates");
    world
}

fn repair(store: &Arc<MemBackend>) -> (ParityRepair, Vec<crate::monitor::Problem>) {
    let monitor = Collector::default();
    let repo = Repository::open(Arc::clone(store) as _, b"x").expect("opens");
    (parity(&repo, false, &monitor).expect("repairs"), monitor.problems())
}

/// Random numbers that are the same in every run.
struct Chance(blake3::OutputReader);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % limit.max(1) as u64).expect("below a usize")
    }
}

/// Harm that parity inside of an object makes good, or of parity that can be made anew.
fn harm(store: &MemBackend, key: &ObjectKey, body: &Bytes, chance: &mut Chance) -> String {
    let is_parity = key.as_str().starts_with("parity/");
    let shards = body.len().div_ceil(MAX_SHARD);
    let spare = if is_parity { shards } else { inside::count(body.len() as u64, PERCENT) };
    match chance.below(3) {
        0 if shards == 1 && !is_parity => {
            store.delete(key).expect("deletes");
            format!("{key} is gone")
        }
        1 => {
            // Of parity across, one end must be left to tell who its members are.
            let least = if is_parity { body.len() / 2 } else { (shards - spare) * MAX_SHARD };
            let end = least + chance.below(body.len() - least);
            store.overwrite(key, body.slice(..end));
            format!("{key} ends after {end} of {} bytes", body.len())
        }
        _ => {
            let mut bytes = body.to_vec();
            for _ in 0..=chance.below(spare.min(8)) {
                let bit = chance.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            store.overwrite(key, bytes);
            format!("{key}: up to {spare} bits of {} bytes are flipped", body.len())
        }
    }
}

/// A sample in the suite; `DEDUPLICITY_ROT=10000` for the long run.
#[test]
fn all_harm_within_the_limits_is_made_good() {
    let trials: usize = std::env::var("DEDUPLICITY_ROT").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let world = world();
    let good = contents(&*world.backend);
    let keys: Vec<&ObjectKey> = good.keys().collect();
    let grouped: Vec<&ObjectKey> = keys.iter().filter(|key| key.as_str().starts_with("packs/0000000000/")).copied().collect();
    assert!(grouped.len() > 2 && keys.len() > 30, "{keys:?}");
    let mut chance = Chance(blake3::Hasher::new().update(b"parity").finalize_xof());
    for trial in 0..trials {
        let mut what = Vec::new();
        if trial % 4 == 0 {
            let key = grouped[chance.below(grouped.len())];
            match chance.below(2) {
                0 => world.backend.delete(key).expect("deletes"),
                _ => world.backend.overwrite(key, good[key].slice(..chance.below(good[key].len()))),
            }
            what.push(format!("{key} is lost or cut off"));
        } else {
            let mut touched: Vec<&str> = Vec::new();
            for _ in 0..=chance.below(3) {
                let key = keys[chance.below(keys.len())];
                let base = key.as_str().strip_prefix("parity/").unwrap_or(key.as_str());
                if !touched.contains(&base) {
                    touched.push(base);
                    what.push(harm(&world.backend, key, &good[key], &mut chance));
                }
            }
        }
        let changed = contents(&*world.backend) != good;
        let (done, problems) = repair(&world.backend);
        assert_eq!(problems, [], "trial {trial}: {what:?}");
        assert_eq!(done.lost(), 0, "trial {trial}: {what:?}");
        assert_eq!(changed, done.mended + done.remade_parity > 0, "trial {trial}: {what:?} {done:?}");
        let now = contents(&*world.backend);
        let differ: Vec<_> = good.iter().filter(|(key, bytes)| now.get(key) != Some(bytes)).map(|(key, _)| key).collect();
        assert!(differ.is_empty() && now.len() == good.len(), "trial {trial}: {what:?}: {differ:?}");
    }
    let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
    let report = check::run(&world.repo, None, &CheckLevel::ReadData, &monitor).expect("checks");
    assert_eq!(report.errors, 0);
}

#[test]
fn every_object_of_every_kind_comes_back_when_it_is_lost_or_flipped() {
    let world = world();
    let good = contents(&*world.backend);
    let mut kinds = std::collections::BTreeSet::new();
    for (key, bytes) in &good {
        let Some(claim) = names::parse(key) else { continue };
        let grouped = key.as_str().starts_with("packs/0000000000/") || bytes.len() <= MAX_SHARD;
        kinds.insert(claim.kind as u8);
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] ^= 1;
        for bad in [Some(flipped), None].into_iter().filter(|bad| bad.is_some() || grouped) {
            match bad {
                Some(bad) => world.backend.overwrite(key, bad),
                None => world.backend.delete(key).expect("deletes"),
            }
            let (done, problems) = repair(&world.backend);
            assert_eq!((done.mended, problems), (1, vec![]), "{key}");
            assert_eq!(world.backend.read(key, u64::MAX).expect("is back"), bytes, "{key}");
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]);
}

#[test]
fn beyond_the_limit_it_is_named_and_left_as_it_is() {
    let world = world();
    let (key, bytes) = contents(&*world.backend)
        .into_iter()
        .find(|(key, bytes)| key.as_str().starts_with("packs/0000000001/") && bytes.len() > 4 * MAX_SHARD)
        .expect("a pack in no group");
    let mut bad = bytes.to_vec();
    for shard in 0..=inside::count(bytes.len() as u64, PERCENT) {
        bad[shard * MAX_SHARD + 3] ^= 1;
    }
    for bad in [Some(bad), None] {
        match &bad {
            Some(bad) => world.backend.overwrite(&key, bad.clone()),
            None => world.backend.delete(&key).expect("deletes"),
        }
        let before = contents(&*world.backend);
        let (done, problems) = repair(&world.backend);
        assert_eq!((done.lost(), done.mended), (1, 0));
        assert!(problems.len() == 1 && problems[0].subject == key.as_str() && problems[0].message.contains("cannot"));
        assert_eq!(contents(&*world.backend), before);
    }
}

#[test]
fn a_dry_run_changes_nothing_and_a_check_says_what_it_could_do() {
    let world = world();
    let (key, bytes) = contents(&*world.backend).into_iter().find(|(key, _)| key.as_str().starts_with("packs/")).expect("a pack");
    let mut bad = bytes.to_vec();
    bad[700] ^= 1;
    world.backend.overwrite(&key, bad.clone());
    let done = parity(&world.repo, true, &Collector::default()).expect("looks");
    assert_eq!((done.damaged, done.mended), (1, 1));
    assert_eq!(world.backend.read(&key, u64::MAX).expect("reads"), bad);
    let collector = Arc::new(Collector::default());
    let report = check::run(&world.repo, None, &CheckLevel::ReadData, &(Arc::clone(&collector) as _)).expect("checks");
    assert_eq!(report.mendable, 1);
    assert!(collector.notes().iter().any(|note| note.contains("repair parity")), "{:?}", collector.notes());
    let host = Collector::default();
    let report = check::stored_objects(&*world.backend, &host).expect("checks");
    assert_eq!((report.damaged, report.mendable), (1, 1));
}

#[test]
fn a_host_without_the_password_mends_all_but_what_has_no_hash_for_a_name() {
    let world = world();
    let good = contents(&*world.backend);
    let key = |start: &str| good.keys().find(|key| key.as_str().starts_with(start)).expect("is there");
    let (pack, slot, seal) = (key("packs/"), key("keys/"), names::epoch(0, names::EpochRole::Seal));
    for key in [pack, slot, &seal] {
        let mut bad = good[key].to_vec();
        bad[9] ^= 1;
        world.backend.overwrite(key, bad);
    }
    let monitor = Collector::default();
    let done = stored_parity(&*world.backend, false, &monitor).expect("repairs");
    assert_eq!((done.damaged, done.mended, done.lost()), (3, 2, 1));
    assert!(monitor.problems().iter().all(|p| p.subject == seal.as_str() && p.message.ends_with("without the password")));
    assert_eq!(repair(&world.backend).0.mended, 1);
    assert_eq!(contents(&*world.backend), good);
}

#[test]
fn a_repository_opens_by_parity_alone() {
    let world = world();
    for start in ["config", "keys/"] {
        let (key, bytes) =
            contents(&*world.backend).into_iter().find(|(key, _)| key.as_str().starts_with(start)).expect("is there");
        world.backend.delete(&key).expect("deletes");
        assert!(Repository::exists(&*world.backend).expect("looks"));
        assert!(Repository::open(Arc::clone(&world.backend) as _, b"x").is_ok(), "{key}");
        assert!(Repository::open(Arc::clone(&world.backend) as _, b"wrong").is_err(), "{key}");
        for at in [9, 17, bytes.len() / 3, bytes.len() - 20] {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            world.backend.overwrite(&key, bad);
            assert!(Repository::open(Arc::clone(&world.backend) as _, b"x").is_ok(), "{key} {at}");
        }
        world.backend.overwrite(&key, bytes);
    }
}

#[test]
fn broken_off_anywhere_it_is_finished_by_the_next_one() {
    let world = world();
    let good = contents(&*world.backend);
    let harmed: Vec<&ObjectKey> = good.keys().filter(|key| !key.as_str().starts_with("parity/groups")).step_by(3).collect();
    for after in 0..8 {
        for key in &harmed {
            let mut bad = good[*key].to_vec();
            bad[100] ^= 1;
            world.backend.overwrite(key, bad);
        }
        let faulty = Arc::new(FaultBackend::new(Arc::clone(&world.backend) as _));
        let repo = Repository::open(Arc::clone(&faulty) as _, b"x").expect("opens");
        faulty.inject(Rule::new(Method::Replace, Fault::Error(ErrorKind::Denied)).skip(after));
        parity(&repo, false, &Collector::default()).expect_err("breaks off");
        assert_eq!(repair(&world.backend).1, []);
        assert_eq!(contents(&*world.backend), good);
    }
}

#[test]
fn without_parity_only_what_is_vital_is_looked_at() {
    let world = World::new();
    world.write("a", &noise(1, 100_000));
    world.backup(1000);
    let done = parity(&world.repo, false, &Collector::default()).expect("looks");
    assert_eq!((done.objects, done.unprotected, done.lost()), (4, 0, 0));
    for key in contents(&*world.backend).into_keys().filter(|key| key.as_str().starts_with("parity/")) {
        world.backend.delete(&key).expect("deletes");
    }
    assert!(matches!(parity(&world.repo, false, &Collector::default()), Err(Error::Invalid(_))));
}
