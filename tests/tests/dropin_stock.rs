//! duplicity's command line against stock duplicity: each goes on with what the other wrote, and both choose the same files.

use std::fs;

use deduplicity_tests::dropin::{Place, change_tree, make_tree, next_second, seconds, stock};
use deduplicity_tests::tree::{assert_same, describe, noise};

/// Stock reads, compares, lists and continues what we wrote, and we what stock wrote, with one local cache.
#[test]
fn stock_and_ours_take_turns() {
    for program in stock() {
        for options in ["", "--no-encryption"] {
            let place = Place::empty();
            make_tree(&place.path("src"));
            let (url, program) = (place.url("archive"), program.as_path());
            let writers = [None, Some(program), None];
            for (round, writer) in writers.into_iter().enumerate() {
                let said = place.ok(writer, &format!("{options} src {url}"));
                assert!(said.contains("\nErrors 0\n"), "{said}");
                let now = seconds(describe(&place.path("src")));
                for reader in [None, Some(program)] {
                    assert_same(&now, &place.restored(reader, options));
                    let verified = place.ok(reader, &format!("verify --compare-data {options} {url} src"));
                    assert!(verified.contains(" 0 difference"), "{verified}");
                }
                let entries = |text: String| {
                    text.lines().filter(|l| l.as_bytes().get(13) == Some(&b':')).map(str::to_owned).collect::<Vec<_>>()
                };
                let lists = [None, Some(program)].map(|p| entries(place.ok(p, &format!("list-current-files {options} {url}"))));
                assert_eq!(lists[0], lists[1]);
                next_second();
                match round {
                    0 => change_tree(&place.path("src")),
                    n => fs::write(place.path(&format!("src/round{n}")), noise(n as u64, 70_000)).expect("a file"),
                }
            }
            let sets = place.files("archive").iter().filter(|name| name.contains("manifest")).count();
            assert_eq!(sets, writers.len(), "{:?}", place.files("archive"));
            assert_eq!(
                place
                    .files("archive")
                    .iter()
                    .filter(|name| name.starts_with("duplicity-full.") && name.contains("manifest"))
                    .count(),
                1
            );
        }
    }
}

/// The same selections leave the same files.
#[test]
fn selections_are_stocks() {
    let Some(program) = stock().pop() else { return };
    let place = Place::empty();
    let src = place.path("src");
    make_tree(&src);
    fs::write(src.join("a/deep/.nobackup"), "").expect("a file");
    let lists = ["- **/small\n+ src/a\n- **\n", "# none\nsrc/ord*\n\n- 'src/a b'\n"];
    lists.iter().enumerate().for_each(|(i, text)| fs::write(place.path(&format!("list{i}")), text).expect("a list"));
    for rules in [
        "--include src/a/deep --exclude **",
        "--include src/*/1 --exclude **",
        "--include **/piece --exclude **",
        "--exclude src/a/ --exclude src/ord?1",
        "--exclude src/[a-g]*",
        "--exclude src/[!a-g]*",
        "--include src/a/small --exclude src/a --exclude **/x",
        "--exclude-regexp .*small$ --exclude-regexp ord",
        "--exclude-if-present .nobackup",
        "--exclude-filelist list1",
        "--include-filelist list0 --exclude **/zzz",
        "--exclude ignorecase:src/BIG",
        "--exclude-older-than 2020-01-01 --exclude **/empty",
        "--include src/a/link --include src/gone --exclude src/a --exclude **",
        "--exclude-device-files --exclude-other-filesystems --exclude **/deep",
        "--include src/a/b --exclude src/zzz",
    ] {
        let listed = [None, Some(program.as_path())].map(|who| {
            let _ = fs::remove_dir_all(place.path("archive"));
            let _ = fs::remove_dir_all(place.path("home/.cache"));
            let run = place.by(who, &format!("full --no-encryption {rules} src {}", place.url("archive")));
            let names = match run.code {
                0 => place.ok(Some(&program), &format!("list-current-files --no-encryption {}", place.url("archive"))),
                _ => String::new(),
            };
            let names: Vec<String> =
                names.lines().filter(|l| l.as_bytes().get(13) == Some(&b':')).map(|l| l[25..].to_owned()).collect();
            (run.code, names)
        });
        assert_eq!(listed[0], listed[1], "{rules}");
    }
}
