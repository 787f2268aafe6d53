//! Progress: a bar on a terminal, a line a minute elsewhere, or a JSON line a second where that was asked for.
//!
//! Counting costs an atomic addition; a thread of its own shows the numbers.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use engine::monitor::Counter;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{human, json, to_stderr};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Nothing,
    Bar,
    Lines,
    Json,
}

impl Show {
    fn interval(self) -> Duration {
        match self {
            Self::Bar => Duration::from_millis(200),
            Self::Json => Duration::from_secs(1),
            Self::Lines | Self::Nothing => Duration::from_secs(60),
        }
    }
}

/// Whether the standard error is a terminal that can redraw a line.
pub fn terminal_can_draw() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Numbers at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// Name of the stage.
    pub stage: &'static str,
    /// Since the operation began.
    pub elapsed: Duration,
    /// Entries, bytes, stored bytes, packs.
    pub done: [u64; COUNTERS],
    /// What there will be in all; 0 where that is not known.
    pub total: [u64; COUNTERS],
}

const COUNTERS: usize = 4;
/// The stage after the user asked to stop.
const STOPPING: &str = "stopping (press again to stop at once)";

impl Numbers {
    /// How much of the whole is done, 0 to 1, if that is known: of the bytes, else of the packs, else of the entries.
    pub fn fraction(&self) -> Option<f64> {
        [Counter::Bytes, Counter::Packs, Counter::Entries].into_iter().find_map(|counter| {
            let (done, total) = (self.done[counter as usize], self.total[counter as usize]);
            // Precise enough for a bar.
            #[expect(clippy::cast_precision_loss, reason = "a bar has a thousand steps at most")]
            (total > 0).then(|| (done as f64 / total as f64).min(1.0))
        })
    }

    /// Seconds left, if that can be said.
    pub fn remaining(&self) -> Option<Duration> {
        let fraction = self.fraction().filter(|f| *f > 0.01)?;
        Duration::try_from_secs_f64(self.elapsed.as_secs_f64() * (1.0 - fraction) / fraction).ok()
    }
}

#[derive(Debug, Default)]
struct State {
    done: [AtomicU64; COUNTERS],
    total: [AtomicU64; COUNTERS],
    /// The stage; none before the first one, when there is nothing to show.
    stage: Mutex<Option<&'static str>>,
    /// When the first stage began.
    began: OnceLock<Instant>,
    /// The user asked to stop.
    cancelled: Arc<AtomicBool>,
    over: Mutex<bool>,
    wake: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// `None` before the first stage.
    fn numbers(&self) -> Option<Numbers> {
        let stage = (*lock(&self.stage))?;
        let stage = if self.cancelled.load(Ordering::Relaxed) { STOPPING } else { stage };
        let elapsed = self.began.get().map(Instant::elapsed).unwrap_or_default();
        let load = |counters: &[AtomicU64; COUNTERS]| std::array::from_fn(|i| counters[i].load(Ordering::Relaxed));
        Some(Numbers { stage, elapsed, done: load(&self.done), total: load(&self.total) })
    }
}

/// Counts, and shows what it counted until [`Progress::finish`].
pub struct Progress {
    state: Arc<State>,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn start(show: Show, cancelled: Arc<AtomicBool>) -> Self {
        let bar = (show == Show::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        let progress = Self { state: Arc::new(State { cancelled, ..State::default() }), bar };
        if show != Show::Nothing {
            let (state, bar) = (Arc::clone(&progress.state), progress.bar.clone());
            // Without a thread there is no progress to see, and that is all.
            let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || run(&state, show, bar.as_ref()));
        }
        progress
    }

    pub fn count(&self, counter: Counter, amount: u64) {
        self.state.done[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    pub fn expect(&self, counter: Counter, total: u64) {
        self.state.total[counter as usize].store(total, Ordering::Relaxed);
    }

    pub fn stage(&self, name: &'static str) {
        self.state.began.get_or_init(Instant::now);
        *lock(&self.state.stage) = Some(name);
    }

    /// Runs something that prints, without the bar in the way.
    pub fn above_the_bar(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    pub fn finish(&self) {
        *lock(&self.state.over) = true;
        self.state.wake.notify_all();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn run(state: &State, show: Show, bar: Option<&ProgressBar>) {
    let mut over = lock(&state.over);
    while !*over {
        over = state.wake.wait_timeout(over, show.interval()).unwrap_or_else(PoisonError::into_inner).0;
        if *over {
            return;
        }
        // Before the first stage somebody may be typing a password.
        let Some(numbers) = state.numbers() else { continue };
        match bar {
            Some(bar) => {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.set_message(human::progress(&numbers));
            }
            None if show == Show::Json => to_stderr(&json::status(&numbers).to_string()),
            None => to_stderr(&human::progress(&numbers)),
        }
    }
}
