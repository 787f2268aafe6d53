//! `duplicity`: duplicity's own commands.

use anyhow::Result;

use crate::args::DuplicityCommand;
use crate::context::Context;
use crate::exit::Status;
use crate::{archive, parse};

pub fn run(context: &Context, command: &DuplicityCommand) -> Result<Status> {
    match command {
        DuplicityCommand::CollectionStatus(args) => {
            let archive = archive::open(context, args, None)?;
            let text = compat::listing::collection_status(&archive).map_err(archive::explain)?;
            let mut out = context.ui.out();
            out.bytes(text.as_bytes())?;
            out.flush()?;
        }
        DuplicityCommand::ListCurrentFiles { archive: args, time } => {
            let archive = archive::open(context, args, None)?;
            let time = time.as_deref().map(parse::duplicity_time).transpose()?;
            let mut out = context.ui.out();
            compat::listing::current_files(&archive, time, &mut |line| out.bytes(line))?;
            out.flush()?;
        }
    }
    Ok(context.status())
}
