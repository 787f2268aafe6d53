//! security.md, cases 26 to 31, and what belongs to them.

use super::*;

fn is_number(error: &TarError, field: &str, problem: NumberProblem) -> bool {
    matches!(error.kind, TarErrorKind::Number { field: f, problem: p } if f == field && p == problem)
}

/// 26: the pax size frames the data whatever the header says.
#[test]
fn pax_size_wins_over_the_header() {
    let hidden = file(b"hidden", b"");
    let mut outer = extension(b'x', b"12 size=512\n");
    outer.extend_from_slice(&block(|_| ()));
    outer.extend_from_slice(&hidden);
    outer.extend_from_slice(&file(b"next", b""));
    let members = read_all(&outer).expect("valid").0;
    assert_eq!(members.iter().map(|m| m.0.name.as_slice()).collect::<Vec<_>>(), [&b"a"[..], b"next"]);
    assert_eq!(members[0].1, hidden);

    let mut shrunk = extension(b'x', b"9 size=0\n");
    shrunk.pop();
    shrunk.push(0);
    shrunk.extend_from_slice(&block(|b| put(b, 124, b"00000001000\0")));
    shrunk.extend_from_slice(&file(b"next", b""));
    assert_eq!(read_all(&shrunk).expect("valid").0[1].0.name, b"next");
}

/// 26: whoever lets a pax size count for an extension header reads on elsewhere.
#[test]
fn mixed_or_repeated_extension_headers_are_refused() {
    let (x, l, k) = (extension(b'x', b"9 size=0\n"), extension(b'L', b"n\0"), extension(b'K', b"n\0"));
    let g = extension(b'g', b"8 uid=1\n");
    for pair in [[&x, &l], [&l, &x], [&x, &x], [&l, &l], [&k, &k], [&x, &k], [&x, &g], [&l, &g]] {
        let error = error_of(&[pair[0], pair[1], &file(b"a", b"")[..]].concat());
        assert!(matches!(error.kind, TarErrorKind::Extension(_)) && error.is_fatal());
    }
    let both = [l, k, file(b"a", b"")].concat();
    assert_eq!(read_all(&both).expect("valid").0[0].0.name, b"n");
    for global in [&b"9 path=b\n"[..], b"9 size=0\n"] {
        let error = error_of(&[extension(b'g', global), file(b"a", b"")].concat());
        assert!(matches!(error.kind, TarErrorKind::Extension(_)));
    }
}

/// 26: some readers pass over data of directories and links, some do not.
#[test]
fn data_where_there_is_none_is_refused() {
    for code in b'1'..=b'6' {
        let error = error_of(&block(|b| {
            b[156] = code;
            put(b, 124, b"00000001000\0");
        }));
        assert!(matches!(error.kind, TarErrorKind::UnexpectedData(512)) && error.is_fatal());
    }
}

/// 27: NUL is refused; a newline is part of a name. Only that member is lost.
#[test]
fn nul_in_a_name() {
    for long in [extension(b'x', b"12 path=a\0b\n"), extension(b'L', b"a\0b\0"), extension(b'x', b"16 linkpath=a\0b\n")] {
        let tar = [long, file(b"a", b"data"), file(b"next", b"")].concat();
        let mut reader = TarReader::new(&tar[..]);
        let error = reader.next().expect_err("NUL");
        assert!(matches!(error.kind, TarErrorKind::Nul) && !error.is_fatal(), "{error:?}");
        assert_eq!(reader.next().expect("goes on").expect("next").name, b"next");
    }
    let tar = [extension(b'x', b"12 path=a\nb\n"), file(b"a", b"")].concat();
    assert_eq!(read_all(&tar).expect("valid").0[0].0.name, b"a\nb");
}

/// 28
#[test]
fn checksums_are_verified_signed_or_unsigned() {
    let mut bad = file(b"a", b"");
    bad[0] ^= 1;
    let error = error_of(&bad);
    assert!(matches!(error.kind, TarErrorKind::Checksum) && error.is_fatal());

    let mut signed = block(|b| b[0] = 0xe9);
    let sum: i32 =
        signed.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { i32::from(b.cast_signed()) }).sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(read_all(&signed).expect("valid").0[0].0.name, b"\xe9");
}

