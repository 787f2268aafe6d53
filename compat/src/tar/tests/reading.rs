use proptest::prelude::*;

use super::*;

#[test]
fn all_flavours_of_long_names() {
    let name = [b"snapshot/".as_slice(), &[b'n'; 200], b"\xff/x"].concat();
    let pax = extension(b'x', &[format!("{} path=", name.len() + 10).as_bytes(), &name, b"\n"].concat());
    let gnu = extension(b'L', &[&name[..], b"\0"].concat());
    for long in [pax, gnu] {
        let (members, _) = read_all(&[long, file(b"short", b"data"), file(b"next", b"")].concat()).expect("valid");
        assert_eq!(members[0].0.name, name);
        assert_eq!(members[0].1, b"data");
        assert_eq!(members[1].0.name, b"next", "an extension header holds for one member");
    }
    let prefixed = block(|b| put(b, 345, b"dir/sub"));
    assert_eq!(read_all(&prefixed).expect("valid").0[0].0.name, b"dir/sub/a");
}

#[test]
fn gnu_and_v7_headers_have_no_prefix() {
    let gnu = block(|b| {
        put(b, 257, b"ustar  \0");
        put(b, 345, b"01234567");
    });
    let v7 = block(|b| b[257..].fill(b'7'));
    for tar in [gnu, v7] {
        let header = read_all(&tar).expect("valid").0.remove(0).0;
        assert_eq!((header.name.as_slice(), header.uname.as_slice()), (&b"a"[..], &b""[..]));
    }
}

#[test]
fn gnu_long_link_and_base256() {
    let link = vec![b'l'; 300];
    let member = block(|b| {
        put(b, 257, b"ustar  \0");
        b[156] = b'2';
        put(b, 108, b"\x80\0\0\0\0\x2d\xc6\xc0");
        put(b, 136, b"\x80\0\0\0\0\0\0\x02\x6c\xb5\xdb\0");
    });
    let header = read_all(&[extension(b'K', &link), member].concat()).expect("valid").0.remove(0).0;
    assert_eq!((header.link, header.uid, header.mtime), (link, 3_000_000, 0x2_6cb5_db00));
}

#[test]
fn a_trailing_slash_makes_no_directory_of_type_0() {
    let file = read_all(&file(b"snapshot/", b"x")).expect("valid").0.remove(0);
    assert_eq!((file.0.kind, file.1.as_slice()), (TarKind::Regular, &b"x"[..]));
    let v7 = block(|b| {
        put(b, 0, b"dir/");
        b[156] = 0;
    });
    assert_eq!(read_all(&v7).expect("valid").0[0].0.kind, TarKind::Directory);
}

#[test]
fn the_first_zero_block_ends_it() {
    let garbage = [file(b"a", b"1"), vec![0; BLOCK], vec![0x8c; 700]].concat();
    let (members, is_marked) = read_all(&garbage).expect("valid");
    assert!(is_marked && members.len() == 1);
    let (members, is_marked) = read_all(&file(b"a", b"1")).expect("valid");
    assert!(!is_marked && members.len() == 1);
    assert!(read_all(b"").expect("valid").0.is_empty());
}

#[test]
fn global_headers_hold_for_owners_and_times() {
    let global = extension(b'g', b"13 uid=54321\n15 comment=git\n14 mtime=5.75\n");
    let own = extension(b'x', b"8 uid=7\n");
    let members = read_all(&[global, file(b"a", b""), own, file(b"b", b"")].concat()).expect("valid").0;
    let of = |at: usize| (members[at].0.uid, members[at].0.mtime);
    assert_eq!((of(0), of(1)), ((54321, 5), (7, 5)));
}

#[test]
fn unread_data_is_skipped() {
    let tar = [file(b"a", &[1; 1000]), file(b"b", b"xyz")].concat();
    let mut reader = TarReader::new(&tar[..]);
    assert_eq!(reader.next().expect("valid").expect("a").name, b"a");
    reader.read_exact(&mut [0; 10]).expect("data");
    assert_eq!(reader.remaining(), 990);
    assert_eq!(reader.next().expect("valid").expect("b").name, b"b");
    assert_eq!(reader.next().expect("valid"), None);
    assert_eq!(reader.position(), tar.len() as u64);
}

/// Hands out single bytes, and an interruption before each.
struct Dribble<'a>(&'a [u8], bool);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let n = buffer.len().min(1);
        self.0.read(&mut buffer[..n])
    }
}

#[test]
fn short_reads_and_interruptions() {
    let tar = [file(b"a", &[1; 700]), file(b"b", b"xyz")].concat();
    let mut reader = TarReader::new(Dribble(&tar, false));
    let mut names = Vec::new();
    while let Some(header) = reader.next().expect("valid") {
        names.push(header.name);
    }
    assert_eq!(names, [b"a", b"b"]);
}

fn header() -> impl Strategy<Value = Header> {
    let text = |most: usize| prop_oneof![prop::collection::vec(1u8.., 0..most), "[a-z/é]{0,120}".prop_map(String::into_bytes)];
    let kind = prop::sample::select(vec![
        TarKind::Regular,
        TarKind::Directory,
        TarKind::Symlink,
        TarKind::Fifo,
        TarKind::CharDevice,
        TarKind::BlockDevice,
        TarKind::HardLink,
        TarKind::Other(b'7'),
    ]);
    let numbers = (0u32..0o10000, any::<u32>(), 0u32..3_000_000, any::<i64>(), 0u64..1 << 40, 0u32..1 << 21, 0u32..1 << 21);
    let texts = (text(300), text(300), text(40), text(40));
    (kind, numbers, texts).prop_map(|(kind, (mode, uid, gid, mtime, size, major, minor), (name, link, uname, gname))| {
        let is_device = matches!(kind, TarKind::CharDevice | TarKind::BlockDevice);
        let (major, minor) = if is_device { (major, minor) } else { (0, 0) };
        let size = if matches!(kind, TarKind::Regular | TarKind::Other(_)) { size } else { 0 };
        Header { name, kind, mode, uid, gid, uname, gname, mtime, size, link, major, minor }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in header()) {
        let mut tar = Vec::new();
        write_header(&mut tar, &header).expect("valid");
        prop_assert_eq!(tar.len() % BLOCK, 0);
        let got = TarReader::new(&tar[..]).next().expect("valid").expect("a member");
        prop_assert_eq!(got, header);
    }

    #[test]
    fn any_bytes_end_without_panic(tar in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&tar);
    }

    #[test]
    fn changed_bytes_end_without_panic(at in 0usize..2560, byte in any::<u8>(), cut in 0usize..2560) {
        let long = extension(b'x', b"21 hdrcharset=BINARY\n12 path=\xff\xfe\xfd\n9 size=3\n");
        let mut tar = [long, file(b"a", b"abc"), file(b"b", b"")].concat();
        tar[at] = byte;
        let block = at / BLOCK * BLOCK;
        if tar[block + 148..block + 156].starts_with(b"0") && let Some(Ok(b)) = tar.get_mut(block..block + BLOCK).map(TryInto::try_into) {
            seal(b);
        }
        let _ = read_all(&tar);
        let _ = read_all(&tar[..cut]);
    }
}
