//! `repair parity`, `repair index`, `repair packs`, `repair snapshots`

use anyhow::Result;
use engine::codec::DEFAULT_LEVEL;
use engine::monitor::Monitor;
use engine::repair::{self, IndexRepair, PacksRepair, ParityRepair, RepairOptions, SnapshotsRepair, Which};
use serde_json::{Value, json};

use crate::args::{RepairArgs, RepairCommand};
use crate::context::Context;
use crate::exit::Status;
use crate::ui::human;

pub fn run(context: &Context, args: &RepairArgs) -> Result<Status> {
    if let RepairCommand::Parity { stored_objects: true } = args.command {
        let backend = context.backend()?;
        context.ui.stage("repairing");
        let repaired = repair::stored_parity(&*backend, args.dry_run, &*context.ui)?;
        return print(context, parity(&repaired, args.dry_run), args.dry_run);
    }
    let repo = context.open()?;
    let options = RepairOptions {
        program: concat!("deduplicity ", env!("CARGO_PKG_VERSION")).to_owned(),
        level: DEFAULT_LEVEL,
        dry_run: args.dry_run,
        cache_dir: context.cache_dir(repo.id()),
    };
    let monitor = context.monitor();
    context.ui.stage("repairing");
    let result = match &args.command {
        RepairCommand::Parity { .. } => parity(&repair::parity(&repo, args.dry_run, &*monitor)?, args.dry_run),
        RepairCommand::Index => index(&repair::index(&repo, &options, &monitor)?, args.dry_run),
        RepairCommand::Packs { packs } => {
            let which = if packs.is_empty() { Which::All } else { Which::Named(packs.clone()) };
            packs_found(&repair::packs(&repo, &which, &options, &monitor)?, args.dry_run)
        }
        RepairCommand::Snapshots => snapshots(&repair::snapshots(&repo, &options, &monitor)?, args.dry_run),
    };
    print(context, result, args.dry_run)
}

fn print(context: &Context, (mut value, lines): (Value, Vec<String>), dry_run: bool) -> Result<Status> {
    let mut out = context.ui.out();
    if context.ui.json() {
        value["dry_run"] = dry_run.into();
        value["problems"] = context.ui.problem_count().into();
        out.json(&value)?;
    } else if !context.ui.quiet() {
        for line in lines {
            out.line(format_args!("{line}"))?;
        }
    }
    out.flush()?;
    Ok(context.status())
}

fn parity(r: &ParityRepair, dry_run: bool) -> (Value, Vec<String>) {
    let value = json!({
        "message_type": "summary", "command": "repair parity", "objects": r.objects, "bytes_read": r.bytes,
        "damaged": r.damaged, "missing": r.missing, "repaired": r.mended, "lost": r.lost(),
        "damaged_parity": r.damaged_parity, "remade_parity": r.remade_parity, "without_parity": r.unprotected,
    });
    let (objects, bytes) = (human::plural(r.objects, "object"), human::bytes(r.bytes));
    let mut lines = vec![format!("read {objects}, {bytes}: {} damaged, {} missing", r.damaged, r.missing)];
    let done = if dry_run { ["can be repaired", "can be made anew"] } else { ["repaired", "made anew"] };
    if r.mended > 0 {
        lines.push(format!("{}: {}", done[0], human::plural(r.mended, "object")));
    }
    if r.damaged_parity > 0 {
        lines.push(format!("damaged parity: {}; {}: {}", r.damaged_parity, done[1], r.remade_parity));
    }
    if r.lost() > 0 {
        lines.push(format!("parity cannot bring back {}: go on with 'repair index' and 'repair packs'", r.lost()));
    }
    if r.unprotected > 0 {
        lines.push(format!("without parity: {}; 'prune' makes it", human::plural(r.unprotected, "object")));
    }
    (value, lines)
}

fn index(r: &IndexRepair, dry_run: bool) -> (Value, Vec<String>) {
    let value = json!({
        "message_type": "summary", "command": "repair index", "unreadable_segments": r.unreadable_segments,
        "packs_added": r.packs_added, "blobs_added": r.blobs_added, "unreadable_packs": r.unreadable_packs,
        "segments_written": r.segments_written,
    });
    let word = if dry_run { "would be added" } else { "added" };
    let mut lines = vec![match r.packs_added {
        0 => "every pack that can be read is in the index".to_owned(),
        n => format!("{word} to the index: {} with {}", human::plural(n, "pack"), human::plural(r.blobs_added, "blob")),
    }];
    if r.unreadable_segments > 0 {
        lines.push(format!("index segments that cannot be read: {}", r.unreadable_segments));
    }
    (value, lines)
}

fn packs_found(r: &PacksRepair, dry_run: bool) -> (Value, Vec<String>) {
    let value = json!({
        "message_type": "summary", "command": "repair packs", "packs_read": r.packs_read,
        "damaged_packs": r.damaged_packs, "missing_packs": r.missing_packs, "blobs_saved": r.blobs_saved,
        "blobs_lost": r.blobs_lost, "packs_written": r.packs_written,
    });
    let mut lines =
        vec![format!("read {}: {} damaged, {} missing", human::plural(r.packs_read, "pack"), r.damaged_packs, r.missing_packs)];
    if r.blobs_saved > 0 {
        let word = if dry_run { "could be stored again" } else { "stored again" };
        lines.push(format!("{word}: {}", human::plural(r.blobs_saved, "blob")));
    }
    if r.blobs_lost > 0 {
        lines.push(format!("lost: {}", human::plural(r.blobs_lost, "blob")));
        lines.push("Back up now: what was lost is stored again wherever the files are still the same.".to_owned());
        lines.push("After that, 'deduplicity repair snapshots' deals with what is lost for good.".to_owned());
    }
    (value, lines)
}

fn snapshots(r: &SnapshotsRepair, dry_run: bool) -> (Value, Vec<String>) {
    let repairs: Vec<Value> = r
        .repairs
        .iter()
        .map(|one| {
            json!({
                "damaged_id": one.damaged.id.to_string(), "repaired_id": one.repaired.map(|name| name.id.to_string()),
                "entries_lost": one.lost,
            })
        })
        .collect();
    let value = json!({
        "message_type": "summary", "command": "repair snapshots", "snapshots": r.snapshots,
        "repaired_before": r.repaired_before, "repairs": repairs,
    });
    let mut lines = Vec::new();
    for one in &r.repairs {
        let lost = human::plural(one.lost, "problem");
        lines.push(match one.repaired {
            Some(new) => format!("snapshot {}: what is left is snapshot {} ({lost})", one.damaged.id.short(), new.id.short()),
            None if dry_run => format!("snapshot {}: would be repaired ({lost})", one.damaged.id.short()),
            None => format!("snapshot {}: not repaired ({lost})", one.damaged.id.short()),
        });
    }
    if r.repaired_before > 0 {
        lines.push(format!("repaired before: {}", human::plural(r.repaired_before, "snapshot")));
    }
    if r.repairs.is_empty() {
        lines.push(format!("looked at {}: nothing to repair", human::plural(r.snapshots, "snapshot")));
    }
    (value, lines)
}
