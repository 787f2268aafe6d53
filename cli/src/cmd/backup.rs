//! `backup`

use std::cell::Cell;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use engine::backup::{self, BackupOptions, BackupOutcome};
use engine::entry::EntrySource;
use engine::error::Error;
use engine::fs::{WalkOptions, WalkSource};
use engine::monitor::Monitor;
use engine::repo::{self, HeadName, Repository};
use engine::snapshot::{self, SnapshotRecord};
use serde_json::json;

use crate::args::BackupArgs;
use crate::context::{self, Context};
use crate::exit::Status;
use crate::parse::{self, Place};
use crate::select::{self, Excludes, Patterns};
use crate::stdin::StreamOnce;
use crate::ui::{Ui, human, json};

/// What is backed up.
enum Input {
    Files {
        options: WalkOptions,
        /// A walk that has been begun already.
        begun: Cell<Option<Result<Box<WalkSource>, Error>>>,
    },
    Stream(StreamOnce),
}

impl Input {
    /// Lets the walk read ahead before anybody asks for an entry.
    fn begin(&self, monitor: &Arc<dyn Monitor>) {
        if let Self::Files { options, begun } = self {
            begun.set(Some(walk(options, monitor)));
        }
    }

    fn source(&self, monitor: &Arc<dyn Monitor>) -> Result<Box<dyn EntrySource>, Error> {
        match self {
            Self::Files { options, begun } => {
                let source = begun.take().unwrap_or_else(|| walk(options, monitor))?;
                Ok(source)
            }
            Self::Stream(stream) => stream.source(),
        }
    }
}

fn walk(options: &WalkOptions, monitor: &Arc<dyn Monitor>) -> Result<Box<WalkSource>, Error> {
    WalkSource::new(options.clone(), Arc::clone(monitor)).map(Box::new)
}

pub fn run(context: &Context, args: &BackupArgs) -> Result<Status> {
    let started = Instant::now();
    // Arguments first: a mistake in them should not cost a password.
    let (input, paths) = input(context, args)?;
    let monitor = context.monitor();
    let repo = open(context, args, || input.begin(&monitor))?;
    let mut options = BackupOptions {
        time: args.time.unwrap_or_else(repo::now),
        host: args.host.clone().unwrap_or_else(context::host_name),
        user: context::user_name(),
        paths,
        tags: args.tags.clone(),
        incomplete_tag: None,
        origin: None,
        program: concat!("deduplicity ", env!("CARGO_PKG_VERSION")).to_owned(),
        level: args.compression,
        parent: None,
        dry_run: args.dry_run,
        cache_dir: context.cache_dir(repo.id()),
    };
    if !args.force && matches!(input, Input::Files { .. }) {
        options.parent = parent(&repo, &options, &*monitor)?;
    }
    if context.ui.verbose() {
        let parent = options.parent.as_ref().map(|p| p.name.id.short());
        monitor.note(format!("comparing with {}", parent.as_deref().unwrap_or("no earlier snapshot")));
    }
    monitor.stage("backing up");
    let outcome = backup::run(&repo, &mut |_| input.source(&monitor), &options, &monitor)?;
    report(&context.ui, &options, &outcome, started.elapsed())?;
    match context.ui.problem_count().max(outcome.problems) {
        0 => Ok(Status::Complete),
        n => {
            context
                .ui
                .warning(&format!("not everything could be backed up as it is: see above ({})", human::plural(n, "problem")));
            Ok(Status::Incomplete)
        }
    }
}

fn open(context: &Context, args: &BackupArgs, meanwhile: impl FnOnce()) -> Result<Arc<Repository>> {
    if !args.init || args.dry_run {
        return context.open_after(meanwhile);
    }
    let (repo, new) = context.open_or_create()?;
    if new {
        context.ui.note(super::init::created(&repo));
    }
    Ok(repo)
}

