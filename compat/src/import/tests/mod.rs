//! Imports of real archives, compared with what stock duplicity restores from them.

mod damaged;
mod healthy;
mod made;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::backend::mem::MemBackend;
use engine::catalog::CatalogReader;
use engine::codec::DEFAULT_LEVEL;
use engine::content::copy_to;
use engine::crypto::password::Cost;
use engine::entry::Kind;
use engine::monitor::{Collector, Monitor, Problem};
use engine::repo::{InitOptions, Reader, Repository};
use engine::snapshot::SnapshotRecord;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Archive, ImportOptions, Selection, SetOutcome, SetResult, run};
use crate::name::Prefixes;
use crate::pgp::Keyring;
use crate::store::{Store, StoreError, StoreErrorKind, StoredFile};
use crate::test_support::fixtures;

/// A folder on disk.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn file(&self, name: &str) -> Result<File, StoreError> {
        File::open(self.0.join(name)).map_err(|e| StoreError {
            kind: StoreErrorKind::NotFound,
            location: self.location(),
            name: name.into(),
            message: e.to_string(),
        })
    }
}

impl Store for Folder {
    fn location(&self) -> String {
        self.0.display().to_string()
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let names = std::fs::read_dir(&self.0).expect("a folder").map(|e| e.expect("an entry"));
        Ok(names
            .map(|e| StoredFile { name: e.file_name().into_string().expect("UTF-8"), size: e.metadata().ok().map(|m| m.len()) })
            .collect())
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(self.file(name)?))
    }
}

/// One fixture: its archive and what is known of it.
struct Fixture {
    dir: PathBuf,
    info: Value,
}

impl Fixture {
    fn open(name: &str) -> Option<Self> {
        let dir = fixtures()?.join("public").join(name);
        let info = serde_json::from_slice(&std::fs::read(dir.join("info.json")).expect("info.json")).expect("JSON");
        Some(Self { dir, info })
    }

    fn archive(&self) -> Archive {
        self.archive_at(&self.dir.join("archive"))
    }

    fn archive_at(&self, dir: &Path) -> Archive {
        let mut keyring = Keyring::new();
        let keys = self.dir.join("../../keys");
        for field in ["passphrase", "sign_passphrase"] {
            self.info[field].as_str().into_iter().for_each(|phrase| keyring.add_passphrase(phrase.as_bytes()));
        }
        for phrase in self.info["passphrases"].as_array().into_iter().flatten() {
            phrase.as_str().into_iter().for_each(|phrase| keyring.add_passphrase(phrase.as_bytes()));
        }
        for time in self.times() {
            time["passphrase"].as_str().into_iter().for_each(|phrase| keyring.add_passphrase(phrase.as_bytes()));
        }
        for key in ["rsa", "ecc", "gpg24"] {
            let file = std::fs::read(keys.join(format!("{key}.sec.asc"))).expect("a key");
            keyring.add_keys(&file, key).expect("readable");
            let phrase = std::fs::read_to_string(keys.join(format!("{key}.passphrase"))).expect("a pass phrase");
            keyring.add_passphrase(phrase.trim_end().as_bytes());
        }
        Archive {
            store: Arc::new(Folder(dir.to_owned())),
            prefixes: self.prefixes(),
            keyring: Arc::new(keyring),
            required_signer: None,
        }
    }

