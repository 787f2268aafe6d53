//! Parity as a person uses it: made at init or later, on a disk and on S3, and what it brings back.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use deduplicity_tests::env::Env;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::tree::{assert_same, describe, noise};
use engine::backend::{Backend, ObjectKey};
use engine_s3::S3Backend;
use serde_json::Value;

fn summary(out: &str) -> Value {
    serde_json::from_str(out.lines().last().expect("a line")).expect("JSON")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("lists").map(|item| item.expect("an item").path()));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn write_source(env: &Env) -> PathBuf {
    let source = env.path("src");
    fs::create_dir_all(source.join("sub")).expect("mkdir");
    for i in 0..50_u64 {
        fs::write(source.join(format!("sub/f{i}")), noise(i, 3000)).expect("write");
    }
    fs::write(source.join("big"), noise(1000, 9_000_000)).expect("write");
    source
}

/// Flips bits in a file, in as many places as 5 % of parity can mend, or takes it away if it is small.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("reads");
    if bytes.len() <= 65_536 {
        fs::remove_file(path).expect("removes");
        return;
    }
    let places = [100, bytes.len() / 2];
    // Which files share a pack is left to chance: up to 20 shards have one of parity.
    let count = if bytes.len() > 20 * 65_536 { 2 } else { 1 };
    places.into_iter().take(count).for_each(|at| bytes[at] ^= 1);
    fs::write(path, bytes).expect("writes");
}

#[test]
fn damage_is_named_and_mended() {
    let env = Env::local();
    let source = write_source(&env);
    env.ok(&["init", "--parity", "5%"]);
    env.ok(&["backup", "src"]);
    env.ok(&["check", "--read-data"]);
    let repository = env.repository().to_owned();
    let good: Vec<(PathBuf, Vec<u8>)> =
        files(&repository).into_iter().map(|path| (path.clone(), fs::read(path).expect("reads"))).collect();
    let below = |folder: &str| files(&repository.join(folder));
    for path in ["packs", "index", "snapshots", "keys", "config"].into_iter().flat_map(below) {
        damage(&path);
    }
    let run = env.run(&["check", "--read-data"]);
    assert!(run.code == 1 && run.err.contains("repair parity"), "{}", run.err);
    let run = env.run(&["check", "--stored-objects", "--json"]);
    let host = summary(&run.out);
    assert!(run.code == 1 && host["errors"].as_u64() > Some(3), "{}", run.out);
    // Without the password it cannot be told that the config is the right one.
    assert_eq!(host["errors_parity_can_mend"].as_u64(), host["errors"].as_u64().map(|n| n - 1), "{}", run.err);
    let planned = summary(&env.ok(&["repair", "parity", "--dry-run", "--json"]));
    assert_eq!((planned["lost"].as_u64(), planned["dry_run"].as_bool()), (Some(0), Some(true)));
    let out = env.ok(&["repair", "parity"]);
    assert!(out.contains("repaired: "), "{out}");
    for (path, bytes) in good {
        assert!(fs::read(&path).expect("is back") == bytes, "{}", path.display());
    }
    env.ok(&["check", "--read-data"]);
    env.ok(&["restore", &format!("latest:{}", source.display()), "--target", "restored", "--verify"]);
    assert_same(&describe(&source), &describe(&env.path("restored")));
}

#[test]
fn a_prune_makes_it_later_and_a_host_mends_a_lost_pack() {
    let env = Env::local();
    let source = write_source(&env);
    env.ok(&["init"]);
    env.ok(&["backup", "src"]);
    let run = env.run(&["repair", "parity"]);
    assert!(run.code == 0 && run.err.contains("prune --parity"), "{}", run.err);
    let made = summary(&env.ok(&["prune", "--parity", "10%", "--json"]));
    assert!(made["parity"]["objects"].as_u64() > Some(3) && made["parity"]["groups"].as_u64() == Some(1), "{made}");
    let packs = files(&env.repository().join("packs"));
    let largest = packs.iter().max_by_key(|path| path.metadata().expect("size").len()).expect("a pack");
    fs::remove_file(largest).expect("removes");
    assert_eq!(env.run(&["check"]).code, 1);
    let host = env.command(&["repair", "parity", "--stored-objects", "--json"]).env_remove("DEDUPLICITY_PASSWORD").output();
    let host = host.expect("starts");
    assert_eq!(host.status.code(), Some(0), "{}", String::from_utf8_lossy(&host.stderr));
    assert_eq!(summary(&String::from_utf8_lossy(&host.stdout))["repaired"].as_u64(), Some(1));
    env.ok(&["check", "--read-data"]);
    env.ok(&["restore", &format!("latest:{}", source.display()), "--target", "restored", "--verify"]);
    env.ok(&["prune", "--parity", "0%"]);
    let left = files(&env.repository().join("parity"));
    let is_vital = |path: &PathBuf| {
        ["config", "keys/", "epochs/"].iter().any(|name| path.starts_with(env.repository().join("parity").join(name)))
    };
    assert!(!left.is_empty() && left.iter().all(is_vital), "{left:?}");
    for bad in ["101%", "-1%", "5.5%", "x"] {
        assert_eq!(env.run(&["prune", "--parity", bad]).code, 1, "{bad}");
    }
}

#[test]
fn a_bucket_is_mended_like_a_disk() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    let env = Env::s3(&format!("http://{}", server.address()), &bucket, ACCESS_KEY, SECRET_KEY);
    let source = write_source(&env);
    env.ok(&["init", "--parity", "5%"]);
    env.ok(&["backup", "src"]);
    let backend = S3Backend::open(Seaweed::options(server.address(), &bucket, "prefix")).expect("opens");
    let mut keys: Vec<ObjectKey> = Vec::new();
    backend.list("", &mut |meta| keys.push(meta.key)).expect("lists");
    for key in keys.iter().filter(|key| !key.as_str().starts_with("parity/") && key.as_str() != "config") {
        let mut bytes = backend.read(key, u64::MAX).expect("reads").to_vec();
        backend.delete(key).expect("deletes");
        if bytes.len() > 65_536 {
            bytes[1000] ^= 1;
            backend.create(key, Bytes::from(bytes)).expect("creates");
        }
    }
    assert_eq!(env.run(&["check"]).code, 1);
    let repaired = summary(&env.ok(&["repair", "parity", "--json"]));
    assert_eq!(repaired["lost"].as_u64(), Some(0));
    env.ok(&["check", "--read-data"]);
    env.ok(&["restore", &format!("latest:{}", source.display()), "--target", "restored", "--verify"]);
    assert_same(&describe(&source), &describe(&env.path("restored")));
}