/// What to back up, and the paths that stand in the snapshot.
fn input(context: &Context, args: &BackupArgs) -> Result<(Input, Vec<Vec<u8>>)> {
    if let Some(name) = args.stdin_filename.as_ref().filter(|_| args.stdin) {
        let path = parse::entry_path(name.as_bytes()).map_err(|why| anyhow!("--stdin-filename: {why}"))?;
        if path.is_root() {
            bail!("--stdin-filename: a name is needed");
        }
        let paths = vec![json::absolute(path.as_bytes())];
        return Ok((Input::Stream(StreamOnce::new(path, repo::now(), std::io::stdin())), paths));
    }
    let mut paths = args.paths.clone();
    for file in &args.files_from {
        paths.extend(read_list(file)?);
    }
    if paths.is_empty() {
        bail!("nothing to back up: the list of paths is empty");
    }
    let roots = select::roots(&paths)?;
    let patterns = Patterns::new(&args.exclude, &args.exclude_file)?;
    let own = own_directories(context, &roots)?;
    let paths = roots.iter().map(|root| root.clone().into_os_string().into_vec()).collect();
    let options = WalkOptions {
        roots,
        one_file_system: args.one_file_system,
        exclude_if_present: args.exclude_if_present.clone(),
        filter: Some(Arc::new(Excludes::new(patterns, own))),
    };
    Ok((Input::Files { options, begun: Cell::new(None) }, paths))
}

fn read_list(file: &Path) -> Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|content| bytes = content)
    };
    read.with_context(|| format!("cannot read the list of paths in {}", file.display()))?;
    Ok(select::path_list(&bytes))
}

/// The repository and the cache, where the walk would meet them: a backup of either would never come to rest.
fn own_directories(context: &Context, roots: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut own = Vec::new();
    if let Place::Local(repository) = context.place()? {
        if let Some(root) = select::within(roots, &repository) {
            bail!("{}: lies in the repository, which cannot hold itself", root.display());
        }
        own = select::spelled_by_walk(roots, &repository);
        if !own.is_empty() {
            context.ui.note(format!("{}: left out, for it is the repository", repository.display()));
        }
    }
    if let Some(cache) = context.cache_base().filter(|cache| select::within(roots, cache).is_none()) {
        own.extend(select::spelled_by_walk(roots, &cache));
    }
    Ok(own)
}

/// The latest snapshot of the same machine and the same paths.
fn parent(repo: &Repository, options: &BackupOptions, monitor: &dyn Monitor) -> Result<Option<SnapshotRecord>> {
    let all = snapshot::list(repo, &repo.load_view(monitor)?, monitor)?;
    let same = |record: &SnapshotRecord| record.snapshot.host == options.host && record.snapshot.paths == options.paths;
    Ok(all.into_iter().filter(same).max_by_key(|record| record.snapshot.started))
}

fn report(ui: &Ui, options: &BackupOptions, outcome: &BackupOutcome, took: Duration) -> Result<()> {
    let mut out = ui.out();
    let id = outcome.snapshot.map(|name| name.id);
    let (o, totals) = (outcome, &outcome.totals);
    if ui.json() {
        out.json(&json!({
            "message_type": "summary", "command": "backup", "dry_run": options.dry_run,
            "snapshot_id": id.map(|id| id.to_string()),
            "files_new": o.files_new, "files_changed": o.files_changed, "files_unmodified": o.files_unmodified,
            "dirs_new": o.dirs_new, "dirs_changed": o.dirs_changed, "dirs_unmodified": o.dirs_unmodified,
            "data_blobs": o.data_blobs, "data_added": o.added_bytes, "data_added_packed": o.stored_bytes,
            "total_files_processed": totals.files, "total_bytes_processed": totals.bytes,
            "total_entries_processed": totals.entries, "total_duration": took.as_secs_f64(),
            "problems": ui.problem_count().max(o.problems), "backup_time": json::time(options.time),
            "head": o.head.map(|head| HeadName::new(head).to_string()),
        }))?;
    } else if !ui.quiet() {
        let added = if options.dry_run { "Would add to the repository" } else { "Added to the repository" };
        out.line(format_args!(""))?;
        for (name, new, changed, unmodified) in [
            ("Files:", o.files_new, o.files_changed, o.files_unmodified),
            ("Dirs: ", o.dirs_new, o.dirs_changed, o.dirs_unmodified),
        ] {
            out.line(format_args!("{name}       {new:5} new, {changed:5} changed, {unmodified:5} unmodified"))?;
        }
        out.line(format_args!("{added}: {} ({} stored)", human::bytes(o.added_bytes), human::bytes(o.stored_bytes)))?;
        out.line(format_args!(""))?;
        let (files, bytes) = (totals.files, human::bytes(totals.bytes));
        out.line(format_args!("processed {files} files, {bytes} in {}", human::duration(took)))?;
        if let Some(id) = id {
            out.line(format_args!("snapshot {} saved", id.short()))?;
            if let Some(head) = o.head {
                out.line(format_args!("head {}", HeadName::short(head)))?;
            }
        }
    }
    out.flush()
}
