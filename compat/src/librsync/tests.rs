use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn apply(basis: &[u8], delta: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut out = Vec::new();
    match DeltaReader::new(delta, basis, 1 << 20).read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(e) => Err(e.downcast::<DeltaError>().expect("a refusal")),
    }
}

fn with_magic(commands: &[u8]) -> Vec<u8> {
    [b"rs\x026", commands].concat()
}

fn signature(format: SignatureFormat, content: &[u8], piece: usize) -> Vec<u8> {
    let (mut maker, mut out) = (SignatureMaker::new(format), Vec::new());
    for part in content.chunks(piece.max(1)) {
        maker.push(part, &mut out);
    }
    maker.finish(&mut out);
    out
}

/// security.md, cases 56 to 60 and 63
#[test]
fn hostile_deltas() {
    let far = [&[0x54][..], &[0xff; 16], &[0]].concat();
    let (offset, length) = (u64::MAX, u64::MAX);
    for (commands, error) in [
        (&far[..], DeltaError::CopyOverflow { offset, length }),
        (b"\x45\x00\x0c\x00", DeltaError::BeyondBasis { offset: 0, length: 12, basis: 11 }),
        (b"\x45\x0b\x01\x00", DeltaError::BeyondBasis { offset: 11, length: 1, basis: 11 }),
        (b"\x05abc", DeltaError::Truncated),
        (b"\x44\x00\x00\x00\x00\x00\x0f\xff\xffabc", DeltaError::Truncated),
        (b"\x45\x00", DeltaError::Truncated),
        (b"\x42\x00", DeltaError::Truncated),
        (b"\x45\x00\x05", DeltaError::NoEnd),
        (b"", DeltaError::NoEnd),
        (b"\x45\x00\x05\x00x", DeltaError::Trailing),
        (b"\x55", DeltaError::Reserved(0x55)),
        (b"\xff", DeltaError::Reserved(0xff)),
        (b"\x45\x00\x00\x00", DeltaError::Empty),
        (b"\x41\x00\x00", DeltaError::Empty),
        (b"\x44\x7f\xff\xff\xff\xff\xff\xff\xffabc", DeltaError::TooLarge(1 << 20)),
        (b"\x45\x00\x05\x45\x05\x07\x00", DeltaError::BeyondBasis { offset: 5, length: 7, basis: 11 }),
    ] {
        assert_eq!(apply(b"hello world", &with_magic(commands)), Err(error), "{commands:02x?}");
    }
    for delta in [&b""[..], b"rs\x02", b"rs\x016\0", b"\x1f\x8b\x08\x00\x00"] {
        assert_eq!(apply(b"", delta), Err(DeltaError::Magic));
    }
}

#[test]
fn a_refusal_stays() {
    let delta = with_magic(b"\x03abc\x55");
    let mut reader = DeltaReader::new(&delta[..], &b""[..], 100);
    let mut buffer = [0; 10];
    assert_eq!(reader.read(&mut buffer).expect("what came before"), 3);
    for _ in 0..2 {
        assert_eq!(reader.read(&mut buffer).expect_err("refused").kind(), io::ErrorKind::InvalidData);
    }
}

/// Counts its calls, and hands out at most 7 bytes at a time if told so.
struct Counting {
    data: Vec<u8>,
    calls: usize,
    is_slow: bool,
}

impl Basis for Counting {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        let n = if self.is_slow { buffer.len().min(7) } else { buffer.len() };
        (&self.data[..]).read_at(offset, &mut buffer[..n])
    }
}

