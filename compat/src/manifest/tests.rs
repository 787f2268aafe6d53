use std::fs;
use std::io::{self, BufReader, Read};

use proptest::prelude::*;

use super::*;
use crate::stock::fixtures;

const SHA: &str = "04a57fa0407545e30ff6d125b7467033efc74872";

fn kind(text: &str) -> ManifestErrorKind {
    Manifest::parse(text.as_bytes()).expect_err(text).kind
}

/// A record with a hash or whatever else.
fn record(number: &str, start: &str, end: &str, more: &str) -> String {
    format!("Volume {number}:\n    StartingPath   {start}\n    EndingPath     {end}\n{more}")
}

#[test]
fn manifests_of_stock_are_written_back_byte_for_byte() {
    let mut seen = 0;
    for fixture in fixtures() {
        for file in fixture.files() {
            let name = crate::name::parse(&file.name, &fixture.prefixes()).expect("name");
            if (name.kind, name.suffix) != (crate::name::FileKind::Manifest, crate::name::Encoding::Plain) {
                continue;
            }
            let place = format!("{}: {}", fixture.name, file.name);
            let text = fs::read(fixture.dir.join("archive").join(&file.name)).expect("manifest");
            let manifest = Manifest::parse(&text).unwrap_or_else(|e| panic!("{place}: {e}"));
            let mut written = Vec::new();
            manifest.write(&mut written).expect("written");
            assert!(text == written, "{place}");
            assert_eq!(manifest.host.as_deref(), Some(&b"fixture-host"[..]), "{place}");
            assert_eq!(manifest.source.as_deref(), fixture.info["source_dir_as_given"].as_str().map(str::as_bytes), "{place}");
            manifest.check().unwrap_or_else(|e| panic!("{place}: {e}"));
            let hashed = |record: &&VolumeRecord| matches!(record.hash, Some(VolumeHash::Sha1(_)));
            assert!(manifest.volumes().values().all(hashed), "{place}");
            let skipped = Manifest::read(&*text, FileList::Skip).expect("manifest");
            assert_eq!(skipped, Manifest { files: None, ..manifest }, "{place}");
            seen += 1;
        }
    }
    assert!(seen == 0 || seen > 50, "{seen}");
}

#[test]
fn resumed_runs_repeat_volumes() {
    let numbers = |list: &[&str]| {
        let text: String = list.iter().map(|n| record(n, ".  ", "a  ", &format!("    Hash X {n}\n"))).collect();
        let manifest = Manifest::parse(text.as_bytes()).expect("manifest");
        manifest.volumes().into_keys().collect::<Vec<_>>()
    };
    assert_eq!(numbers(&["1", "2", "3", "2"]), [1, 2]);
    assert_eq!(numbers(&["1", "2", "3", "3", "4"]), [1, 2, 3, 4]);
    assert_eq!(numbers(&["2", "1"]), [1]);
    let text = record("1", ".  ", "a  ", "") + &record("1", "b  ", "c  ", "");
    let manifest = Manifest::parse(text.as_bytes()).expect("manifest");
    assert_eq!(manifest.volumes()[&1].start.path, b"b");
}

#[test]
fn what_stock_tolerates() {
    let text = format!(
        "hOSTNAME\thost name\nLOCALDIR \"a\\x20b\"\nHostname second\nnonsense\n\n{}Filelist 7\n    new      a\n    odd      b\n{}",
        record(
            "1",
            ".  ",
            "\"a\\x20b\\xfF\" 7",
            &format!("    Nonsense x\n    Hash SHA256 00\n    Hash SHA1 {SHA}\n    Hash MD5 {}\n", &SHA[..32])
        ),
        record("2: ", "x", "x", ""),
    );
    let manifest = Manifest::parse(text.as_bytes()).expect("manifest");
    assert_eq!(manifest.host.as_deref(), Some(&b"host name"[..]));
    assert_eq!(manifest.source.as_deref(), Some(&b"a b"[..]));
    let volumes = manifest.volumes();
    assert_eq!(volumes[&1].start, Position::default());
    assert_eq!(volumes[&1].end, Position { path: b"a b\xff".to_vec(), block: Some(7) });
    assert!(matches!(volumes[&1].hash, Some(VolumeHash::Sha1([0x04, 0xa5, ..]))));
    assert_eq!(volumes[&2].hash, None);
    assert_eq!(manifest.files, Some(vec![ChangedFile { action: FileAction::New, path: b"a".to_vec() }]));
}

