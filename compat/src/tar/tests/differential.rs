//! Against Python's `tarfile` and GNU tar, where installed.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else {
        println!("skipped: {program} is not installed");
        return None;
    };
    child.stdin.take().expect("piped").write_all(input).expect("written");
    let output = child.wait_with_output().expect("runs");
    assert!(output.status.success(), "{program} {arguments:?}");
    Some(output.stdout)
}

/// Members that need every kind of pax record.
fn odd_headers() -> Vec<Header> {
    let names: [&[u8]; 12] = [
        b"snapshot/plain",
        b"snapshot/./",
        b"snapshot/",
        &[b'n'; 100],
        &[b'n'; 101],
        &[b"d/", &[b'n'; 99][..]].concat(),
        "снимок/файл-日本語-😀".as_bytes(),
        b"bad-\xff\xfe-\xed\xa0\x80-\xe2\x82",
        b"new\nline=equals",
        &[b"x".as_slice(), &[0xc3, 0xa9].repeat(70)].concat(),
        &[b'q'; 990],
        b"ctl-\x01\x1b\x7f",
    ];
    let mut headers: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| Header { name: name.to_vec(), mode: 0o644, mtime: 1_600_000_000, size: i as u64, ..Header::default() })
        .collect();
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = Header { name: b"snapshot/a".to_vec(), mode: 0o7777, ..Header::default() };
        change(&mut header);
        header
    };
    headers.push(with(&|h| (h.uid, h.gid, h.mtime, h.size) = (2_097_152, u32::MAX, 8_589_934_592, 8_589_934_592)));
    headers.push(with(&|h| (h.uid, h.gid, h.mtime, h.size) = (2_097_151, 0, 8_589_934_591, 8_589_934_591)));
    headers.push(with(&|h| h.mtime = -1));
    headers.push(with(&|h| (h.uname, h.gname) = (vec![b'u'; 32], vec![b'g'; 33])));
    headers.push(with(&|h| (h.uname, h.gname) = ("jürgen".into(), b"\xfc".to_vec())));
    headers.push(with(&|h| (h.kind, h.link) = (TarKind::Symlink, vec![b'l'; 101])));
    headers.push(with(&|h| (h.kind, h.link) = (TarKind::Symlink, b"\xff target".to_vec())));
    headers.push(with(&|h| (h.kind, h.major, h.minor) = (TarKind::CharDevice, 1, 2_097_151)));
    headers.push(with(&|h| (h.kind, h.major, h.minor) = (TarKind::BlockDevice, 7, 200)));
    headers.push(with(&|h| h.kind = TarKind::Fifo));
    headers
}

/// Reads one header per line, fields in hexadecimal or decimal, and writes what tarfile makes of it.
const PYTHON: &str = r"
import os, sys, tarfile
for line in sys.stdin:
    f = line.rstrip('\n').split(' ')
    text = lambda s: os.fsencode(bytes.fromhex(s)).decode('utf-8', 'surrogateescape')
    t = tarfile.TarInfo(text(f[0]))
    t.type = bytes.fromhex(f[1])
    t.mode, t.uid, t.gid, t.mtime, t.size, t.devmajor, t.devminor = map(int, f[2:9])
    t.linkname, t.uname, t.gname = map(text, f[9:12])
    sys.stdout.buffer.write(t.tobuf(tarfile.PAX_FORMAT, 'utf-8', 'surrogateescape'))
";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn headers_are_byte_equal_to_pythons() {
    for header in odd_headers() {
        let line = format!(
            "{} {:02x} {} {} {} {} {} {} {} {} {} {}\n",
            hex(&header.name),
            header.kind.code(),
            header.mode,
            header.uid,
            header.gid,
            header.mtime,
            header.size,
            header.major,
            header.minor,
            hex(&header.link),
            hex(&header.uname),
            hex(&header.gname),
        );
        let Some(theirs) = run("python3", &["-c", PYTHON], line.as_bytes()) else { return };
        let mut ours = Vec::new();
        write_header(&mut ours, &header).expect("valid");
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{header:?}");
        assert_eq!(ours, theirs, "{header:?}");
        assert_eq!(TarReader::new(&theirs[..]).next().expect("valid").expect("one"), header);
    }
}

/// A tree with long and odd names, archived by GNU tar in each format it knows.
#[test]
fn gnu_tar_in_every_format() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let deep = dir.path().join("d".repeat(90)).join("e".repeat(50));
    std::fs::create_dir_all(&deep).expect("created");
    std::fs::write(dir.path().join("short"), [1; 513]).expect("written");
    std::fs::write(deep.join("f".repeat(60)), b"content").expect("written");
    std::os::unix::fs::symlink("target", dir.path().join("link")).expect("linked");
    let root = dir.path().to_str().expect("UTF-8");
    for format in ["v7", "ustar", "gnu", "posix"] {
        let tree = if format == "v7" { "./short" } else { "." };
        let arguments = ["-c", "--format", format, "--sort=name", "--mtime=@1600000000.75", "-C", root, tree];
        let Some(tar) = run("tar", &arguments, b"") else { return };
        let (members, is_marked) = read_all(&tar).expect("valid");
        assert!(is_marked);
        let short = members.iter().find(|m| m.0.name == b"./short").expect("there");
        assert_eq!((short.1.as_slice(), short.0.mtime), (&[1; 513][..], 1_600_000_000));
        if format != "v7" {
            let long = format!("./{}/{}/{}", "d".repeat(90), "e".repeat(50), "f".repeat(60));
            let long = members.iter().find(|m| m.0.name == long.as_bytes()).expect("there");
            assert_eq!(long.1, b"content", "{format}");
            let link = members.iter().find(|m| m.0.kind == TarKind::Symlink).expect("there");
            assert_eq!((link.0.name.as_slice(), link.0.link.as_slice()), (&b"./link"[..], &b"target"[..]));
            assert_eq!(members.iter().filter(|m| m.0.kind == TarKind::Directory).count(), 3);
        }
    }
}

/// 26: framing by pax size as GNU tar does it.
#[test]
fn pax_size_as_gnu_tar() {
    let mut tar = extension(b'x', b"12 size=512\n");
    tar.extend_from_slice(&block(|_| ()));
    tar.extend_from_slice(&file(b"hidden", b""));
    tar.extend_from_slice(&file(b"next", b""));
    tar.extend_from_slice(&[0; 1024]);
    let Some(theirs) = run("tar", &["-t"], &tar) else { return };
    let ours: Vec<u8> = read_all(&tar).expect("valid").0.iter().flat_map(|m| [&m.0.name[..], b"\n"].concat()).collect();
    assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
}