/// 29
#[test]
fn numbers_that_overflow_or_are_negative() {
    let with = |at: usize, text: &'static [u8]| block(move |b| put(b, at, text));
    use NumberProblem::{Malformed, Negative, Overflow};
    for (at, text, field, problem, is_fatal) in [
        (124, &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], "size", Negative, true),
        (124, b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "size", Overflow, true),
        (124, b"\x80\0\0\0\x80\0\0\0\0\0\0\0", "size", Overflow, true),
        (124, b"0000000000x\0", "size", Malformed, true),
        (108, b"\xff\xff\xff\xff\xff\xff\xff\xff", "uid", Negative, false),
        (116, b"\x80\0\0\x01\0\0\0\0", "gid", Overflow, false),
        (136, b"\x80\0\0\0\x80\0\0\0\0\0\0\0", "mtime", Overflow, false),
        (100, b"0000649\0", "mode", Malformed, false),
    ] {
        let error = error_of(&with(at, text));
        assert!(is_number(&error, field, problem) && error.is_fatal() == is_fatal, "{error:?}");
    }
    for (record, field, problem) in [
        (&b"29 size=18446744073709551616\n"[..], "size", Overflow),
        (b"28 size=9223372036854775808\n", "size", Overflow),
        (b"11 size=-1\n", "size", Negative),
        (b"18 uid=4294967296\n", "uid", Overflow),
        (b"10 gid=-1\n", "gid", Negative),
        (b"11 mtime=x\n", "mtime", Malformed),
        (b"8 uid=\n\n", "uid", Malformed),
    ] {
        let error = error_of(&[extension(b'x', record), file(b"a", b"")].concat());
        assert!(is_number(&error, field, problem), "{record:?}: {error:?}");
    }
}

/// 30
#[test]
fn huge_extension_headers_are_refused_before_they_are_read() {
    for code in [b'L', b'K', b'x', b'g'] {
        let tar = block(|b| {
            b[156] = code;
            put(b, 124, b"10000000000\0");
        });
        let error = error_of(&tar);
        assert!(matches!(error.kind, TarErrorKind::ExtensionTooLarge(0x4000_0000)) && error.is_fatal());
    }
    let long = [extension(b'L', &[b'a'; MAX_NAME + 1]), file(b"a", b""), file(b"next", b"")].concat();
    let mut reader = TarReader::new(&long[..]);
    let error = reader.next().expect_err("too long");
    assert!(matches!(error.kind, TarErrorKind::NameTooLong(n) if n == MAX_NAME + 1) && !error.is_fatal());
    assert_eq!(error.name.len(), MAX_NAME);
    assert_eq!(reader.next().expect("goes on").expect("next").name, b"next");
}

/// 31
#[test]
fn sparse_members_are_refused() {
    let old = block(|b| b[156] = b'S');
    let new = [extension(b'x', b"22 GNU.sparse.major=1\n"), file(b"a", b"")].concat();
    for tar in [old, new] {
        assert!(matches!(error_of(&tar).kind, TarErrorKind::Sparse));
    }
}

#[test]
fn every_cut_within_a_member_is_noticed() {
    let tar = [extension(b'x', b"12 path=abc\n"), file(b"a", &[7; 600])].concat();
    for cut in 1..tar.len() {
        let error = error_of(&tar[..cut]);
        assert!(matches!(error.kind, TarErrorKind::Truncated), "{cut}: {error:?}");
        let mut reader = TarReader::new(&tar[..cut]);
        let skipped = reader.next().and_then(|_| reader.next());
        assert!(matches!(skipped.expect_err("cut").kind, TarErrorKind::Truncated), "{cut}");
        assert!(matches!(reader.next().expect_err("still").kind, TarErrorKind::Failed), "{cut}");
    }
}

#[test]
fn a_failing_reader_is_not_an_end() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("decryption"))
        }
    }
    let error = TarReader::new(file(b"a", b"").chain(Fails)).next().and_then(|_| TarReader::new(Fails).next());
    assert!(matches!(error.expect_err("fails").kind, TarErrorKind::Io(_)));
}

#[test]
fn errors_name_the_member() {
    let error = error_of(&[file(b"first", b""), block(|b| put(b, 108, b"9999999\0"))].concat());
    assert_eq!(error.to_string(), "tar member 'a' at byte 512: uid is no number");
}
