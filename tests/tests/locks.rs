//! Object Lock on a real server, with the built program.

use std::fs;

use deduplicity_tests::env::Env;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use engine::backend::{Backend, ErrorKind, ObjectKey};
use engine_s3::S3Backend;
use serde_json::Value;

fn env(server: &Seaweed, bucket: &str) -> (Env, S3Backend) {
    let backend = S3Backend::open(Seaweed::options(server.address(), bucket, "prefix")).expect("client");
    (Env::s3(&format!("http://{}", server.address()), bucket, ACCESS_KEY, SECRET_KEY), backend)
}

fn keys(backend: &S3Backend, prefix: &str) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    backend.list(prefix, &mut |meta| keys.push(meta.key)).expect("listed");
    keys
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn locked_objects_outlive_whoever_deletes_them() {
    let Some(server) = Seaweed::shared() else { return };
    let (env, backend) = env(&server, &server.new_locking_bucket());
    assert!(env.ok(&["doctor"]).contains("locking objects against deletion: yes"));
    env.ok(&["init", "--lock-retention", "20"]);
    fs::create_dir(env.path("src")).expect("mkdir");
    for round in 0..2 {
        fs::write(env.path("src/file"), format!("round {round}").repeat(5000)).expect("write");
        env.ok(&["backup", "src"]);
    }
    let all = keys(&backend, "");
    assert!(["config", "keys/", "packs/", "index/", "snapshots/"].iter().all(|p| all.iter().any(|k| k.as_str().starts_with(p))));
    for key in &all {
        assert!(backend.locked_until(key).expect("told").is_some(), "{key}");
        let versions = backend.versions(key).expect("listed");
        let [(version, false)] = &versions[..] else { panic!("{key}: {versions:?}") };
        assert_eq!(backend.delete_version(key, version).expect_err("locked").kind, ErrorKind::Denied, "{key}");
    }
    // Somebody with the credentials deletes everything: that leaves marks only, and the marks can be taken away.
    for key in &all {
        backend.delete(key).expect("a mark");
    }
    assert_eq!(env.run(&["snapshots"]).code, 10);
    for key in &all {
        let versions = backend.versions(key).expect("listed");
        assert_eq!(versions.len(), 2, "{key}: {versions:?}");
        let (mark, _) = versions.iter().find(|(_, is_mark)| *is_mark).expect("a mark");
        backend.delete_version(key, mark).expect("marks are not locked");
    }
    assert_eq!(lines(&env.ok(&["snapshots", "--json"])).len(), 2);
    env.ok(&["check", "--read-data"]);
}

#[test]
fn prune_extends_and_snapshots_tells_until_when() {
    let Some(server) = Seaweed::shared() else { return };
    let (env, backend) = env(&server, &server.new_locking_bucket());
    env.ok(&["init", "--lock-retention", "--lock-mode", "compliance"]);
    fs::create_dir(env.path("src")).expect("mkdir");
    fs::write(env.path("src/file"), "something").expect("write");
    env.ok(&["backup", "src"]);
    let told = |env: &Env| lines(&env.ok(&["snapshots", "--json"]))[0]["locked_until"].as_str().map(str::to_owned);
    let before = told(&env).expect("locked");
    let locks =
        |keys: &[ObjectKey]| keys.iter().map(|k| backend.locked_until(k).expect("told").expect("locked")).collect::<Vec<_>>();
    let packs = keys(&backend, "packs/");
    let packs_before = locks(&packs);
    // Servers keep whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    env.ok(&["prune"]);
    assert_eq!(locks(&packs), packs_before, "there is time enough");
    env.ok(&["prune", "--extend-locks"]);
    assert!(locks(&packs).iter().zip(&packs_before).all(|(now, then)| now > then));
    assert!(told(&env).expect("locked") > before);
    assert!(env.ok(&["snapshots"]).contains("Locked until"));
    // What is deleted is not extended, and stays for those who look for it.
    fs::write(env.path("src/file"), "something else").expect("write");
    env.ok(&["backup", "src"]);
    let first = lines(&env.ok(&["snapshots", "--json"]))[0]["id"].as_str().expect("an id").to_owned();
    let snapshot = keys(&backend, "snapshots/").into_iter().find(|k| k.as_str().ends_with(&first)).expect("there");
    env.ok(&["forget", &first, "--yes", "--prune", "--now", "--max-unused", "0%"]);
    assert!(keys(&backend, "snapshots/").iter().all(|k| *k != snapshot));
    let versions = backend.versions(&snapshot).expect("listed");
    assert!(versions.iter().any(|(_, mark)| *mark) && versions.iter().any(|(_, mark)| !*mark), "{versions:?}");
    env.ok(&["check", "--read-data"]);
}

#[test]
fn stores_without_locks_are_refused() {
    let refuse = |env: &Env| {
        let run = env.run(&["init", "--lock-retention"]);
        assert!(run.code == 1 && run.err.contains("cannot lock objects"), "{}", run.err);
        assert!(env.run(&["snapshots"]).code == 10);
    };
    let local = Env::local();
    refuse(&local);
    let run = local.run(&["init", "--lock-retention", "5"]);
    assert!(run.code == 1 && run.err.contains("--yes"), "{}", run.err);
    let Some(server) = Seaweed::shared() else { return };
    let (env, _) = env(&server, &server.new_bucket());
    refuse(&env);
    assert!(env.ok(&["doctor"]).contains("locking objects against deletion: no"));
}
