use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::{Integrity, Keyring, PgpErrorKind};
use super::{fixtures, keyring, open};

const RSA: &str = "C26E4FB0E7FA9F8A5E0F72D29DD0CACF025351B3";

/// Every pass phrase and secret key of the fixtures.
fn everything(root: &Path) -> Keyring {
    let mut phrases = vec!["passphrase-B".to_owned()];
    for set in sets(root) {
        let info = fs::read(set.join("info.json")).expect("info.json");
        let info: serde_json::Value = serde_json::from_slice(&info).expect("JSON");
        phrases.extend(info["passphrase"].as_str().map(str::to_owned));
    }
    for key in ["rsa", "ecc", "gpg24"] {
        let phrase = fs::read_to_string(root.join(format!("keys/{key}.passphrase"))).expect("pass phrase");
        phrases.push(phrase.trim_end().to_owned());
    }
    phrases.sort();
    phrases.dedup();
    let mut all = keyring(&phrases.iter().map(String::as_str).collect::<Vec<_>>());
    for key in ["rsa", "ecc", "gpg24"] {
        let file = fs::read(root.join(format!("keys/{key}.sec.asc"))).expect("key");
        assert!(all.add_keys(&file, key).expect("keys") > 0);
    }
    all
}

fn sets(root: &Path) -> Vec<PathBuf> {
    let dirs = fs::read_dir(root.join("public")).expect("public").map(|e| e.expect("entry").path());
    let mut sets: Vec<_> = dirs.filter(|d| d.join("info.json").is_file()).collect();
    sets.sort();
    sets
}

fn encrypted(set: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(set.join("archive")).expect("archive").map(|e| e.expect("entry").path());
    let mut files: Vec<_> = files.filter(|f| f.extension().is_some_and(|x| x == "gpg" || x == "g")).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().expect("name").to_string_lossy().into_owned()
}

/// What gpg makes of it, for pass phrases only; gpg takes half a second.
fn by_gpg(file: &Path, phrase: &str) -> Option<Vec<u8>> {
    let home = tempfile::tempdir().expect("home");
    let out = Command::new("gpg")
        .args(["--batch", "-q", "--no-autostart", "--pinentry-mode", "loopback", "--ignore-mdc-error", "--passphrase", phrase])
        .arg("--homedir")
        .arg(home.path())
        .arg("--decrypt")
        .arg(file)
        .stderr(Stdio::null())
        .output();
    match out {
        Ok(out) if out.status.success() => Some(out.stdout),
        _ => None,
    }
}

#[test]
fn every_healthy_file_opens() {
    let Some(root) = fixtures() else { return };
    let all = everything(&root);
    let healthy = sets(&root).into_iter().filter(|s| !matches!(&*name(s), "dmg-flipped-byte-sym" | "dmg-truncated-volume-sym"));
    let files: Vec<_> = healthy.flat_map(|set| encrypted(&set)).collect();
    let halves = files.chunks(files.len().div_ceil(2));
    let counts: Vec<[usize; 3]> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            halves.map(|half| scope.spawn(|| half.iter().map(|f| opens(&all, f)).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|t| t.join().expect("thread")).collect()
    });
    let sum = |i: usize| counts.iter().map(|c| c[i]).sum::<usize>();
    assert_eq!((sum(0), sum(1)), (6, 6), "without integrity protection, with AEAD");
    assert!(files.len() > 150 && sum(2) > 40, "{} files, {} signatures", files.len(), sum(2));
}

/// Whether it is without integrity protection; with AEAD; how many signatures it has.
fn opens(all: &Keyring, file: &Path) -> [usize; 3] {
    let set = name(file.parent().and_then(Path::parent).expect("set"));
    let (content, report) = open(all, &fs::read(file).expect("file")).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let manifest = name(file).contains("manifest") || name(file).ends_with(".m.g");
    assert!(manifest == content.starts_with(b"Hostname"), "{}", file.display());
    assert_eq!(report.signatures.len(), usize::from(set.contains("pubsign")), "{}", file.display());
    if let [signature] = &report.signatures[..] {
        report.require_signature(RSA).expect("signed");
        assert_eq!(signature.primary.as_deref(), Some(RSA));
    }
    let is = |integrity| usize::from(report.integrity == integrity);
    [is(Integrity::None), is(Integrity::Aead), report.signatures.len()]
}

