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
