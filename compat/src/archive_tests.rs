//! The parsers over real archives that are not encrypted: every member, listing, delta and signature of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use engine::path::EntryPath;
use flate2::bufread::MultiGzDecoder;
use jiff::tz::TimeZone;

use crate::librsync::{DeltaReader, SignatureCheck};
use crate::member::{Member, MemberKind, Owners, entry_kind};
use crate::sigtar::{Merged, SigtarKind, SigtarReader, list_line};
use crate::tar::{TarErrorKind, TarReader};

/// The folders of the archives without encryption; none where the fixtures are not at hand.
fn fixtures() -> Vec<PathBuf> {
    let found = match std::env::var_os("DEDUPLICITY_FIXTURES") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|dir| dir.join("shared/duplicity/fixtures"))
            .find(|dir| dir.is_dir()),
    };
    let Some(found) = found else {
        println!("skipped: no folder shared/duplicity/fixtures above this one, and DEDUPLICITY_FIXTURES is not set");
        return Vec::new();
    };
    let mut all: Vec<_> = fs::read_dir(found.join("public")).expect("readable").map(|e| e.expect("readable").path()).collect();
    all.retain(|dir| dir.join("archive").is_dir() && files(dir, "").iter().all(|f| !is_encrypted(f)));
    all.sort();
    assert!(all.len() > 20, "{}", all.len());
    all
}

fn is_encrypted(file: &Path) -> bool {
    file.extension().is_some_and(|e| e == "gpg" || e == "g")
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).expect("UTF-8")
}

/// The files of an archive whose name has this in it, in order: of sets by their times, of volumes by their numbers.
fn files(fixture: &Path, part: &str) -> Vec<PathBuf> {
    let archive = fs::read_dir(fixture.join("archive")).expect("readable");
    let mut files: Vec<_> = archive.map(|e| e.expect("readable").path()).filter(|f| name(f).contains(part)).collect();
    let number = |f: &Path| name(f).split(".vol").nth(1).and_then(|v| v.split('.').next()?.parse::<u64>().ok());
    files.sort_by_key(|f| (set_time(f), number(f)));
    files
}

/// The text of a set's (end) time.
fn set_time(file: &Path) -> String {
    let mut words = name(file).split('.').skip(1);
    let first = words.next().unwrap_or_default();
    let is_incremental = words.next() == Some("to");
    words.next().filter(|_| is_incremental).unwrap_or(first).to_owned()
}

fn open(file: &Path) -> Box<dyn Read> {
    let raw = BufReader::new(fs::File::open(file).expect("readable"));
    if file.extension().is_some_and(|e| e == "gz") { Box::new(BufReader::new(MultiGzDecoder::new(raw))) } else { Box::new(raw) }
}

fn is_damaged(fixture: &Path) -> bool {
    name(fixture).starts_with("dmg-")
}

#[test]
fn every_member_is_understood() {
    for fixture in fixtures() {
        let is_lossy = name(&fixture).contains("nonutf8");
        let mut last: Option<(String, EntryPath)> = None;
        for volume in files(&fixture, ".difftar") {
            let (mut tar, mut owners) = (TarReader::new(open(&volume)), Owners::default());
            let is_cut = name(&fixture) == "dmg-truncated-volume-gz" && name(&volume).contains("-full.");
            loop {
                let header = match tar.next() {
                    Ok(Some(header)) => header,
                    Ok(None) => break assert!(!is_cut),
                    Err(e) => break assert!(is_cut && matches!(e.kind, TarErrorKind::Io(_)), "{volume:?}: {e}"),
                };
                let member = Member::parse(&header).unwrap_or_else(|e| panic!("{volume:?}: {e}"));
                assert_ne!(member.kind, MemberKind::Signature);
                entry_kind(&header).expect("duplicity's types");
                assert_eq!(owners.metadata(&header).mtime.seconds, header.mtime);
                let place = (set_time(&volume), member.path);
                let is_piece = matches!(member.kind, MemberKind::DiffPiece(2..) | MemberKind::SnapshotPiece(2..));
                let is_in_order = last.as_ref().is_none_or(|last| if is_piece { *last == place } else { *last < place });
                assert!(is_lossy || is_in_order || is_damaged(&fixture), "{volume:?}: {place:?}");
                last = Some(place);
            }
        }
    }
}

