//! `import`

use std::time::Instant;

use anyhow::Result;
use compat::import::{self, ImportOptions, Selection, SetOutcome, SetResult};
use engine::entry::Timestamp;
use engine::error::Error;
use serde_json::json;

use crate::args::ImportDuplicityArgs;
use crate::context::{self, Context};
use crate::exit::Status;
use crate::ui::{Ui, human, json};
use crate::{archive, parse};

pub fn run(context: &Context, args: &ImportDuplicityArgs) -> Result<Status> {
    let started = Instant::now();
    let selection = match (&args.time, args.chain) {
        (Some(time), _) => Selection::Time(parse::duplicity_time(time)?),
        (None, Some(chain)) => Selection::Chain(chain),
        (None, None) => Selection::All,
    };
    let archive = archive::open(context, &args.archive, args.require_signature.clone())?;
    let repo = context.open()?;
    let options = ImportOptions {
        selection,
        host: args.host.clone(),
        user: context::user_name(),
        tags: args.tags.clone(),
        program: concat!("deduplicity ", env!("CARGO_PKG_VERSION")).to_owned(),
        level: args.compression,
        verify: args.verify,
        dry_run: args.dry_run,
        cache_dir: context.cache_dir(repo.id()),
    };
    let mut tally = Tally::default();
    let mut done = |outcome: &SetOutcome| {
        tally.add(outcome);
        print(&context.ui, outcome).map_err(|error| Error::Invalid(format!("{error:#}")))
    };
    import::run(&repo, &archive, &options, &context.monitor(), &mut done)?;
    tally.print(&context.ui, &options, started)?;
    Ok(context.status())
}

/// How many sets ended how.
#[derive(Default)]
struct Tally {
    imported: u64,
    present: u64,
    planned: u64,
    refused: u64,
    added: u64,
    stored: u64,
}

impl Tally {
    fn add(&mut self, outcome: &SetOutcome) {
        match &outcome.result {
            SetResult::Imported(backup) => {
                self.imported += 1;
                self.added += backup.added_bytes;
                self.stored += backup.stored_bytes;
            }
            SetResult::Present(_) => self.present += 1,
            SetResult::Planned => self.planned += 1,
            SetResult::Refused(_) => self.refused += 1,
        }
    }

    fn print(&self, ui: &Ui, options: &ImportOptions, started: Instant) -> Result<()> {
        let mut out = ui.out();
        if ui.json() {
            out.json(&json!({
                "message_type": "summary", "command": "import", "dry_run": options.dry_run,
                "sets_imported": self.imported, "sets_present": self.present, "sets_planned": self.planned,
                "sets_refused": self.refused, "data_added": self.added, "data_added_packed": self.stored,
                "total_duration": started.elapsed().as_secs_f64(), "problems": ui.problem_count(),
            }))?;
        } else if !ui.quiet() {
            let sets = |n| human::plural(n, "backup");
            out.line(format_args!(""))?;
            if options.dry_run {
                out.line(format_args!("would import {}", sets(self.planned)))?;
            } else {
                out.line(format_args!("imported {} in {}", sets(self.imported), human::duration(started.elapsed())))?;
                let (added, stored) = (human::bytes(self.added), human::bytes(self.stored));
                out.line(format_args!("Added to the repository: {added} ({stored} stored)"))?;
            }
            if self.present > 0 {
                out.line(format_args!("imported before: {}", sets(self.present)))?;
            }
            if self.refused > 0 {
                out.line(format_args!("not imported: {}", sets(self.refused)))?;
            }
        }
        out.flush()
    }
}

fn print(ui: &Ui, outcome: &SetOutcome) -> Result<()> {
    let time = Timestamp { seconds: outcome.time, nanos: 0 };
    let kind = if outcome.full { "full" } else { "incremental" };
    let (word, id) = match &outcome.result {
        SetResult::Imported(backup) => ("imported", backup.snapshot.map(|name| name.id)),
        SetResult::Present(record) => ("present", Some(record.name.id)),
        SetResult::Planned => ("planned", None),
        SetResult::Refused(_) => ("refused", None),
    };
    let mut out = ui.out();
    if ui.json() {
        let mut value = json!({
            "message_type": "set", "time": json::time(time), "type": kind, "result": word,
            "snapshot_id": id.map(|id| id.to_string()), "paths_verified": outcome.verified,
        });
        match &outcome.result {
            SetResult::Imported(backup) => {
                value["total_files"] = backup.totals.files.into();
                value["total_bytes"] = backup.totals.bytes.into();
                value["data_added"] = backup.added_bytes.into();
                value["problems"] = backup.problems.into();
            }
            SetResult::Refused(why) => value["reason"] = why.as_str().into(),
            _ => {}
        }
        out.json(&value)?;
    } else if !ui.quiet() {
        let what = match (&outcome.result, id) {
            (SetResult::Imported(backup), Some(id)) => {
                let lost = if backup.problems > 0 {
                    format!(", PARTIAL: {}", human::plural(backup.problems, "problem"))
                } else {
                    String::new()
                };
                let files = human::plural(backup.totals.files, "file");
                let verified = outcome.verified.map(|n| format!(", {} verified", human::plural(n, "path"))).unwrap_or_default();
                format!("snapshot {}: {files}, {}{verified}{lost}", id.short(), human::bytes(backup.totals.bytes))
            }
            (SetResult::Present(_), Some(id)) => format!("snapshot {} since an earlier import", id.short()),
            (SetResult::Refused(why), _) => format!("not imported: {why}"),
            _ => "would be imported".to_owned(),
        };
        out.line(format_args!("{} {kind:<11}  {what}", human::time(time)))?;
    }
    out.flush()
}
