//! Maintenance: forgetting snapshots, taking that back, and reclaiming the space of what no snapshot needs.
//!
//! Forgetting only leaves a request; what is deleted is decided in a round of the epoch protocol ([`crate::protocol`]), and
//! nothing is deleted that a seal does not list. Any machine can carry on with a round that another one has left.

mod bits;
mod forget;
pub mod guard;
mod locks;
mod mark;
mod merge;
mod parity;
mod plan;
pub mod policy;
mod prune;
mod repack;
mod round;
#[cfg(test)]
mod tests;

pub use forget::{Undeleted, forget, superseded, undelete};
pub use locks::{guaranteed_until, locked_until};
pub use parity::ParityTally;
pub use plan::{PlanReport, Tally};
pub use prune::{PruneOptions, PruneOutcome, prune};