/// 61: commands are no more than the delta has bytes, and copies that follow each other are one.
#[test]
fn tiny_copies_cost_no_more_than_the_delta_is_long() {
    const COPIES: usize = 1 << 20;
    let mut seamless = DeltaWriter::new(Vec::new()).expect("memory");
    let mut scattered = DeltaWriter::new(Vec::new()).expect("memory");
    for at in 0..COPIES as u64 {
        seamless.copy(at, 1).expect("memory");
        scattered.copy(at % 2 * 2, 1).expect("memory");
    }
    let calls = |delta: Vec<u8>| {
        let basis = Counting { data: vec![7; COPIES], calls: 0, is_slow: false };
        let mut reader = DeltaReader::new(&delta[..], basis, u64::MAX);
        assert_eq!(io::copy(&mut reader, &mut io::sink()).expect("valid"), COPIES as u64);
        (reader.into_parts().1.calls, delta.len())
    };
    let (calls_seamless, length) = calls(seamless.finish().expect("memory"));
    assert!(calls_seamless < length / 1000, "{calls_seamless}");
    let (calls_scattered, length) = calls(scattered.finish().expect("memory"));
    assert!(calls_scattered <= length / 3, "{calls_scattered}");
}

/// A copy announced larger than the limit is refused before anything is read for it.
#[test]
fn output_is_limited() {
    let delta = with_magic(b"\x45\x00\x0a\x45\x00\x0a\x00");
    let mut out = Vec::new();
    let mut reader = DeltaReader::new(&delta[..], &b"0123456789"[..], 19);
    let error = reader.read_to_end(&mut out).expect_err("too large");
    assert_eq!(error.downcast::<DeltaError>().expect("a refusal"), DeltaError::TooLarge(19));
    assert_eq!(out.len(), 10);
}

