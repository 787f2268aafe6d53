//! `restore`

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use engine::monitor::Monitor;
use engine::path::EntryPath;
use engine::restore::{self, Overwrite, RestoreOptions, RestoreOutcome};
use serde_json::json;

use crate::args::{OverwriteArg, RestoreArgs};
use crate::context::Context;
use crate::exit::Status;
use crate::select::{self, Patterns};
use crate::ui::human;

pub fn run(context: &Context, args: &RestoreArgs) -> Result<Status> {
    let started = Instant::now();
    let include = Patterns::new(&args.include, &[])?;
    let exclude = Patterns::new(&args.exclude, &[])?;
    let target = std::path::absolute(&args.target).context("--target")?;
    let reader = context.reader()?;
    let record = context.find(&reader, &args.snapshot.reference, &args.filter)?;
    let chosen = !include.is_empty() || !exclude.is_empty();
    let filter = move |path: &EntryPath, is_dir: bool| select::restored(&include, &exclude, path, is_dir);
    let options = RestoreOptions {
        base: args.snapshot.path.clone().unwrap_or_default(),
        own_root: record.snapshot.paths == [b"."],
        filter: chosen.then(|| Arc::new(filter) as Arc<dyn Fn(&EntryPath, bool) -> bool + Send + Sync>),
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::Never => Overwrite::Never,
        },
        verify: args.verify,
        dry_run: args.dry_run,
    };
    context.ui.stage("restoring");
    let outcome = restore::run(&reader, record.snapshot.root, &target, &options, &context.monitor())?;
    report(context, args, &record.name.id.to_string(), &outcome, started.elapsed())?;
    match context.ui.problem_count().max(outcome.problems) {
        0 => Ok(Status::Complete),
        n => {
            context
                .ui
                .warning(&format!("not everything could be restored as it was: see above ({})", human::plural(n, "problem")));
            Ok(Status::Incomplete)
        }
    }
}

fn report(context: &Context, args: &RestoreArgs, id: &str, o: &RestoreOutcome, took: Duration) -> Result<()> {
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json!({
            "message_type": "summary", "command": "restore", "dry_run": args.dry_run, "snapshot_id": id,
            "entries_restored": o.entries, "files_restored": o.files, "bytes_restored": o.bytes,
            "entries_skipped": o.skipped, "files_verified": o.verified,
            "problems": context.ui.problem_count().max(o.problems), "total_duration": took.as_secs_f64(),
        }))?;
    } else if !context.ui.quiet() {
        let did = if args.dry_run { "would restore" } else { "restored" };
        let (entries, files, bytes) = (o.entries, o.files, human::bytes(o.bytes));
        let took = human::duration(took);
        out.line(format_args!("{did} {entries} entries ({files} files, {bytes}) of snapshot {} in {took}", &id[..8]))?;
        if o.skipped > 0 {
            out.line(format_args!("left alone: {} entries that are there already", o.skipped))?;
        }
        if args.verify && !args.dry_run {
            out.line(format_args!("verified: {} files", o.verified))?;
        }
    }
    out.flush()
}
