//! A writer's last steps: W6 to W8.

use super::{Name, Rules, Store};
use crate::error::Result;
use crate::format::epoch::EpochRole;
use crate::format::snapshot::SnapshotName;
use crate::id::Epoch;

/// A writer whose packs and segments are stored.
#[allow(async_fn_in_trait, reason = "used within the crate only, on one thread")]
pub trait Writer {
    /// W6: lists the packs and returns those that the snapshot refers to and that are not there with their size.
    async fn missing_packs(&self) -> Result<Vec<Name>>;
    /// W7: creates the snapshot.
    async fn create_snapshot(&self) -> Result<SnapshotName>;
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The snapshot counts.
    Committed(SnapshotName),
    /// The epoch's fence stood already: the snapshot is not reported. It counts if the seal names it, once there is one.
    Fenced(SnapshotName),
    /// These packs are referred to, but are not in the store.
    Lost(Vec<Name>),
}

/// Commits under `epoch`. Everything that the snapshot refers to must be stored and indexed.
///
/// # Errors
///
/// What the store and the writer return; whether the snapshot counts is unknown then.
pub async fn commit<S: Store, W: Writer>(store: &S, writer: &W, epoch: Epoch, rules: &Rules) -> Result<Commit> {
    let lost = writer.missing_packs().await?;
    if rules.packs_checked && !lost.is_empty() {
        return Ok(Commit::Lost(lost));
    }
    let name = writer.create_snapshot().await?;
    // W8: only after the snapshot is there.
    if rules.fence_check && store.has_mark(epoch, EpochRole::Fence).await? {
        let seal = store.read_seal(epoch).await?;
        let counts = seal.is_some_and(|(_, seal)| seal.names(&name));
        return Ok(if counts { Commit::Committed(name) } else { Commit::Fenced(name) });
    }
    Ok(Commit::Committed(name))
}
