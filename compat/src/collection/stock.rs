//! What stock duplicity says of a collection: its own idea of chains, and the text of `collection-status`.
//!
//! FORMAT §10, §11.1, §13 and §16.4. Other than in [`Collection::chains`], all that stock leaves aside is left aside here too.
//! What stays different: names with something behind them (`.tmp`, `.par2`) are real files to stock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::chains::by_stock;
use super::{BackupSet, Collection};
use crate::name::SetTimes;
use crate::time::{Time, TimeZone};

/// Releases whose texts or rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 0.8: counts its nouns.
    V0_8,
    /// 1.0 to 3.0.5.
    V1,
    /// 3.0.6 to 3.1: sets without a manifest take part in chains.
    V3_0,
    /// From 3.2.
    V3_2,
}

/// What the text of `collection-status` depends on besides the archive.
#[derive(Clone, Debug)]
pub struct StatusOptions<'a> {
    /// Whose text.
    pub release: Release,
    /// What stands behind `Connecting with backend:`; in stock the constant `BackendWrapper`.
    pub backend: &'a str,
    /// What stands behind `Archive dir:`; in stock the folder of the local cache.
    pub archive_dir: &'a str,
    /// The zone that times are told in.
    pub zone: &'a TimeZone,
}

/// A collection as stock sees it, with indices into its sets.
struct View {
    /// By end time.
    chains: Vec<StockChain>,
    /// Whether the last chain has signatures, and so can be continued.
    matched: bool,
    orphans: Vec<usize>,
    incomplete: usize,
    warnings: Vec<String>,
}

struct StockChain {
    sets: Vec<usize>,
    start: Time,
    /// Stays as it was when the last set is discarded.
    end: Time,
}

impl Collection {
    /// The text that stock's `collection-status` prints, from an empty local cache.
    #[must_use]
    pub fn status(&self, options: &StatusOptions<'_>) -> String {
        let view = View::new(self, options.release);
        let many = |n: usize, noun: &str| counted(n, noun, options.release);
        let fulls = view.chains.iter().map(|chain| chain.start);
        let last = fulls.max().map_or_else(|| "none".to_owned(), |time| time.human(options.zone));
        let (primary, secondary) = match view.chains.split_last() {
            Some((primary, secondary)) if view.matched => (Some(primary), secondary),
            _ => (None, &*view.chains),
        };
        let mut text = format!(
            "Last full backup date: {last}\nCollection Status\n-----------------\nConnecting with backend: {}\nArchive dir: {}\n\n\
             Found {}.\n",
            options.backend,
            options.archive_dir,
            many(secondary.len(), "secondary backup chain"),
        );
        for (at, chain) in secondary.iter().enumerate() {
            text += &format!("Secondary chain {} of {}:\n{}\n", at + 1, secondary.len(), self.block(chain, options.zone));
        }
        text += &match primary {
            Some(chain) => {
                let block = self.block(chain, options.zone);
                format!("\nFound primary backup chain with matching signature chain:\n{block}")
            }
            None => "No backup chains with active signatures found\n".to_owned(),
        };
        if view.orphans.is_empty() && view.incomplete == 0 {
            text += "No orphaned or incomplete backup sets found.\n";
        } else {
            let (orphans, incomplete) = (many(view.orphans.len(), "backup set"), many(view.incomplete, "incomplete backup set"));
            text += &format!(
                "Also found {orphans} not part of any chain,\nand {incomplete}.\n\
                 These may be deleted by running duplicity with the \"cleanup\" command.\n"
            );
        }
        if options.release >= Release::V3_2 {
            text += "Duplicity backup complete.\n";
        }
        text
    }

    /// The warnings that stock prints before anything else when it reads the collection, some of several lines.
    #[must_use]
    pub fn stock_warnings(&self, release: Release) -> Vec<String> {
        View::new(self, release).warnings
    }

    fn block(&self, chain: &StockChain, zone: &TimeZone) -> String {
        const RULE: &str = "-------------------------\n";
        let volumes: usize = chain.sets.iter().map(|index| self.sets[*index].volumes.len()).sum();
        let mut text = format!(
            "{RULE}Chain start time: {}\nChain end time: {}\nNumber of contained backup sets: {}\n\
             Total number of contained volumes: {volumes}\n",
            chain.start.human(zone),
            chain.end.human(zone),
            chain.sets.len(),
        );
        let mut row = |kind: &str, time: &str, volumes: &str| {
            text += &format!("{kind:>20}   {time:>30}   {volumes:>15}\n");
        };
        row("Type of backup set:", "Time:", "Num volumes:");
        for index in &chain.sets {
            let set = &self.sets[*index];
            let kind = if set.is_full() { "Full" } else { "Incremental" };
            row(kind, &set.end_time().human(zone), &set.volumes.len().to_string());
        }
        text + RULE
    }
}

