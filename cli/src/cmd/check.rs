//! `check`

use std::time::Instant;

use anyhow::{Result, bail};
use engine::check;
use engine::monitor::Monitor;
use serde_json::json;

use crate::args::CheckArgs;
use crate::context::Context;
use crate::exit::Status;
use crate::ui::human;

pub fn run(context: &Context, args: &CheckArgs) -> Result<Status> {
    let started = Instant::now();
    let repo = context.open()?;
    let cache = context.cache_dir(repo.id());
    context.ui.stage("checking");
    let report = check::run(&repo, cache.as_deref(), &args.level(), &context.monitor())?;
    let errors = report.errors.max(context.ui.problem_count());
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json!({
            "message_type": "summary", "command": "check", "errors": errors,
            "segments": report.segments, "packs": report.packs, "blobs": report.blobs,
            "snapshots": report.snapshots, "nodes": report.nodes,
            "packs_read": report.packs_read, "bytes_read": report.bytes_read,
            "total_duration": started.elapsed().as_secs_f64(),
        }))?;
    } else if !context.ui.quiet() {
        out.line(format_args!(
            "checked {} snapshots, {} catalog nodes, {} index segments, {} packs, {} blobs in {}",
            report.snapshots,
            report.nodes,
            report.segments,
            report.packs,
            report.blobs,
            human::duration(started.elapsed())
        ))?;
        if report.packs_read > 0 {
            out.line(format_args!("read {} packs, {}", report.packs_read, human::bytes(report.bytes_read)))?;
        }
        if errors == 0 {
            out.line(format_args!("no errors were found"))?;
        }
    }
    out.flush()?;
    match errors {
        0 => Ok(Status::Complete),
        1 => bail!("the repository is damaged: 1 error was found"),
        n => bail!("the repository is damaged: {n} errors were found"),
    }
}
