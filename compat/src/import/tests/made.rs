//! Archives made here, to be wrong in one way at a time. The numbers are those of the project's list of bad inputs.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::io::{Cursor, Write};
use std::sync::Mutex;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::Sha1;

use super::*;
use crate::librsync::DeltaWriter;
use crate::manifest::{Manifest, Position, VolumeHash, VolumeRecord};
use crate::tar::{Header, TarKind, padding, terminator, write_header};

/// Files in memory.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<BTreeMap<String, Vec<u8>>>);

impl Shelf {
    fn put(&self, name: &str, bytes: Vec<u8>) {
        self.0.lock().expect("no panic").insert(name.to_owned(), bytes);
    }

    fn get(&self, name: &str) -> Vec<u8> {
        self.0.lock().expect("no panic")[name].clone()
    }
}

impl Store for Shelf {
    fn location(&self) -> String {
        "shelf".into()
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let files = self.0.lock().expect("no panic");
        Ok(files.iter().map(|(name, bytes)| StoredFile { name: name.clone(), size: Some(bytes.len() as u64) }).collect())
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(Cursor::new(self.get(name))))
    }
}

/// A member: its name and data; directories end with a slash.
type Member = (&'static str, Vec<u8>);

fn header(name: &str, size: usize) -> Header {
    let kind = if name.ends_with('/') && name != "snapshot/" { TarKind::Directory } else { TarKind::Regular };
    Header { name: name.into(), kind, mode: 0o640, mtime: 1_600_000_000, size: size as u64, ..Header::default() }
}

fn tar(members: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (header, data) in members {
        write_header(&mut out, header).expect("a header");
        out.extend_from_slice(data);
        out.resize(out.len() + padding(data.len() as u64), 0);
    }
    let length = out.len();
    out.resize(length + terminator(length as u64) as usize, 0);
    out
}

fn volume(members: &[Member]) -> Vec<u8> {
    tar(&members.iter().map(|(name, data)| (header(name, data.len()), data.clone())).collect::<Vec<_>>())
}

const FULL: &str = "duplicity-full.20231114T221320Z";
const INC: &str = "duplicity-inc.20231114T221320Z.to.20231115T221320Z";

/// Puts a set of volumes with their manifest on the shelf. The ranges of the manifest are those of the members.
fn set(shelf: &Shelf, name: &str, volumes: &[Vec<Member>]) {
    let files: Vec<Vec<u8>> = volumes.iter().map(|members| volume(members)).collect();
    set_of(shelf, name, volumes, &files);
}

fn set_of(shelf: &Shelf, name: &str, volumes: &[Vec<Member>], files: &[Vec<u8>]) {
    let mut manifest = Manifest::default();
    for (number, (members, file)) in (1..).zip(volumes.iter().zip(files)) {
        let position = |member: Option<&Member>| {
            let name = member.map_or("", |(name, _)| name);
            let (kind, path) = name.split_once('/').unwrap_or_default();
            let path = if kind.starts_with("multivol") { path.rsplit_once('/').unwrap_or_default().0 } else { path };
            Position { path: path.trim_end_matches('/').trim_start_matches('.').into(), block: None }
        };
        let hash = Some(VolumeHash::Sha1(Sha1::digest(file).into()));
        manifest.records.push(VolumeRecord { number, start: position(members.first()), end: position(members.last()), hash });
        shelf.put(&format!("{name}.vol{number}.difftar"), file.clone());
    }
    let mut text = Vec::new();
    manifest.write(&mut text).expect("writes");
    shelf.put(&format!("{name}.manifest"), text);
}

fn import(shelf: Shelf) -> (World, Vec<SetOutcome>) {
    let archive = Archive {
        store: Arc::new(shelf),
        prefixes: Prefixes::default(),
        keyring: Arc::new(Keyring::new()),
        required_signer: None,
    };
    let world = World::new();
    let outcomes = world.import_with(&archive, &ImportOptions { verify: false, ..options() });
    (world, outcomes)
}

/// Contents of the last snapshot's files, by path.
fn contents(world: &World) -> BTreeMap<String, Vec<u8>> {
    let reader = world.reader();
    let snapshots = world.snapshots();
    let mut catalog = CatalogReader::new(&reader, snapshots.last().expect("a snapshot").snapshot.root).expect("catalog");
    let mut files = BTreeMap::new();
    while let Some(entry) = catalog.next_entry().expect("an entry") {
        if entry.kind == Kind::File {
            let mut bytes = Vec::new();
            copy_to(&reader, &entry, &mut bytes).expect("content");
            files.insert(entry.path.display(), bytes);
        }
    }
    files
}

fn subjects(world: &World) -> Vec<String> {
    world.problems().into_iter().map(|p| p.subject).collect()
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn root() -> Member {
    ("snapshot/./", vec![])
}

fn delta(make: impl FnOnce(&mut DeltaWriter<Vec<u8>>)) -> Vec<u8> {
    let mut writer = DeltaWriter::new(Vec::new()).expect("begins");
    make(&mut writer);
    writer.finish().expect("ends")
}

#[test]
fn pieces_of_any_size_across_volumes() {
    let shelf = Shelf::default();
    let (a, b, c) = (noise(1, 100_000), noise(2, 65536), noise(3, 7));
    set(
        &shelf,
        FULL,
        &[
            vec![root(), ("snapshot/7/", vec![]), ("multivol_snapshot/7/1/1", a.clone())],
            vec![("multivol_snapshot/7/1/2", b.clone())],
            vec![("multivol_snapshot/7/1/3", c.clone()), ("multivol_snapshot/8/1", b.clone()), ("multivol_snapshot/8/2", vec![])],
        ],
    );
    let (world, _) = import(shelf);
    assert_eq!(world.problems(), []);
    assert_eq!(contents(&world), BTreeMap::from([("7/1".into(), [a, b.clone(), c].concat()), ("8".into(), b)]));
}

/// Case 35
#[test]
fn pieces_missing_repeated_or_swapped_cost_their_file() {
    let piece = |n: u32| noise(n, 65536);
    for numbers in [&[1, 3][..], &[2, 3], &[1, 1, 2], &[2, 1], &[1, 2, 2]] {
        let shelf = Shelf::default();
        let names = ["multivol_snapshot/b/1", "multivol_snapshot/b/2", "multivol_snapshot/b/3"];
        let mut members = vec![root(), ("snapshot/a", b"a".to_vec())];
        members.extend(numbers.iter().map(|n| (names[*n - 1], piece(*n as u32))));
        members.push(("snapshot/c", b"c".to_vec()));
        set(&shelf, FULL, &[members]);
        let (world, outcomes) = import(shelf);
        assert_eq!(contents(&world), BTreeMap::from([("a".into(), b"a".to_vec()), ("c".into(), b"c".to_vec())]), "{numbers:?}");
        assert!(subjects(&world).contains(&"/b".to_owned()), "{numbers:?}: {:?}", world.problems());
        assert!(matches!(&outcomes[0].result, SetResult::Imported(o) if o.problems >= 1));
    }
}

#[test]
fn increments_change_delete_and_keep() {
    let shelf = Shelf::default();
    let big = noise(1, 3_000_000);
    let members = vec![
        root(),
        ("snapshot/big", big.clone()),
        ("snapshot/dir/", vec![]),
        ("snapshot/dir/gone", b"x".to_vec()),
        ("snapshot/keep", b"keep".to_vec()),
        ("snapshot/touched", b"touched".to_vec()),
    ];
    set(&shelf, FULL, &[members]);
    let changes = delta(|d| {
        d.copy(1_000_000, 2_000_000).expect("writes");
        d.literal(b"new in the middle").expect("writes");
        d.copy(0, 1_500_000).expect("writes");
    });
    let only_metadata = delta(|d| d.copy(0, 7).expect("writes"));
    let members = vec![
        ("diff/big", changes),
        ("deleted/dir", vec![]),
        ("deleted/dir/gone", vec![]),
        ("deleted/never", vec![]),
        ("snapshot/new", b"new".to_vec()),
        ("diff/touched", only_metadata),
    ];
    set(&shelf, INC, &[members]);
    let (world, _) = import(shelf);
    assert_eq!(world.problems(), []);
    // Case 36
    assert!(world.monitor.notes().iter().any(|n| n.contains("/never")), "{:?}", world.monitor.notes());
    let expected = [&big[1_000_000..], b"new in the middle", &big[..1_500_000]].concat();
    let expected = [("big", expected), ("keep", b"keep".to_vec()), ("new", b"new".to_vec()), ("touched", b"touched".to_vec())];
    assert_eq!(contents(&world), expected.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect());
    assert_eq!(world.snapshots().len(), 2);
}

/// Cases 56 to 60 and 63, within an import: the file is named, the others are there, and nothing remains of the old content.
#[test]
fn a_bad_delta_costs_its_file() {
    let big_literal =
        [&0x7273_0236_u32.to_le_bytes().iter().rev().copied().collect::<Vec<_>>()[..], &[0x44], &[0xff; 8]].concat();
    let good = delta(|d| d.copy(0, 4).expect("writes"));
    for bad in [
        b"".to_vec(),
        b"no delta".to_vec(),
        good[..good.len() - 1].to_vec(),
        delta(|d| d.copy(2, 4).expect("writes")),
        delta(|d| d.copy(u64::MAX, 1).expect("writes")),
        [&good[..4], &[0x55, 0]].concat(),
        big_literal,
    ] {
        let shelf = Shelf::default();
        set(&shelf, FULL, &[vec![root(), ("snapshot/a", b"abcd".to_vec()), ("snapshot/b", b"b".to_vec())]]);
        set(&shelf, INC, &[vec![("diff/a", bad.clone())]]);
        let (world, _) = import(shelf);
        assert_eq!(contents(&world), BTreeMap::from([("b".into(), b"b".to_vec())]), "{bad:x?}");
        assert_eq!(subjects(&world), ["/a"], "{bad:x?}");
    }
}

#[test]
fn a_delta_to_what_is_not_there_or_no_file() {
    let shelf = Shelf::default();
    set(&shelf, FULL, &[vec![root(), ("snapshot/dir/", vec![])]]);
    let copy = || delta(|d| d.copy(0, 4).expect("writes"));
    set(&shelf, INC, &[vec![("diff/dir", copy()), ("diff/nothing", copy())]]);
    let (world, _) = import(shelf);
    assert_eq!(subjects(&world), ["/dir", "/nothing"]);
    assert_eq!(contents(&world), BTreeMap::new());
}

/// Cases 1 to 3, 16 and 37
#[test]
fn members_that_are_refused_leave_the_others() {
    let long = format!("snapshot/{}", "x/".repeat(2100));
    let shelf = Shelf::default();
    let link = Header { kind: TarKind::HardLink, link: b"a".to_vec(), ..header("snapshot/b", 0) };
    let device = Header { kind: TarKind::CharDevice, major: 1, minor: 3, ..header("snapshot/e", 0) };
    let members = [
        (header("snapshot/./", 0), vec![]),
        (header("snapshot/../x", 1), b"x".to_vec()),
        (header("snapshot//etc/passwd", 1), b"x".to_vec()),
        (header("snapshot/a", 1), b"a".to_vec()),
        (link, vec![]),
        (header("snapshot/c/./d", 1), b"x".to_vec()),
        (header("nonsense/d", 1), b"x".to_vec()),
        (device, vec![]),
        (header("snapshot/f", 1), b"f".to_vec()),
        (header(&long, 0), vec![]),
    ];
    let file = tar(&members);
    set_of(&shelf, FULL, &[vec![root(), ("snapshot/f", vec![])]], &[file]);
    let (world, _) = import(shelf);
    assert_eq!(contents(&world), BTreeMap::from([("a".into(), b"a".to_vec()), ("f".into(), b"f".to_vec())]));
    let tree = world.tree(&world.snapshots()[0]);
    assert_eq!(tree[&b"e"[..]]["type"], "chr");
    let subjects = subjects(&world);
    assert_eq!(subjects.len(), 6, "{subjects:?}");
    assert!(subjects.contains(&"/b".to_owned()), "{subjects:?}");
}

#[test]
fn a_file_that_was_there_is_gone_when_its_new_state_cannot_be_read() {
    let shelf = Shelf::default();
    set(&shelf, FULL, &[vec![root(), ("snapshot/a", b"old".to_vec()), ("snapshot/z", b"z".to_vec())]]);
    let link = Header { kind: TarKind::HardLink, link: b"z".to_vec(), ..header("snapshot/a", 0) };
    set_of(&shelf, INC, &[vec![("snapshot/a", vec![])]], &[tar(&[(link, vec![])])]);
    let (world, _) = import(shelf);
    assert_eq!(contents(&world), BTreeMap::from([("z".into(), b"z".to_vec())]));
    assert_eq!(subjects(&world), ["/a"]);
}

#[test]
fn nothing_lies_in_a_file() {
    let shelf = Shelf::default();
    set(&shelf, FULL, &[vec![root(), ("snapshot/d/", vec![]), ("snapshot/d/x", b"x".to_vec()), ("snapshot/e", b"e".to_vec())]]);
    // The directory becomes a file; what was in it is not said to be deleted, and something new claims to be in it.
    set(&shelf, INC, &[vec![("snapshot/d", b"now a file".to_vec()), ("snapshot/d/y", b"y".to_vec())]]);
    let (world, _) = import(shelf);
    assert_eq!(contents(&world), BTreeMap::from([("d".into(), b"now a file".to_vec()), ("e".into(), b"e".to_vec())]));
    assert_eq!(subjects(&world), ["/d/y"]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

/// Case 33, and gzip data under a bare name as before 2015
#[test]
fn gzip_in_several_members_and_without_its_suffix() {
    let members = vec![root(), ("snapshot/a", noise(1, 5000))];
    let whole = volume(&members);
    let (first, second) = whole.split_at(3000);
    let shelf = Shelf::default();
    set_of(&shelf, FULL, &[members], &[[gzip(first), gzip(second)].concat()]);
    let (world, _) = import(shelf);
    assert_eq!(world.problems(), []);
    assert_eq!(contents(&world)["a"], noise(1, 5000));
}

/// Cases 28, 34 and 38, with a hash that fits: what comes before the damage arrives.
#[test]
fn a_volume_that_breaks_off_although_its_hash_fits() {
    let members = vec![root(), ("snapshot/a", noise(1, 50_000)), ("snapshot/b", noise(2, 50_000)), ("snapshot/c", b"c".to_vec())];
    let whole = volume(&members);
    let mut garbled = whole.clone();
    let at = garbled.windows(10).position(|w| w == b"snapshot/b").expect("is there");
    garbled[at] = b'S';
    let zipped = gzip(&whole);
    for file in [whole[..80_000].to_vec(), garbled, zipped[..80_000].to_vec()] {
        let shelf = Shelf::default();
        set_of(&shelf, FULL, std::slice::from_ref(&members), &[file]);
        let (world, _) = import(shelf);
        let contents = contents(&world);
        assert_eq!(contents.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(contents["a"], noise(1, 50_000));
        let problems = world.problems();
        assert!(problems.iter().any(|p| p.message.contains("vol1")), "{problems:?}");
    }
}

/// Case 38: what the manifest says does not fit together, or to the volumes.
#[test]
fn manifests_that_contradict() {
    let first = vec![root(), ("snapshot/a", b"a".to_vec())];
    let second = vec![("snapshot/b", b"b".to_vec())];
    let files = [volume(&first), volume(&second)];
    let manifest = |edit: &dyn Fn(&str) -> String| {
        let shelf = Shelf::default();
        set_of(&shelf, FULL, &[first.clone(), second.clone()], &files);
        let name = format!("{FULL}.manifest");
        let text = String::from_utf8(shelf.get(&name)).expect("UTF-8");
        shelf.put(&name, edit(&text).into_bytes());
        import(shelf)
    };
    let (world, _) = manifest(&|text| text.to_owned());
    assert_eq!((world.problems(), contents(&world).len()), (vec![], 2));
    // A hash of an algorithm that nobody used: that volume cannot be checked.
    let (world, _) = manifest(&|text| text.replacen("SHA1", "SHA7", 1));
    assert_eq!(contents(&world).keys().collect::<Vec<_>>(), ["b"]);
    // A volume that is not there, with a number that cannot be.
    let (world, _) = manifest(&|text| {
        format!("{text}Volume 4294967295:\n    StartingPath   c  \n    EndingPath     c  \n    Hash SHA1 {}\n", "0".repeat(40))
    });
    assert_eq!(contents(&world).len(), 2);
    assert!(world.problems().iter().any(|p| p.message.contains("volume 4294967295 is missing")), "{:?}", world.problems());
    // Ranges that overlap.
    let (world, _) = manifest(&|text| text.replace("EndingPath     a", "EndingPath     z"));
    assert_eq!(contents(&world).len(), 2);
    assert!(world.problems().iter().any(|p| p.message.contains("contradicts")), "{:?}", world.problems());
    // No manifest at all.
    let (world, outcomes) = manifest(&|_| "\0\u{1}garbage".into());
    assert_eq!(contents(&world).len(), 2, "{outcomes:?}");
    assert!(!world.problems().is_empty());
}

/// Case 44: a volume of another chain under the name of this one does not have the manifest's hash.
#[test]
fn a_volume_of_another_archive_is_refused() {
    let shelf = Shelf::default();
    set(&shelf, FULL, &[vec![root(), ("snapshot/a", b"a".to_vec())], vec![("snapshot/b", b"b".to_vec())]]);
    shelf.put(&format!("{FULL}.vol2.difftar"), volume(&[("snapshot/b", b"evil".to_vec())]));
    let (world, _) = import(shelf);
    assert_eq!(contents(&world).keys().collect::<Vec<_>>(), ["a"]);
    assert!(world.problems().iter().any(|p| p.message.contains("SHA-1")), "{:?}", world.problems());
}
