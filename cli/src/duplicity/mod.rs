//! duplicity's own command line: as `deduplicity duplicity ...`, or through a link named `duplicity`.

mod open;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use compat::dropin::log::Log;
use compat::dropin::options::{self, CommandLine, Options};
use compat::dropin::{Failure, code};
use compat::time::Time;

/// The name that stands for duplicity.
const NAME: &str = "duplicity";
/// The release whose command line and texts these are.
const RELEASE: &str = "3.2.1";

/// duplicity's arguments, if it was called as duplicity.
pub fn called(mut args: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let program = args.next()?;
    if Path::new(&program).file_name() == Some(OsStr::new(NAME)) {
        return Some(args.collect());
    }
    (args.next()? == NAME).then(|| args.collect())
}

/// Runs a command line; all that is said is duplicity's.
pub fn run(args: Vec<OsString>, cancelled: &Arc<AtomicBool>) -> ExitCode {
    let args = if args.is_empty() { vec!["--help".into()] } else { args };
    let line = match options::parse(args, now(None)) {
        Ok(line) => line,
        Err(error) => {
            let failure = Failure::from(error);
            log(&Options::default()).fatal(failure.code, "", &failure.message);
            return failure.code.into();
        }
    };
    if line.options.version || line.options.help {
        return tell(&line.options);
    }
    let log = Arc::new(log(&line.options));
    let result = watched(cancelled).and_then(|()| act(line, &log, cancelled));
    match result {
        Ok(code) => {
            log.notice("Duplicity backup complete.");
            code.into()
        }
        Err(failure) => {
            log.fatal(failure.code, &failure.args, &failure.message);
            failure.code.into()
        }
    }
}

fn watched(cancelled: &Arc<AtomicBool>) -> Result<(), Failure> {
    crate::watch_signals(cancelled).map_err(|error| Failure::new(code::GENERIC, format!("{error:#}")))
}

fn act(line: CommandLine, log: &Arc<Log>, cancelled: &Arc<AtomicBool>) -> Result<u8, Failure> {
    for warning in &line.warnings {
        log.warn(warning);
    }
    let Some(action) = line.action else { return Ok(0) };
    if let Some(folder) = &line.options.temp_dir {
        compat::dropin::use_temp_dir(folder);
    }
    let time = now(line.options.current_time);
    let context = open::context(line.options, &action, log, cancelled, time)?;
    compat::dropin::run(&context, &action)
}

fn now(given: Option<Time>) -> Time {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    given.or_else(|| Time::new(i64::try_from(clock).unwrap_or(i64::MAX))).unwrap_or(Time::MAX)
}

/// Help or version.
fn tell(options: &Options) -> ExitCode {
    let version = format!("{NAME} {RELEASE} (deduplicity {})\n", env!("CARGO_PKG_VERSION"));
    let text = if options.version { version } else { include_str!("help.txt").to_owned() };
    // Whoever does not listen any more has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn log(options: &Options) -> Log {
    let mut log = Log::new(options.verbosity, Box::new(std::io::stdout()), Box::new(std::io::stderr()))
        .with_timestamps(options.log_timestamp);
    if let Some(number) = options.log_fd {
        match descriptor(number) {
            Some(file) => log.add_stanzas(Box::new(file)),
            None => log.warn(&format!("--log-fd: there is no file descriptor {number}")),
        }
    }
    if let Some(path) = &options.log_file {
        match File::options().append(true).create(true).open(path) {
            Ok(file) => log.add_stanzas(Box::new(file)),
            Err(error) => log.warn(&format!("--log-file: cannot open {}: {error}", path.display())),
        }
    }
    log
}

/// A descriptor that this process was given.
#[allow(unsafe_code, reason = "a number that the caller gave is all there is")]
fn descriptor(number: i32) -> Option<File> {
    use std::os::fd::BorrowedFd;
    if number < 0 {
        return None;
    }
    // SAFETY: only used to ask for a copy, which fails if there is no such descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn called_by_name_or_by_word() {
        let called = |args: &[&str]| called(args.iter().map(OsString::from)).map(|rest| rest.len());
        assert_eq!(called(&["/usr/bin/duplicity", "st", "file:///a"]), Some(2));
        assert_eq!(called(&["duplicity"]), Some(0));
        assert_eq!(called(&["deduplicity", "duplicity", "st"]), Some(1));
        assert_eq!(called(&["deduplicity", "backup", "duplicity"]), None);
        assert_eq!(called(&["deduplicity"]), None);
    }
}
