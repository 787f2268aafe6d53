//! What counts in a repository at one moment.

use super::Repository;
use super::epochs::EpochStore;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::protocol::{self, Rules};

pub use crate::protocol::View;

/// How often a view is begun anew because maintenance moved on meanwhile.
const MAX_ROUNDS: usize = 20;

impl Repository {
    /// Looks at the store and says what counts. Damage in the sequence of epochs is in [`View::damage`]; a writer must stop
    /// at it.
    ///
    /// The view is held against what is known of the repository, see [`Self::watched`].
    ///
    /// # Errors
    ///
    /// What the store returns; [`Error::Rollback`] if the store is not what it was.
    pub fn load_view(&self, monitor: &dyn Monitor) -> Result<View> {
        let (view, alarm) = self.load_any_view(monitor)?;
        alarm.map_or(Ok(view), Err)
    }

    /// As [`Self::load_view`], for those who look for damage: with a view that is not what it was, an [`Error::Rollback`] comes beside it.
    ///
    /// # Errors
    ///
    /// What the store returns.
    pub fn load_any_view(&self, monitor: &dyn Monitor) -> Result<(View, Option<Error>)> {
        let store = EpochStore::new(self, monitor);
        let pin = self.remembered()?;
        for _ in 0..MAX_ROUNDS {
            if let Some(mut view) = protocol::run(protocol::view(&store, &Rules::ALL))? {
                view.damaged = store.damaged();
                return match self.judge(&view, &pin, monitor) {
                    Ok(()) => Ok((view, None)),
                    Err(alarm @ (Error::Rollback(_) | Error::UnexpectedHead(_))) => Ok((view, Some(alarm))),
                    Err(error) => Err(error),
                };
            }
        }
        Err(Error::Invalid("the repository's maintenance does not come to rest; try again later".into()))
    }
}
