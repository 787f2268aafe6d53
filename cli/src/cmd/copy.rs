//! `copy`

use std::time::Instant;

use anyhow::Result;
use engine::copy::{self, Copied, CopyOptions};
use engine::error::Error;
use engine::monitor::Monitor;
use engine::snapshot::{self, SnapshotRecord};
use serde_json::json;

use crate::args::CopyArgs;
use crate::context::Context;
use crate::exit::Status;
use crate::select::Filter;
use crate::ui::{Ui, human, json};

pub fn run(context: &Context, args: &CopyArgs) -> Result<Status> {
    let started = Instant::now();
    let from = context.other_reader(&args.from)?;
    let repo = context.open()?;
    let mut all = snapshot::list(from.repo(), from.view(), &*context.ui)?;
    let filter = Filter::new(&args.filter)?;
    all.retain(|record| filter.accepts(record));
    let wanted = match &args.snapshots[..] {
        [] => all,
        some => {
            let mut found: Vec<SnapshotRecord> = Vec::new();
            for reference in some {
                let record = snapshot::resolve(&all, reference)?;
                if found.iter().all(|known| known.name != record.name) {
                    found.push(record.clone());
                }
            }
            found
        }
    };
    let options = CopyOptions {
        program: concat!("deduplicity ", env!("CARGO_PKG_VERSION")).to_owned(),
        level: args.compression,
        dry_run: args.dry_run,
        cache_dir: context.cache_dir(repo.id()),
    };
    let mut tally = Tally::default();
    let mut done = |record: &SnapshotRecord, copied: &Copied| {
        tally.add(copied);
        print(&context.ui, record, copied).map_err(|error| Error::Invalid(format!("{error:#}")))
    };
    context.ui.stage("copying");
    copy::run(&repo, &from, &wanted, &options, &context.monitor(), &mut done)?;
    tally.print(&context.ui, &options, started)?;
    Ok(context.status())
}

/// How many snapshots ended how.
#[derive(Default)]
struct Tally {
    copied: u64,
    present: u64,
    planned: u64,
    added: u64,
    stored: u64,
}

impl Tally {
    fn add(&mut self, copied: &Copied) {
        match copied {
            Copied::New(outcome) => {
                self.copied += 1;
                self.added += outcome.added_bytes;
                self.stored += outcome.stored_bytes;
            }
            Copied::Present(_) => self.present += 1,
            Copied::Planned => self.planned += 1,
        }
    }

    fn print(&self, ui: &Ui, options: &CopyOptions, started: Instant) -> Result<()> {
        let mut out = ui.out();
        if ui.json() {
            out.json(&json!({
                "message_type": "summary", "command": "copy", "dry_run": options.dry_run, "snapshots_copied": self.copied,
                "snapshots_present": self.present, "snapshots_planned": self.planned, "data_added": self.added,
                "data_added_packed": self.stored, "total_duration": started.elapsed().as_secs_f64(),
                "problems": ui.problem_count(),
            }))?;
        } else if !ui.quiet() {
            let snapshots = |n| human::plural(n, "snapshot");
            if options.dry_run {
                out.line(format_args!("would copy {}", snapshots(self.planned)))?;
            } else {
                out.line(format_args!("copied {} in {}", snapshots(self.copied), human::duration(started.elapsed())))?;
                let (added, stored) = (human::bytes(self.added), human::bytes(self.stored));
                out.line(format_args!("Added to the repository: {added} ({stored} stored)"))?;
            }
            if self.present > 0 {
                out.line(format_args!("copied before: {}", snapshots(self.present)))?;
            }
        }
        out.flush()
    }
}

fn print(ui: &Ui, record: &SnapshotRecord, copied: &Copied) -> Result<()> {
    let (word, id) = match copied {
        Copied::New(outcome) => ("copied", outcome.snapshot.map(|name| name.id)),
        Copied::Present(name) => ("present", Some(name.id)),
        Copied::Planned => ("planned", None),
    };
    let mut out = ui.out();
    if ui.json() {
        let mut value = json!({
            "message_type": "copy", "source_id": record.name.id.to_string(), "time": json::time(record.snapshot.time),
            "result": word, "snapshot_id": id.map(|id| id.to_string()),
        });
        if let Copied::New(outcome) = copied {
            value["total_files"] = outcome.totals.files.into();
            value["total_bytes"] = outcome.totals.bytes.into();
            value["data_added"] = outcome.added_bytes.into();
            value["problems"] = outcome.problems.into();
        }
        out.json(&value)?;
    } else if !ui.quiet() {
        let what = match (copied, id) {
            (Copied::New(outcome), Some(id)) => {
                let files = human::plural(outcome.totals.files, "file");
                let lost = match outcome.problems {
                    0 => String::new(),
                    n => format!(", PARTIAL: {}", human::plural(n, "problem")),
                };
                format!("copied to snapshot {}: {files}, {}{lost}", id.short(), human::bytes(outcome.totals.bytes))
            }
            (Copied::Present(_), Some(id)) => format!("is snapshot {} already", id.short()),
            _ => "would be copied".to_owned(),
        };
        out.line(format_args!("{} {}  {what}", record.name.id.short(), human::time(record.snapshot.time)))?;
    }
    out.flush()
}
