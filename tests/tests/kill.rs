//! SIGKILL at random moments of a backup, and of everything else that writes: nothing that was there is lost, and nothing that
//! was indexed is stored again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use deduplicity_tests::env::{Env, run_or_kill, summary, variable};
use deduplicity_tests::random::Random;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::tree::{Seen, assert_same, describe, noise};

fn kill_and_go_on(env: &Env, kills: u32) {
    let source = env.path("src");
    fs::create_dir_all(&source).expect("mkdir");
    for i in 0..400_u64 {
        fs::write(source.join(format!("f{i}")), noise(i, 3000)).expect("write");
    }
    env.ok(&["init"]);
    env.ok(&["backup", "src"]);
    let first = describe(&source);
    for i in 0..12_u64 {
        fs::write(source.join(format!("large{i}")), noise(1000 + i, 6_000_000)).expect("write");
    }
    let start = Instant::now();
    env.ok(&["backup", "--dry-run", "src"]);
    let whole = start.elapsed() * 2;
    for i in 0..kills {
        let mut child = env.command(&["backup", "src"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(whole.mul_f64(f64::from(i * 7 % kills) / f64::from(kills)));
        child.kill().expect("SIGKILL");
        child.wait().expect("ends");
        // A change, so that the next run has something to store even if this one got through.
        fs::write(source.join(format!("large{}", i % 12)), noise(u64::from(2000 + i), 6_000_000)).expect("write");
        env.ok(&["check", "--read-data"]);
    }
    env.ok(&["restore", &format!("latest~0:{}", source.display()), "--target", "any"]);
    env.ok(&["backup", "src"]);
    env.ok(&["check", "--read-data"]);
    env.ok(&["restore", &format!("latest:{}", source.display()), "--target", "last"]);
    assert_same(&describe(&source), &describe(&env.path("last")));
    let ids = env.ok(&["snapshots", "--json"]);
    let oldest = ids.split("\"short_id\":\"").nth(1).and_then(|rest| rest.get(..8)).expect("an id").to_owned();
    env.ok(&["restore", &format!("{oldest}:{}", source.display()), "--target", "first"]);
    assert_same(&first, &describe(&env.path("first")));
}

#[test]
fn killed_on_a_disk() {
    kill_and_go_on(&Env::local(), kills());
}

#[test]
fn killed_on_s3() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    kill_and_go_on(&Env::s3(&format!("http://{}", server.address()), &bucket, ACCESS_KEY, SECRET_KEY), kills());
}

/// A few in the suite; `DEDUPLICITY_KILLS=200` for the long run.
fn kills() -> u32 {
    u32::try_from(variable("DEDUPLICITY_KILLS", 8)).expect("a number of kills")
}

/// A snapshot that a backup reported, and what it holds.
type Reported = (String, BTreeMap<PathBuf, Seen>);

/// A machine on which any command is killed at any moment.
struct Victim {
    env: Env,
    random: Random,
    /// How long a command takes, in milliseconds.
    times: HashMap<&'static str, u64>,
    killed: BTreeMap<&'static str, u32>,
    reported: Vec<Reported>,
}

impl Victim {
    /// Runs a command, and kills it at some moment of twice the time that it took before; what it said if it got through.
    fn run(&mut self, command: &'static str, arguments: &[&str]) -> Option<Output> {
        let (arguments, start) = ([&[command], arguments].concat(), Instant::now());
        let patience = self.times.get(command).map(|time| Duration::from_micros(self.random.number() % (time * 2000 + 1)));
        let output = run_or_kill(self.env.command(&arguments), patience);
        match &output {
            None => *self.killed.entry(command).or_default() += 1,
            Some(output) => {
                assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
                self.times.insert(command, u64::try_from(start.elapsed().as_millis()).expect("milliseconds"));
            }
        }
        output
    }

    fn change(&self) {
        for _ in 0..1 + self.random.below(4) {
            let content = self.random.number();
            let path = self.env.path("src").join(format!("f{}", self.random.below(12)));
            fs::write(path, noise(content, 1000 + self.random.below(200_000))).expect("write");
        }
    }

    fn next(&mut self) {
        match self.random.below(10) {
            0..5 => {
                self.change();
                let tree = describe(&self.env.path("src"));
                if let Some(output) = self.run("backup", &["src", "--json"]) {
                    self.reported.push((summary(&output)["snapshot_id"].as_str().expect("an id").to_owned(), tree));
                }
            }
            5 if self.reported.len() > 5 => {
                // From now on nothing is promised about it.
                let (id, _) = self.reported.swap_remove(self.random.below(self.reported.len()));
                self.run("forget", &[&id, "--yes"]);
            }
            6 => drop(self.run("repair", &["index"])),
            _ => drop(self.run("prune", &["--now", "--max-unused", "0%"])),
        }
        self.env.ok(&["check", "--read-data"]);
    }

    fn restore(&self, (id, tree): &Reported) {
        let _ = fs::remove_dir_all(self.env.path("out"));
        self.env.ok(&["restore", &format!("{id}:{}", self.env.path("src").display()), "--target", "out"]);
        assert_same(tree, &describe(&self.env.path("out")));
    }
}

/// Backups, requests to forget, prunes and repairs of the index, each killed: checks are clean after each of them, and what was
/// reported comes back.
#[allow(clippy::print_stdout, reason = "figures for people")]
fn kill_at_anything(env: Env, kills: u32) {
    fs::create_dir_all(env.path("src")).expect("mkdir");
    env.ok(&["init"]);
    let random = Random::new(u64::from(std::process::id()));
    let mut victim = Victim { env, random, times: HashMap::new(), killed: BTreeMap::new(), reported: Vec::new() };
    while victim.killed.values().sum::<u32>() < kills {
        victim.next();
        if let Some(one) = (!victim.reported.is_empty()).then(|| victim.random.below(victim.reported.len() * 4)) {
            victim.reported.get(one).into_iter().for_each(|reported| victim.restore(reported));
        }
    }
    victim.env.ok(&["prune", "--now", "--max-unused", "0%"]);
    victim.env.ok(&["check", "--read-data"]);
    victim.reported.iter().for_each(|reported| victim.restore(reported));
    println!("killed: {:?}; {} reported snapshots restored equal", victim.killed, victim.reported.len());
}

#[test]
fn anything_killed_on_a_disk() {
    kill_at_anything(Env::local(), kills());
}

#[test]
fn anything_killed_on_s3() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    kill_at_anything(Env::s3(&format!("http://{}", server.address()), &bucket, ACCESS_KEY, SECRET_KEY), kills());
}

