//! `init`

use anyhow::Result;
use engine::format::config::{LockMode, Retention};
use engine::repo::{InitOptions, Repository};
use serde_json::json;

use crate::args::{InitArgs, LockModeArg};
use crate::context::Context;
use crate::exit::{Status, advise};

pub fn run(context: &Context, args: &InitArgs) -> Result<Status> {
    let (label, parity) = (args.label.clone(), args.parity.unwrap_or(0));
    let repo = context.create(InitOptions { label, parity, retention: retention(args)?, ..InitOptions::default() })?;
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json!({
            "message_type": "initialized", "id": repo.id().to_string(), "repository": repo.backend().location(),
            "lock_days": repo.config().retention.map(|r| r.days),
            "parity_percent": repo.config().parity,
        }))?;
    } else if !context.ui.quiet() {
        out.line(format_args!("{}", created(&repo)))?;
        if let Some(retention) = repo.config().retention {
            let days = retention.days;
            out.line(format_args!("Objects are locked for {days} days: run 'prune' at least every {} days.", days.div_ceil(2)))?;
        }
        out.line(format_args!("Without the password nothing in it can ever be read again: keep a copy of it elsewhere."))?;
    }
    out.flush()?;
    Ok(Status::Complete)
}

/// Locks that hold too short to be of use, or so long that a mistake is expensive, need the user's word.
const USUAL_DAYS: std::ops::RangeInclusive<u16> = 14..=365;

fn retention(args: &InitArgs) -> Result<Option<Retention>> {
    let Some(days) = args.lock_retention else { return Ok(None) };
    if !args.yes && !USUAL_DAYS.contains(&days) {
        let text = format!(
            "objects locked for {days} days: less than 14 leave little time to notice an attack, more than 365 a high bill"
        );
        return Err(advise(text, "--yes does it all the same"));
    }
    let mode = match args.lock_mode {
        LockModeArg::Governance => LockMode::Governance,
        LockModeArg::Compliance => LockMode::Compliance,
    };
    Ok(Some(Retention { mode, days }))
}

/// Says that a repository was made.
pub fn created(repo: &Repository) -> String {
    format!("created repository {} at {}", &repo.id().to_string()[..8], repo.backend().location())
}
