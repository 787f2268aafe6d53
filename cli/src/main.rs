//! The command line of deduplicity: arguments, opening a repository, output, exit codes. What backups are made of is the
//! engine's business.

mod announce;
mod archive;
mod args;
mod calendar;
mod cmd;
mod context;
mod duplicity;
mod exit;
mod parse;
mod password;
mod select;
mod stdin;
mod ui;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use args::{Cli, Command, DoctorArgs, ExportTo, ImportFrom};
use context::Context;
use exit::Status;
use ui::Ui;

/// Blocks from this size on go back to the system as soon as they are freed. Left alone, glibc raises the limit to the largest
/// block freed so far, and the buffers of threads that are gone stay: 60 MiB after an import of many sets.
#[cfg(target_env = "gnu")]
const GIVE_BACK: i32 = 1 << 20;

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "a setting of the C library")]
fn keep_memory_small() {
    // SAFETY: mallopt takes two numbers, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, GIVE_BACK) };
}

#[cfg(not(target_env = "gnu"))]
fn keep_memory_small() {}

fn main() -> ExitCode {
    keep_memory_small();
    if let Some(args) = duplicity::called(std::env::args_os()) {
        return duplicity::run(args, &Arc::new(AtomicBool::new(false)));
    }
    let cli = match Cli::command().try_get_matches().and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let ui = Ui::start(&cli.global, Arc::clone(&cancelled));
    let result = watch_signals(&cancelled).and_then(|()| run(cli, &ui));
    ui.finish();
    exit::conclude(&ui, result)
}

/// The first signal asks the operation to stop; the second one ends the process at once.
fn watch_signals(cancelled: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, exit::INTERRUPTED.into(), Arc::clone(cancelled))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(cancelled)))
            .context("cannot watch for signals")?;
    }
    Ok(())
}

fn run(cli: Cli, ui: &Arc<Ui>) -> anyhow::Result<Status> {
    let context = Context::new(cli.global, Arc::clone(ui));
    match cli.command {
        Command::Init(args) => cmd::init::run(&context, &args),
        Command::Backup(args) => cmd::backup::run(&context, &args),
        Command::Snapshots(args) => cmd::list::snapshots(&context, &args),
        Command::Ls(args) => cmd::list::ls(&context, &args),
        Command::Cat(args) => cmd::list::cat(&context, &args),
        Command::Dump(args) => cmd::dump::run(&context, &args),
        Command::Restore(args) => cmd::restore::run(&context, &args),
        Command::Forget(args) => cmd::forget::run(&context, &args),
        Command::Undelete(args) => cmd::undelete::run(&context, &args),
        Command::Prune(args) => cmd::prune::run(&context, &args),
        Command::Check(args) => cmd::check::run(&context, &args),
        Command::Repair(args) => cmd::repair::run(&context, &args),
        Command::Copy(args) => cmd::copy::run(&context, &args),
        Command::Doctor(DoctorArgs {}) => cmd::doctor::run(&context),
        Command::Import(args) => match &args.from {
            ImportFrom::Duplicity(args) => cmd::import::run(&context, args),
        },
        Command::Export(args) => match &args.to {
            ExportTo::Duplicity(args) => cmd::export::run(&context, args),
        },
        Command::Duplicity(_) => {
            Err(exit::advise("'duplicity' has to be the first argument", "give duplicity's own options behind it"))
        }
        Command::Stats => cmd::stats::run(&context),
        Command::Key(args) => cmd::key::run(&context, &args.command),
        Command::Version => version(ui),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "deduplicity", &mut script);
            ui.out().bytes(&script)?;
            Ok(Status::Complete)
        }
    }
}

fn version(ui: &Ui) -> anyhow::Result<Status> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = ui.out();
    if ui.json() {
        out.json(&serde_json::json!({
            "message_type": "version", "version": version, "format_version": engine::format::VERSION,
            "os": std::env::consts::OS, "arch": std::env::consts::ARCH,
        }))?;
    } else {
        out.line(format_args!("deduplicity {version} (repository format {})", engine::format::VERSION))?;
    }
    out.flush()?;
    Ok(Status::Complete)
}
