//! Programs of the system as helpers: started, listened to with a time limit, and never left behind.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use compat::store::StoreErrorKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Failure;

/// How much of what a program says on standard error is kept: the end of it.
const KEPT: usize = 4096;
/// For programs that say nothing while they work, and keep to a time limit of their own.
pub(crate) const NO_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a program may take to end once its output has ended.
const GRACE: Duration = Duration::from_secs(5);

/// A running program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The end of what it said on standard error.
    pub said: String,
}

impl Helper {
    /// Starts `command`, with its messages in English and its standard output on a pipe.
    pub(crate) fn spawn(command: &mut Command, stdin: Stdio) -> Result<Self, Failure> {
        command.env("LC_ALL", "C").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_installed(&program),
            _ => Failure::new(StoreErrorKind::Unusable, format!("{program} does not start: {error}")),
        })?;
        let said = Arc::new(Mutex::new(Said::default()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || collect(stderr, &said));
        }
        Ok(Self { child, said })
    }

    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Standard output; a read that waits longer than `pause` fails.
    pub(crate) fn take_stdout(&mut self, pause: Duration) -> PipeReader {
        PipeReader { pipe: self.child.stdout.take(), pause }
    }

    /// Waits for the end; kills what does not end by itself.
    pub(crate) fn finish(mut self) -> Ended {
        drop(self.child.stdin.take());
        let start = Instant::now();
        let mut status = None;
        while start.elapsed() < GRACE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(found) => {
                    status = found;
                    break;
                }
                Err(_) => break,
            }
        }
        // Not waited for by joining: a master connection that ssh leaves behind keeps the pipe open.
        while status.is_some() && !self.said().ended && start.elapsed() < GRACE / 5 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let said = String::from_utf8_lossy(&self.said().bytes).into_owned();
        Ended { code: status.and_then(|s| s.code()), said }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both do nothing to a program that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` with `input` on its standard input, and takes at most `limit` bytes of output.
pub(crate) fn run(command: &mut Command, input: &[u8], pause: Duration, limit: u64) -> Result<(Vec<u8>, Ended), Failure> {
    let mut helper = Helper::spawn(command, if input.is_empty() { Stdio::null() } else { Stdio::piped() })?;
    if let Some(mut stdin) = helper.take_stdin() {
        // What ended without reading says why.
        let _ = stdin.write_all(input);
    }
    await_end(helper, pause, limit)
}

/// As [`run`], with `input` itself as standard input.
pub(crate) fn run_with(command: &mut Command, input: Stdio, pause: Duration, limit: u64) -> Result<(Vec<u8>, Ended), Failure> {
    await_end(Helper::spawn(command, input)?, pause, limit)
}

fn await_end(mut helper: Helper, pause: Duration, limit: u64) -> Result<(Vec<u8>, Ended), Failure> {
    let mut output = Vec::new();
    let got = helper.take_stdout(pause).take(limit).read_to_end(&mut output)?;
    if got as u64 >= limit {
        return Err(Failure::nonsense("a listing without end"));
    }
    Ok((output, helper.finish()))
}

fn not_installed(program: &str) -> Failure {
    let name = program.rsplit('/').next().unwrap_or_default();
    let package = if name == "ssh" { "openssh-client" } else { name };
    Failure::new(StoreErrorKind::Unusable, format!("the program {program} is not installed: install the package {package}"))
}

fn collect(mut stderr: ChildStderr, said: &Mutex<Said>) {
    let mut buffer = [0; 1024];
    loop {
        let n = match stderr.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if n == 0 {
            said.ended = true;
            return;
        }
        said.bytes.extend_from_slice(&buffer[..n]);
        let surplus = said.bytes.len().saturating_sub(KEPT);
        said.bytes.drain(..surplus);
    }
}

/// A program's output, with a limit on the wait for it.
#[derive(Debug)]
pub(crate) struct PipeReader {
    pipe: Option<ChildStdout>,
    pause: Duration,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = self.pipe.as_mut() else { return Ok(0) };
        wait_for(pipe, PollFlags::IN, self.pause)?;
        pipe.read(buffer)
    }
}

/// What a pipe takes without waiting once it takes anything (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;

/// A program's input, with a limit on the wait for it.
#[derive(Debug)]
pub(crate) struct PipeWriter {
    pipe: ChildStdin,
    pause: Duration,
}

impl PipeWriter {
    /// A write that waits longer than `pause` fails.
    pub(crate) fn new(pipe: ChildStdin, pause: Duration) -> Self {
        Self { pipe, pause }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        wait_for(&self.pipe, PollFlags::OUT, self.pause)?;
        self.pipe.write(&data[..data.len().min(PIPE_PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for(pipe: &impl AsFd, event: PollFlags, pause: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(pause).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(pipe, event)], Some(&limit))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn gives_output_code_and_words() {
        let long = Duration::from_secs(20);
        let (out, ended) = run(&mut sh("cat; echo why >&2; exit 3"), b"in", long, 100).unwrap();
        assert_eq!((out.as_slice(), ended.code, ended.said.as_str()), (b"in".as_slice(), Some(3), "why\n"));
        let (_, ended) = run(&mut sh("yes | head -c 100000 >&2; echo end >&2"), b"", long, 100).unwrap();
        assert!(ended.said.len() == KEPT && ended.said.ends_with("end\n"));
    }

    #[test]
    fn has_limits() {
        let start = Instant::now();
        let failure = run(&mut sh("exec sleep 60"), b"", Duration::from_millis(50), 100).unwrap_err();
        assert!(failure.is_temporary() && start.elapsed() < Duration::from_secs(30));
        let failure = run(&mut sh("exec yes"), b"", Duration::from_secs(20), 100).unwrap_err();
        assert_eq!(failure.kind, StoreErrorKind::Other);
    }

    #[test]
    fn waits_for_readers_only_so_long() {
        let mut helper = Helper::spawn(&mut sh("exec sleep 60"), Stdio::piped()).unwrap();
        let mut input = PipeWriter::new(helper.take_stdin().unwrap(), Duration::from_millis(50));
        let error = input.write_all(&vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn names_what_is_missing() {
        let failure = run(&mut Command::new("no-such-program-here"), b"", GRACE, 1).unwrap_err();
        assert_eq!(failure.kind, StoreErrorKind::Unusable);
        assert!(not_installed("ssh").message.contains("openssh-client"));
    }
}
