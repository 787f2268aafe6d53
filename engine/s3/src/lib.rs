//! A bucket as a store: [`S3Backend`], on the AWS SDK.
//!
//! The only crate with an asynchronous runtime in it, hidden behind blocking calls. Knows S3 and what its servers get
//! wrong; knows nothing of what the objects hold, and does not repeat failed calls: `engine::backend::retry` does, for
//! it alone can tell a conflict from an answer that was lost. The SDK's own repetitions are off for the same reason.

mod backend;
mod client;
mod error;
mod options;
mod rt;

pub use backend::{RawReader, S3Backend};
pub use options::{InvalidUrl, S3Options};