impl View {
    fn new(collection: &Collection, release: Release) -> Self {
        let sets = &collection.sets;
        let all = release >= Release::V3_0;
        let taking_part = sets.iter().enumerate().filter(|(_, set)| all || set.manifest.is_some());
        let linked = by_stock(taking_part.map(|(index, set)| (index, set.times())));
        let end = |indices: &[usize]| indices.last().map_or(Time::MIN, |index| sets[*index].end_time());
        let chain = |indices: Vec<usize>| StockChain {
            start: indices.first().map_or(Time::MIN, |index| sets[*index].end_time()),
            end: end(&indices),
            sets: indices,
        };
        let mut chains: Vec<StockChain> = linked.chains.into_iter().map(chain).collect();
        chains.sort_by_key(|chain| chain.end);
        let incomplete = sets.iter().filter(|set| set.manifest.is_none()).count();
        let mut view = Self { chains, matched: false, orphans: linked.orphans, incomplete, warnings: Vec::new() };
        view.find_signatures(collection, release);
        view.warn(collection, release);
        view
    }

    /// Matches the last chain with a chain of signatures.
    fn find_signatures(&mut self, collection: &Collection, release: Release) {
        let (ends, orphans) = signature_chains(collection);
        let mut warnings = Vec::new();
        if let Some(last) = self.chains.last_mut().filter(|_| !ends.is_empty()) {
            let set = |from_end: usize| Some(&collection.sets[*last.sets.get(last.sets.len().checked_sub(from_end)?)?]);
            if ends.contains(&last.end) {
                self.matched = true;
            } else if let (Some(before), Some(dropped)) = (set(2), set(1))
                && ends.contains(&before.end_time())
                && dropped.manifest.is_some()
            {
                last.sets.pop();
                self.matched = true;
                self.incomplete += 1;
                self.warnings.push(warning(release, "discarding last backup set, because of missing signature file."));
            } else {
                warnings.push(warning(release, "found signatures but no corresponding backup files"));
            }
        }
        if !orphans.is_empty() {
            let noun = plural(orphans.len(), "remote orphaned signature file", release);
            self.warnings.push(warning(release, &format!("found the following {noun}:\n{}", orphans.join("\n"))));
        }
        self.warnings.extend(warnings);
    }

    fn warn(&mut self, collection: &Collection, release: Release) {
        if self.incomplete > 0 && release < Release::V3_0 {
            let text = "found incomplete backup sets, probably left from aborted session";
            self.warnings.push(warning(release, text));
        }
        if !self.orphans.is_empty() {
            let mut text = format!("found the following {}:", plural(self.orphans.len(), "orphaned backup file", release));
            for index in &self.orphans {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n[{}]", file_names(&collection.sets[*index]).join(", "));
            }
            self.warnings.push(warning(release, &text));
        }
    }
}

/// Where the chains of signature files end, and the names of those that are in none.
fn signature_chains(collection: &Collection) -> (BTreeSet<Time>, Vec<&str>) {
    let of_sets = collection.sets.iter().filter_map(|set| Some((set.times, set.signature.as_ref()?)));
    let lone = collection.lone_signatures.iter().map(|lone| (lone.times, &lone.file));
    let mut files: Vec<_> = of_sets.chain(lone).map(|(times, file)| (times, &*file.file.name)).collect();
    files.sort_unstable_by_key(|(times, _)| (!times.is_full(), times.start(), times.end()));
    // How many chains end at a time: which of them goes on makes no difference.
    let mut ends: BTreeMap<Time, usize> = BTreeMap::new();
    let mut orphans = Vec::new();
    for (times, name) in files {
        if let SetTimes::Inc { start, .. } = times {
            let Some(count) = ends.get_mut(&start).filter(|count| **count > 0) else {
                orphans.push(name);
                continue;
            };
            *count -= 1;
        }
        *ends.entry(times.end()).or_default() += 1;
    }
    (ends.into_iter().filter(|(_, count)| *count > 0).map(|(end, _)| end).collect(), orphans)
}

fn file_names(set: &BackupSet) -> Vec<&str> {
    set.manifest.iter().chain(set.volumes.values()).map(|file| &*file.file.name).collect()
}

/// Version 3.0 is not among the recorded outputs; it is taken to do as 3.2 does.
fn warning(release: Release, text: &str) -> String {
    let word = if release >= Release::V3_0 { "WARNING." } else { "Warning," };
    format!("{word} {text}")
}

fn counted(n: usize, noun: &str, release: Release) -> String {
    format!("{n} {}", plural(n, noun, release))
}

fn plural(n: usize, noun: &str, release: Release) -> String {
    let ending = match (release, n) {
        (Release::V0_8, 1) => "",
        (Release::V0_8, _) => "s",
        _ => "(s)",
    };
    format!("{noun}{ending}")
}
