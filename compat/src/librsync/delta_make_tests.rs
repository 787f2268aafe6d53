use proptest::prelude::*;

use super::*;
use crate::librsync::{DeltaReader, SignatureMaker};

fn signature(content: &[u8], block: u32) -> Vec<u8> {
    let format = SignatureFormat::new(WeakSum::Rollsum, StrongSum::Md4, block, 8).expect("valid");
    let (mut maker, mut out) = (SignatureMaker::new(format), Vec::new());
    maker.push(content, &mut out);
    maker.finish(&mut out);
    out
}

fn delta(old: &[u8], new: &[u8], block: u32) -> Vec<u8> {
    let known = KnownBlocks::read(&signature(old, block)[..]).expect("valid").expect("searched");
    let mut delta = Vec::new();
    make_delta(&known, &mut &*new, &mut delta).expect("makes");
    let mut made = Vec::new();
    DeltaReader::new(&delta[..], old, u64::MAX).read_to_end(&mut made).expect("applies");
    assert!(made == new, "{} bytes for {}", made.len(), new.len());
    delta
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_is_the_same_is_copied() {
    let old = noise(300_000);
    assert_eq!(delta(&old, &old, 512).len(), 4 + 1 + 1 + 4 + 1);
    assert_eq!(delta(&old, &[], 512).len(), 5);
    assert_eq!(delta(&[], b"abc", 512).len(), 4 + 1 + 3 + 1);
    let mut changed = old.clone();
    changed[150_000] ^= 1;
    assert!(delta(&old, &changed, 512).len() < 512 + 40);
    let moved = [&noise(1000)[..100], &old[..]].concat();
    assert!(delta(&old, &moved, 2048).len() < 100 + 40);
    let cut = [&old[..100_000], &old[200_001..]].concat();
    assert!(delta(&old, &cut, 512).len() < 1024 + 60);
    let grown = [&old[..], b"more"].concat();
    assert!(delta(&old, &grown, 512).len() < 512 + 40);
    assert!(delta(&vec![0; 1 << 20], &vec![0; 3 << 20], 512).len() < 90_000);
}

#[test]
fn signatures_of_a_kind_that_is_not_searched() {
    let mut rabin = signature(b"abc", 512);
    rabin[3] = 0x46;
    assert!(KnownBlocks::read(&rabin[..]).expect("valid").is_none());
    assert!(KnownBlocks::read(&rabin[..20]).is_ok());
    assert!(KnownBlocks::read(&signature(b"abc", 512)[..20]).is_err());
}

proptest! {
    #[test]
    fn any_delta_applies(old in prop::collection::vec(0u8..3, 0..3000), edits in prop::collection::vec((0usize..3000, 0usize..200, prop::collection::vec(any::<u8>(), 0..100)), 0..4), block in 1u32..300) {
        let mut new = old.clone();
        for (at, removed, added) in edits {
            let at = at.min(new.len());
            let end = (at + removed).min(new.len());
            new.splice(at..end, added);
        }
        delta(&old, &new, block);
    }
}
