use proptest::prelude::*;

use super::*;
use crate::stock::fixtures;

fn time(epoch: i64) -> Time {
    Time::new(epoch).expect("time")
}

const T0: i64 = 1_700_000_000;
const T1: i64 = 1_700_086_400;

fn full() -> SetTimes {
    SetTimes::Full(time(T0))
}

fn inc() -> SetTimes {
    SetTimes::Inc { start: time(T0), end: time(T1) }
}

fn found(name: &str) -> Result<(FileKind, SetTimes, Encoding), NameError> {
    let file = classify(name, &Prefixes::default())?;
    assert!(!file.partial, "{name}");
    Ok((file.kind, file.set, file.suffix))
}

#[test]
fn names_that_duplicity_writes() {
    use Encoding::{Gzip, OpenPgp, Plain, Smime};
    use FileKind::{JsonStat, Manifest, Signature, Volume};
    let cases = [
        ("duplicity-full.20231114T221320Z.vol1.difftar.gpg", (Volume(1), full(), OpenPgp)),
        ("duplicity-full.20231114t221320z.vol4294967295.difftar", (Volume(u32::MAX), full(), Plain)),
        ("duplicity-full.2023-11-15T00:13:20+02:00.vol10.difftar.gz", (Volume(10), full(), Gzip)),
        ("duplicity-full.2023-11-14T22.13.20Z.manifest", (Manifest, full(), Plain)),
        ("duplicity-full.1700000000.manifest.p7m", (Manifest, full(), Smime)),
        ("duplicity-full-signatures.20231114T221320Z.sigtar.gz", (Signature, full(), Gzip)),
        ("duplicity-full.20231114T221320Z.jsonstat.gz", (JsonStat, full(), Gzip)),
        ("duplicity-inc.20231114T221320Z.to.20231115T221320Z.vol2.difftar", (Volume(2), inc(), Plain)),
        ("duplicity-inc.2023-11-14T22_13_20Z.to.2023-11-15T22_13_20Z.manifest.gpg", (Manifest, inc(), OpenPgp)),
        ("duplicity-new-signatures.20231114T221320Z.to.20231115T221320Z.sigtar.gpg", (Signature, inc(), OpenPgp)),
        ("df.s44we8.1.dt.g", (Volume(1), full(), OpenPgp)),
        ("df.s44we8.m.dt.z", (Volume(22), full(), Gzip)),
        ("df.s44we8.m", (Manifest, full(), Plain)),
        ("dfs.s44we8.st.z", (Signature, full(), Gzip)),
        ("dfst.s44we8.jst", (JsonStat, full(), Plain)),
        ("di.s44we8.s46r28.10.dt", (Volume(36), inc(), Plain)),
        ("di.s44we8.s46r28.m.g", (Manifest, inc(), OpenPgp)),
        ("dns.s44we8.s46r28.st.g", (Signature, inc(), OpenPgp)),
        ("dist.s44we8.s46r28.jst.g", (JsonStat, inc(), OpenPgp)),
    ];
    for (name, wanted) in cases {
        assert_eq!(found(name), Ok(wanted), "{name}");
    }
}

#[test]
fn names_that_are_close() {
    let trailing = |end: &str| NameError::Trailing(end.to_owned());
    let cases = [
        ("duplicity-full.20231114T221320Z.vol1.difftar.gz.tmp", trailing(".gz.tmp")),
        ("duplicity-full.20231114T221320Z.vol1.difftar.GZ", trailing(".GZ")),
        ("duplicity-full.20231114T221320Z.manifest.bak", trailing(".bak")),
        ("duplicity-full.20231114T221320Z.manifest.", trailing(".")),
        ("df.s44we8.m.old", trailing(".old")),
        ("duplicity-full.20231114T221320Z.vol1.difftar.gpg.par2", NameError::Par2),
        ("duplicity-full.20231114T221320Z.vol1.difftar.gpg.vol000+20.PAR2", NameError::Par2),
        ("duplicity-full.20231399T221320Z.manifest", NameError::Time),
        ("duplicity-full.0.manifest", NameError::Time),
        ("duplicity-inc.20231114T221320Z.manifest", NameError::Time),
        ("df.zzzzzzzzzzzz.m", NameError::Time),
        ("di.s44we8.zzzzzzzzzzzz.m", NameError::Time),
        ("duplicity-full.20231114T221320Z.vol4294967296.difftar", NameError::Number),
        ("duplicity-full.20231114T221320Z.vol99999999999999999999.difftar", NameError::Number),
        ("duplicity-full.20231114T221320Z.vol0.difftar", NameError::Number),
        ("duplicity-full.20231114T221320Z.vol01.difftar", NameError::Number),
        ("duplicity-full.20231114T221320Z.vol+1.difftar", NameError::Number),
        ("duplicity-full.20231114T221320Z.vol.difftar", NameError::Number),
        ("df.s44we8.zzzzzzzzz.dt", NameError::Number),
    ];
    for (name, wanted) in cases {
        assert_eq!(found(name), Err(wanted), "{name}");
    }
}