#[test]
fn hashes_by_preference() {
    let hash = |lines: &str| {
        let manifest = Manifest::parse(record("1", ".", ".", lines).as_bytes()).expect("manifest");
        manifest.volumes()[&1].hash.clone()
    };
    let other = |algorithm: &str| Some(VolumeHash::Other { algorithm: algorithm.into(), digest: "aa".into() });
    assert!(matches!(
        hash("    Hash X aa\n    Hash MD5 04a57fa0407545e30ff6d125b7467033\n    Hash Y aa\n"),
        Some(VolumeHash::Md5(_))
    ));
    assert_eq!(hash("    Hash X aa\n    Hash Y aa\n"), other("X"));
    assert_eq!(hash(""), None);
}

#[test]
fn what_is_refused() {
    use ManifestErrorKind::{Block, Hash, MissingPath, NoVolumes, Path, VolumeNumber};
    assert!(matches!(kind(""), NoVolumes));
    assert!(matches!(kind("\u{0}\u{1}garbage"), NoVolumes));
    for number in ["0", "", "x", "-1", "+1", "4294967296", "99999999999999999999999"] {
        assert!(matches!(kind(&record(number, ".", ".", "")), VolumeNumber(_)), "{number}");
    }
    assert!(matches!(kind("Volume 1"), VolumeNumber(_)));
    assert!(matches!(kind("Volume 1:\n    StartingPath   .  \n"), MissingPath { number: 1 }));
    assert!(matches!(kind("Volume 7:\n    EndingPath   .  \nFilelist 0\n    StartingPath .\n"), MissingPath { number: 7 }));
    for path in ["", "\"", "\"a", "\"\\x2\"", "\"\\xgg\"", "\"\\n\"", "\"a\\\""] {
        assert!(matches!(kind(&record("1", path, ".", "")), Path(_)), "{path}");
    }
    for block in ["x", "-1", "18446744073709551616"] {
        assert!(matches!(kind(&record("1", &format!("a {block}"), ".", "")), Block(_)), "{block}");
    }
    for hash in ["SHA1", "SHA1 04", &format!("SHA1 {SHA}0"), &format!("SHA1 {SHA}00"), &format!("MD5 {SHA}"), "X"] {
        assert!(matches!(kind(&record("1", ".", ".", &format!("    Hash {hash}\n"))), Hash(_)), "{hash}");
    }
    let bad = format!("SHA1 {}g", &SHA[..39]);
    assert!(matches!(kind(&record("1", ".", ".", &format!("    Hash {bad}\n"))), Hash(_)));
    let e = Manifest::parse(b"Hostname x\nVolume 0:\n").expect_err("number");
    assert_eq!(e.to_string(), "line 2: '0:' is not a volume number (1 to 4294967295)");
}

#[test]
fn sizes_are_bounded() {
    let long = "a".repeat(MAX_PATH + 1);
    assert!(matches!(kind(&record("1", &long, ".", "")), ManifestErrorKind::PathTooLong));
    let endless = BufReader::new(io::repeat(b'x'));
    assert!(matches!(Manifest::read(endless, FileList::Skip).expect_err("line").kind, ManifestErrorKind::PathTooLong));
    let path = "\\x20".repeat(MAX_PATH);
    let text = record("1", &format!("\"{path}\" 18446744073709551615"), ".", "");
    assert_eq!(Manifest::parse(text.as_bytes()).expect("manifest").records[0].start.path.len(), MAX_PATH);
}

#[test]
fn memory_is_bounded() {
    let one = record("1", &"a".repeat(60_000), ".", "");
    let many = BufReader::new(one.as_bytes()).chain(Repeat { text: one.as_bytes(), at: 0 });
    let e = Manifest::read(many, FileList::Skip).expect_err("records without end");
    assert!(matches!(e.kind, ManifestErrorKind::TooLarge { limit: MAX_KEPT }), "{e}");
    let head = record("1", ".", ".", "") + "Filelist 1\n";
    let files =
        BufReader::new(head.as_bytes()).chain(BufReader::new(Repeat { text: b"    new      abcdefgh\n", at: 0 }).take(100 << 20));
    assert!(Manifest::read(files, FileList::Skip).expect("skipped").files.is_none());
    let files = BufReader::new(head.as_bytes()).chain(BufReader::new(Repeat { text: b"    new      abcdefgh\n", at: 0 }));
    let e = Manifest::read(files, FileList::Keep).expect_err("files without end");
    assert!(matches!(e.kind, ManifestErrorKind::TooLarge { limit: MAX_KEPT }), "{e}");
}

