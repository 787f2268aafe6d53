//! The file cut short, altered, exchanged, held by another: never a wrong answer, never a panic that gets out.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn model() -> BTreeMap<u64, Vec<PackRecord>> {
    (0..7).map(|number| (number, segment(number, 150 * (number % 3 + 1)))).collect()
}

/// The bytes of a good file.
fn good(model: &BTreeMap<u64, Vec<PackRecord>>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(Some(dir.path()), REPO).unwrap();
    for (number, segment) in model {
        index.add(name(*number), segment).unwrap();
    }
    drop(index);
    fs::read(dir.path().join("index.redb")).unwrap()
}

/// Uses an index as a caller would: on an error of the cache, opens it again, at most once.
fn use_as_a_caller(dir: &Path, model: &BTreeMap<u64, Vec<PackRecord>>) {
    let attempt = || {
        let index = Index::open(Some(dir), REPO)?;
        assert!(index.is_persistent());
        sync(&index, model)?;
        compare(&index, model, &[9_999_999])
    };
    if let Err(error) = attempt() {
        assert!(matches!(error, Error::Cache(_)), "{error}");
        attempt().unwrap();
    }
}

#[test]
fn a_file_cut_short_is_made_anew() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let bytes = good(&model);
    let path = dir.path().join("index.redb");
    for cut in [0, 1, 63, 64, 511, 4095, 4096, 8192].into_iter().chain((1..24).map(|i| i * bytes.len() / 24)) {
        fs::write(&path, &bytes[..cut.min(bytes.len())]).unwrap();
        use_as_a_caller(dir.path(), &model);
    }
}

#[test]
fn flipped_bits_never_make_a_wrong_answer() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let bytes = good(&model);
    let path = dir.path().join("index.redb");
    let flip = |at: usize, mask: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= mask;
        fs::write(&path, &bytes).unwrap();
        use_as_a_caller(dir.path(), &model);
    };
    (0..320).step_by(3).for_each(|at| flip(at, 1 << (at % 8)));
    // Bytes that are not zero, where the chance to hit something that matters is best.
    let used: Vec<_> = (320..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let step = used.len() / 250;
    used.iter().step_by(step.max(1)).enumerate().for_each(|(i, at)| flip(*at, 1 << (i % 8)));
}

#[test]
fn overwritten_blocks_never_make_a_wrong_answer() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let bytes = good(&model);
    let path = dir.path().join("index.redb");
    let blocks = bytes.len() / 4096;
    for at in (0..blocks).step_by((blocks / 120).max(1)) {
        for fill in [0x00, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at * 4096..(at + 1) * 4096].fill(fill);
            fs::write(&path, &bytes).unwrap();
            use_as_a_caller(dir.path(), &model);
        }
    }
}

#[test]
fn damage_while_open_is_noticed_and_the_file_taken_away() {
    // More than the database keeps in memory.
    let (model, dir) = (BTreeMap::from([(0, segment(0, 150_000))]), tempfile::tempdir().unwrap());
    let path = dir.path().join("index.redb");
    fs::write(&path, good(&model)).unwrap();
    let index = Index::open(Some(dir.path()), REPO).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    let junk = vec![0x5a; usize::try_from(length).unwrap() - 4096];
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &junk, 4096).unwrap();
    let noticed = compare(&index, &model, &[]);
    assert!(matches!(noticed, Err(Error::Cache(_))), "{noticed:?}");
    assert!(!path.exists());
    use_as_a_caller(dir.path(), &model);
    drop(index);
    assert!(path.exists());
}

#[test]
fn the_index_of_another_repository_is_made_anew() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    sync(&Index::open(Some(dir.path()), RepoId([0x22; 16])).unwrap(), &model).unwrap();
    let index = Index::open(Some(dir.path()), REPO).unwrap();
    assert!(index.is_empty() && index.is_persistent());
    drop(index);
    fs::write(dir.path().join("index.redb"), "not a database at all").unwrap();
    use_as_a_caller(dir.path(), &model);
}

#[test]
fn the_second_to_open_it_works_in_memory() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let first = Index::open(Some(dir.path()), REPO).unwrap();
    let second = Index::open(Some(dir.path()), REPO).unwrap();
    assert!(first.is_persistent() && !second.is_persistent());
    for index in [&first, &second] {
        sync(index, &model).unwrap();
        compare(index, &model, &[]).unwrap();
    }
    drop(first);
    let third = Index::open(Some(dir.path()), REPO).unwrap();
    assert!(third.is_persistent());
    compare(&third, &model, &[]).unwrap();
}

#[test]
fn only_the_owner_can_read_it_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, target) = (dir.path().join("index.redb"), dir.path().join("target"));
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    drop(Index::open(Some(dir.path()), REPO).unwrap());
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.is_file());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    Index::discard(dir.path()).unwrap();
    assert!(!path.exists());
    Index::discard(dir.path()).unwrap();
    assert!(!Index::open(Some(&dir.path().join("absent")), REPO).unwrap().is_persistent());
}
