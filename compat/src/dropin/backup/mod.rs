//! Backups: a full set, or an increment on what the archive has.
//!
//! FORMAT §12 and §13. What is at the target after a run that was broken off has no manifest, and the next run removes it.

mod keep;
mod plan;
mod stats;
mod write;

use std::path::Path;
use std::sync::Arc;

use super::context::Context;
use super::failure::{Failure, Result, code};
use super::log::quoted;
use super::options::BackupKind;
use super::source::{Tally, Walk};
use crate::export::ExportOptions;
use crate::export::set::SetWriter;
use crate::manifest::{FileList, Manifest};
use crate::name::SetTimes;
use crate::store::Target;

use self::plan::{Base, Plan};
use self::stats::Statistics;
use self::write::Writer;

/// Makes a backup.
///
/// # Errors
///
/// If there is nothing to back up or to build on, or the archive cannot be written.
pub fn run(context: &Context, kind: BackupKind, source: &Path) -> Result<u8> {
    run_with(context, kind, source, &Tally::new(context))
}

/// The same, with what is known of trouble with the source.
pub(super) fn run_with(context: &Context, kind: BackupKind, source: &Path, tally: &Arc<Tally>) -> Result<u8> {
    if source.symlink_metadata().is_err() {
        let text = format!("Backup source directory {} does not exist.", source.display());
        return Err(Failure::new(code::USER, text));
    }
    // Before anything is looked at: rules that make no sense end the run here.
    let files = Walk::new(context, source)?;
    let target = Arc::clone(context.target()?);
    let collection = context.collection()?;
    context.say_last_full(&collection);
    let plan = Plan::new(context, &collection, kind)?;
    if let Some(base) = &plan.base {
        check_base(context, base, source)?;
    }
    if !context.options.dry_run {
        plan.remove_leftovers(context)?;
    }
    let files = files.start(tally)?;
    let options = export_options(context, source);
    let discard = keep::Discard;
    let target: &dyn Target = if context.options.dry_run { &discard } else { &*target };
    let mut statistics = Statistics::begin();
    let mut writer = SetWriter::new(target, &options, plan.times)?;
    if !context.options.dry_run {
        writer = writer.with_witness(Box::new(keep::Keeper::new(context, plan.times)?));
    }
    if !context.options.list_changed_files {
        writer = writer.without_list();
    }
    let writer = Writer::new(context, writer, &mut statistics, tally, source);
    let totals = match writer.all(files, plan.base.as_ref())? {
        Some(totals) => totals,
        None => {
            context.log.notice("Skipping backup: nothing has changed.");
            return finish(context, &statistics, tally, &plan, source);
        }
    };
    statistics.take(&totals);
    finish(context, &statistics, tally, &plan, source)
}

fn finish(context: &Context, statistics: &Statistics, tally: &Tally, plan: &Plan, source: &Path) -> Result<u8> {
    let report = statistics.end(tally.errors());
    if context.options.jsonstat {
        let text = report.json(context, plan, source);
        context.log.statistics(&text);
        if !context.options.dry_run && statistics.is_stored() {
            keep::store_statistics(context, plan.times, text.as_bytes())?;
        }
    }
    if context.options.print_statistics {
        context.log.statistics(&report.text());
    }
    Ok(0)
}

fn export_options(context: &Context, source: &Path) -> ExportOptions {
    ExportOptions {
        mode: crate::export::Mode::Auto,
        sealing: context.sealing.clone(),
        volume_size: context.options.volume_size,
        prefixes: context.options.prefixes.clone(),
        host: host_name(),
        source: Some(super::verify::source_text(source)),
        dry_run: false,
    }
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// The last set has to be of this host and this source, and the same here and there.
fn check_base(context: &Context, base: &Base, source: &Path) -> Result<()> {
    let Some(last) = base.sets.last() else { return Ok(()) };
    let (manifest, _) = context.manifest(last, FileList::Skip)?;
    if let Some(remote) = context.remote_manifest(last)? {
        let essence = |m: &Manifest| (m.volumes().into_keys().collect::<Vec<_>>(), m.host.clone(), m.source.clone());
        if essence(&remote) != essence(&manifest) {
            let text = "Fatal Error: Remote manifest does not match local one. Either the remote backup set or the local archive directory has been corrupted.";
            return Err(Failure::new(code::MANIFESTS_DIFFER, text));
        }
    }
    if context.options.allow_source_mismatch {
        return Ok(());
    }
    let show = |bytes: &[u8]| engine::path::display_bytes(bytes);
    let both = |own: &[u8], before: &[u8]| format!("{} {}", quoted(own), quoted(before));
    let own = host_name().unwrap_or_default();
    if let Some(host) = manifest.host.as_ref().filter(|host| host.as_slice() != own.as_bytes()) {
        let text = format!(
            "Fatal Error: Backup source host has changed.\nCurrent hostname: {own}\nPrevious hostname: {}\n\n{MISMATCH}",
            show(host)
        );
        return Err(Failure::new(code::HOST, text).with_args(both(own.as_bytes(), host)));
    }
    let own = super::verify::source_text(source);
    if let Some(before) = manifest.source.as_ref().filter(|before| **before != own) {
        let text = format!(
            "Fatal Error: Backup source directory has changed.\nCurrent directory: {}\nPrevious directory: {}\n\n{MISMATCH}",
            show(&own),
            show(before)
        );
        return Err(Failure::new(code::SOURCE_MISMATCH, text).with_args(both(&own, before)));
    }
    Ok(())
}

const MISMATCH: &str =
    "This looks like two different sources with one target; give each its own URL, or --allow-source-mismatch if it is meant so.";

/// When the set begins: now, but never in the same second as another one.
fn distinct_time(
    context: &Context,
    taken: impl Fn(crate::time::Time) -> bool,
    after: Option<crate::time::Time>,
) -> Result<crate::time::Time> {
    let mut time = context.now;
    for _ in 0..3 {
        if !taken(time) && after.is_none_or(|after| after < time) {
            return Ok(time);
        }
        let is_near = after.is_none_or(|after| after.epoch() - time.epoch() < 3);
        if context.options.current_time.is_some() || !is_near {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
        time = crate::time::Time::new(time.epoch() + 1).unwrap_or(time);
    }
    let text = format!("the archive has a backup of {time} or later already; the clock may have been set back");
    Err(Failure::new(code::USER, text))
}

/// The kind of a set for statistics.
fn action_word(times: SetTimes) -> &'static str {
    if times.is_full() { "full" } else { "inc" }
}
