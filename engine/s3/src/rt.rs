//! The bridge from blocking calls to the SDK's futures.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// A private runtime. Futures run on the calling thread, only connections on its two workers.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// Present until the drop.
    runtime: Option<Runtime>,
}

impl Bridge {
    /// Starts the workers.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("s3").enable_all().build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Blocks until the future is done.
    ///
    /// # Panics
    ///
    /// On a thread of an asynchronous runtime, which this would bring to a halt.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        assert!(Handle::try_current().is_err(), "a blocking store was called from an asynchronous task");
        let runtime = self.runtime.as_ref().expect("the runtime is there until the drop");
        runtime.block_on(future)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // A plain drop would wait for name look-ups that hang, and panics on an asynchronous thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bridge;

    #[test]
    fn runs_from_many_threads_and_ends_quietly() {
        let bridge = Bridge::new().unwrap();
        let sum: u32 = std::thread::scope(|scope| {
            let bridge = &bridge;
            let runs: Vec<_> = (0..8).map(|n| scope.spawn(move || bridge.run(async move { n }))).collect();
            runs.into_iter().map(|r| r.join().unwrap()).sum()
        });
        assert_eq!(sum, 28);
        // Dropped where a plain runtime would panic.
        let inner = Bridge::new().unwrap();
        bridge.run(async move { drop(inner) });
    }

    #[test]
    #[should_panic(expected = "asynchronous task")]
    fn refuses_to_block_a_task() {
        let (outer, inner) = (Bridge::new().unwrap(), Bridge::new().unwrap());
        outer.run(async { inner.run(async {}) });
    }
}
