//! The volumes of a set, opened and decoded ahead of their use, and given in order.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::fetch::{Opener, Unusable, Wanted};
use super::pipe::{self, Reader, Writer};

/// Volumes under way at once: one in use, and the next being fetched, checked and decoded.
const WINDOW: usize = 3;

/// A decoded volume.
pub(crate) struct Volume {
    pub content: Reader,
    /// Whether it is encrypted without protection against changes.
    pub unprotected: bool,
}

type Answer = Result<Volume, Unusable>;

/// Volumes on their way. Memory: 1 MiB of decoded data for each, and what decoding takes; temporary files hold what was
/// fetched.
pub(crate) struct Ahead {
    opener: Arc<Opener>,
    waiting: std::vec::IntoIter<Wanted>,
    started: VecDeque<Receiver<Answer>>,
    window: usize,
}

impl Ahead {
    /// Begins with the first ones.
    pub fn new(opener: &Arc<Opener>, volumes: Vec<Wanted>) -> Self {
        Self::with_window(opener, volumes, WINDOW)
    }

    /// The same with another number of volumes under way.
    pub fn with_window(opener: &Arc<Opener>, volumes: Vec<Wanted>, window: usize) -> Self {
        let mut this = Self { opener: Arc::clone(opener), waiting: volumes.into_iter(), started: VecDeque::new(), window };
        this.fill();
        this
    }

    /// The next volume; `None` after the last one.
    pub fn next(&mut self) -> Option<Answer> {
        let next = self.started.pop_front()?;
        let answer = next.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that reads it is gone").into()));
        self.fill();
        Some(answer)
    }

    fn fill(&mut self) {
        while self.started.len() < self.window {
            let Some(wanted) = self.waiting.next() else { return };
            let (tx, rx) = bounded(1);
            let opener = Arc::clone(&self.opener);
            let work = move || {
                let (writer, content) = pipe::pipe();
                let opened = match opener.open(&wanted) {
                    Ok(opened) => opened,
                    Err(error) => return drop(tx.send(Err(error))),
                };
                let volume = Volume { content, unprotected: opened.unprotected };
                if tx.send(Ok(volume)).is_ok() {
                    pump(opened.content, writer);
                }
            };
            let started = std::thread::Builder::new().name("volume".into()).spawn(work);
            let answer = match started {
                Ok(_) => rx,
                Err(error) => {
                    let (tx, rx) = bounded(1);
                    // There is room for one.
                    let _ = tx.send(Err(error.into()));
                    rx
                }
            };
            self.started.push_back(answer);
        }
    }
}

/// Decodes into the pipe until the end, an error, or nobody wanting it any more.
fn pump(mut content: Box<dyn Read + Send>, mut writer: Writer) {
    while !writer.is_lost() {
        match writer.copy(&mut (&mut content).take(1 << 20)) {
            Ok(0) => return writer.finish(),
            Ok(_) => {}
            Err(error) => return writer.fail(&error.to_string()),
        }
    }
}
