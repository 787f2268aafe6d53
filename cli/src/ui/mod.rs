//! All that the program prints. Results go to the standard output, everything else to the standard error; nothing but
//! this module writes to either.

pub mod human;
pub mod json;
mod progress;

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::monitor::{Counter, Monitor, Problem};
use serde_json::{Value, json};

use crate::args::Global;
use progress::Progress;

/// The standard output has no reader any more.
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether output was lost because nobody reads it.
pub fn output_closed() -> bool {
    OUTPUT_CLOSED.load(Ordering::Relaxed)
}

/// What is printed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text,
    Json,
}

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Volume {
    Quiet,
    Normal,
    Verbose,
}

/// The user's end of every operation.
pub struct Ui {
    style: Style,
    volume: Volume,
    progress: Progress,
    problems: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Ui {
    /// Begins to show progress as soon as there is some.
    pub fn start(global: &Global, cancelled: Arc<AtomicBool>) -> Arc<Self> {
        let style = if global.json { Style::Json } else { Style::Text };
        let volume = match (global.quiet, global.verbose) {
            (true, _) => Volume::Quiet,
            (false, 0) => Volume::Normal,
            (false, _) => Volume::Verbose,
        };
        let show = match (style, volume) {
            (Style::Json, Volume::Verbose) => progress::Show::Json,
            (Style::Json, _) | (_, Volume::Quiet) => progress::Show::Nothing,
            _ if progress::terminal_can_draw() => progress::Show::Bar,
            _ => progress::Show::Lines,
        };
        let progress = Progress::start(show, Arc::clone(&cancelled));
        Arc::new(Self { style, volume, progress, problems: AtomicU64::new(0), cancelled })
    }

    /// Removes the progress bar.
    pub fn finish(&self) {
        self.progress.finish();
    }

    /// Whether output is for programs.
    pub fn json(&self) -> bool {
        self.style == Style::Json
    }

    /// Whether no more than results is wanted.
    pub fn quiet(&self) -> bool {
        self.volume == Volume::Quiet
    }

    /// Whether more than usual is wanted.
    pub fn verbose(&self) -> bool {
        self.volume == Volume::Verbose
    }

    /// Problems reported so far.
    pub fn problem_count(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// Whether the user asked to stop.
    pub fn was_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The standard output. The progress bar is off the screen from now on.
    pub fn out(&self) -> Out {
        self.progress.finish();
        Out(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// The one line that says why the program failed.
    pub fn failure(&self, code: u8, message: &str, hint: Option<&str>) {
        self.progress.finish();
        report_failure(self.json(), code, message, hint);
    }

    /// A result that is worth a warning.
    pub fn warning(&self, text: &str) {
        match self.style {
            Style::Json => {}
            Style::Text => self.line(&format!("deduplicity: warning: {text}")),
        }
    }

    fn line(&self, text: &str) {
        self.progress.above_the_bar(|| to_stderr(text));
    }
}

/// Reports a failure where there is no [`Ui`] yet.
pub fn report_failure(json: bool, code: u8, message: &str, hint: Option<&str>) {
    if json {
        let mut line = json!({ "message_type": "exit_error", "code": code, "message": message });
        if let Some(hint) = hint {
            line["hint"] = hint.into();
        }
        to_stderr(&line.to_string());
        return;
    }
    to_stderr(&format!("deduplicity: error: {message}"));
    if let Some(hint) = hint {
        to_stderr(&format!("hint: {hint}"));
    }
}

/// One write a line, so that lines of several threads do not mix. Where nobody reads it, it is lost.
fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

impl Monitor for Ui {
    fn count(&self, counter: Counter, amount: u64) {
        self.progress.count(counter, amount);
    }

    fn expect(&self, counter: Counter, total: u64) {
        self.progress.expect(counter, total);
    }

    fn stage(&self, name: &'static str) {
        self.progress.stage(name);
    }

    fn problem(&self, problem: Problem) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        match self.style {
            Style::Json => self.line(&json::problem(&problem).to_string()),
            Style::Text => self.line(&human::problem(&problem)),
        }
    }

    fn note(&self, text: String) {
        match self.style {
            Style::Json if self.volume == Volume::Verbose => self.line(&json::note(&text).to_string()),
            Style::Text if self.volume >= Volume::Normal => self.line(&human::note(&text)),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.was_cancelled()
    }
}

/// The standard output, buffered. Call [`Out::flush`] at the end, or a full disk goes unnoticed.
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Whether a person reads it.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// A line of text.
    pub fn line(&mut self, text: fmt::Arguments<'_>) -> anyhow::Result<()> {
        self.done(|out| writeln!(out, "{text}"))
    }

    /// A message.
    pub fn json(&mut self, value: &Value) -> anyhow::Result<()> {
        self.done(|out| writeln!(out, "{value}"))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.done(|out| out.write_all(bytes))
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.done(Write::flush)
    }

    fn done(&mut self, write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>) -> anyhow::Result<()> {
        note_closed(write(&mut self.0)).map_err(|error| anyhow::Error::new(error).context("cannot write the output"))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note_closed(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        note_closed(self.0.flush())
    }
}

fn note_closed<T>(result: io::Result<T>) -> io::Result<T> {
    if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        OUTPUT_CLOSED.store(true, Ordering::Relaxed);
    }
    result
}
