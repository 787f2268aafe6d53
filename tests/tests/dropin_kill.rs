//! SIGKILL at random moments of backups with duplicity's command line: what is restored afterwards, by us or by stock, is never
//! wrong, and whoever makes the next backup finds its way.
//!
//! `DEDUPLICITY_KILLS=100` for the long run, `DEDUPLICITY_SEED` for another one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use deduplicity_tests::dropin::{Place, seconds, stock};
use deduplicity_tests::env::{Run, variable};
use deduplicity_tests::random::Random;
use deduplicity_tests::tree::{Seen, assert_same, describe, noise};

type Tree = BTreeMap<PathBuf, Seen>;

#[test]
fn killed_without_encryption() {
    kill_and_go_on("--no-encryption --volsize 1", 1);
}

#[test]
fn killed_with_a_pass_phrase() {
    kill_and_go_on("--volsize 1", 2);
}

#[allow(clippy::print_stdout, reason = "figures for people")]
fn kill_and_go_on(options: &'static str, seed: u64) {
    let stock = stock();
    if stock.is_empty() {
        return;
    }
    let programs: Vec<Option<PathBuf>> = [None].into_iter().chain(stock.into_iter().map(Some)).collect();
    let kills = variable("DEDUPLICITY_KILLS", 1);
    let mut story = Story::new(options, programs, variable("DEDUPLICITY_SEED", seed));
    for number in 0..kills {
        story.kill();
        story.check(false);
        story.resume(usize::try_from(number).expect("small"));
        story.check(false);
        story.clean_up();
        story.check(true);
        if story.states.len() > 12 {
            story.begin_again();
        }
    }
    println!("{options}: {:?}", story.tally);
}

/// What happened.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
struct Tally {
    killed: u32,
    over_before: u32,
    left_volumes: u32,
    restored: u32,
    refused_by_stock: u32,
}

struct Story {
    place: Place,
    options: &'static str,
    programs: Vec<Option<PathBuf>>,
    random: Random,
    /// The time of the next backup: sets have whole seconds.
    time: i64,
    /// What the tree was like, for each complete backup.
    states: Vec<(i64, Tree)>,
    /// How long a backup takes.
    whole: Duration,
    tally: Tally,
}

impl Story {
    /// With a tree of 30 MB, of which there is a full backup.
    fn new(options: &'static str, programs: Vec<Option<PathBuf>>, seed: u64) -> Self {
        let place = Place::empty();
        fs::create_dir_all(place.path("src/sub")).expect("folders");
        let (random, tally) = (Random::new(seed), Tally::default());
        let mut story =
            Self { place, options, programs, random, time: 1_790_000_000, states: Vec::new(), whole: Duration::ZERO, tally };
        for number in 0..10 {
            fs::write(story.place.path(&format!("src/large{number}")), noise(number, 3_000_000)).expect("a file");
            fs::write(story.place.path(&format!("src/sub/small{number}")), noise(number, 3000)).expect("a file");
        }
        let start = Instant::now();
        story.backup(0, "full");
        story.whole = start.elapsed();
        story
    }

    fn line(&mut self, kind: &str) -> String {
        self.time += 100;
        format!("{kind} {} --current-time {} src {}", self.options, self.time, self.place.url("archive"))
    }

    fn state(&self) -> (i64, Tree) {
        (self.time, seconds(describe(&self.place.path("src"))))
    }

    fn backup(&mut self, who: usize, kind: &str) {
        let line = self.line(kind);
        self.place.ok(self.programs[who].as_deref(), &line);
        self.states.push(self.state());
    }

    /// Changes in a third of the tree.
    fn change(&mut self) {
        for _ in 0..4 {
            let number = self.random.below(12);
            let path = self.place.path(&format!("src/large{number}"));
            let mut content = fs::read(&path).unwrap_or_default();
            let from = self.random.below(content.len() + 1);
            content.truncate(from);
            content.extend(noise(self.random.number(), 3_000_000 - from.min(2_900_000)));
            fs::write(&path, content).expect("a file");
            // Never the time that it had, whatever the clock says.
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.random.number() % 700_000_000);
            fs::File::options().write(true).open(&path).expect("a file").set_modified(time).expect("a time");
        }
        let small = self.place.path(&format!("src/sub/small{}", self.random.below(20)));
        let _ = fs::remove_file(&small).or_else(|_| fs::write(&small, "new"));
    }

    fn manifests(&self) -> usize {
        self.place.files("archive").iter().filter(|name| name.contains("manifest")).count()
    }

    /// Starts a backup of ours and kills it at a random moment.
    fn kill(&mut self) {
        self.change();
        let kind = self.random.pick(&["full", "incremental", "incremental"]);
        let line = self.line(kind);
        let (before, volumes) = (self.manifests(), self.place.files("archive").len());
        let mut child = self.place.command(&line).spawn().expect("it starts");
        let share = if kind == "full" { 1000 } else { 500 };
        std::thread::sleep(self.whole * u32::try_from(self.random.below(share)).expect("small") / 1000);
        child.kill().expect("SIGKILL");
        let is_over = child.wait().expect("ends").success();
        self.tally.killed += u32::from(!is_over);
        self.tally.over_before += u32::from(is_over);
        if self.manifests() > before {
            self.states.push(self.state());
        } else {
            assert!(!is_over, "a backup that succeeded has a manifest");
            self.tally.left_volumes += u32::from(self.place.files("archive").len() > volumes);
        }
    }

    /// The next backup, by each program in turn; the tree has changed again meanwhile, and the cache may be gone.
    fn resume(&mut self, turn: usize) {
        self.change();
        if self.random.one_in(3) {
            let _ = fs::remove_dir_all(self.place.path("home/.cache"));
        }
        let kind = self.random.pick(&["backup", "full", "incremental"]);
        self.backup(turn % self.programs.len(), if kind == "backup" { "" } else { kind });
    }

    fn clean_up(&self) {
        self.place.ok(None, &format!("cleanup --force {} {}", self.options, self.place.url("archive")));
    }

    /// What can be restored is right: the last state and an earlier one. Stock may refuse unless everything is `settled`.
    fn check(&mut self, settled: bool) {
        let (last, earlier) = (self.states.len() - 1, self.random.below(self.states.len()));
        for who in 0..self.programs.len() {
            for (state, time) in [(last, None), (earlier, Some(self.states[earlier].0))] {
                let (run, found) = self.restore(who, time);
                if run.code == 0 {
                    assert_same(&self.states[state].1, &found);
                    self.tally.restored += 1;
                } else {
                    let program = &self.programs[who];
                    assert!(!settled && program.is_some(), "{program:?} {time:?}: {}\n{}", run.code, run.err);
                    self.tally.refused_by_stock += 1;
                }
            }
        }
    }

    fn restore(&self, who: usize, time: Option<i64>) -> (Run, Tree) {
        let _ = fs::remove_dir_all(self.place.path("out"));
        let when = time.map(|time| format!("-t {time}")).unwrap_or_default();
        let line = format!("restore {} {when} {} out", self.options, self.place.url("archive"));
        let run = self.place.by(self.programs[who].as_deref(), &line);
        let found = if run.code == 0 { seconds(describe(&self.place.path("out"))) } else { Tree::new() };
        (run, found)
    }

    /// A new chain, and the old ones go.
    fn begin_again(&mut self) {
        self.backup(0, "full");
        self.states.drain(..self.states.len() - 1);
        let line = format!("remove-all-but-n-full 1 --force {} {}", self.options, self.place.url("archive"));
        self.place.ok(None, &line);
    }
}
