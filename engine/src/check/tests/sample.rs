//! A small repository in memory, made by real backups, that can be damaged and put right again.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use super::super::{CheckLevel, CheckReport, run};
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ObjectKey};
use crate::backup::{self, BackupOptions};
use crate::chunker::ChunkSizes;
use crate::crypto::password::Cost;
use crate::format::{ObjectKind, epoch};
use crate::fs::{WalkOptions, WalkSource};
use crate::monitor::{Collector, Monitor, Problem};
use crate::repo::names::{self, EpochRole};
use crate::repo::{InitOptions, Reader, Repository};

pub(super) struct Sample {
    pub(super) store: Arc<MemBackend>,
    pub(super) repo: Arc<Repository>,
    pub(super) tree: TempDir,
}

pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

impl Sample {
    pub(super) fn new(files: u64) -> Self {
        let store = Arc::new(MemBackend::new());
        let chunks = ChunkSizes { min: 1 << 10, average: 2 << 10, max: 8 << 10 };
        let cost = Cost { memory: 8, passes: 1, lanes: 1 };
        let options = InitOptions { cost, chunks, pack_target: 1 << 20, ..InitOptions::default() };
        let repo = Arc::new(Repository::create(Arc::clone(&store) as _, b"secret", &options).unwrap());
        let tree = tempfile::tempdir().unwrap();
        for i in 0..files {
            fs::write(tree.path().join(format!("f{i:05}")), format!("content of file {i}")).unwrap();
        }
        fs::write(tree.path().join("large"), noise(200 << 10, 1)).unwrap();
        Self { store, repo, tree }
    }

    pub(super) fn back_up(&self) {
        let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
        let walk = WalkOptions { roots: vec![self.tree.path().to_owned()], ..WalkOptions::default() };
        let options = BackupOptions {
            time: crate::repo::now(),
            host: "h".into(),
            user: "u".into(),
            paths: vec![],
            tags: vec![],
            incomplete_tag: None,
            origin: None,
            program: "p".into(),
            level: crate::codec::DEFAULT_LEVEL,
            parent: None,
            dry_run: false,
            cache_dir: None,
        };
        let source = |_: &Arc<Reader>| {
            Ok(Box::new(WalkSource::new(walk.clone(), Arc::clone(&monitor))?) as Box<dyn crate::entry::EntrySource>)
        };
        backup::run(&self.repo, &mut { source }, &options, &monitor).unwrap();
    }

    /// Two snapshots of a small tree.
    pub(super) fn small() -> Self {
        let sample = Self::new(20);
        sample.back_up();
        fs::write(sample.tree.path().join("f00003"), noise(3000, 2)).unwrap();
        sample.back_up();
        sample
    }

    /// Ends epoch 0 as maintenance would.
    pub(super) fn seal(&self) {
        let view = self.repo.load_view(&Collector::default()).unwrap();
        let (key, id) = (&self.repo.keys().epochs, self.repo.id());
        let close = epoch::Close { run: [0; 16], condemned: vec![], previous: None };
        let seal = epoch::Seal {
            previous: None,
            snapshots: view.snapshots.iter().map(|s| (s.epoch, s.id)).collect(),
            segments: view.segments,
            deleted: vec![],
            time: crate::repo::now(),
            forgotten: vec![],
            locked: None,
        };
        let objects = [
            (EpochRole::Close, epoch::seal_close(key, id, 0, &close)),
            (EpochRole::Fence, epoch::seal_mark(key, ObjectKind::Fence, id, 0)),
            (EpochRole::Seal, epoch::seal_seal(key, id, 0, &seal, None)),
            (EpochRole::Done, epoch::seal_mark(key, ObjectKind::Done, id, 0)),
        ];
        for (role, bytes) in objects {
            self.store.create(&names::epoch(0, role), bytes.unwrap().into()).unwrap();
        }
    }

    pub(super) fn objects(&self, prefix: &str) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        self.store.list(prefix, &mut |meta| keys.push(meta.key)).unwrap();
        keys
    }

    pub(super) fn bytes(&self, key: &ObjectKey) -> Vec<u8> {
        self.store.read(key, u64::MAX).unwrap().to_vec()
    }

    pub(super) fn check(&self, level: CheckLevel) -> (CheckReport, Vec<Problem>) {
        let monitor = Arc::new(Collector::default());
        let report = run(&self.repo, None, &level, &(Arc::clone(&monitor) as _)).unwrap();
        assert_eq!(report.errors == 0, monitor.problems().is_empty(), "{:?}", monitor.problems());
        (report, monitor.problems())
    }

    pub(super) fn assert_clean(&self) {
        assert_eq!(self.check(CheckLevel::ReadData).1, []);
    }

    /// Damages an object, expects a finding that names it, and puts it right again.
    pub(super) fn expect_found(&self, key: &ObjectKey, bad: Option<Vec<u8>>, level: CheckLevel, what: &str) {
        let good = self.bytes(key);
        match bad {
            Some(bad) => self.store.overwrite(key, bad),
            None => self.store.delete(key).unwrap(),
        }
        let (report, problems) = self.check(level);
        assert!(report.errors > 0, "{key} {what}: not found");
        assert!(problems.iter().any(|p| p.subject.contains(key.as_str())), "{key} {what}: {problems:?}");
        self.store.overwrite(key, good);
    }
}
