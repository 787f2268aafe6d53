//! `duplicity`: duplicity's own commands.

use anyhow::Result;
use compat::time::TimeZone;
use engine::error::Error;

use crate::args::DuplicityCommand;
use crate::context::Context;
use crate::exit::Status;
use crate::{archive, parse};

pub fn run(context: &Context, command: &DuplicityCommand) -> Result<Status> {
    match command {
        DuplicityCommand::CollectionStatus(args) => {
            let archive = archive::open(context, args, None)?;
            let text = compat::listing::collection_status(&archive, &TimeZone::system()).map_err(archive::explain)?;
            let mut out = context.ui.out();
            out.bytes(text.as_bytes())?;
            out.flush()?;
        }
        DuplicityCommand::ListCurrentFiles { archive: args, time } => {
            let archive = archive::open(context, args, None)?;
            let time = parse::duplicity_time(time.as_deref().unwrap_or("now"))?;
            let mut out = context.ui.out();
            let mut line = |line: &[u8]| out.bytes(line).map_err(|error| Error::Invalid(format!("{error:#}")));
            compat::listing::current_files(&archive, time, &TimeZone::system(), &mut line)?;
            out.flush()?;
        }
    }
    Ok(context.status())
}