#[test]
fn foreign_names() {
    let names = [
        "",
        "lost+found",
        "photo.par2",
        "duplicity",
        "duplicity-",
        "duplicity-full",
        "df.txt",
        "df",
        "df.S44WE8.m",
        "df.s44we8.st",
        "dfs.s44we8.m",
        "duplicity-full.20231114T221320Z.manifests",
        "duplicity-full.20231114T221320Z.sigtar",
        "duplicity-full.20231114T221320Z.vol1.difftarx",
        "duplicity-full-signatures.20231114T221320Z.manifest",
        "Duplicity-full.20231114T221320Z.manifest",
        "x-duplicity-full.20231114T221320Z.manifest",
        "é.m",
        ".",
        "..",
    ];
    for name in names {
        assert_eq!(found(name), Err(NameError::Foreign), "{name}");
        assert_eq!(parse(name, &Prefixes::default()), None);
    }
}

#[test]
fn unfinished_files_are_told() {
    for name in [
        "duplicity-full.20231114T221320Z.manifest.part",
        "duplicity-full-signatures.20231114T221320Z.sigtar.part.gz",
        "df.s44we8.m.p",
        "dfs.s44we8.st.p.g",
    ] {
        assert!(parse(name, &Prefixes::default()).is_some_and(|file| file.partial), "{name}");
    }
}

#[test]
fn prefixes_are_literal_and_by_kind() {
    let prefixes = Prefixes {
        all: "a.b-".into(),
        archive: "(v)".into(),
        manifest: "m+".into(),
        signature: String::new(),
        jsonstat: "(v)".into(),
    };
    let kind = |name: &str| parse(name, &prefixes).map(|file| file.kind);
    assert_eq!(kind("a.b-(v)duplicity-full.20231114T221320Z.vol1.difftar"), Some(FileKind::Volume(1)));
    assert_eq!(kind("a.b-(v)duplicity-full.20231114T221320Z.jsonstat"), Some(FileKind::JsonStat));
    assert_eq!(kind("a.b-m+df.s44we8.m"), Some(FileKind::Manifest));
    assert_eq!(kind("a.b-dfs.s44we8.st"), Some(FileKind::Signature));
    assert_eq!(kind("a.b-(v)duplicity-full.20231114T221320Z.manifest"), None);
    assert_eq!(kind("a.b-duplicity-full.20231114T221320Z.manifest"), None);
    assert_eq!(kind("aXb-(v)duplicity-full.20231114T221320Z.vol1.difftar"), None);
    assert_eq!(kind("(v)duplicity-full.20231114T221320Z.vol1.difftar"), None);
}

#[test]
fn every_name_of_every_archive() {
    for fixture in fixtures() {
        for file in fixture.files() {
            let found = classify(&file.name, &fixture.prefixes());
            assert!(found.as_ref().is_ok_and(|f| !f.partial), "{}: {}: {found:?}", fixture.name, file.name);
        }
    }
}

fn any_time() -> impl Strategy<Value = Time> {
    (Time::MIN.epoch()..=Time::MAX.epoch()).prop_filter_map("epoch zero", |e| Time::new(e).filter(|t| t.epoch() != 0))
}

fn any_file() -> impl Strategy<Value = FileName> {
    let kind = prop_oneof![
        (1..=u32::MAX).prop_map(FileKind::Volume),
        Just(FileKind::Manifest),
        Just(FileKind::Signature),
        Just(FileKind::JsonStat)
    ];
    let set = prop_oneof![
        any_time().prop_map(SetTimes::Full),
        (any_time(), any_time()).prop_map(|(start, end)| SetTimes::Inc { start, end })
    ];
    let suffix = prop_oneof![Just(Encoding::Plain), Just(Encoding::Gzip), Just(Encoding::OpenPgp), Just(Encoding::Smime)];
    (kind, set, suffix, any::<bool>()).prop_map(|(kind, set, suffix, partial)| FileName { kind, set, suffix, partial })
}

proptest! {
    #[test]
    fn written_names_read_back(file in any_file(), p in proptest::array::uniform5("[a-z.+-]{0,3}")) {
        let [all, archive, manifest, signature, jsonstat] = p;
        let prefixes = Prefixes { all, archive, manifest, signature, jsonstat };
        prop_assert_eq!(parse(&file.long(&prefixes), &prefixes), Some(file));
    }

    #[test]
    fn any_name_is_survived(name in "(duplicity-(full|inc)\\.|d[fi]\\.)?[0-9TZ.a-zé:-]{0,40}") {
        let _ = classify(&name, &Prefixes::default());
    }
}