#[test]
fn a_basis_shorter_than_it_says() {
    struct Liar;
    impl Basis for Liar {
        fn len(&self) -> u64 {
            100
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }
    let delta = with_magic(b"\x45\x00\x0a\x00");
    let error = DeltaReader::new(&delta[..], Liar, 100).read(&mut [0; 10]).expect_err("short");
    assert_eq!(error.downcast::<DeltaError>().expect("a refusal"), DeltaError::ShortBasis(0));
}

#[test]
fn commands_take_their_shortest_form() {
    let mut writer = DeltaWriter::new(Vec::new()).expect("memory");
    writer.literal(&[1; 64]).expect("memory");
    writer.literal(&[2; 65]).expect("memory");
    writer.literal(&[3; 256]).expect("memory");
    writer.literal(&[]).expect("memory");
    writer.copy(0, 0).expect("memory");
    writer.copy(0x1_0000_0000, 255).expect("memory");
    writer.copy(256, 65536).expect("memory");
    let delta = writer.finish().expect("memory");
    let expected = [
        b"rs\x026\x40",
        &[1; 64][..],
        b"\x41\x41",
        &[2; 65],
        b"\x42\x01\x00",
        &[3; 256],
        b"\x51\0\0\0\x01\0\0\0\0\xff",
        b"\x4b\x01\0\0\x01\0\0",
        b"\0",
    ];
    assert_eq!(delta, expected.concat());
}

#[test]
fn block_lengths_of_duplicity() {
    for (size, length) in [(0, 512), (1, 512), (512 * 512, 512), (513 * 513, 1024), (100 << 20, 10240), (1 << 40, 1 << 20)] {
        assert_eq!(block_length(size), length, "{size}");
    }
    assert_eq!(block_length(u64::MAX), 1 << 30);
}

/// MD4 and rollsum as FORMAT.md has them; the empty file's signature is the header alone.
#[test]
fn known_signatures() {
    let format = SignatureFormat::of_duplicity(3);
    assert_eq!(signature(format, b"", 1), b"rs\x016\0\0\x02\0\0\0\0\x08");
    let abc = signature(format, b"abc", 1);
    // MD4("abc") = a448017aaf21d8525fc10ae87aa6729d (RFC 1320)
    let weak = ((3 * (97 + 31) + 2 * (98 + 31) + 99 + 31) << 16 | (97 + 98 + 99 + 3 * 31_u32)).to_be_bytes();
    assert_eq!(abc[12..], [&weak[..], b"\xa4\x48\x01\x7a\xaf\x21\xd8\x52"].concat());
}

/// security.md, case 62
#[test]
fn impossible_signatures() {
    let header =
        |block: u32, strong: u32| [&0x7273_0136u32.to_be_bytes()[..], &block.to_be_bytes(), &strong.to_be_bytes()].concat();
    let error = |bytes: &[u8]| SignatureCheck::new(bytes).err().expect("refused");
    assert!(matches!(error(&header(0, 8)), SignatureError::BlockLength(0)));
    assert!(matches!(error(&header(u32::MAX, 8)), SignatureError::BlockLength(u32::MAX)));
    assert!(matches!(error(&header(512, 0)), SignatureError::StrongLength(0)));
    assert!(matches!(error(&header(512, 17)), SignatureError::StrongLength(17)));
    assert!(matches!(error(&header(512, 65)), SignatureError::StrongLength(65)));
    assert!(matches!(error(b"rs\x026\0\0\x02\0\0\0\0\x08"), SignatureError::Magic(0x7273_0236)));
    assert!(matches!(error(b"rs\x016\0\0"), SignatureError::Truncated));
}

#[test]
fn a_signature_cut_off_is_no_difference() {
    let content = vec![5; 100_000];
    let whole = signature(SignatureFormat::of_duplicity(1), &content, 1000);
    let verdict = |signature: &[u8]| {
        let mut check = SignatureCheck::new(signature)?;
        check.feed(&content)?;
        check.finish()
    };
    assert!(verdict(&whole).expect("valid"));
    assert!(!verdict(&whole[..whole.len() - 12]).expect("a block less"));
    assert!(!verdict(&[&whole[..], b"x"].concat()).expect("more"));
    for cut in [whole.len() - 1, 13, 12 + 4, 12 + 12 + 1] {
        assert!(matches!(verdict(&whole[..cut]), Err(SignatureError::Truncated)), "{cut}");
    }
}

fn formats() -> impl Strategy<Value = SignatureFormat> {
    let weak = prop::sample::select(vec![WeakSum::Rollsum, WeakSum::RabinKarp]);
    let strong = prop::sample::select(vec![StrongSum::Md4, StrongSum::Blake2]);
    (weak, strong, 1u32..600, 1u32..=16).prop_map(|(w, s, block, n)| SignatureFormat::new(w, s, block, n).expect("valid"))
}

/// What a delta is made of, and the content it makes, applied the plain way.
fn commands() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, Vec<u8>)> {
    let basis = prop::collection::vec(any::<u8>(), 1..2000);
    let command = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400).prop_map(Err),
        (any::<prop::sample::Index>(), 0usize..2000, any::<bool>()).prop_map(Ok)
    ];
    (basis, prop::collection::vec(command, 0..30)).prop_map(|(basis, commands)| {
        let (mut writer, mut content, mut last) = (DeltaWriter::new(Vec::new()).expect("memory"), Vec::new(), 0);
        for command in commands {
            match command {
                Err(literal) => {
                    writer.literal(&literal).expect("memory");
                    content.extend(literal);
                }
                Ok((at, length, is_seamless)) => {
                    let from = if is_seamless { last } else { at.index(basis.len()) };
                    last = (from + length).min(basis.len());
                    writer.copy(from as u64, (last - from) as u64).expect("memory");
                    content.extend_from_slice(&basis[from..last]);
                }
            }
        }
        (basis, writer.finish().expect("memory"), content)
    })
}

