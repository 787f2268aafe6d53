//! Changing the set of runs: one transaction each, then a new view.

use std::collections::HashSet;
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};

use super::Index;
use super::batch::Batch;
use super::codec::{Reader, Record, seal, unseal};
use super::merge::{merge, pick};
use super::run::{Held, Run, RunBuilder, page_key};
use super::store::{Fault, PACK_IDS, PACKS, PAGES, RUNS, STATE, STATE_KEY, Store, UNUSED_KEY};
use super::view::View;
use crate::id::RepoId;

/// Version of the cache's layout. Another one is not read.
const VERSION: u32 = 2;

/// Numbers that are handed out once and never again in the life of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    next_run: u32,
    pub(super) next_pack: u32,
    /// Where in the page cache the next run's pages begin; not stored.
    next_place: usize,
}

impl Writer {
    fn save(self, repo: &RepoId, transaction: &WriteTransaction) -> Result<(), Fault> {
        let mut body = Vec::new();
        for number in [VERSION, self.next_run, self.next_pack] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let record = seal(repo, Record::State, 0, body);
        transaction.open_table(STATE)?.insert(STATE_KEY, record.as_slice())?;
        Ok(())
    }

    fn decode(repo: &RepoId, record: &[u8]) -> Option<Self> {
        let mut reader = Reader(unseal(repo, Record::State, 0, record)?);
        let (version, next_run, next_pack) = (reader.u32()?, reader.u32()?, reader.u32()?);
        (version == VERSION).then_some(Self { next_run, next_pack, next_place: 0 })
    }

    /// Takes the number of a new run.
    fn number(&mut self) -> Result<u32, Fault> {
        let number = self.next_run;
        self.next_run = number.checked_add(1).ok_or_else(|| Fault::Damaged("no numbers for runs are left".into()))?;
        Ok(number)
    }

    fn place(&mut self, run: &mut Run) {
        run.place = self.next_place;
        self.next_place = self.next_place.wrapping_add(run.pages());
    }
}

/// Reads the state of a database, or writes that of a new one.
pub(super) fn load(store: &Store, repo: &RepoId) -> Result<(Writer, View), Fault> {
    let new = store.read(|transaction| Ok(transaction.list_tables()?.next().is_none()))?;
    if new {
        store.write(|transaction| {
            transaction.open_table(RUNS)?;
            transaction.open_table(PAGES)?;
            transaction.open_table(PACKS)?;
            transaction.open_table(PACK_IDS)?;
            Writer { next_run: 0, next_pack: 0, next_place: 0 }.save(repo, transaction)
        })?;
    }
    store.read(|transaction| {
        let foreign = || Fault::Damaged("of another version or repository".into());
        let state = transaction.open_table(STATE)?.get(STATE_KEY)?.ok_or_else(foreign)?;
        let mut writer = Writer::decode(repo, state.value()).ok_or_else(foreign)?;
        let mut runs = Vec::new();
        for item in transaction.open_table(RUNS)?.iter()? {
            let (number, record) = item?;
            let (mut run, _) = decode_run(repo, number.value(), record.value())?;
            writer.place(&mut run);
            runs.push(Arc::new(run));
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.entries));
        Ok((writer, View { runs, pages: Arc::new(transaction.open_table(PAGES)?) }))
    })
}

pub(super) fn decode_run(repo: &RepoId, number: u32, record: &[u8]) -> Result<(Run, Vec<Held>), Fault> {
    unseal(repo, Record::Run, u64::from(number), record)
        .and_then(|body| Run::decode(number, body))
        .ok_or_else(|| Fault::Damaged(format!("record of run {number}")))
}

impl Index {
    /// Writes a batch as a run, then merges runs as long as there are many.
    pub(super) fn write_batch(&self, writer: &mut Writer, mut batch: Batch) -> Result<(), Fault> {
        if batch.held.is_empty() {
            return Ok(());
        }
        batch.entries.sort_unstable();
        let mut next = Writer { next_pack: batch.next_pack, ..*writer };
        let number = next.number()?;
        let mut run = self.store.write(|transaction| {
            let (mut packs, mut ids) = (transaction.open_table(PACKS)?, transaction.open_table(PACK_IDS)?);
            for (ordinal, key, summary) in std::mem::take(&mut batch.new_packs) {
                packs.insert(ordinal, seal(&self.repo, Record::Pack, u64::from(ordinal), summary).as_slice())?;
                ids.insert(&key, ordinal)?;
            }
            let mut pages = transaction.open_table(PAGES)?;
            let mut builder = RunBuilder::new(&self.repo, &mut pages, number, batch.entries.len());
            // Freed before the filter is built, so that the two do not add up.
            for entry in &std::mem::take(&mut batch.entries) {
                builder.push(entry)?;
            }
            let run = builder.finish()?;
            self.save_run(transaction, &run, &batch.held)?;
            next.save(&self.repo, transaction)?;
            Ok(run)
        })?;
        run.segments = batch.held.iter().map(|held| held.name).collect();
        next.place(&mut run);
        *writer = next;
        self.publish(&[], Some(run))?;
        self.merge_runs(writer)
    }

