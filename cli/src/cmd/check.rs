//! `check`

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use engine::check::{self, CheckReport};
use engine::monitor::Monitor;
use serde_json::json;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::exit::{Status, advise};
use crate::ui::human;

pub fn run(context: &Context, args: &CheckArgs) -> Result<Status> {
    let started = Instant::now();
    if args.stored_objects {
        return stored(context, started);
    }
    let repo = context.open()?;
    let cache = context.cache_dir(repo.id());
    context.ui.stage("checking");
    let report = check::run(&repo, cache.as_deref(), &args.level(), &context.monitor())?;
    let errors = report.errors.max(context.ui.problem_count());
    print(context, &report, errors, started.elapsed())?;
    match errors {
        0 => Ok(Status::Complete),
        n => {
            let hint = match report.mendable {
                0 => "'deduplicity repair --help' tells what can be brought back; for 'history' see --accept-rollback".to_owned(),
                m => format!("'deduplicity repair parity' brings back {}", human::plural(m, "object")),
            };
            Err(advise(format!("the repository is damaged: see above ({})", human::plural(n, "error")), hint))
        }
    }
}

/// What somebody can check who has no password.
fn stored(context: &Context, started: Instant) -> Result<Status> {
    let backend = context.backend()?;
    context.ui.stage("checking");
    let r = check::stored_objects(&*backend, &*context.ui)?;
    let took = started.elapsed();
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json!({
            "message_type": "summary", "command": "check --stored-objects", "errors": r.damaged,
            "errors_parity_can_mend": r.mendable, "objects": r.objects,
            "bytes_read": r.bytes, "other_objects": r.others, "total_duration": took.as_secs_f64(),
        }))?;
    } else if !context.ui.quiet() {
        let (objects, bytes) = (human::plural(r.objects, "object"), human::bytes(r.bytes));
        out.line(format_args!("read {objects}, {bytes}, in {}", human::duration(took)))?;
        if r.others > 0 {
            out.line(format_args!("{} belong to no repository", human::plural(r.others, "object")))?;
        }
        if r.damaged == 0 {
            out.line(format_args!("all bytes are those that were stored"))?;
        }
    }
    out.flush()?;
    match r.damaged {
        0 => Ok(Status::Complete),
        n => bail!("the repository is damaged: see above ({})", human::plural(n, "error")),
    }
}

fn print(context: &Context, report: &CheckReport, errors: u64, took: Duration) -> Result<()> {
    let mut out = context.ui.out();
    let r = report;
    if context.ui.json() {
        out.json(&json!({
            "message_type": "summary", "command": "check", "errors": errors, "errors_parity_can_mend": r.mendable, "keys": r.keys, "segments": r.segments,
            "packs": r.packs, "blobs": r.blobs, "snapshots": r.snapshots, "nodes": r.nodes, "entries": r.entries,
            "packs_read": r.packs_read, "bytes_read": r.bytes_read, "unreferenced_packs": r.unreferenced_packs,
            "part": r.part, "unreferenced_bytes": r.unreferenced_bytes, "total_duration": took.as_secs_f64(),
        }))?;
    } else if !context.ui.quiet() {
        let count = human::plural;
        let (snapshots, entries, nodes) = (count(r.snapshots, "snapshot"), r.entries, count(r.nodes, "node"));
        out.line(format_args!("checked {snapshots} with {entries} entries in {nodes} in {}", human::duration(took)))?;
        let (segments, packs) = (count(r.segments, "index segment"), count(r.packs, "pack"));
        out.line(format_args!("{segments}, {packs}, {}, {}", count(r.blobs, "blob"), count(r.keys, "key")))?;
        if r.packs_read > 0 {
            let part = r.part.map_or_else(String::new, |part| format!(", part {part} and some others"));
            out.line(format_args!("read {} packs, {}{part}", r.packs_read, human::bytes(r.bytes_read)))?;
        }
        if r.unreferenced_packs > 0 {
            let (packs, bytes) = (r.unreferenced_packs, human::bytes(r.unreferenced_bytes));
            out.line(format_args!("{packs} packs ({bytes}) are in no index: left by interrupted backups, or being written"))?;
        }
        if errors == 0 {
            out.line(format_args!("no errors were found"))?;
        }
    }
    out.flush()
}
