//! `init`

use anyhow::Result;
use engine::repo::Repository;
use serde_json::json;

use crate::args::InitArgs;
use crate::context::Context;
use crate::exit::Status;

pub fn run(context: &Context, args: &InitArgs) -> Result<Status> {
    let repo = context.create(&args.label, args.parity.unwrap_or(0))?;
    let mut out = context.ui.out();
    if context.ui.json() {
        out.json(&json!({
            "message_type": "initialized", "id": repo.id().to_string(), "repository": repo.backend().location(),
            "parity_percent": repo.config().parity,
        }))?;
    } else if !context.ui.quiet() {
        out.line(format_args!("{}", created(&repo)))?;
        out.line(format_args!("Without the password nothing in it can ever be read again: keep a copy of it elsewhere."))?;
    }
    out.flush()?;
    Ok(Status::Complete)
}

/// Says that a repository was made.
pub fn created(repo: &Repository) -> String {
    format!("created repository {} at {}", &repo.id().to_string()[..8], repo.backend().location())
}