    fn prefixes(&self) -> Prefixes {
        let options: Vec<&str> = ["restore_options", "extra_restore_options"]
            .iter()
            .flat_map(|field| self.info[*field].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        let value = |name: &str| {
            let at = options.iter().position(|option| *option == name);
            at.and_then(|at| options.get(at + 1)).map(|v| (*v).to_owned()).unwrap_or_default()
        };
        Prefixes {
            all: value("--file-prefix"),
            archive: value("--file-prefix-archive"),
            manifest: value("--file-prefix-manifest"),
            signature: value("--file-prefix-signature"),
            jsonstat: value("--file-prefix-jsonstat"),
        }
    }

    fn times(&self) -> Vec<Value> {
        self.info["times"].as_array().cloned().unwrap_or_default()
    }

    /// What stock restores at a time, by path.
    fn truth(&self, time: &Value) -> BTreeMap<Vec<u8>, Value> {
        let tree = time["tree"].as_str().expect("a tree");
        let file =
            std::fs::read(self.dir.join(tree)).or_else(|_| std::fs::read(self.dir.join("truth").join(tree))).expect("a tree");
        let entries: Vec<Value> = serde_json::from_slice(&file).expect("JSON");
        entries.into_iter().map(|entry| (raw(&entry, "path"), entry)).collect()
    }
}

/// Text of the tree's description, as raw bytes.
fn raw(entry: &Value, field: &str) -> Vec<u8> {
    match entry[format!("{field}_hex")].as_str() {
        Some(hex) => (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect(),
        None => entry[field].as_str().expect("text").as_bytes().to_vec(),
    }
}

/// A repository in memory.
struct World {
    repo: Arc<Repository>,
    monitor: Arc<Collector>,
}

impl World {
    fn new() -> Self {
        let options = InitOptions { cost: Cost { memory: 64, passes: 1, lanes: 1 }, ..InitOptions::default() };
        let repo = Repository::create(Arc::new(MemBackend::new()), b"x", &options).expect("creates");
        Self { repo: Arc::new(repo), monitor: Arc::default() }
    }

    fn import(&self, archive: &Archive) -> Vec<SetOutcome> {
        self.import_with(archive, &options())
    }

    fn import_with(&self, archive: &Archive, options: &ImportOptions) -> Vec<SetOutcome> {
        let monitor: Arc<dyn Monitor> = Arc::clone(&self.monitor) as _;
        let mut outcomes = Vec::new();
        run(&self.repo, archive, options, &monitor, &mut |outcome| {
            outcomes.push(outcome.clone());
            Ok(())
        })
        .expect("imports");
        outcomes
    }

    fn problems(&self) -> Vec<Problem> {
        self.monitor.problems()
    }

    fn snapshots(&self) -> Vec<SnapshotRecord> {
        let reader = self.reader();
        engine::snapshot::list(&self.repo, reader.view(), &*self.monitor).expect("lists")
    }

    fn reader(&self) -> Reader {
        Reader::open(Arc::clone(&self.repo), None, &*self.monitor).expect("opens")
    }

    /// A snapshot's tree in the form of the fixtures.
    fn tree(&self, record: &SnapshotRecord) -> BTreeMap<Vec<u8>, Value> {
        let reader = self.reader();
        let mut catalog = CatalogReader::new(&reader, record.snapshot.root).expect("catalog");
        let mut tree = BTreeMap::new();
        while let Some(entry) = catalog.next_entry().expect("entry") {
            let path = if entry.path.is_root() { b".".to_vec() } else { entry.path.as_bytes().to_vec() };
            let owner = &entry.meta.owner;
            let mut value = serde_json::json!({ "uid": owner.uid, "gid": owner.gid });
            let kind = match &entry.kind {
                Kind::File => {
                    let mut bytes = Vec::new();
                    copy_to(&reader, &entry, &mut bytes).expect("content");
                    value["size"] = entry.size.into();
                    value["sha256"] = engine::id::to_hex(&Sha256::digest(&bytes)).into();
                    "reg"
                }
                Kind::Directory => "dir",
                Kind::Symlink(target) => {
                    value["target"] = engine::id::to_hex(target).into();
                    "sym"
                }
                Kind::Fifo => "fifo",
                Kind::CharDevice(major, minor) => {
                    value["dev"] = vec![*major, *minor].into();
                    "chr"
                }
                Kind::BlockDevice(major, minor) => {
                    value["dev"] = vec![*major, *minor].into();
                    "blk"
                }
            };
            value["type"] = kind.into();
            if kind != "sym" {
                value["mode"] = format!("{:04o}", entry.meta.mode).into();
                value["mtime"] = entry.meta.mtime.seconds.into();
            }
            tree.insert(path, value);
        }
        tree
    }
}

fn options() -> ImportOptions {
    ImportOptions {
        selection: Selection::All,
        host: None,
        user: "u".into(),
        tags: vec![],
        program: "test".into(),
        level: DEFAULT_LEVEL,
        verify: true,
        dry_run: false,
        cache_dir: None,
    }
}

/// A tree of a fixture with the fields that [`World::tree`] has.
fn comparable(truth: &BTreeMap<Vec<u8>, Value>) -> BTreeMap<Vec<u8>, Value> {
    let fields = ["type", "mode", "mtime", "uid", "gid", "size", "sha256", "dev"];
    let comparable = |entry: &Value| {
        let mut value = serde_json::json!({});
        for field in fields {
            let of_links = !matches!(field, "mode" | "mtime" | "size");
            if !entry[field].is_null() && (of_links || entry["type"] != "sym") {
                value[field] = entry[field].clone();
            }
        }
        if entry["type"] == "sym" {
            value["target"] = engine::id::to_hex(&raw(entry, "target")).into();
        }
        value
    };
    truth.iter().map(|(path, entry)| (path.clone(), comparable(entry))).collect()
}

/// Where two trees differ, for people.
fn differences(found: &BTreeMap<Vec<u8>, Value>, truth: &BTreeMap<Vec<u8>, Value>) -> Vec<String> {
    let mut all = Vec::new();
    for path in found.keys().chain(truth.keys().filter(|path| !found.contains_key(*path))) {
        let (mut a, b) = (found.get(path).cloned(), truth.get(path).cloned());
        // Some files of the fixtures were not read when their trees were described.
        if let (Some(a), Some(b)) = (a.as_mut().and_then(Value::as_object_mut), &b)
            && b["sha256"].is_null()
        {
            a.remove("sha256");
        }
        if a != b {
            all.push(format!("{}: {a:?}, but stock has {b:?}", String::from_utf8_lossy(path)));
        }
    }
    all
}