proptest! {
    #[test]
    fn deltas_make_what_they_were_made_of((basis, delta, content) in commands(), size in 1usize..300) {
        let slow = Counting { data: basis, calls: 0, is_slow: true };
        let mut reader = DeltaReader::new(&delta[..], slow, content.len() as u64);
        let (mut got, mut buffer) = (Vec::new(), vec![0; size]);
        loop {
            let n = reader.read(&mut buffer).expect("valid");
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buffer[..n]);
        }
        prop_assert_eq!(got, content);
    }

    #[test]
    fn a_signature_is_the_same_however_its_content_comes(
        format in formats(), length in 0usize..20_000, seed in any::<u64>(), piece in 1usize..20_000,
    ) {
        let content = noise(length, seed);
        prop_assert_eq!(signature(format, &content, piece), signature(format, &content, 1));
    }

    #[test]
    fn any_delta_ends(commands in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = apply(&[9; 300], &with_magic(&commands));
    }

    #[test]
    fn checks_know_the_content(
        content in prop::collection::vec(any::<u8>(), 0..5000),
        format in formats(),
        piece in 1usize..700,
        change in any::<prop::sample::Index>(),
    ) {
        let made = signature(format, &content, piece);
        prop_assert_eq!(&made, &signature(format, &content, usize::MAX));
        let verdict = |content: &[u8]| {
            let mut check = SignatureCheck::new(&made[..]).expect("valid");
            for part in content.chunks(piece) {
                check.feed(part).expect("valid");
            }
            check.finish().expect("valid")
        };
        prop_assert!(verdict(&content));
        if !content.is_empty() {
            let mut other = content.clone();
            other[change.index(content.len())] ^= 0x10;
            prop_assert!(!verdict(&other));
            prop_assert!(!verdict(&content[..content.len() - 1]));
        }
        prop_assert!(!verdict(&[&content[..], b"x"].concat()));
    }
}

fn rdiff(dir: &Path, arguments: &[&str]) -> bool {
    Command::new("rdiff").current_dir(dir).args(arguments).status().expect("rdiff runs").success()
}

fn has_rdiff() -> bool {
    let is_there = Command::new("rdiff").arg("--version").output().is_ok();
    if !is_there {
        println!("skipped: rdiff is not installed");
    }
    is_there
}

/// Bytes that do not repeat.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let step = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}

#[test]
fn signatures_are_byte_equal_to_librsyncs() {
    if !has_rdiff() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    for length in [0, 1, 511, 512, 513, 100_000] {
        let content = noise(length, 1);
        std::fs::write(dir.path().join("content"), &content).expect("written");
        for (weak, weak_name) in [(WeakSum::Rollsum, "rollsum"), (WeakSum::RabinKarp, "rabinkarp")] {
            for (strong, strong_name) in [(StrongSum::Md4, "md4"), (StrongSum::Blake2, "blake2")] {
                for strong_length in [8, strong.length()] {
                    let bytes = strong_length.to_string();
                    let options = ["-f", "-b", "512", "-S", &bytes, "-R", weak_name, "-H", strong_name];
                    assert!(rdiff(dir.path(), &[&options[..], &["signature", "content", "sig"]].concat()));
                    let theirs = std::fs::read(dir.path().join("sig")).expect("there");
                    let format = SignatureFormat::new(weak, strong, 512, strong_length).expect("valid");
                    assert_eq!(signature(format, &content, 777), theirs, "{length} {weak_name} {strong_name}");
                }
            }
        }
    }
}

#[test]
fn deltas_go_both_ways_with_librsync() {
    if !has_rdiff() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let basis = noise(300_000, 2);
    let new = [&basis[200_000..], b"between", &basis[10_000..150_000], &noise(70_000, 3), &basis[..5]].concat();
    for (name, content) in [("basis", &basis), ("new", &new)] {
        std::fs::write(dir.path().join(name), content).expect("written");
    }
    assert!(rdiff(dir.path(), &["-f", "signature", "basis", "sig"]));
    assert!(rdiff(dir.path(), &["-f", "delta", "sig", "new", "delta"]));
    let theirs = std::fs::read(dir.path().join("delta")).expect("there");
    assert!(apply(&basis, &theirs).expect("valid") == new);

    let mut writer = DeltaWriter::new(Vec::new()).expect("memory");
    writer.copy(200_000, 100_000).expect("memory");
    writer.literal(b"between").expect("memory");
    writer.copy(10_000, 140_000).expect("memory");
    writer.literal(&new[240_007..310_007]).expect("memory");
    writer.copy(0, 5).expect("memory");
    std::fs::write(dir.path().join("ours"), writer.finish().expect("memory")).expect("written");
    assert!(rdiff(dir.path(), &["-f", "patch", "basis", "ours", "patched"]));
    assert!(std::fs::read(dir.path().join("patched")).expect("there") == new);
}
