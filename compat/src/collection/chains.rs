//! Linking sets into chains.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem;
use std::sync::Arc;

use super::{BackupSet, Chain, Collection};
use crate::name::SetTimes;
use crate::time::Time;

/// Chains by stock's rule, as indices into the sets.
#[derive(Default)]
pub(super) struct Linked {
    pub chains: Vec<Vec<usize>>,
    pub orphans: Vec<usize>,
    pub superseded: Vec<usize>,
}

/// Stock's rule over sets that are sorted by end time: each full one starts a chain; an increment goes to the first chain that
/// ends where it starts, or whose last increment has the same start and gives way to it.
pub(super) fn by_stock(sets: impl IntoIterator<Item = (usize, SetTimes)>) -> Linked {
    let mut linked = Linked::default();
    let mut times: Vec<Vec<SetTimes>> = Vec::new();
    // Chains by where they end, and by where their last increment starts: never a search through all.
    let mut ending: BTreeMap<Time, BTreeSet<usize>> = BTreeMap::new();
    let mut last_from: BTreeMap<Time, BTreeSet<usize>> = BTreeMap::new();
    for (index, set) in sets {
        let SetTimes::Inc { start, end } = set else {
            ending.entry(set.end()).or_default().insert(times.len());
            linked.chains.push(vec![index]);
            times.push(vec![set]);
            continue;
        };
        let appends = ending.get(&start).and_then(|chains| chains.first().copied());
        let candidates = last_from.get(&start).into_iter().flatten().copied();
        let replaces = candidates.into_iter().find(|chain| times[*chain].last().is_some_and(|last| last.end() < end));
        let Some(chain) = [appends, replaces].into_iter().flatten().min() else {
            linked.orphans.push(index);
            continue;
        };
        let Some(last) = times[chain].last().copied() else { continue };
        ending.entry(last.end()).or_default().remove(&chain);
        if !last.is_full() {
            last_from.entry(last.start()).or_default().remove(&chain);
        }
        if appends != Some(chain) {
            times[chain].pop();
            linked.superseded.extend(linked.chains[chain].pop());
        }
        ending.entry(end).or_default().insert(chain);
        last_from.entry(start).or_default().insert(chain);
        linked.chains[chain].push(index);
        times[chain].push(set);
    }
    linked
}

/// Makes the chains of a collection out of its sets.
///
/// First by stock's rule with the sets that have a manifest. Then those that have lost theirs are fitted in where a chain
/// would break off otherwise, and what stock leaves aside because a clock was set back.
pub(super) fn link(collection: &mut Collection) {
    let sets = mem::take(&mut collection.sets);
    let based: HashSet<Time> = sets.iter().filter(|set| !set.is_full()).map(|set| set.start_time()).collect();
    let lost = |set: &BackupSet| set.signature().is_some() || based.contains(&set.end_time());
    let complete = sets.iter().enumerate().filter(|(_, set)| set.manifest().is_some());
    let mut linked = by_stock(complete.map(|(index, set)| (index, set.times())));
    let mut spare: BTreeMap<Time, Vec<usize>> = BTreeMap::new();
    for &index in &linked.orphans {
        spare.entry(sets[index].start_time()).or_default().push(index);
    }
    for (index, set) in sets.iter().enumerate().filter(|(_, set)| set.manifest().is_none()) {
        if !lost(set) {
            collection.interrupted.push(Arc::clone(set));
        } else if set.is_full() {
            linked.chains.push(vec![index]);
        } else {
            spare.entry(set.start_time()).or_default().push(index);
        }
    }
    for candidates in spare.values_mut() {
        // The best last: a complete one, then the one that ends last, as by stock's rule.
        candidates.sort_by_key(|index| (sets[*index].manifest().is_some(), sets[*index].end_time(), Reverse(*index)));
    }
    for chain in &mut linked.chains {
        while let Some(next) = chain.last().and_then(|last| spare.get_mut(&sets[*last].end_time())?.pop()) {
            chain.push(next);
        }
    }
    // Left over with its base in a chain: another has its place.
    let ends: HashSet<Time> = linked.chains.iter().flatten().map(|index| sets[*index].end_time()).collect();
    let left = spare.into_values().flatten();
    let (displaced, mut orphans): (Vec<usize>, Vec<usize>) = left.partition(|index| ends.contains(&sets[*index].start_time()));
    linked.superseded.extend(displaced);
    let pick = |indices: &[usize]| indices.iter().map(|index| Arc::clone(&sets[*index])).collect::<Vec<_>>();
    orphans.sort_unstable();
    linked.superseded.sort_unstable();
    collection.orphans = pick(&orphans);
    collection.superseded = pick(&linked.superseded);
    collection.chains = linked.chains.iter().map(|chain| Chain { sets: pick(chain) }).collect();
    collection.chains.sort_by_key(|chain| (chain.start_time(), chain.end_time()));
    collection.sets = sets;
}
