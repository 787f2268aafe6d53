//! Everything at once: eight writers and two maintainers against one repository, processes that are killed at random, and with
//! a cluster one of its servers, too. Afterwards every snapshot that was reported and not forgotten restores equal, all data are
//! intact, and a last prune leaves nothing unused.
//!
//! `DEDUPLICITY_STORM=600` makes it last ten minutes. `DEDUPLICITY_STORM_ENDPOINT=http://HOST:PORT` has one on another server,
//! too, in a new bucket, with the credentials of `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deduplicity_tests::cluster::{Cluster, NODES};
use deduplicity_tests::env::{Env, run_or_kill, summary, variable};
use deduplicity_tests::random::Random;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::tree::{Seen, assert_same, describe, noise};
use engine_s3::{S3Backend, S3Options};
use serde_json::Value;

const WRITERS: u64 = 8;
const MAINTAINERS: u64 = 2;
/// Part of the hint under every contradiction to what was seen before.
const ALARM: &str = "--accept-rollback";
const PRUNE: [&str; 5] = ["prune", "--now", "--max-unused", "0%", "--json"];

/// Where the repository is.
enum Store {
    Disk(Env),
    Server(Arc<Seaweed>, String),
    Given { endpoint: String, keys: [String; 2], bucket: String },
    Cluster(Cluster),
}

impl Store {
    /// A machine of its own.
    fn machine(&self, number: u64) -> Env {
        let s3 = |address, bucket: &str| Env::s3(&format!("http://{address}"), bucket, ACCESS_KEY, SECRET_KEY);
        match self {
            Self::Disk(first) => first.beside(),
            Self::Server(server, bucket) => s3(server.address(), bucket),
            Self::Given { endpoint, keys: [access, secret], bucket } => Env::s3(endpoint, bucket, access, secret),
            Self::Cluster(cluster) => s3(cluster.address(usize::try_from(number).expect("small") % NODES), "storm"),
        }
    }
}

/// A snapshot that a backup reported.
struct Reported {
    id: String,
    source: PathBuf,
    tree: BTreeMap<PathBuf, Seen>,
}

#[derive(Default)]
struct Counts {
    backups: AtomicU64,
    backups_killed: AtomicU64,
    backups_failed: AtomicU64,
    prunes: AtomicU64,
    prunes_killed: AtomicU64,
    prunes_failed: AtomicU64,
    forgotten: AtomicU64,
    servers_killed: AtomicU64,
}

struct Storm {
    store: Store,
    end: Instant,
    counts: Counts,
    reported: Mutex<Vec<Reported>>,
    /// How many prunes have begun, and how many are under way.
    begun: AtomicU64,
    under_way: AtomicU64,
    /// Milliseconds of backups, without and with a prune meanwhile.
    times: [Mutex<Vec<u128>>; 2],
    /// What failed, for people.
    failures: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// When to kill what begins now: once in so many times.
fn victim(random: &Random, odds: usize) -> Option<Duration> {
    random.one_in(odds).then(|| Duration::from_millis(random.number() % 3000))
}

/// Writes files that other machines write, too, so that they share content.
fn change(random: &Random, source: &Path) {
    for _ in 0..1 + random.below(5) {
        let path = source.join(format!("f{}", random.below(16)));
        let content = random.below(60);
        fs::write(&path, noise(content as u64, 1000 + content * content * 200)).expect("a file");
    }
}

impl Storm {
    fn rage(store: Store) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = lock(&ONE_AT_A_TIME);
        store.machine(0).ok(&["init"]);
        let storm = Self {
            store,
            end: Instant::now() + Duration::from_secs(variable("DEDUPLICITY_STORM", 8)),
            counts: Counts::default(),
            reported: Mutex::default(),
            begun: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            times: Default::default(),
            failures: Mutex::default(),
        };
        std::thread::scope(|scope| {
            let storm = &storm;
            let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(move || storm.write(number))).collect();
            (0..MAINTAINERS).for_each(|number| drop(scope.spawn(move || storm.maintain(WRITERS + number))));
            scope.spawn(|| storm.kill_servers());
            writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        });
        storm.report();
        storm.calm();
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    fn failed(&self, counter: &AtomicU64, output: &Output) {
        add(counter);
        lock(&self.failures).push(String::from_utf8_lossy(&output.stderr).into_owned());
        // A server that dies may fail a command, but never hides what it once showed.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(self.store, Store::Cluster(_)) && !said.contains(ALARM), "{said}");
    }

    fn write(&self, number: u64) {
        let (env, random) = (self.store.machine(number), Random::new(number));
        let source = env.path("src");
        fs::create_dir(&source).expect("a folder");
        while self.goes_on() {
            change(&random, &source);
            let tree = describe(&source);
            let (begun, under_way) = (self.begun.load(Ordering::Relaxed), self.under_way.load(Ordering::Relaxed));
            let start = Instant::now();
            let Some(output) = run_or_kill(env.command(&["backup", "src", "--json"]), victim(&random, 4)) else {
                add(&self.counts.backups_killed);
                continue;
            };
            if !output.status.success() {
                self.failed(&self.counts.backups_failed, &output);
                continue;
            }
            let is_disturbed = under_way > 0 || self.begun.load(Ordering::Relaxed) != begun;
            lock(&self.times[usize::from(is_disturbed)]).push(start.elapsed().as_millis());
            let said: Value = summary(&output);
            let id = said["snapshot_id"].as_str().expect("an id").to_owned();
            add(&self.counts.backups);
            lock(&self.reported).push(Reported { id, source: source.clone(), tree });
        }
    }

