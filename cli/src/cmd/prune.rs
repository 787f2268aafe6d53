//! `prune`

use std::time::{Duration, Instant};

use anyhow::Result;
use engine::maintain::{self, PlanReport, PruneOptions, PruneOutcome};
use engine::monitor::Monitor;
use engine::repo::Repository;
use serde_json::json;
use std::sync::Arc;

use crate::args::PruneArgs;
use crate::context::Context;
use crate::exit::Status;
use crate::ui::human;

pub fn run(context: &Context, args: &PruneArgs) -> Result<Status> {
    let repo = context.open()?;
    let options = PruneOptions { extend_locks: args.extend_locks, ..args.pruning.options(args.dry_run) };
    prune(context, &repo, options)?;
    Ok(context.status())
}

/// Prunes, and prints the plan before and what came of it after.
pub fn prune(context: &Context, repo: &Arc<Repository>, mut options: PruneOptions) -> Result<()> {
    let started = Instant::now();
    options.cache_dir = context.cache_dir(repo.id());
    context.ui.stage("planning");
    let mut printed = Ok(());
    let outcome = maintain::prune(repo, &options, &*context.ui, &mut |plan| {
        printed = print_plan(context, plan);
    })?;
    printed?;
    print(context, &outcome, &options, started.elapsed())
}

fn print_plan(context: &Context, plan: &PlanReport) -> Result<()> {
    if context.ui.json() || context.ui.quiet() {
        return Ok(());
    }
    let mut out = context.ui.out();
    let size = human::bytes;
    out.line(format_args!("{}, {} to be forgotten", human::plural(plan.snapshots, "snapshot"), plan.forgotten))?;
    out.line(format_args!(
        "{} ({}): about {} used, {} unused",
        human::plural(plan.all.packs, "pack"),
        size(plan.all.bytes),
        size(plan.used),
        size(plan.unused)
    ))?;
    out.line(format_args!("to delete:  {} ({})", human::plural(plan.delete.packs, "pack"), size(plan.delete.bytes)))?;
    if plan.orphans.packs > 0 {
        let packs = human::plural(plan.orphans.packs, "pack");
        out.line(format_args!("            {packs} in no index ({})", size(plan.orphans.bytes)))?;
    }
    out.line(format_args!(
        "to repack:  {} ({}), of which about {} stay",
        human::plural(plan.repack.packs, "pack"),
        size(plan.repack.bytes),
        size(plan.copied)
    ))?;
    if plan.spared.packs > 0 {
        let packs = human::plural(plan.spared.packs, "pack");
        out.line(format_args!("left alone: {packs} ({}) that a running backup may want", size(plan.spared.bytes)))?;
    }
    out.line(format_args!("unused afterwards: about {}", size(plan.unused_after)))?;
    out.flush()
}

fn print(context: &Context, outcome: &PruneOutcome, options: &PruneOptions, took: Duration) -> Result<()> {
    let (mut out, plan) = (context.ui.out(), &outcome.plan);
    if context.ui.json() {
        let tally = |t: &maintain::Tally| json!({ "packs": t.packs, "bytes": t.bytes });
        out.json(&json!({
            "message_type": "summary", "command": "prune", "dry_run": options.dry_run, "sealed_epoch": outcome.sealed,
            "resumed_epochs": outcome.resumed, "snapshots": plan.snapshots, "snapshots_forgotten": plan.forgotten,
            "total": tally(&plan.all), "bytes_used": plan.used, "bytes_unused": plan.unused,
            "to_delete": tally(&plan.delete), "to_delete_unindexed": tally(&plan.orphans), "to_repack": tally(&plan.repack),
            "left_for_running": tally(&plan.spared), "packs_missing": plan.missing, "bytes_unused_after": plan.unused_after,
            "written": tally(&outcome.written), "deleted": tally(&outcome.deleted),
            "parity": {
                "objects": outcome.parity.made, "groups": outcome.parity.groups, "bytes": outcome.parity.bytes,
                "deleted": outcome.parity.deleted,
            },
            "total_duration": took.as_secs_f64(),
        }))?;
    } else if !context.ui.quiet() {
        if options.dry_run {
            out.line(format_args!("nothing was changed (dry run)"))?;
        } else if outcome.sealed.is_none() {
            out.line(format_args!("nothing to do"))?;
        } else {
            let (deleted, written) = (&outcome.deleted, &outcome.written);
            out.line(format_args!(
                "deleted {} ({}), wrote {} ({}) in {}",
                human::plural(deleted.packs, "pack"),
                human::bytes(deleted.bytes),
                human::plural(written.packs, "pack"),
                human::bytes(written.bytes),
                human::duration(took)
            ))?;
        }
        let parity = &outcome.parity;
        if parity.made + parity.groups > 0 {
            let (made, groups) = (human::plural(parity.made, "object"), human::plural(parity.groups, "group"));
            out.line(format_args!("made parity for {made} and {groups} ({})", human::bytes(parity.bytes)))?;
        }
        if parity.deleted > 0 {
            out.line(format_args!("deleted {} of no more use", human::plural(parity.deleted, "parity object")))?;
        }
    }
    out.flush()
}
