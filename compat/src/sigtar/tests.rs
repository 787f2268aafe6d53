use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::tar::{TarKind, padding, terminator, write_header};

fn member(tar: &mut Vec<u8>, name: &[u8], kind: TarKind, mtime: i64, data: &[u8]) {
    let header = Header { name: name.to_vec(), kind, mtime, size: data.len() as u64, ..Header::default() };
    write_header(tar, &header).expect("valid");
    tar.extend_from_slice(data);
    tar.resize(tar.len() + padding(header.size), 0);
}

fn end(mut tar: Vec<u8>) -> Vec<u8> {
    let zeros = usize::try_from(terminator(tar.len() as u64)).expect("small");
    tar.resize(tar.len() + zeros, 0);
    tar
}

fn sigtar(members: &[(&str, TarKind, i64)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, mtime) in members {
        let data = if name.starts_with("signature") { name.as_bytes() } else { b"" };
        member(&mut tar, name.as_bytes(), *kind, *mtime, data);
    }
    end(tar)
}

fn listing(files: &[Vec<u8>]) -> Vec<(String, i64)> {
    let mut merged = Merged::new(files.iter().map(|f| SigtarReader::new(&f[..])).collect());
    let mut out = Vec::new();
    while let Some(entry) = merged.next().expect("valid") {
        let mut data = Vec::new();
        merged.read_to_end(&mut data).expect("valid");
        let is_file = entry.kind == SigtarKind::Signature;
        assert_eq!(data, if is_file { entry.header.name.as_slice() } else { b"" });
        out.push((entry.path.display(), entry.header.mtime));
    }
    out
}

const FILE: TarKind = TarKind::Regular;
const DIRECTORY: TarKind = TarKind::Directory;

#[test]
fn the_newest_wins_and_deleted_is_absent() {
    let full = sigtar(&[
        ("snapshot/", DIRECTORY, 1),
        ("signature/a", FILE, 1),
        ("snapshot/d/", DIRECTORY, 1),
        ("signature/d/x", FILE, 1),
        ("signature/d.x", FILE, 1),
    ]);
    let second = sigtar(&[("signature/a", FILE, 2), ("deleted/d", FILE, 0), ("deleted/d/x", FILE, 0), ("signature/e", FILE, 2)]);
    let third = sigtar(&[("snapshot/", DIRECTORY, 3), ("deleted/a", FILE, 0), ("signature/d", FILE, 3), ("deleted/zz", FILE, 0)]);
    let pairs = |list: &[(&str, i64)]| list.iter().map(|(p, t)| ((*p).to_owned(), *t)).collect::<Vec<_>>();
    assert_eq!(listing(std::slice::from_ref(&full)), pairs(&[("", 1), ("a", 1), ("d", 1), ("d/x", 1), ("d.x", 1)]));
    assert_eq!(listing(&[full.clone(), second.clone()]), pairs(&[("", 1), ("a", 2), ("d.x", 1), ("e", 2)]));
    assert_eq!(listing(&[full, second, third]), pairs(&[("", 3), ("d", 3), ("d.x", 1), ("e", 2)]));
    assert_eq!(listing(&[]), []);
    assert_eq!(listing(&[sigtar(&[])]), []);
}

#[test]
fn content_that_comes_twice_counts_once() {
    let members = [("snapshot/", DIRECTORY, 1), ("signature/a", FILE, 1), ("signature/b", FILE, 1)];
    let twice = sigtar(&[&members[..2], &members[..]].concat());
    let mut reader = SigtarReader::new(&twice[..]);
    let mut paths = Vec::new();
    while let Some(entry) = reader.next().expect("valid") {
        paths.push(entry.path.display());
    }
    assert_eq!((paths, reader.passed_over()), (vec![String::new(), "a".into(), "b".into()], 2));
}

#[test]
fn one_bad_entry_does_not_end_the_listing() {
    let bad = sigtar(&[("signature/a", FILE, 1), ("signature/../b", FILE, 1), ("diff/c", FILE, 1), ("signature/d", FILE, 1)]);
    let mut merged = Merged::new(vec![SigtarReader::new(&bad[..])]);
    assert_eq!(merged.next().expect("valid").expect("a").path.display(), "a");
    let error = merged.next().expect_err("leaves the source");
    assert!(matches!(error.error, SigtarError::Member(_)) && error.index == 0);
    assert!(matches!(merged.next().expect_err("of a volume").error, SigtarError::Foreign(_)));
    assert_eq!(merged.next().expect("valid").expect("d").path.display(), "d");
    assert!(merged.next().expect("valid").is_none());
}

#[test]
fn a_file_cut_off_is_an_error_once() {
    let tar = sigtar(&[("signature/a", FILE, 1), ("signature/b", FILE, 1)]);
    let mut merged = Merged::new(vec![SigtarReader::new(&tar[..1500]), SigtarReader::new(&tar[..])]);
    let (mut paths, mut errors) = (Vec::new(), Vec::new());
    loop {
        match merged.next() {
            Ok(Some(entry)) => paths.push(entry.path.display()),
            Ok(None) => break,
            Err(e) => errors.push((e.index, e.error.is_fatal())),
        }
    }
    assert_eq!((paths, errors), (vec!["a".to_owned(), "b".to_owned()], vec![(0, true)]));
}

proptest! {
    #[test]
    fn merging_is_replaying(sets in prop::collection::vec(prop::collection::btree_map("[a-c.]{1,2}(/[a-c.]{1,2}){0,2}", any::<bool>(), 0..12), 0..6)) {
        let mut model = BTreeMap::new();
        let mut files = Vec::new();
        for (set, mtime) in sets.iter().zip(1..) {
            let members: BTreeMap<_, _> =
                set.iter().filter_map(|(path, is_there)| Some((EntryPath::new(path.as_str()).ok()?, is_there))).collect();
            let mut tar = Vec::new();
            for (path, is_there) in members {
                let word: &[u8] = if *is_there { b"signature/" } else { b"deleted/" };
                let name = [word, path.as_bytes()].concat();
                member(&mut tar, &name, FILE, mtime, if *is_there { &name } else { b"" });
                model.remove(&path);
                if *is_there {
                    model.insert(path, mtime);
                }
            }
            files.push(end(tar));
        }
        let expected: Vec<_> = model.into_iter().map(|(path, mtime)| (path.display(), mtime)).collect();
        prop_assert_eq!(listing(&files), expected);
    }
}

#[test]
fn listing_lines() {
    let tar = sigtar(&[("snapshot/", DIRECTORY, 1_600_000_001), ("signature/a b", FILE, 0)]);
    let mut reader = SigtarReader::new(&tar[..]);
    let mut out = Vec::new();
    while let Some(entry) = reader.next().expect("valid") {
        out.extend(list_line(entry.header.mtime, &entry.path, &TimeZone::UTC));
    }
    assert_eq!(out, b"Sun Sep 13 12:26:41 2020 .\nThu Jan  1 00:00:00 1970 a b\n");
}
