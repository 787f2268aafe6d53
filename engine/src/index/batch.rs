//! Collecting segments until they are worth a run.

use std::collections::HashMap;

use super::codec::{Record, unseal};
use super::entry::{self, Entry};
use super::packs::{self, PackKey, key_of};
use super::run::Held;
use super::store::{Fault, PACK_IDS, PACKS, Store};
use crate::format::pack::{PackRecord, SegmentName};
use crate::id::RepoId;

/// Segments on their way into a run.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    pub(super) held: Vec<Held>,
    /// Packs that the database does not know yet: ordinal, key, summary.
    pub(super) new_packs: Vec<(u32, PackKey, Vec<u8>)>,
    ordinals: HashMap<PackKey, u32>,
    /// The first ordinal that is free.
    pub(super) next_pack: u32,
}

impl Batch {
    /// An empty batch.
    pub(super) fn new(next_pack: u32) -> Self {
        Self { next_pack, ..Self::default() }
    }

    /// Adds a segment. After an error the batch is of no use.
    pub(super) fn add(&mut self, store: &Store, repo: &RepoId, name: SegmentName, records: &[PackRecord]) -> Result<(), Fault> {
        let keys: Vec<_> = records.iter().map(|record| key_of(record.epoch, &record.id)).collect();
        self.look_up(store, repo, &keys)?;
        let mut packs = Vec::with_capacity(records.len());
        for (record, key) in records.iter().zip(keys) {
            let ordinal = match self.ordinals.get(&key) {
                Some(ordinal) => *ordinal,
                None => self.introduce(key, record)?,
            };
            entry::append(ordinal, record, &mut self.entries)?;
            packs.push(ordinal);
        }
        self.held.push(Held { name, packs });
        Ok(())
    }

    /// Finds ordinals that the database has.
    fn look_up(&mut self, store: &Store, repo: &RepoId, keys: &[PackKey]) -> Result<(), Fault> {
        store.read(|transaction| {
            let (ids, summaries) = (transaction.open_table(PACK_IDS)?, transaction.open_table(PACKS)?);
            for key in keys {
                if self.ordinals.contains_key(key) {
                    continue;
                }
                let Some(ordinal) = ids.get(key)? else { continue };
                let ordinal = ordinal.value();
                // This table has no checksums: believe it only if the summary says the same.
                let summary = summaries.get(ordinal)?;
                let sealed = summary.as_ref().map_or(&[][..], |summary| summary.value());
                let body = unseal(repo, Record::Pack, u64::from(ordinal), sealed);
                if body.is_none_or(|body| !body.starts_with(key)) {
                    return Err(Fault::Damaged(format!("summary of pack {ordinal}")));
                }
                self.ordinals.insert(*key, ordinal);
            }
            Ok(())
        })
    }

    fn introduce(&mut self, key: PackKey, record: &PackRecord) -> Result<u32, Fault> {
        let ordinal = self.next_pack;
        self.next_pack = ordinal.checked_add(1).ok_or_else(|| Fault::Failed("no ordinals for packs are left".into()))?;
        self.ordinals.insert(key, ordinal);
        self.new_packs.push((ordinal, key, packs::encode(record)));
        Ok(ordinal)
    }
}