/// A text again and again.
struct Repeat<'a> {
    text: &'a [u8],
    at: usize,
}

impl Read for Repeat<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.text[self.at..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.at = (self.at + n) % self.text.len();
        Ok(n)
    }
}

impl io::BufRead for Repeat<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.text[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n) % self.text.len();
    }
}

#[test]
fn failing_streams_fail() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
    let text = record("1", ".", ".", "");
    let e = Manifest::read(BufReader::new(text.as_bytes().chain(Broken)), FileList::Skip).expect_err("broken");
    assert!(matches!(e.kind, ManifestErrorKind::Read(_)), "{e}");
}

#[test]
fn gaps_and_overlaps_are_found() {
    let check = |records: &[(&str, &str, &str)]| {
        let text: String = records.iter().map(|(n, start, end)| record(n, start, end, "")).collect();
        Manifest::parse(text.as_bytes()).expect("manifest").check()
    };
    check(&[("1", ".", "a 1"), ("2", "a 2", "a 2"), ("3", "a", "a/b"), ("4", "a-b", "b")]).expect("in order");
    for (records, wrong) in [
        (&[("1", ".", "b"), ("2", "a", "c")][..], 2),
        (&[("1", ".", "a 2"), ("2", "a 2", "c")], 2),
        (&[("1", "b", "a")], 1),
        (&[("1", "a 2", "a 1")], 1),
        (&[("1", ".", "a-b"), ("2", "a/b", "c")], 2),
    ] {
        let e = check(records).expect_err("overlap");
        assert!(matches!(e.kind, ManifestErrorKind::Overlap { number } if number == wrong), "{records:?}: {e}");
    }
    for (records, gap) in [(&[("2", ".", "b")][..], 1), (&[("1", ".", "b"), ("4294967295", "c", "d")], 2)] {
        let e = check(records).expect_err("gap");
        assert!(matches!(e.kind, ManifestErrorKind::Gap { missing } if missing == gap), "{records:?}: {e}");
    }
}

fn any_path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::collection::vec(proptest::sample::select(b" \t\n\x0b\x0c\r\\\"'x2./a\xff".to_vec()), 0..20)
    ]
    .prop_map(|path| if path == b"." { Vec::new() } else { path })
}

fn any_position() -> impl Strategy<Value = Position> {
    (any_path(), any::<Option<u64>>()).prop_map(|(path, block)| Position { path, block })
}

fn any_hash() -> impl Strategy<Value = VolumeHash> {
    prop_oneof![
        any::<[u8; 20]>().prop_map(VolumeHash::Sha1),
        any::<[u8; 16]>().prop_map(VolumeHash::Md5),
        "[0-9a-f]{1,64}".prop_map(|digest| VolumeHash::Other { algorithm: "SHA256".into(), digest })
    ]
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    let record = (1..=u32::MAX, any_position(), any_position(), proptest::option::of(any_hash()))
        .prop_map(|(number, start, end, hash)| VolumeRecord { number, start, end, hash });
    let action = proptest::sample::select(FileAction::ALL.to_vec());
    let file = (action, any_path()).prop_map(|(action, path)| ChangedFile { action, path });
    (
        proptest::option::of("[^\n]{1,10}".prop_map(String::into_bytes)),
        proptest::option::of(any_path()),
        proptest::collection::vec(record, 1..6),
        proptest::option::of(proptest::collection::vec(file, 0..6)),
    )
        .prop_map(|(host, source, records, files)| Manifest { host, source, records, files })
}

proptest! {
    #[test]
    fn written_manifests_read_back(manifest in any_manifest()) {
        let mut text = Vec::new();
        manifest.write(&mut text).expect("written");
        prop_assert_eq!(Manifest::parse(&text).expect("manifest"), manifest);
    }

    #[test]
    fn quoting_is_undone(path in any_path()) {
        let quoted = quote(&path);
        prop_assert!(!quoted.iter().any(|b| b" \t\n\x0b\x0c\r".contains(b)));
        prop_assert_eq!(unquote(&quoted), Some(path));
    }

    #[test]
    fn damaged_manifests_are_survived(manifest in any_manifest(), at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>()) {
        let mut text = Vec::new();
        manifest.write(&mut text).expect("written");
        let at = at % text.len();
        text[at] = byte;
        if let Ok(manifest) = Manifest::parse(&text) {
            let _ = manifest.check();
        }
        let _ = Manifest::parse(&text[..cut % text.len()]);
    }
}
