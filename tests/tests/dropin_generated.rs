//! duplicity's command line against stock duplicity on generated trees, changes and command lines.
//!
//! Each seed makes a tree and rounds of changes, backed up by both programs with the same words, each into an archive of its
//! own. Exit codes, statistics and what was selected have to be the same; so has what either program makes of either archive.
//!
//! `DEDUPLICITY_DIFFERENTIAL=N` runs N seeds, `DEDUPLICITY_SEED=S` begins with another one than 1.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use deduplicity_tests::dropin::{Place, seconds, stock};
use deduplicity_tests::env::{Run, variable};
use deduplicity_tests::generate::{change_tree, make_tree, paths};
use deduplicity_tests::lines::{self, Ground, Words, mixed, valued, word};
use deduplicity_tests::misuse;
use deduplicity_tests::random::Random;
use deduplicity_tests::tree::describe;

#[test]
fn generated_lines_do_what_stock_does() {
    let programs = stock();
    if programs.is_empty() {
        return;
    }
    let (first, count) = (variable("DEDUPLICITY_SEED", 1), variable("DEDUPLICITY_DIFFERENTIAL", 4));
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    Case::new(seed, &programs).run();
                }
            });
        }
    });
}

/// What is wrong ends as it does there, in an empty place and in one with a backup.
#[test]
fn wrong_lines_end_as_they_do_with_stock() {
    let Some(program) = stock().pop() else { return };
    let first = variable("DEDUPLICITY_SEED", 1) * 1000;
    let mut differences = Vec::new();
    for seed in first..first + 5 * variable("DEDUPLICITY_DIFFERENTIAL", 4) {
        let runs = [None, Some(program.as_path())].map(|program| misused(program, seed));
        let [(line, ours), (_, theirs)] = &runs;
        if ours.code != theirs.code {
            let (code, other) = (ours.code, theirs.code);
            differences
                .push(format!("{seed} {line:?}: {code}, {other}:\n{}{}\n--\n{}{}", ours.out, ours.err, theirs.out, theirs.err));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What a program makes of a wrong line where there is a backup.
fn misused(program: Option<&Path>, seed: u64) -> (Words, Run) {
    let place = Place::empty();
    for folder in ["src", "full", "empty"] {
        fs::create_dir(place.path(folder)).expect("a folder");
    }
    fs::write(place.path("src/a"), "content").expect("a file");
    fs::write(place.path("full/b"), "content").expect("a file");
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption --archive-dir=cache --current-time 1700000000 src {url}"));
    let line = misuse::line(&Random::new(seed), &url);
    let more = ["--no-encryption", "--archive-dir=cache", "--num-retries=1"].map(OsString::from);
    let run = place.call(program, [&line[..], &more].concat());
    (line, run)
}

/// The names of both archives, by who wrote the first backup.
const ARCHIVES: [&str; 2] = ["ours", "stocks"];

struct Case {
    seed: u64,
    random: Random,
    place: Place,
    stock: PathBuf,
    /// The source as it is given, and as rules see it.
    source: OsString,
    base: String,
    /// Options that belong to the archive.
    common: Vec<Words>,
    /// When backups were made.
    times: Vec<i64>,
    /// What was run, for people.
    said: Vec<String>,
}

impl Case {
    fn new(seed: u64, programs: &[PathBuf]) -> Self {
        let random = Random::new(seed);
        let place = Place::empty();
        let stock = random.pick(programs);
        make_tree(&random, &place.path("src"));
        let absolute = place.path("src").display().to_string();
        let (source, base) = match random.below(5) {
            0 => ("./src".to_owned(), "src".to_owned()),
            1 => ("src/".to_owned(), "src".to_owned()),
            2 => (absolute.clone(), absolute),
            _ => ("src".to_owned(), "src".to_owned()),
        };
        let common = lines::archive_options(&random);
        Self { seed, random, place, stock, source: source.into(), base, common, times: Vec::new(), said: Vec::new() }
    }

    fn run(mut self) {
        // Some time ago, so that ages and dates lie between the backups.
        let mut time = 1_780_000_000 + i64::try_from(self.random.below(5_000_000)).expect("small");
        let mut rules = self.rules();
        for _ in 0..1 + self.random.below(3) {
            self.backup(time, &rules);
            time += 3600 + i64::try_from(self.random.below(40 * 86_400)).expect("small");
            change_tree(&self.random, &self.place.path("src"));
            if self.random.one_in(3) {
                rules = self.rules();
            }
        }
        if self.times.is_empty() {
            return;
        }
        self.list();
        self.restore();
        self.verify(&rules);
        self.status();
        self.remove();
    }

    fn rules(&mut self) -> Vec<Words> {
        let paths = paths(&self.place.path("src"));
        let lists = self.place.path("");
        lines::rules(&self.random, &Ground { base: &self.base, paths: &paths, lists: &lists })
    }

    /// Runs one of both programs on an archive: the words, then what belongs to the archive.
    fn call(&mut self, who: usize, archive: &str, words: Words, more: Vec<Words>) -> Run {
        let program = (who == 1).then_some(self.stock.as_path());
        let mut options = self.common.clone();
        options.push(valued(&Random::new(0), "--archive-dir", format!("cache-{archive}")));
        options.extend(more);
        // Both programs get the same mixture.
        let random = Random::new(self.seed ^ (self.said.len() as u64 / 2));
        let line = mixed(&random, words.into_iter().map(word).collect(), options);
        let run = self.place.call(program, &line);
        let shown: Vec<String> = line.iter().map(|word| format!("{:?}", word.as_bytes().escape_ascii().to_string())).collect();
        self.said.push(format!(
            "{} {} => {}",
            program.map_or("ours".into(), |p| p.display().to_string()),
            shown.join(" "),
            run.code
        ));
        run
    }

    fn fail(&self, what: &str, runs: &[&Run]) -> ! {
        let outputs: Vec<String> = runs.iter().map(|run| format!("exit {}\n{}{}", run.code, run.out, run.err)).collect();
        panic!("seed {}: {what}\n{}\n--\n{}", self.seed, self.said.join("\n"), outputs.join("\n--\n"));
    }

    /// Both programs with the same words; the exit codes have to be the same. The words are made for an archive's URL.
    fn both(&mut self, archives: [&str; 2], words: impl Fn(OsString) -> Words, more: &[Words]) -> [Run; 2] {
        let runs = [0, 1].map(|who| {
            let url = self.place.url(archives[who]).into();
            self.call(who, archives[who], words(url), more.to_vec())
        });
        if runs[0].code != runs[1].code {
            self.fail("other exit codes", &[&runs[0], &runs[1]]);
        }
        runs
    }

    fn backup(&mut self, time: i64, rules: &[Words]) {
        let command = lines::backup_command(&self.random).concat();
        let mut options = lines::backup_options(&self.random);
        let is_dry = options.iter().any(|words| words[0] == "--dry-run");
        if is_dry {
            // Of the first full backup, stock ends with an internal error then.
            options.retain(|words| words[0] != "--jsonstat");
        }
        options.push(valued(&self.random, "--current-time", time.to_string()));
        options.extend(rules.to_vec());
        let mut archives = ARCHIVES;
        if self.random.one_in(3) {
            archives.reverse();
        }
        let source = self.source.clone();
        let runs = self.both(archives, |url| [command.clone(), vec![source.clone(), url]].concat(), &options);
        let mut counts = [&runs[0], &runs[1]].map(|run| statistics(&run.out));
        if is_dry {
            // Stock 3.2.1 counts some files twice then.
            counts.iter_mut().for_each(|lines| lines.retain(|line| !line.starts_with("SourceFile")));
        }
        if counts[0] != counts[1] {
            self.fail(&format!("other statistics\n{:?}\n{:?}", counts[0], counts[1]), &[&runs[0], &runs[1]]);
        }
        let sets = ARCHIVES.map(|archive| self.sets(archive));
        if sets[0] != sets[1] {
            self.fail(&format!("other sets\n{sets:?}"), &[&runs[0], &runs[1]]);
        }
        if runs[0].code == 0 && !is_dry {
            self.times.push(time);
        }
    }

    /// The names of an archive's sets, without what differs by program.
    fn sets(&self, archive: &str) -> Vec<String> {
        let folder = self.place.path(archive);
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut sets: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.contains("difftar"))
            .collect();
        sets.sort();
        sets
    }

    /// A time to go back to, or none.
    fn when(&mut self) -> Vec<Words> {
        if self.random.one_in(2) {
            return Vec::new();
        }
        let near = self.random.pick(&[0, 0, 0, -1, 1, 80_000, -80_000]);
        let time = self.random.pick(&self.times) + near;
        let text = lines::time(&self.random, time);
        let name = self.random.pick(&["-t", "--time", "--restore-time"]);
        vec![if name == "-t" { vec![name.into(), text.into()] } else { valued(&self.random, name, text) }]
    }

    /// Each program on each archive; exit codes and what `result` makes of the runs have to be the same.
    fn all_four<T: PartialEq + std::fmt::Debug>(
        &mut self,
        words: impl Fn(OsString) -> Words,
        more: &[Words],
        result: impl Fn(&Place, &Run) -> T,
    ) -> (i32, T) {
        let mut first: Option<(Run, T)> = None;
        for archive in ARCHIVES {
            for who in [0, 1] {
                let url = self.place.url(archive).into();
                let run = self.call(who, archive, words(url), more.to_vec());
                let found = result(&self.place, &run);
                match &first {
                    None => first = Some((run, found)),
                    Some((before, expected)) if before.code != run.code || *expected != found => {
                        self.fail(&format!("not the same:\n{expected:?}\n{found:?}"), &[before, &run]);
                    }
                    Some(_) => {}
                }
            }
        }
        let (run, found) = first.expect("four runs");
        (run.code, found)
    }

    fn list(&mut self) {
        let more = self.when();
        self.all_four(|url| vec!["list-current-files".into(), url], &more, |_, run| listed(&run.out));
    }

    fn restore(&mut self) {
        let mut more = self.when();
        let mut all = paths(&self.place.path("src"));
        if self.random.one_in(2) && !all.is_empty() {
            let path = all.swap_remove(self.random.below(all.len()));
            let name = self.random.pick(&["--path-to-restore", "-r"]);
            more.push(if name == "-r" { vec![name.into(), path.into()] } else { valued(&self.random, name, path) });
        }
        let command: Words = if self.random.one_in(2) { Vec::new() } else { word(self.random.pick(&["restore", "rb"])) };
        let restored = |place: &Place, run: &Run| {
            let found = seconds(describe(&place.path("out")));
            let _ = fs::remove_dir_all(place.path("out"));
            fs::create_dir(place.path("out")).expect("a folder");
            if run.code == 0 { found } else { BTreeMap::new() }
        };
        fs::create_dir(self.place.path("out")).expect("a folder");
        let words = |url| [command.clone(), vec![url, "out/restored".into()]].concat();
        let (code, found) = self.all_four(words, &more, restored);
        assert!(code != 0 || found.contains_key(Path::new("restored")), "seed {}: nothing was restored", self.seed);
    }

    fn verify(&mut self, rules: &[Words]) {
        let mut more: Vec<Words> = rules.to_vec();
        if self.random.one_in(2) {
            more.push(word("--compare-data"));
        }
        let source = self.source.clone();
        let differences = |_: &Place, run: &Run| {
            let summary = run.out.lines().find(|line| line.starts_with("Verify complete"));
            summary.map(str::to_owned)
        };
        self.all_four(|url| vec!["verify".into(), url, source.clone()], &more, differences);
    }

    fn status(&mut self) {
        let sets = |_: &Place, run: &Run| {
            let is_set = |line: &&str| ["Full ", "Incremental "].iter().any(|kind| line.trim_start().starts_with(kind));
            // How many volumes there are depends on how well each program compresses.
            let without_volumes = |line: &str| line.trim_end().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
            run.out.lines().filter(is_set).map(without_volumes).collect::<Vec<_>>()
        };
        let command = self.random.pick(&["collection-status", "st"]);
        self.all_four(|url| vec![command.into(), url], &[], sets);
    }

    /// On copies of one archive: what is left has to be the same.
    fn remove(&mut self) {
        let archive = self.random.pick(&ARCHIVES);
        let copies = ["copy-ours", "copy-stocks"];
        for copy in copies {
            copy_folder(&self.place.path(archive), &self.place.path(copy));
            copy_folder(&self.place.path(&format!("cache-{archive}")), &self.place.path(&format!("cache-{copy}")));
        }
        let time = self.random.pick(&self.times) + self.random.pick(&[-1, 0, 1]);
        let time = lines::time(&self.random, time);
        let count = self.random.pick(&["1", "2", "3"]).to_string();
        let command: Words = match self.random.below(4) {
            0 => vec!["remove-older-than".into(), time.into()],
            1 => vec!["remove-all-but-n-full".into(), count.into()],
            2 => vec!["remove-all-inc-of-but-n-full".into(), count.into()],
            _ => word("cleanup"),
        };
        let more = if self.random.one_in(3) { Vec::new() } else { vec![word("--force")] };
        let runs = self.both(copies, |url| [command.clone(), vec![url]].concat(), &more);
        let mut left = copies.map(|copy| self.place.files(copy));
        if runs[1].out.contains("Current active backup chain is older than specified time") {
            // Stock keeps that chain without its signatures.
            left.iter_mut().for_each(|files| files.retain(|file| !file.contains("signatures")));
        }
        if left[0] != left[1] {
            self.fail(&format!("not the same files are left:\n{left:?}"), &[&runs[0], &runs[1]]);
        }
    }
}

/// Counts of the block at the end of a backup.
fn statistics(out: &str) -> Vec<String> {
    const COUNTS: [&str; 7] =
        ["SourceFiles ", "SourceFileSize ", "NewFiles ", "DeletedFiles ", "ChangedFiles ", "DeltaEntries ", "Errors "];
    out.lines().filter(|line| COUNTS.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

/// Entries of a list of files; of names with line feeds the first line.
fn listed(out: &str) -> Vec<String> {
    out.lines().filter(|line| line.as_bytes().get(13) == Some(&b':')).map(str::to_owned).collect()
}

/// Copies a folder of folders and files.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, target).map(drop).expect("a copy") }
    }
}