    fn merge_runs(&self, writer: &mut Writer) -> Result<(), Fault> {
        loop {
            let view = self.current.get();
            let inputs = pick(&view.runs);
            if inputs.is_empty() {
                return Ok(());
            }
            let mut next = *writer;
            let number = next.number()?;
            let expected: u64 = inputs.iter().map(|run| run.entries).sum();
            let expected = usize::try_from(expected).unwrap_or(0);
            let mut run = self.store.write(|transaction| {
                let mut held = Vec::new();
                {
                    let runs = transaction.open_table(RUNS)?;
                    for input in &inputs {
                        let record = runs.get(input.number)?;
                        let record = record.as_ref().map_or(&[][..], |record| record.value());
                        held.extend(decode_run(&self.repo, input.number, record)?.1);
                    }
                }
                let mut run = {
                    let mut pages = transaction.open_table(PAGES)?;
                    let mut builder = RunBuilder::new(&self.repo, &mut pages, number, expected);
                    merge(&inputs, &view.pages, &self.repo, &mut builder)?;
                    builder.finish()?
                };
                run.segments = held.iter().map(|held| held.name).collect();
                delete_runs(transaction, &inputs)?;
                self.save_run(transaction, &run, &held)?;
                next.save(&self.repo, transaction)?;
                Ok(run)
            })?;
            next.place(&mut run);
            *writer = next;
            self.publish(&inputs, Some(run))?;
        }
    }

    /// Drops runs.
    pub(super) fn drop_runs(&self, dropped: &[Arc<Run>]) -> Result<(), Fault> {
        self.store.write(|transaction| {
            transaction.open_table(STATE)?.insert(UNUSED_KEY, [].as_slice())?;
            delete_runs(transaction, dropped)
        })?;
        self.publish(dropped, None)
    }

    /// Forgets packs that no run refers to any more, if runs were dropped, by this process or by one that was broken off.
    pub(super) fn forget_packs(&self) -> Result<(), Fault> {
        if !self.store.read(|transaction| Ok(transaction.open_table(STATE)?.get(UNUSED_KEY)?.is_some()))? {
            return Ok(());
        }
        self.store.write(|transaction| {
            transaction.open_table(STATE)?.remove(UNUSED_KEY)?;
            let mut used = HashSet::new();
            for item in transaction.open_table(RUNS)?.iter()? {
                let (number, record) = item?;
                let (_, held) = decode_run(&self.repo, number.value(), record.value())?;
                used.extend(held.into_iter().flat_map(|held| held.packs));
            }
            transaction.open_table(PACKS)?.retain(|ordinal, _| used.contains(&ordinal))?;
            transaction.open_table(PACK_IDS)?.retain(|_, ordinal| used.contains(&ordinal))?;
            Ok(())
        })?;
        self.packs.clear();
        Ok(())
    }

    fn save_run(&self, transaction: &WriteTransaction, run: &Run, held: &[Held]) -> Result<(), Fault> {
        let record = seal(&self.repo, Record::Run, u64::from(run.number), run.encode(held));
        transaction.open_table(RUNS)?.insert(run.number, record.as_slice())?;
        Ok(())
    }

    fn publish(&self, removed: &[Arc<Run>], added: Option<Run>) -> Result<(), Fault> {
        let mut runs = self.current.get().runs.clone();
        runs.retain(|run| removed.iter().all(|gone| gone.number != run.number));
        runs.extend(added.map(Arc::new));
        runs.sort_by_key(|run| std::cmp::Reverse(run.entries));
        let pages = self.store.read(|transaction| Ok(Arc::new(transaction.open_table(PAGES)?)))?;
        self.current.set(&View { runs, pages });
        Ok(())
    }
}

fn delete_runs(transaction: &WriteTransaction, runs: &[Arc<Run>]) -> Result<(), Fault> {
    let (mut records, mut pages) = (transaction.open_table(RUNS)?, transaction.open_table(PAGES)?);
    for run in runs {
        records.remove(run.number)?;
        let (first, end) = (page_key(run.number, 0), page_key(run.number, run.pages()));
        if let (Some(first), Some(end)) = (first, end) {
            pages.retain_in(first..end, |_, _| false)?;
        }
    }
    Ok(())
}
