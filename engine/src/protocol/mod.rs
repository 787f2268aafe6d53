//! The epoch protocol: how writers and maintenance share a store without locks or clocks. `docs/format.md`, "Epochs",
//! "Writing" and "Maintenance", is the specification; the names of the steps (W1, G5) are those used there.
//!
//! The steps are written once, as straight code over [`Store`], and run in three places: in production, where every call
//! is over when it returns; in a test that tries all interleavings, crashes and late requests in small models; and in a
//! seeded simulation of larger ones. What to store, and what is still needed, is the business of the traits'
//! implementations.

#[cfg(test)]
mod explore;
mod round;
mod view;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

pub use round::{Decision, Maintainer, Valid, close, finish, unfinished};
pub use view::{View, head, view};
pub use write::{Commit, Writer, commit};

use crate::error::{Error, Result};
use crate::format::epoch::{Close, EpochRole, Seal};
use crate::id::{Epoch, ObjectId};

/// Epoch and id: the name of a pack, a segment or a snapshot within its folder.
pub type Name = (Epoch, ObjectId);

/// Which objects there are below `epochs/`.
pub type Marks = BTreeMap<Epoch, BTreeSet<EpochRole>>;

/// A request to forget: its id and the snapshots it names.
pub type Request = (ObjectId, Vec<Name>);

/// Folders that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `index/`
    Index,
    /// `snapshots/`
    Snapshots,
    /// `packs/`
    Packs,
}

/// What maintenance deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An object of a folder.
    Object(Folder, Name),
    /// `forget/<id>`
    Request(ObjectId),
    /// Everything below `sessions/<E>/` of this epoch and those before.
    Sessions(Epoch),
}

/// The calls that the protocol makes. A listing must hold every object whose creation had ended before the listing began.
///
/// Objects that do not authenticate count as absent here; implementations report them.
#[allow(async_fn_in_trait, reason = "used within the crate only, on one thread")]
pub trait Store {
    /// Lists `epochs/`.
    async fn list_epochs(&self) -> Result<Marks>;
    /// Lists folders, in any order.
    async fn list(&self, folders: &[Folder]) -> Result<Vec<Vec<Name>>>;
    /// All requests to forget.
    async fn requests(&self) -> Result<Vec<Request>>;
    /// Reads a close.
    async fn read_close(&self, epoch: Epoch) -> Result<Option<Close>>;
    /// Reads a seal; with it, the hash of the object.
    async fn read_seal(&self, epoch: Epoch) -> Result<Option<(ObjectId, Seal)>>;
    /// Whether a fence or a done is there.
    async fn has_mark(&self, epoch: Epoch, role: EpochRole) -> Result<bool>;
    /// Creates a close; false if something lies under its name.
    async fn create_close(&self, epoch: Epoch, close: &Close) -> Result<bool>;
    /// Creates a seal; false if something lies under its name.
    async fn create_seal(&self, epoch: Epoch, seal: &Seal) -> Result<bool>;
    /// Creates a fence or a done; false if something lies under its name.
    async fn create_mark(&self, epoch: Epoch, role: EpochRole) -> Result<bool>;
    /// Deletes; what is not there is no error.
    async fn delete(&self, target: &Target) -> Result<()>;
}

/// Rules of the protocol that a model can switch off, to show that each of them is needed. Production has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// W3: segments of a fenced epoch without a seal do not count for writers.
    pub(crate) second_look: bool,
    /// W4: condemned packs do not count for writers.
    pub(crate) condemned_unusable: bool,
    /// W6: packs that a snapshot refers to must be there.
    pub(crate) packs_checked: bool,
    /// W8: no success is reported once the fence stands.
    pub(crate) fence_check: bool,
    /// After W8 found a fence, references are tested again.
    pub(crate) rebase_tests: bool,
    /// What a seal does not name is void.
    pub(crate) void: bool,
    /// G5: the epoch is listed after its fence stands.
    pub(crate) fence_before_list: bool,
    /// G6: packs that hold the only copy of something needed are not deleted.
    pub(crate) rescue: bool,
    /// G6: requests to forget act inside the seal only: what is needed is decided by what the seal will name.
    pub(crate) forget_in_seal: bool,
    /// G7: a seal is never replaced.
    pub(crate) seal_once: bool,
    /// G8: only what the seal lists is deleted.
    pub(crate) deleted_by_seal: bool,
    /// G7: merged segments count because the seal names them.
    pub(crate) merged_by_seal: bool,
    /// G5: a segment of the seal before that is gone does not go unnoticed.
    pub(crate) complete: bool,
    /// G8: segments are deleted after the seal.
    pub(crate) delete_after_seal: bool,
    /// G8: only requests that the seal carried out are deleted.
    pub(crate) requests_carried_out: bool,
}

impl Rules {
    /// The protocol.
    pub const ALL: Self = Self {
        second_look: true,
        condemned_unusable: true,
        packs_checked: true,
        fence_check: true,
        rebase_tests: true,
        void: true,
        fence_before_list: true,
        rescue: true,
        forget_in_seal: true,
        seal_once: true,
        deleted_by_seal: true,
        merged_by_seal: true,
        complete: true,
        delete_after_seal: true,
        requests_carried_out: true,
    };
}

/// Runs steps over a store whose calls are over when they return: nothing ever waits.
///
/// # Errors
///
/// What the steps return; [`Error::Invalid`] if a call did wait.
pub fn run<T>(steps: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(steps).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::Invalid("a call to the store was not over when it returned".into())),
    }
}

/// Lists snapshots, then segments. The order matters: a backup that ends between the two lists has its segments in the second
/// one, and what is needed by a snapshot in the first one is known.
async fn committed<S: Store>(store: &S) -> Result<(Vec<Name>, Vec<Name>)> {
    let snapshots = store.list(&[Folder::Snapshots]).await?.pop().unwrap_or_default();
    let segments = store.list(&[Folder::Index]).await?.pop().unwrap_or_default();
    Ok((snapshots, segments))
}

fn has(marks: &Marks, epoch: Epoch, role: EpochRole) -> bool {
    marks.get(&epoch).is_some_and(|roles| roles.contains(&role))
}