#[test]
fn ends_of_volumes_by_version() {
    for fixture in fixtures() {
        let is_marked = match name(&fixture) {
            "v321-gz" | "v321-plain" | "resumed-full-gz-321" => true,
            "v0822-gz" | "v0822-plain" | "v123-gz" | "v307-gz" | "v0817py27-gz" => false,
            _ => continue,
        };
        for volume in files(&fixture, ".difftar") {
            let mut tar = TarReader::new(open(&volume));
            while tar.next().expect("valid").is_some() {}
            assert_eq!(tar.ended_by_terminator(), is_marked, "{volume:?}");
        }
    }
}

/// The lines of a listing that are neither messages before nor after it.
fn truth(fixture: &Path, number: usize) -> Option<Vec<u8>> {
    let text = fs::read(fixture.join(format!("truth/list-{number}.txt"))).ok()?;
    let lines: Vec<_> = text.split_inclusive(|b| *b == b'\n').collect();
    let first = lines.iter().position(|l| l.starts_with(b"Last full backup date:"))?;
    let mut lines = &lines[first + 1..];
    while let Some((_, rest)) = lines.split_last().filter(|(l, _)| l.starts_with(b"Duplicity backup complete.")) {
        lines = rest;
    }
    Some(lines.concat())
}

#[test]
fn listings_are_byte_equal_to_duplicitys() {
    let mut compared = 0;
    for fixture in fixtures() {
        let sigtars = files(&fixture, "signatures.");
        for number in 0..sigtars.len() {
            let Some(expected) = truth(&fixture, number).filter(|_| !is_damaged(&fixture)) else { continue };
            let chain = &sigtars[..=number];
            let mut merged = Merged::new(chain.iter().map(|f| SigtarReader::new(open(f))).collect());
            let (mut listing, mut owners) = (Vec::new(), Owners::default());
            while let Some(entry) = merged.next().unwrap_or_else(|e| panic!("{fixture:?}: {e}")) {
                let meta = owners.metadata(&entry.header);
                listing.extend(list_line(meta.mtime.seconds, &entry.path, &TimeZone::UTC));
            }
            assert_eq!(
                String::from_utf8_lossy(&listing),
                String::from_utf8_lossy(&expected),
                "{} at time {number}",
                fixture.display()
            );
            assert!(listing == expected, "{} at time {number}", fixture.display());
            compared += 1;
        }
    }
    assert!(compared == 0 || compared >= 50, "{compared}");
}

/// What a set's volumes change, applied to what was there.
fn apply_set(contents: &mut BTreeMap<EntryPath, Vec<u8>>, volumes: &[PathBuf]) {
    let mut set: BTreeMap<EntryPath, (bool, Vec<u8>)> = BTreeMap::new();
    for volume in volumes {
        let mut tar = TarReader::new(open(volume));
        while let Some(header) = tar.next().expect("valid") {
            let member = Member::parse(&header).expect("valid");
            match member.kind {
                MemberKind::Deleted => drop(contents.remove(&member.path)),
                kind => {
                    let is_delta = matches!(kind, MemberKind::Diff | MemberKind::DiffPiece(_));
                    let content = &mut set.entry(member.path).or_insert((is_delta, Vec::new())).1;
                    tar.read_to_end(content).expect("valid");
                }
            }
        }
    }
    for (path, (is_delta, data)) in set {
        let content = if is_delta {
            let (basis, mut new) = (contents.remove(&path).expect("an older state"), Vec::new());
            DeltaReader::new(&data[..], &basis[..], 1 << 30).read_to_end(&mut new).expect("valid");
            new
        } else {
            data
        };
        contents.insert(path, content);
    }
}

#[test]
fn contents_have_their_signatures() {
    let mut checked = 0;
    for fixture in fixtures().iter().filter(|f| !is_damaged(f) && !name(f).contains("nonutf8")) {
        let mut contents = BTreeMap::new();
        for sigtar in files(fixture, "signatures.") {
            let volumes: Vec<_> = files(fixture, ".difftar").into_iter().filter(|v| set_time(v) == set_time(&sigtar)).collect();
            apply_set(&mut contents, &volumes);
            let mut reader = SigtarReader::new(open(&sigtar));
            while let Some(entry) = reader.next().expect("valid") {
                if entry.kind != SigtarKind::Signature {
                    continue;
                }
                let content = contents.get(&entry.path).expect("a file with a signature");
                let mut check = SignatureCheck::new(&mut reader).expect("a signature");
                check.feed(content).expect("valid");
                assert!(check.finish().expect("valid"), "{sigtar:?}: {:?}", entry.path);
                checked += 1;
            }
        }
    }
    assert!(checked == 0 || checked > 800, "{checked}");
}