    fn maintain(&self, number: u64) {
        let (env, random) = (self.store.machine(number), Random::new(number));
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(random.number() % 1000));
            let forgotten = {
                let mut reported = lock(&self.reported);
                let count = reported.len();
                // From now on nothing is promised about it.
                (count > 12).then(|| reported.swap_remove(random.below(count)))
            };
            if let Some(forgotten) = forgotten {
                let _ = run_or_kill(env.command(&["forget", &forgotten.id, "--yes"]), victim(&random, 6));
                add(&self.counts.forgotten);
            }
            add(&self.begun);
            add(&self.under_way);
            let output = run_or_kill(env.command(&PRUNE), victim(&random, 3));
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            match output {
                None => add(&self.counts.prunes_killed),
                Some(output) if output.status.success() => add(&self.counts.prunes),
                Some(output) => self.failed(&self.counts.prunes_failed, &output),
            }
        }
    }

    /// One at a time is down.
    fn kill_servers(&self) {
        let Store::Cluster(cluster) = &self.store else { return };
        let random = Random::new(99);
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(1000 + random.number() % 7000));
            let node = random.below(NODES);
            cluster.kill(node);
            add(&self.counts.servers_killed);
            std::thread::sleep(Duration::from_millis(random.number() % 6000));
            cluster.restart(node);
        }
    }

    #[allow(clippy::print_stdout, reason = "figures for people")]
    fn report(&self) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counts;
        println!(
            "backups: {} reported, {} killed, {} failed; prunes: {} done, {} killed, {} failed; forgotten: {}; servers killed: {}",
            load(&c.backups),
            load(&c.backups_killed),
            load(&c.backups_failed),
            load(&c.prunes),
            load(&c.prunes_killed),
            load(&c.prunes_failed),
            load(&c.forgotten),
            load(&c.servers_killed)
        );
        for (words, times) in ["alone", "while something was pruned"].into_iter().zip(&self.times) {
            let mut times = lock(times).clone();
            times.sort_unstable();
            let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
            println!("backups {words}: {}, median {} ms, 95 % below {} ms", times.len(), at(50), at(95));
        }
        let mut failures = lock(&self.failures).clone();
        failures.sort();
        failures.dedup();
        failures.iter().take(20).for_each(|failure| println!("failed: {}", failure.trim_end()));
    }

    /// What is left holds what was promised.
    #[allow(clippy::print_stdout, reason = "figures for people")]
    fn calm(&self) {
        let env = self.store.machine(0);
        let check = || {
            let run = env.run(&["check", "--read-data"]);
            assert_eq!(run.code, 0, "{}{}", run.out, run.err);
            for Reported { id, source, tree } in &*lock(&self.reported) {
                let _ = fs::remove_dir_all(env.path("out"));
                env.ok(&["restore", &format!("{id}:{}", source.display()), "--target", "out"]);
                assert_same(tree, &describe(&env.path("out")));
            }
        };
        check();
        // The first may have to finish what others began.
        let mut unused = (0..3).map(|_| {
            let output = env.command(&PRUNE).output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said = summary(&output);
            said["bytes_unused_after"].as_u64().expect("a number") + said["to_delete"]["bytes"].as_u64().expect("a number")
        });
        assert!(unused.any(|bytes| bytes == 0), "something unused is left");
        check();
        println!("{} snapshots restored equal, twice", lock(&self.reported).len());
    }
}

#[test]
fn on_a_disk() {
    Storm::rage(Store::Disk(Env::local()));
}

/// A storm on servers takes more than a minute until all is restored and compared: only where one is asked for.
#[allow(clippy::print_stdout, reason = "why nothing happens")]
fn is_wanted() -> bool {
    let wanted = variable("DEDUPLICITY_STORM", 0) > 0;
    if !wanted {
        println!("skipped: DEDUPLICITY_STORM=60 has a storm of a minute");
    }
    wanted
}

#[test]
fn on_a_server() {
    if !is_wanted() {
        return;
    }
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    Storm::rage(Store::Server(server, bucket));
}

#[test]
fn on_a_given_server() {
    let Ok(endpoint) = std::env::var("DEDUPLICITY_STORM_ENDPOINT") else { return };
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| std::env::var(name).expect(name));
    let bucket = format!("storm-{}", std::process::id());
    let mut options = S3Options::new(&bucket, "").expect("a bucket");
    options.endpoint = Some(endpoint.clone());
    options.region = Some("us-east-1".to_owned());
    options.credentials = Some(keys.clone().into());
    S3Backend::open(options).expect("client").create_bucket().expect("bucket");
    Storm::rage(Store::Given { endpoint, keys, bucket });
}

#[test]
fn on_a_cluster_that_loses_servers() {
    if !is_wanted() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    cluster.make_bucket("storm");
    Storm::rage(Store::Cluster(cluster));
}
