//! `stats`

use std::collections::BTreeMap;

use anyhow::Result;
use engine::error::Error;
use engine::format::pack::BlobKind;
use engine::repo::{HeadName, Reader};
use engine::snapshot;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Status;
use crate::ui::{Out, human};

/// Objects of one kind in the store.
#[derive(Clone, Copy, Default)]
struct Objects {
    count: u64,
    bytes: u64,
}

/// What the packs hold.
#[derive(Default)]
struct Packs {
    count: u64,
    data_blobs: u64,
    node_blobs: u64,
    /// Bytes of all frames before compression.
    raw: u64,
    /// Of those, file content.
    raw_data: u64,
    /// Bytes of all frames as they are stored.
    stored: u64,
}

/// What the snapshots would take if each were stored by itself.
#[derive(Default)]
struct Logical {
    snapshots: u64,
    files: u64,
    bytes: u64,
}

pub fn run(context: &Context) -> Result<Status> {
    let reader = context.reader()?;
    let mut objects: BTreeMap<String, Objects> = BTreeMap::new();
    reader
        .repo()
        .backend()
        .list("", &mut |meta| {
            let name = meta.key.as_str();
            let kind = objects.entry(name.split('/').next().unwrap_or(name).to_owned()).or_default();
            kind.count += 1;
            kind.bytes += meta.size;
        })
        .map_err(Error::from)?;
    let packs = count_packs(&reader)?;
    let mut logical = Logical::default();
    for record in snapshot::list(reader.repo(), reader.view(), &*context.ui)? {
        logical.snapshots += 1;
        logical.files += record.snapshot.totals.files;
        logical.bytes = logical.bytes.saturating_add(record.snapshot.totals.bytes);
    }
    let head = reader.view().head;
    let mut out = context.ui.out();
    if context.ui.json() {
        let mut value = to_json(&objects, &packs, &logical);
        value["head"] = head.map(|head| HeadName::new(head).to_string()).into();
        out.json(&value)?;
    } else {
        print(&mut out, &objects, &packs, &logical)?;
        if let Some(head) = head {
            out.line(format_args!("{:<15}{}", "head", HeadName::short(head)))?;
        }
    }
    out.flush()?;
    Ok(context.status())
}

fn count_packs(reader: &Reader) -> Result<Packs> {
    let mut ordinals = Vec::new();
    reader.index().packs(|ordinal, _, _, _| ordinals.push(ordinal))?;
    let mut packs = Packs::default();
    for ordinal in ordinals {
        let summary = reader.index().pack(ordinal)?;
        packs.count += 1;
        for frame in &summary.frames {
            packs.raw += u64::from(frame.raw);
            packs.stored += u64::from(frame.sealed);
            match frame.kind {
                BlobKind::Data => {
                    packs.data_blobs += u64::from(frame.blobs);
                    packs.raw_data += u64::from(frame.raw);
                }
                BlobKind::Node => packs.node_blobs += u64::from(frame.blobs),
            }
        }
    }
    Ok(packs)
}

fn total(objects: &BTreeMap<String, Objects>) -> Objects {
    objects.values().fold(Objects::default(), |a, b| Objects { count: a.count + b.count, bytes: a.bytes + b.bytes })
}

fn to_json(objects: &BTreeMap<String, Objects>, packs: &Packs, logical: &Logical) -> Value {
    let of = |o: &Objects| json!({ "count": o.count, "bytes": o.bytes });
    let kinds: serde_json::Map<String, Value> = objects.iter().map(|(kind, o)| (kind.clone(), of(o))).collect();
    json!({
        "message_type": "stats", "objects": kinds, "total": of(&total(objects)),
        "packs": packs.count, "data_blobs": packs.data_blobs, "node_blobs": packs.node_blobs,
        "raw_bytes": packs.raw, "raw_data_bytes": packs.raw_data, "stored_bytes": packs.stored,
        "snapshots": logical.snapshots, "logical_files": logical.files, "logical_bytes": logical.bytes,
    })
}

fn print(out: &mut Out, objects: &BTreeMap<String, Objects>, packs: &Packs, logical: &Logical) -> Result<()> {
    let row = |kind: &str, o: &Objects| vec![kind.to_owned(), o.count.to_string(), human::bytes(o.bytes)];
    let mut rows: Vec<Vec<String>> = objects.iter().map(|(kind, o)| row(kind, o)).collect();
    rows.push(row("total", &total(objects)));
    out.bytes(human::table(&["Objects", " Count", " Size"], &rows).as_bytes())?;
    out.line(format_args!(""))?;
    for (name, value) in [
        ("snapshots", format!("{}, {} in {} files", logical.snapshots, human::bytes(logical.bytes), logical.files)),
        ("blobs", format!("{} of content, {} of catalogs, {}", packs.data_blobs, packs.node_blobs, human::bytes(packs.raw))),
        ("stored", human::bytes(packs.stored)),
        ("deduplication", format!("{} : 1", human::ratio(logical.bytes, packs.raw_data))),
        ("compression", format!("{} : 1", human::ratio(packs.raw, packs.stored))),
    ] {
        out.line(format_args!("{name:<15}{value}"))?;
    }
    Ok(())
}
