//! Messages for programs. `docs/json.md` describes every one of them; what stands there is only ever added to.

use engine::entry::{Entry, Kind, Timestamp};
use engine::format::snapshot::SnapshotKind;
use engine::id::to_hex;
use engine::monitor::{Counter, Problem};
use engine::snapshot::SnapshotRecord;
use serde_json::{Value, json};

use super::human;
use super::progress::Numbers;

/// RFC 3339 in UTC, with as many digits of the second as it has; `@SECONDS.NANOS` beyond the years -9999 to 9999.
pub fn time(time: Timestamp) -> Value {
    let nanos = i64::from(time.nanos);
    match jiff::Timestamp::from_second(time.seconds).and_then(|t| t.checked_add(jiff::SignedDuration::from_nanos(nanos))) {
        Ok(at) => at.to_string().into(),
        Err(_) => format!("@{}.{:09}", time.seconds, time.nanos).into(),
    }
}

/// Raw bytes as text, with what is not UTF-8 replaced.
fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// An absolute path in a snapshot.
pub fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

pub fn problem(problem: &Problem) -> Value {
    json!({ "message_type": "problem", "item": problem.subject, "message": problem.message })
}

pub fn note(text: &str) -> Value {
    json!({ "message_type": "note", "message": text })
}

pub fn status(numbers: &Numbers) -> Value {
    let mut value = json!({
        "message_type": "status", "stage": numbers.stage, "seconds_elapsed": numbers.elapsed.as_secs(),
    });
    if let Some(fraction) = numbers.fraction() {
        value["percent_done"] = fraction.into();
    }
    if let Some(left) = numbers.remaining() {
        value["seconds_remaining"] = left.as_secs().into();
    }
    for (counter, done, total) in [
        (Counter::Entries, "entries_done", "total_entries"),
        (Counter::Bytes, "bytes_done", "total_bytes"),
        (Counter::StoredBytes, "bytes_stored", "total_bytes_stored"),
        (Counter::Packs, "packs_done", "total_packs"),
    ] {
        value[done] = numbers.done[counter as usize].into();
        if numbers.total[counter as usize] > 0 {
            value[total] = numbers.total[counter as usize].into();
        }
    }
    value
}

pub fn snapshot(record: &SnapshotRecord) -> Value {
    let snapshot = &record.snapshot;
    let totals = &snapshot.totals;
    let mut value = json!({
        "message_type": "snapshot",
        "id": record.name.id.to_string(),
        "short_id": record.name.id.short(),
        "time": time(snapshot.time),
        "started": time(snapshot.started),
        "hostname": snapshot.host,
        "username": snapshot.user,
        "paths": snapshot.paths.iter().map(|p| text(p)).collect::<Vec<_>>(),
        "tags": snapshot.tags,
        "program_version": snapshot.program,
        "tree": snapshot.root.map(|root| root.to_string()),
        "parent": snapshot.parent.map(|parent| parent.to_string()),
        "partial": snapshot.kind == SnapshotKind::Partial,
        "problems": snapshot.problems,
        "entries": totals.entries,
        "files": totals.files,
        "dirs": totals.directories,
        "size": totals.bytes,
    });
    if snapshot.paths.iter().any(|path| std::str::from_utf8(path).is_err()) {
        value["paths_hex"] = snapshot.paths.iter().map(|p| to_hex(p)).collect::<Vec<_>>().into();
    }
    value
}

pub fn entry(entry: &Entry) -> Value {
    let meta = &entry.meta;
    let path = absolute(entry.path.as_bytes());
    let kind = match &entry.kind {
        Kind::File => "file",
        Kind::Directory => "dir",
        Kind::Symlink(_) => "symlink",
        Kind::Fifo => "fifo",
        Kind::CharDevice(..) => "chardev",
        Kind::BlockDevice(..) => "dev",
    };
    let mut value = json!({
        "message_type": "node",
        "path": text(&path),
        "name": text(entry.path.name()),
        "type": kind,
        "mode": meta.mode,
        "permissions": human::mode(&entry.kind, meta.mode),
        "uid": meta.owner.uid,
        "gid": meta.owner.gid,
        "mtime": time(meta.mtime),
        "ctime": time(meta.ctime),
        "inode": meta.inode,
        "device_id": meta.device,
        "links": meta.links,
    });
    if std::str::from_utf8(&path).is_err() {
        value["path_hex"] = to_hex(&path).into();
    }
    for (name, owner) in [("user", &meta.owner.user), ("group", &meta.owner.group)] {
        if let Some(owner) = owner {
            value[name] = owner.as_str().into();
        }
    }
    match &entry.kind {
        Kind::File => {
            value["size"] = entry.size.into();
            value["data_size"] = entry.data_size().into();
        }
        Kind::Symlink(target) => {
            value["linktarget"] = text(target);
            if std::str::from_utf8(target).is_err() {
                value["linktarget_hex"] = to_hex(target).into();
            }
        }
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => value["device"] = json!([major, minor]),
        Kind::Directory | Kind::Fifo => {}
    }
    if !entry.xattrs.is_empty() {
        value["xattrs"] = entry.xattrs.iter().map(|(name, _)| text(name)).collect::<Vec<_>>().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        assert_eq!(time(Timestamp { seconds: 0, nanos: 1 }), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(time(Timestamp { seconds: -1, nanos: 750_000_000 }), "1969-12-31T23:59:59.75Z");
        assert_eq!(time(Timestamp { seconds: i64::MAX, nanos: 0 }), "@9223372036854775807.000000000");
    }
}