#[test]
fn an_interrupted_backup_indexes_what_it_stored() {
    let env = Env::local();
    let source = env.path("src");
    fs::create_dir_all(&source).expect("mkdir");
    for i in 0..40_u64 {
        fs::write(source.join(format!("large{i}")), noise(i, 6_000_000)).expect("write");
    }
    env.ok(&["init"]);
    let mut child = env.command(&["backup", "src"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let packs = env.repository().join("packs");
    let deadline = Instant::now() + Duration::from_secs(60);
    let stored = || fs::read_dir(packs.join("0000000000")).map_or(0, Iterator::count);
    while stored() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("SIGINT");
    let code = child.wait().expect("ends").code();
    if code == Some(0) {
        return; // It was over before the signal came.
    }
    assert_eq!(code, Some(130));
    let before = size_of(env.repository());
    env.ok(&["backup", "src"]);
    let after = size_of(env.repository());
    assert!(after < 250_000_000, "240 MB of files: nothing is stored twice ({before} bytes, then {after})");
    env.ok(&["check", "--read-data"]);
}

fn size_of(directory: &std::path::Path) -> u64 {
    let items = fs::read_dir(directory).into_iter().flatten().flatten();
    items.map(|i| if i.path().is_dir() { size_of(&i.path()) } else { i.metadata().map_or(0, |m| m.len()) }).sum()
}