#[test]
fn content_is_what_gpg_gives() {
    let Some(root) = fixtures() else { return };
    let all = everything(&root);
    let mut compared = 0;
    for set in ["v0822-sym", "v321-sym", "v321-symsign-rsa", "v0822-gpg1-rfc2440-sym", "v321-gpg24-ocb-sym"] {
        let set = root.join("public").join(set);
        let info: serde_json::Value = serde_json::from_slice(&fs::read(set.join("info.json")).expect("info")).expect("JSON");
        let file = encrypted(&set).into_iter().find(|f| name(f).contains(".vol1.")).expect("volume");
        let Some(theirs) = by_gpg(&file, info["passphrase"].as_str().expect("pass phrase")) else {
            println!("skipped: gpg does not open {}", file.display());
            continue;
        };
        let (ours, _) = open(&all, &fs::read(&file).expect("file")).expect("opens");
        assert!(ours == theirs, "{}", file.display());
        compared += 1;
    }
    println!("{compared} files compared");
}

#[test]
fn damaged_volumes_are_refused() {
    let Some(root) = fixtures() else { return };
    let all = everything(&root);
    let volume = |set: &str| {
        let bad: Vec<_> = encrypted(&root.join("public").join(set))
            .into_iter()
            .filter_map(|f| open(&all, &fs::read(f).expect("file")).err())
            .map(|e| e.kind)
            .collect();
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad.into_iter().next().expect("one")
    };
    assert!(matches!(volume("dmg-truncated-volume-sym"), PgpErrorKind::Truncated));
    assert!(matches!(volume("dmg-flipped-byte-sym"), PgpErrorKind::Modified(_)));
}

#[test]
fn says_what_is_missing() {
    let Some(root) = fixtures() else { return };
    let file = |set: &str| fs::read(&encrypted(&root.join("public").join(set))[0]).expect("file");
    let kind = |keyring: &Keyring, set: &str| open(keyring, &file(set)).expect_err("must not open").kind;
    for set in ["v321-sym", "v0822-gpg1-rfc2440-sym", "v321-gpg24-ocb-sym"] {
        assert!(matches!(kind(&keyring(&[]), set), PgpErrorKind::WrongPassphrase { tried: 0 }), "{set}");
        assert!(matches!(kind(&keyring(&["a", "b"]), set), PgpErrorKind::WrongPassphrase { tried: 2 }), "{set}");
    }
    let PgpErrorKind::NoSecretKey { wanted } = kind(&keyring(&["a"]), "v321-pubsign-rsa") else { panic!("no secret key") };
    assert_eq!(wanted.len(), 1);
    assert!(matches!(kind(&keyring(&[]), "v307-hidden-rsa"), PgpErrorKind::NoSecretKey { wanted } if wanted.is_empty()));
    let mut locked = keyring(&["a"]);
    locked.add_keys(&fs::read(root.join("keys/rsa.sec.asc")).expect("key"), "rsa").expect("keys");
    assert!(matches!(kind(&locked, "v321-pubsign-rsa"), PgpErrorKind::LockedKey { tried: 1, .. }));
    assert!(matches!(kind(&locked, "v307-hidden-rsa"), PgpErrorKind::LockedKey { tried: 1, .. }));
}

#[test]
fn unsigned_files_are_not_signed_by_anyone() {
    let Some(root) = fixtures() else { return };
    // Stock asked for a signature here, but gpg makes none for `--sign --symmetric` in the order that stock gives them.
    let file = fs::read(&encrypted(&root.join("public/v321-symsign-rsa"))[0]).expect("file");
    let (_, report) = open(&keyring(&["rsa"]), &file).expect("opens");
    assert!(report.signatures.is_empty());
    assert!(matches!(report.require_signature(RSA).expect_err("unsigned").kind, PgpErrorKind::NotSignedBy { .. }));
}
